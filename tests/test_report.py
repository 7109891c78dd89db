"""The table and the figures, as the student makes them, on a tiny data set in a clone of its own."""
import csv
import os

import numpy as np
import pytest
from PIL import Image

from common.data import SCENARIOS
from common.tsne import CLASS_COLOURS, embed
from common.weights import listed_sum, sum_of
from conftest import ROOT, one_line_error


def test_tsne_is_repeatable():
    features = np.random.RandomState(0).rand(60, 8)
    np.testing.assert_array_equal(embed(features), embed(features))


def test_class_colours_differ():
    assert len(set(CLASS_COLOURS)) == 10


@pytest.mark.parametrize("table, folder, shipped, figure", [("p3", "p3_dann", "dann", "fig3_4"), ("p4", "p4_uda", "uda", "fig4_2")])
def test_table_ship_and_figures(table, folder, shipped, figure, data_dir, clone, python, tiny_run, tmp_path):
    repository, runs = clone(), tmp_path / "runs"
    modes = {"p3": ("source", "dann", "target"), "p4": ("source", "uda")}[table]
    for target, source in SCENARIOS.items():
        for mode in modes:
            process = python(repository / folder / "train.py", "--data-dir", data_dir, "--source", source, "--target", target,
                             "--mode", mode, "--out-dir", runs / f"{table}_{source}_{target}_{mode}_0", *tiny_run)
            assert process.returncode == 0, process.stderr
    process = python(repository / "report" / "table.py", table, "--data-dir", data_dir, "--runs-dir", runs, "--seeds", 0, "--ship")
    assert process.returncode == 0, process.stderr
    assert "| DANN |" in process.stdout and "train.py" not in process.stdout  # what is trained is not trained again
    with open(repository / "report" / "results" / f"{table}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(modes) and all(row["total"] == "20" for row in rows)
    assert rows[0]["command"] == f"python3 {folder}/train.py --data-dir hw3_data --source usps --target mnistm --mode source --seed 0"
    assert rows[0]["target_information"] == "" and 0 <= float(rows[1]["target_information"]) < 2.31
    for target, source in SCENARIOS.items():
        model = str(repository / folder / "weights" / f"{source}_{target}.pth")
        assert listed_sum(model) == sum_of(model) == sum_of(runs / f"{table}_{source}_{target}_{shipped}_0" / "model.pth")

    names = [f"{figure}_svhn_usps_class", f"{figure}_svhn_usps_domain"]
    process = python(repository / "report" / "figures.py", "--data-dir", data_dir, "--output-dir", tmp_path / "figures", "--only", *names)
    assert process.returncode == 0, process.stderr
    assert sorted(os.listdir(tmp_path / "figures")) == [f"{name}.png" for name in names]
    for name in os.listdir(tmp_path / "figures"):
        assert min(Image.open(tmp_path / "figures" / name).size) >= 1000


@pytest.mark.parametrize("arguments", [["p4_ablation"], ["p4", "--seeds", "1"]])
def test_ship_without_a_model_to_ship(arguments, data_dir, python, tmp_path):
    process = python(os.path.join(ROOT, "report", "table.py"), *arguments, "--data-dir", data_dir, "--runs-dir", tmp_path, "--ship")
    assert process.returncode == 2 and "--ship needs table p3 or p4 with seed 0" in process.stderr
    assert os.listdir(tmp_path) == []


def test_figures_without_data(python, tmp_path):
    process = python(os.path.join(ROOT, "report", "figures.py"), "--data-dir", "nowhere", "--output-dir", tmp_path)
    assert "nowhere" in one_line_error(process)


@pytest.mark.parametrize("name", [f"{figure}_{source}_{target}_{colour}" for figure in ("fig3_4", "fig4_2")
                                  for target, source in SCENARIOS.items() for colour in ("class", "domain")])
def test_committed_figures(name):
    assert min(Image.open(os.path.join(ROOT, "report", "figures", f"{name}.png")).size) >= 1000
