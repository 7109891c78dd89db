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


def test_table_ship_and_figures(data_dir, clone, python, tiny_run, tmp_path):
    repository, runs = clone(), tmp_path / "runs"
    for target, source in SCENARIOS.items():
        for mode in ("source", "dann", "target"):
            out_dir = runs / f"p3_{source}_{target}_{mode}_0"
            process = python(repository / "p3_dann" / "train.py", "--data-dir", data_dir, "--source", source, "--target", target,
                             "--mode", mode, "--out-dir", out_dir, *tiny_run)
            assert process.returncode == 0, process.stderr
    process = python(repository / "report" / "table.py", "--data-dir", data_dir, "--runs-dir", runs, "--seeds", 0, "--ship")
    assert process.returncode == 0, process.stderr
    assert "| DANN |" in process.stdout and "train.py" not in process.stdout  # what is trained is not trained again
    with open(repository / "report" / "results" / "p3.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and all(row["total"] == "20" for row in rows)
    assert rows[1]["command"] == "python3 p3_dann/train.py --data-dir hw3_data --source usps --target mnistm --mode dann --seed 0"
    for target, source in SCENARIOS.items():
        shipped = str(repository / "p3_dann" / "weights" / f"{source}_{target}.pth")
        assert listed_sum(shipped) == sum_of(shipped) == sum_of(runs / f"p3_{source}_{target}_dann_0" / "model.pth")

    process = python(repository / "report" / "figures.py", "--data-dir", data_dir, "--output-dir", tmp_path / "figures",
                     "--only", "fig3_4_svhn_usps_class", "fig3_4_svhn_usps_domain")
    assert process.returncode == 0, process.stderr
    assert sorted(os.listdir(tmp_path / "figures")) == ["fig3_4_svhn_usps_class.png", "fig3_4_svhn_usps_domain.png"]
    for name in os.listdir(tmp_path / "figures"):
        assert min(Image.open(tmp_path / "figures" / name).size) >= 1000


def test_figures_without_data(python, tmp_path):
    process = python(os.path.join(ROOT, "report", "figures.py"), "--data-dir", "nowhere", "--output-dir", tmp_path)
    assert "nowhere" in one_line_error(process)


@pytest.mark.parametrize("name", [f"fig3_4_{source}_{target}_{colour}" for target, source in SCENARIOS.items()
                                  for colour in ("class", "domain")])
def test_committed_figures(name):
    assert min(Image.open(os.path.join(ROOT, "report", "figures", f"{name}.png")).size) >= 1000
