"""The table and the figures, as the student makes them, on a tiny data set in a clone of its own."""
import csv
import importlib
import os
import re

from common import plots
from common.data import SCENARIOS
from common.weights import listed_sum, sum_of
from report import run_digits
from report.figures import FIGURES

import numpy as np
import pandas
import pytest
from conftest import ROOT, bash, one_line_error, run_main
from matplotlib.text import Text
from PIL import Image

FIGURES_PY = os.path.join(ROOT, "report", "figures.py")


def read_report(name):
    with open(os.path.join(ROOT, "report", name), encoding="utf-8") as file:
        return file.read()


def test_tsne_is_repeatable():
    features = np.random.RandomState(0).rand(60, 8)
    np.testing.assert_array_equal(plots.embed(features), plots.embed(features))


def test_class_colours_differ():
    assert len(set(plots.CLASS_COLOURS)) == 10


@pytest.mark.parametrize("table, folder, shipped, figure", [("p3", "p3_dann", "dann", "fig3_4"),
                                                            ("p4", "p4_uda", "uda", "fig4_2")])
def test_table_ship_and_figures(table, folder, shipped, figure, data_dir, clone, python, tiny_run, tmp_path,
                                monkeypatch):
    repository, runs = clone(), tmp_path / "runs"
    modes = {"p3": ("source", "dann", "target"), "p4": ("source", "uda", "target")}[table]
    for target, source in SCENARIOS.items():
        for mode in modes:
            out_dir = runs / f"{table}_{source}_{target}_{mode}_0"
            run_main(importlib.import_module(f"{folder}.train"), monkeypatch, "--data-dir", data_dir, "--source",
                     source, "--target", target, "--mode", mode, "--out-dir", out_dir, *tiny_run)
    process = python(repository / "report" / "run_digits.py", table, "--data-dir", data_dir, "--runs-dir", runs,
                     "--seeds", 0, "--ship", env={"PYTHONIOENCODING": "ascii"})  # a terminal that knows no ± and no é
    assert process.returncode == 0, process.stderr
    assert "| DANN |" in process.stdout and "train.py" not in process.stdout  # what is trained is not trained again
    with open(repository / "report" / "results" / f"{table}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(modes) and all(row["total"] == "20" for row in rows)
    options = "--data-dir hw3_data --source usps --target mnistm --mode source --seed 0"
    assert rows[0]["command"] == f"python3 {folder}/train.py {options}"
    assert rows[0]["target_information"] == "" and 0 <= float(rows[1]["target_information"]) < 2.31
    for target, source in SCENARIOS.items():
        model = str(repository / folder / "weights" / f"{source}_{target}.pth")
        trained = runs / f"{table}_{source}_{target}_{shipped}_0" / "model.pth"
        assert listed_sum(model) == sum_of(model) == sum_of(trained)

    names = [f"{figure}_svhn_usps_class", f"{figure}_svhn_usps_domain"]
    process = python(repository / "report" / "figures.py", "--data-dir", data_dir,
                     "--output-dir", tmp_path / "figures", "--only", *names)
    assert process.returncode == 0, process.stderr
    assert sorted(os.listdir(tmp_path / "figures")) == [f"{name}.png" for name in names]
    for name in os.listdir(tmp_path / "figures"):
        assert min(Image.open(tmp_path / "figures" / name).size) >= 600


@pytest.mark.parametrize("arguments", [["p4_ablation"], ["p4", "--seeds", "1"]])
def test_ship_without_a_model_to_ship(arguments, data_dir, monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as error:
        run_main(run_digits, monkeypatch, *arguments, "--data-dir", data_dir, "--runs-dir", tmp_path, "--ship")
    assert error.value.code == 2 and "--ship needs table p3 or p4 with seed 0" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_figures_without_data(python, tmp_path):
    """What needs no data is drawn, the rest named with what it misses."""
    names = ["fig1_4", "fig1_2", "table1_3", "fig3_4_usps_mnistm_class"]
    process = python(FIGURES_PY, "--data-dir", "nowhere", "--output-dir", tmp_path, "--only", *names)
    assert process.returncode == 1 and sorted(os.listdir(tmp_path)) == ["fig1_2.png", "fig1_4.png"]
    lines = process.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["table1_3", "fig3_4_usps_mnistm_class", "2 of 4 not drawn"]
    assert all("nowhere" in line for line in lines[:2])


def test_figures_of_few_images(make_data, python, tmp_path):
    """One line for each figure that needs more images, and the others are drawn."""
    names = ["fig1_7", "fig1_5_male", "fig1_5_blond", "fig3_4_usps_mnistm_class", "fig2_5", "fig4_3", "fig2_2"]
    data_dir = make_data(tmp_path / "data", train=2, test=2)
    process = python(FIGURES_PY, "--data-dir", data_dir, "--output-dir", tmp_path / "figures", "--only", *names)
    assert process.returncode == 1 and sorted(os.listdir(tmp_path / "figures")) == ["fig2_2.png", "fig4_3.png"]
    assert process.stderr.splitlines() == [
        "fig1_7: 4 test faces are too few: 10 needed",
        "fig1_5_male: 4 points for a t-SNE are too few: 31 needed",
        f"fig1_5_blond: {os.path.join(data_dir, 'face', 'test.csv')}: no column Blond_Hair",
        "fig3_4_usps_mnistm_class: 4 points for a t-SNE are too few: 31 needed",
        "fig2_5: 2 training faces are too few: 3 needed",
        "5 of 7 not drawn"]


def test_attributes_of_the_faces(make_data, tmp_path):
    """Rows belong to images by their names, and -1 means the same as 0; what is missing or odd is named in one line."""
    data_dir = make_data(tmp_path / "data", train=1)
    path, picture = os.path.join(data_dir, "face", "test.csv"), tmp_path / "picture.png"
    table = pandas.read_csv(path)

    def draw(changed):
        changed.to_csv(path, index=False)
        FIGURES["fig1_5_male"](data_dir, picture)
        return np.asarray(Image.open(picture))
    expected = draw(table)
    inside = expected[:expected.shape[0] * 4 // 5, :, :3].reshape(-1, 3)  # without the legend
    assert {(0, 114, 178), (230, 159, 0)} <= set(map(tuple, inside))
    np.testing.assert_array_equal(draw(table[::-1]), expected)
    np.testing.assert_array_equal(draw(table.assign(Male=2 * table["Male"] - 1)), expected)
    for changed, message in ((table[:-1], "no Male of 1, 0 or -1 for 40039.png"),
                             (table.assign(Male=7), "no Male of 1, 0 or -1 for 40000.png"),
                             (table.drop(columns="Male"), "no column Male")):
        with pytest.raises(SystemExit, match=message):
            draw(changed)


@pytest.fixture(scope="module")
def drawn(data_dir, tmp_path_factory):
    """All matplotlib figures, by name, as they were saved."""
    figures, folder, close = {}, tmp_path_factory.mktemp("figures"), plots.plt.close

    def keep(figure):
        figures[name] = figure
        close(figure)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots.plt, "close", keep)
        for name in FIGURES.keys() - {"fig1_5_blond", "tables"}:  # the tiny data set has no such attribute
            FIGURES[name](data_dir, folder / f"{name}.png")
    return figures


def test_figures_are_legible_on_paper(drawn):
    """Drawn in the printed size, no wider than the text, no letter below 6 pt; exponents have 70 % of the size."""
    assert len(drawn) == len(FIGURES) - 4  # fig1_4 and fig2_2 are plain pictures
    for name, figure in drawn.items():
        assert figure.get_figwidth() <= plots.WIDTH <= (21 - 2 * 2.1) / 2.54, name
        for text in figure.findobj(Text):
            assert text.get_fontsize() * (0.7 if "^" in text.get_text() else 1) >= 6, (name, text.get_text())
    scaled = re.findall(r"\\includegraphics\[[^]]*\]\{(\w+)\}", read_report("report.tex"))
    assert scaled == ["fig1_4", "fig2_2"]


def test_points_of_the_same_data_line_up(drawn):
    for name in (name for name in drawn if name.endswith("_class")):
        panels = [figure.axes[0] for figure in (drawn[name], drawn[name.replace("class", "domain")])]
        a, b = (panel.transData.transform(panel.collections[0].get_offsets()) for panel in panels)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "tables"])
def test_committed_figures(name):
    assert min(Image.open(os.path.join(ROOT, "report", "figures", f"{name}.png")).size) >= 250


def test_the_same_command_gives_the_same_files(tmp_path):
    """Those that need no data; tables.tex is the committed one, pixels may differ between versions of matplotlib."""
    for name in ("fig1_2", "fig1_6", "tables"):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            FIGURES[name]("nowhere", tmp_path / folder / name)
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "tables").read_text() == read_report(os.path.join("figures", "tables.tex"))


@pytest.mark.parametrize("arguments", [[], ["two", "names"], ["../r0"], ["r 0"]])
def test_the_reports_name(arguments):
    assert "usage" in one_line_error(bash(os.path.join(ROOT, "report", "build.sh"), *arguments))


def test_the_report_uses_what_there_is():
    """Every figure and number that is made is in report.tex, and no other; every label is referred to."""
    text, made = (read_report(name) for name in ("report.tex", os.path.join("figures", "tables.tex")))
    named = re.findall(r"\\(?:includegraphics|shown)(?:\[[^]]*\])?\{(\w+)\}", text)
    for figure, colour in re.findall(r"\\tsne\{(\w+)\}\{(\w+)\}", text):
        named += [f"{figure}_{source}_{target}_{colour}" for target, source in SCENARIOS.items()]
    assert sorted(named) == sorted(FIGURES.keys() - {"tables"})
    assert set(re.findall(r"\\([a-z]+[A-Z]\w*)", text)) == set(re.findall(r"newcommand\{\\(\w+)\}", made))
    labels = re.findall(r"\\(?:label|tabled|shown(?:\[[^]]*\])?)\{([\w:]+)\}", text)
    assert len(labels) == len(set(labels)) and set(labels) == set(re.findall(r"\\ref\{([\w:]+)\}", text))
