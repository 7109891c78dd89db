"""Training runs of problems 3 and 4 and their command lines: what holds for both."""
import csv
import json
import os
import shutil

from common.digit_net import DigitNet
from common.weights import load_weights
from p3_dann import train as p3
from p4_uda import train as p4

import pytest
import torch
from conftest import ROOT, assert_resume_is_bit_for_bit, one_line_error, one_line_exit, run_main

PAIR = ["--source", "usps", "--target", "mnistm"]
# a threshold so low that a net of two steps keeps some pseudo-labels
RUNS = {"p3 source": (p3, ["--mode", "source"]), "p3 dann": (p3, ["--mode", "dann"]),
        "p3 target": (p3, ["--mode", "target"]),
        "p4 source": (p4, ["--mode", "source"]), "p4 uda": (p4, ["--threshold", "0.1"]),
        "p4 target": (p4, ["--mode", "target"]),
        "p4 switches": (p4, ["--without", "align", "relative", "interpolation", "balance"])}
every_run = pytest.mark.parametrize("train, options", RUNS.values(), ids=RUNS)
adapting_runs = pytest.mark.parametrize("train, options", [RUNS["p3 dann"], RUNS["p4 uda"]], ids=["p3", "p4"])


@every_run
def test_one_step_changes_the_weights(train, options, data_dir, tmp_path, monkeypatch):
    torch.manual_seed(0)
    before = DigitNet(2).state_dict()
    run_main(train, monkeypatch, "--data-dir", data_dir, *PAIR, *options, "--out-dir", tmp_path, "--device", "cpu",
             "--width", 2, "--epochs", 1, "--steps", 1, "--batch-size", 8)
    after, config = load_weights(os.path.join(tmp_path, "model.pth"))
    assert before.keys() == after.keys()
    changed = [k for k in before if not torch.equal(before[k].half().float(), after[k].float())]
    assert "classifier.weight" in changed and "layers.0.0.weight" in changed
    assert config["seed"] == 0 and config["width"] == 2


@adapting_runs
def test_training_learns(train, options, data_dir, tmp_path, monkeypatch):
    run_main(train, monkeypatch, "--data-dir", data_dir, *PAIR, *options, "--out-dir", tmp_path, "--device", "cpu",
             "--width", 4, "--epochs", 4, "--steps", 60, "--batch-size", 32)
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["class_loss"]) < 0.7 * float(rows[0]["class_loss"])


@every_run
def test_command_lines(train, options, data_dir, tmp_path, python, tiny_run):
    """train.py, inference.py and common.evaluate, from another folder, as the student calls them."""
    out = tmp_path / "a run"
    trained = python(train.__file__, "--data-dir", data_dir, *PAIR, *options, "--out-dir", out, *tiny_run, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count("\n") == 3  # in a file: a line an epoch and the last one
    assert json.loads((out / "config.json").read_text())["epochs"] == 2
    inference = os.path.join(os.path.dirname(train.__file__), "inference.py")
    labelled = python(inference, "--img-dir", os.path.join(data_dir, "digits", "mnistm", "test"), "--target", "mnistm",
                      "--weights", "a run/model.pth", "--output", "new folder/pred.csv", cwd=tmp_path)
    assert labelled.returncode == 0, labelled.stderr
    lines = (tmp_path / "new folder" / "pred.csv").read_text().splitlines()
    assert lines[0] == "image_name,label" and [line[:10] for line in lines[1:]] == [f"{i:05d}.png," for i in range(20)]
    scored = python("-m", "common.evaluate", tmp_path / "new folder" / "pred.csv",
                    os.path.join(data_dir, "digits", "mnistm", "test.csv"), cwd=ROOT)
    assert scored.returncode == 0 and scored.stdout.startswith("Accuracy: ") and "/20 (" in scored.stdout


@adapting_runs
def test_resume_equals_an_uninterrupted_run_bit_for_bit(train, options, data_dir, tmp_path, monkeypatch, tiny_run):
    assert_resume_is_bit_for_bit(train, ["--data-dir", data_dir, *PAIR, *options, *tiny_run], tmp_path, monkeypatch)


@adapting_runs
def test_target_labels_are_not_read(train, options, make_data, tmp_path, monkeypatch, tiny_run):
    data = make_data(tmp_path / "data")
    arguments = ["--data-dir", data, *PAIR, *options, *tiny_run]
    run_main(train, monkeypatch, *arguments, "--out-dir", tmp_path / "with")
    for split in ("train", "test"):
        os.remove(os.path.join(data, "digits", "mnistm", f"{split}.csv"))
    shutil.rmtree(os.path.join(data, "digits", "mnistm", "test"))
    run_main(train, monkeypatch, *arguments, "--out-dir", tmp_path / "without")
    first, second = (load_weights(tmp_path / name / "model.pth")[0] for name in ("with", "without"))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("train", [p3, p4], ids=["p3", "p4"])
def test_source_mode_needs_no_target(train, make_data, tmp_path, monkeypatch, tiny_run):
    data = make_data(tmp_path / "data")
    shutil.rmtree(os.path.join(data, "digits", "mnistm"))
    run_main(train, monkeypatch, "--data-dir", data, *PAIR, "--mode", "source", *tiny_run,
             "--out-dir", tmp_path / "run")
    assert (tmp_path / "run" / "model.pth").exists()


@pytest.mark.parametrize("change, message", [
    (["--resume"], "there is no"),
    (["--data-dir", "nowhere"], "nowhere"),
    (["--device", "tpu"], "unknown device 'tpu'"),
    (["--device", "cuda:77"], "no such GPU"),
    (["--out-dir", os.path.join(p3.__file__, "run")], "cannot make the folder"),
])
@adapting_runs
def test_bad_training_input(train, options, change, message, data_dir, tmp_path, monkeypatch, capsys, tiny_run):
    assert message in one_line_exit(run_main, capsys, train, monkeypatch, "--data-dir", data_dir, *PAIR, *options,
                                    *tiny_run, "--out-dir", tmp_path / "run", *change)
    assert not (tmp_path / "run").exists()


def test_resume_of_another_configuration_or_a_damaged_checkpoint(data_dir, tmp_path, python, monkeypatch, tiny_run):
    arguments = ["--data-dir", data_dir, *PAIR, "--mode", "source", *tiny_run, "--out-dir", tmp_path]
    run_main(p3, monkeypatch, *arguments)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    process = python(p3.__file__, *arguments, "--lr", "0.1", "--resume")
    assert "was made with lr = 0.003, not 0.1" in one_line_error(process)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    (tmp_path / "checkpoint.pt").write_bytes(before[:len(before) // 2])
    assert "is damaged" in one_line_error(python(p3.__file__, *arguments, "--resume"))


@pytest.mark.parametrize("text, message", [
    ("name,label\n00000.png,1\n", "no column image_name"),
    ("image_name,class\n00000.png,1\n", "no column label"),
    ("image_name,label\n00000.png,10\n", "line 2: label '10' is not 0-9"),
    ("image_name,label\n00000.png\n", "line 2: label None is not 0-9"),
    ("image_name,label\nabsent.png,3\n", "image not found"),
    ("image_name,label\n", "no rows"),
    ("", "no column"),
])
def test_bad_label_files(text, message, make_data, tmp_path, monkeypatch, tiny_run):
    data = make_data(tmp_path / "data")
    with open(os.path.join(data, "digits", "usps", "train.csv"), "w") as file:
        file.write(text)
    with pytest.raises(SystemExit, match=message):
        run_main(p3, monkeypatch, "--data-dir", data, *PAIR, "--mode", "dann", *tiny_run, "--out-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()
