"""The table and the figures, as the student makes them, on a tiny data set in a clone of its own."""
import csv
import os
import re

import numpy as np
import pytest
from PIL import Image

from common.data import SCENARIOS
from common.tsne import CLASS_COLOURS, embed
from common.weights import listed_sum, sum_of
from conftest import ROOT, bash, one_line_error
from report.figures import FIGURES


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
    """What needs no data is drawn, the rest named with what it misses."""
    names = ["fig1_4", "fig1_2", "table1_3", "fig3_4_usps_mnistm_class"]
    process = python(os.path.join(ROOT, "report", "figures.py"), "--data-dir", "nowhere", "--output-dir", tmp_path, "--only", *names)
    assert process.returncode == 1 and sorted(os.listdir(tmp_path)) == ["fig1_2.png", "fig1_4.png"]
    lines = process.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["table1_3", "fig3_4_usps_mnistm_class", "2 of 4 not drawn"]
    assert all("nowhere" in line for line in lines[:2])


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "tables"])
def test_committed_figures(name):
    assert min(Image.open(os.path.join(ROOT, "report", "figures", f"{name}.png")).size) >= 250


def test_the_same_command_gives_the_same_files(tmp_path):
    """Those that need no data: the committed ones, but for the pixels of letters and lines where matplotlib's version is another."""
    for name in ("fig1_2", "fig1_6", "tables"):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            FIGURES[name]("nowhere", tmp_path / folder / name)
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with open(os.path.join(ROOT, "report", "figures", "tables.tex")) as file:
        assert (tmp_path / "a" / "tables").read_text() == file.read()


@pytest.mark.parametrize("arguments", [[], ["two", "names"], ["../r0"], ["r 0"]])
def test_the_reports_name(arguments):
    assert "usage" in one_line_error(bash(os.path.join(ROOT, "report", "build.sh"), *arguments))


def test_the_report_uses_what_there_is():
    """Every figure and command that report.tex names exists, so it builds."""
    with open(os.path.join(ROOT, "report", "report.tex")) as tex, open(os.path.join(ROOT, "report", "figures", "tables.tex")) as tables:
        text, made = tex.read(), tables.read()
    named = re.findall(r"(?:\\includegraphics\[[^]]*\]|\\shown\{[\d.]+\})\{(\w+)\}", text)
    assert len(named) >= 20 and set(named) <= FIGURES.keys()
    assert set(re.findall(r"\\((?:vae|gan|dann|uda|faces)[A-Z]\w*)", text)) <= set(re.findall(r"newcommand\{\\(\w+)\}", made))
