"""The figures: what can be drawn is drawn, from the model that it names, and shows what its caption says."""
import sys

import pandas
import pytest
import torch
from conftest import ROOT, make_data, run
from matplotlib.figure import Figure
from matplotlib.text import Text

from common.data import SCENARIOS
from report import figures, plots
from report.figures import FIGURES, SUFFIXES, read_attribute


def test_what_can_be_drawn_is_drawn(tmp_path):
    """In a notebook's environment; the rest is named, each in one line."""
    process = run(sys.executable, ROOT / "report" / "figures.py", "--data-dir", make_data(tmp_path / "data", count=2),
                  "--output-dir", tmp_path, "--only", "fig1_5_male", "fig4_3", "fig1_2",
                  env={"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    assert process.returncode == 1 and {path.name for path in tmp_path.glob("*.png")} == {"fig4_3.png", "fig1_2.png"}
    reason, count = process.stderr.splitlines()
    assert reason.startswith("fig1_5_male: perplexity ") and count == "1 of 3 not drawn"  # scikit-learn's own words


def test_attributes_of_the_faces(tmp_path):
    """Rows belong to images by their names, and -1 means the same as 0; what is missing is named."""
    path = make_data(tmp_path) / "face" / "test.csv"
    table = pandas.read_csv(path)

    def male(changed):
        changed.to_csv(path, index=False)
        return read_attribute(tmp_path, "test", "Male").tolist()
    assert male(table) == male(table[::-1]) == male(table.assign(Male=2 * table["Male"] - 1)) == [0, 1] * 20
    for changed, message in ((table[:-1], "00039.png"), (table.drop(columns="Male"), "Male")):
        with pytest.raises(KeyError, match=message):
            male(changed)


def test_figures_are_legible_and_of_the_models_that_they_name(data_dir, tmp_path, monkeypatch):
    """No wider than the text, no letter below 6 pt (exponents have 70 %)."""
    drawn, read, savefig, close, load = [], [], Figure.savefig, plots.plt.close, figures.load_digit_net
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: savefig(figure, file, dpi=30))  # faster
    monkeypatch.setattr(plots.plt, "close", lambda figure: drawn.append(figure) or close(figure))
    monkeypatch.setattr(figures, "embed", lambda features: features[:, :2].numpy())
    monkeypatch.setattr(figures, "load_digit_net", lambda path: read.append(path) or load(path))
    pairs = [f"{source}_{target}" for target, source in SCENARIOS.items()]
    for name in FIGURES.keys() - SUFFIXES.keys() - {"fig1_4", "fig2_2"}:  # these are not made by matplotlib
        read.clear()
        figures.embedded.cache_clear()
        FIGURES[name](data_dir, tmp_path / f"{name}.png")
        assert drawn[-1].get_figwidth() <= plots.WIDTH <= (21 - 2 * 2.1) / 2.54, name
        for text in drawn[-1].findobj(Text):
            assert text.get_fontsize() * (0.7 if "^" in text.get_text() else 1) >= 6, (name, text.get_text())
        if name.startswith(("fig3_4", "fig3_6", "fig4_2", "fig4_3")):
            weights = ROOT / {"3": "p3_dann", "4": "p4_uda"}[name[3]] / "weights"
            assert read == [weights / f"{pair}.pth" for pair in [p for p in pairs if p in name] or pairs], name


def test_the_rows_of_a_confusion_matrix_are_labels():
    """One of four 2s is called a 5, one of two 7s a 9."""
    figure, axis = plots.plt.subplots()
    plots.draw_confusion(axis, torch.tensor([2, 2, 2, 2, 7, 7]), torch.tensor([2, 2, 2, 5, 7, 9]))
    shown = {text.get_position(): text.get_text() for text in axis.texts if text.get_visible()}  # (predicted, label)
    assert shown == {(2, 2): "75", (5, 2): "25", (7, 7): "50", (9, 7): "50"}
