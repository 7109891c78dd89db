"""The tables and the figures, as the student makes them, on a tiny data set."""
import re
import sys

import pandas
import pytest
import torch
from conftest import ROOT, error_line, make_data, run
from matplotlib.figure import Figure
from matplotlib.text import Text

from common import tsne
from common.data import SCENARIOS
from common.files import sha256
from report import fd_efflite, run_digits, run_faces, runs
from report.figures import FIGURES, read_attribute
from report.plots import WIDTH

REPORT = ROOT / "report"
TINY = ["--epochs", "1", "--steps", "2", "--width", "2", "--batch-size", "8", "--device", "cpu"]


@pytest.fixture
def run_table(data_dir, tmp_path, monkeypatch):
    """A function that runs run_digits.py for a table of tiny runs, with its results and weights in tmp_path."""
    table = {mode: (title, [*options, *TINY]) for mode, (title, options) in run_digits.TABLES["p3"].items()}
    monkeypatch.setattr(run_digits, "TABLES", {"p3": table})
    for module in (runs, run_digits):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    (tmp_path / "p3_dann" / "weights").mkdir(parents=True)

    def call(*options):
        monkeypatch.setattr(sys, "argv", ["run_digits.py", "p3", "--data-dir", str(data_dir),
                                          "--runs-dir", str(tmp_path / "runs"), *options])
        run_digits.main()
        return pandas.read_csv(tmp_path / "p3.csv")
    return call


def test_a_table_from_training_to_shipped_models(run_table, data_dir, tmp_path, capsys):
    results = run_table("--seeds", "0", "--ship")
    assert len(results) == 9 and set(results["total"]) == {40} and results["target_information"].notna().sum() == 3
    assert results["command"][0] == "python3 p3_dann/train.py --data-dir hw3_data --source usps --target mnistm " \
        f"--mode source {' '.join(TINY)} --seed 0"
    sums = (tmp_path / "p3_dann" / "weights" / "SHA256SUMS").read_text()
    for target, source in SCENARIOS.items():
        trained = tmp_path / "runs" / f"p3_{source}_{target}_dann_0" / "model.pth"
        shipped = tmp_path / "p3_dann" / "weights" / f"{source}_{target}.pth"
        assert trained.read_bytes() == shipped.read_bytes() and f"{sha256(shipped)}  {shipped.name}\n" in sums
        assert (tmp_path / f"p3_{source}_{target}_log.csv").exists()
    capsys.readouterr()

    both = run_table("--seeds", "1")  # rows of other seeds stay
    assert both[:9].equals(results) and list(both["seed"]) == [0] * 9 + [1] * 9
    assert "| DANN |" in capsys.readouterr().out
    again = run_table("--seeds", "0")  # nothing is trained again
    assert again.equals(both) and capsys.readouterr().out.count("trained already") == 9

    try_out = tmp_path / "runs" / "p3_usps_mnistm_source_2"
    run_digits.p3.main(["--data-dir", str(data_dir), "--source", "usps", "--target", "mnistm", "--mode", "source",
                        *TINY, "--seed", "2", "--limit", "30", "--out-dir", str(try_out)])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".csv", ".pth")}
    with pytest.raises(SystemExit, match="source_2 holds a run with limit = 30, not None"):  # a try-out is no row
        run_table("--seeds", "2", "0", "--ship")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".csv", ".pth")}


@pytest.mark.parametrize("script, arguments, message", [
    (run_digits, ["p4_ablation", "--ship"], "--ship needs table p3 or p4 with seed 0"),
    (run_digits, ["p4", "--seeds", "1", "--ship"], "--ship needs table p3 or p4 with seed 0"),
    (run_digits, ["p3", "--data-dir", "nowhere"], "no nowhere/digits/mnistm/test.csv, which the scores need"),
    (run_faces, ["p1"], "has 40 images; the distance needs 10000"),
])
def test_what_cannot_be_run_is_said_at_once(script, arguments, message, data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--data-dir", str(data_dir), "--runs-dir", str(tmp_path), *arguments])
    with pytest.raises(SystemExit) as error:
        script.main()
    assert message in f"{error.value} {capsys.readouterr().err}" and not list(tmp_path.iterdir())


def test_what_can_be_drawn_is_drawn(tmp_path):
    """In a notebook's environment; the rest is named, each in one line."""
    process = run(sys.executable, REPORT / "figures.py", "--data-dir", make_data(tmp_path / "data", count=2),
                  "--output-dir", tmp_path, "--only", "fig1_7", "fig1_5_male", "fig3_4_usps_mnistm_class", "fig2_5",
                  "fig4_3", "fig1_2", env={"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    assert process.returncode == 1 and {path.name for path in tmp_path.glob("*.png")} == {"fig4_3.png", "fig1_2.png"}
    assert process.stderr.splitlines() == [
        "fig1_7: 2 test faces are too few: 10 needed",
        "fig1_5_male: 2 points are too few for a t-SNE: more than 30 needed",
        "fig3_4_usps_mnistm_class: 4 points are too few for a t-SNE: more than 30 needed",
        "fig2_5: 2 training faces are too few: 3 needed",
        "4 of 6 not drawn"]


@pytest.mark.parametrize("table, row, message", [
    ("p2", "dcgan", "p2.csv has no row dcgan"), ("p1", "shipped", "p1.csv has no row shipped"),
    ("p3", "mnistm,svhn,dann", "p3.csv has no row dann of the target svhn"),
])
def test_rows_of_a_table_that_are_missing_are_named(table, row, message, tmp_path, monkeypatch):
    for path in (REPORT / "results").glob("*.csv"):
        lines = path.read_text().splitlines(True)
        (tmp_path / path.name).write_text("".join(line for line in lines if path.stem != table or row not in line))
    for module in ("report.tables", "report.run_digits"):
        monkeypatch.setattr(f"{module}.RESULTS", tmp_path)
    with pytest.raises(SystemExit, match=message):
        FIGURES["tables"]("nowhere", tmp_path / "tables.tex")


def test_attributes_of_the_faces(data_dir, tmp_path):
    """Rows belong to images by their names, and -1 means the same as 0; what is missing is named in one line."""
    def male(changed):
        changed.to_csv(tmp_path / "face" / "test.csv", index=False)
        return read_attribute(tmp_path, "test", "Male").tolist()
    (tmp_path / "face").mkdir()
    (tmp_path / "face" / "test").symlink_to(data_dir / "face" / "test")
    table = pandas.read_csv(data_dir / "face" / "test.csv")
    assert male(table) == male(table[::-1]) == male(table.assign(Male=2 * table["Male"] - 1)) == [0, 1] * 20
    for changed, message in ((table[:-1], "no Male for 00039.png"), (table.drop(columns="Male"), "no column .* Male")):
        with pytest.raises(SystemExit, match=message):
            male(changed)


def test_figures_are_legible_on_paper(data_dir, tmp_path, monkeypatch):
    """Drawn in the printed size, no wider than the text, no letter below 6 pt; exponents have 70 % of the size."""
    figures, close, savefig = [], tsne.plt.close, Figure.savefig
    monkeypatch.setattr(tsne.plt, "close", lambda figure: figures.append(figure) or close(figure))
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: savefig(figure, file, dpi=30))  # faster
    for name in FIGURES.keys() - {"fig1_4", "fig2_2", "tables"}:  # these are not made by matplotlib
        if not re.search("_(mnistm_svhn|svhn_usps)_|fig4|fig1_7|encoder", name):  # one of those that are alike
            FIGURES[name](data_dir, tmp_path / f"{name}.png")
            assert figures[-1].get_figwidth() <= WIDTH <= (21 - 2 * 2.1) / 2.54, name
            for text in figures[-1].findobj(Text):
                assert text.get_fontsize() * (0.7 if "^" in text.get_text() else 1) >= 6, (name, text.get_text())


def test_the_committed_tables_are_those_of_the_results(tmp_path):
    FIGURES["tables"]("nowhere", tmp_path / "tables.tex")
    assert (tmp_path / "tables.tex").read_bytes() == (REPORT / "figures" / "tables.tex").read_bytes()


def test_the_report_uses_what_there_is():
    """Every figure and number that is made is in report.tex, and no other; every label is referred to."""
    text, made = ((REPORT / name).read_text(encoding="utf-8") for name in ("report.tex", "figures/tables.tex"))
    named = re.findall(r"\\(?:includegraphics|shown)(?:\[[^]]*\])?\{(\w+)\}", text)
    for figure, colour in re.findall(r"\\tsne\{(\w+)\}\{(\w+)\}", text):
        named += [f"{figure}_{source}_{target}_{colour}" for target, source in SCENARIOS.items()]
    assert sorted(named) == sorted(FIGURES.keys() - {"tables"})
    assert {f"{name}.png" for name in named} == {path.name for path in (REPORT / "figures").glob("*.png")}
    assert set(re.findall(r"\\([a-z]+[A-Z]\w*)", text)) == set(re.findall(r"newcommand\{\\(\w+)\}", made))
    labels = re.findall(r"\\(?:label|tabled|shown(?:\[[^]]*\])?)\{([\w:]+)\}", text)
    assert len(labels) == len(set(labels)) and set(labels) == set(re.findall(r"\\ref\{([\w:]+)\}", text))


def test_the_reports_name():
    for arguments in ([], ["two", "names"], ["../r0"]):
        assert "usage" in error_line(run("bash", REPORT / "build.sh", *arguments))


def test_precision_and_recall_by_hand():
    real = torch.tensor([[0.0, 0], [1, 0], [10, 0], [12, 0]])  # with k = 1: balls of radius 1, 1, 2 and 2
    generated = torch.tensor([[1.5, 0], [1.8, 0], [5, 0], [5.5, 0]])  # 0.3, 0.3, 0.5 and 0.5
    assert fd_efflite.precision_and_recall(real, generated, k=1) == (0.5, 0.0)
    assert fd_efflite.precision_and_recall(generated, real, k=1) == (0.0, 0.5)


def test_copies_of_training_faces_are_counted():
    real, test = torch.randn(50, 2), torch.randn(10, 2) + 9
    for generated, share in ((real[:10], "1.000"), (test, "0.000"), (torch.cat([real[:5], test[:5]]), "0.500")):
        assert run_faces.measures(generated, real, test)["nearer_to_training"] == share


def test_frechet_distance_equals_its_closed_form():
    """Of Gaussians with diagonal covariances: the squared distances of the means and of the standard deviations."""
    a = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = (a - a.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(a.T.cov())).T  # mean 0 and covariance I, exactly
    assert fd_efflite.frechet(a, a * torch.tensor([1, 2, 3]) + 1) == pytest.approx(3 + 0 + 1 + 4)
    assert fd_efflite.frechet(a, a.flip(0)) == pytest.approx(0, abs=1e-9)


def test_the_features_packages_absence_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(SystemExit, match="pip install efficientnet-lite-pytorch"):
        fd_efflite.features("", [])
