"""Problem 3: the gradient reversal, training in its three modes, and its command lines."""
import csv
import json
import os
import shutil
import sys

import pytest
import torch

from common.augment import augment_digits
from common.weights import load_weights
from conftest import ROOT, one_line_error
from p3_dann import train
from p3_dann.model import DigitNet, DomainDiscriminator, GradientReversal

TRAIN = os.path.join(ROOT, "p3_dann", "train.py")
INFERENCE = os.path.join(ROOT, "p3_dann", "inference.py")
MODES = ["source", "dann", "target"]
PAIR = ["--source", "usps", "--target", "mnistm"]


def test_gradient_reversal_by_hand():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    w = torch.tensor([3.0, 5.0], requires_grad=True)
    y = GradientReversal.apply(x, 0.25)
    assert torch.equal(y, x)
    (w * y ** 2).sum().backward()  # d/dx = 2 w x = (6, -20), reversed and scaled; d/dw = x^2, untouched
    assert x.grad.tolist() == [-1.5, 5.0]
    assert w.grad.tolist() == [1.0, 4.0]


def test_reversal_schedule_is_the_published_one():
    assert train.reversal_strength(0, 100, 1) == 0
    assert train.reversal_strength(10, 100, 1) == pytest.approx(0.462117, abs=1e-6)  # tanh(10 p / 2)
    assert train.reversal_strength(100, 100, 0.5) == pytest.approx(0.5 * 0.999909, abs=1e-6)


def test_learning_rate_warms_up_and_ends_at_zero():
    assert train.learning_rate(0, 1000, 1) == pytest.approx(0.01)
    assert train.learning_rate(500, 1000, 1) == pytest.approx(0.5)
    assert train.learning_rate(1000, 1000, 1) == pytest.approx(0)


def test_shapes():
    net, discriminator = DigitNet(4), DomainDiscriminator(4)
    features = net.features(torch.rand(5, 3, 28, 28))
    assert features.shape == (5, 32)
    assert net(torch.rand(5, 3, 28, 28)).shape == (5, 10)
    assert discriminator(features).shape == (5,)


def test_input_brightness_and_contrast_do_not_matter():
    net, x = DigitNet(4).eval(), torch.rand(5, 3, 28, 28)
    torch.testing.assert_close(net(0.5 * x + 0.2), net(x), rtol=0.02, atol=0.02)


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    train.main()


@pytest.mark.parametrize("mode", MODES)
def test_one_step_changes_the_weights(mode, data_dir, tmp_path, monkeypatch):
    torch.manual_seed(0)
    before = DigitNet(2).state_dict()
    run_main(monkeypatch, "--data-dir", data_dir, *PAIR, "--mode", mode, "--out-dir", tmp_path, "--device", "cpu",
             "--width", 2, "--epochs", 1, "--steps", 1, "--batch-size", 8)
    after, config = load_weights(os.path.join(tmp_path, "model.pth"))
    assert before.keys() == after.keys()
    changed = [k for k in before if not torch.equal(before[k].half().float(), after[k].float())]
    assert "classifier.weight" in changed and "layers.0.0.weight" in changed
    assert config["mode"] == mode and config["seed"] == 0


def test_training_learns(data_dir, tmp_path, monkeypatch):
    run_main(monkeypatch, "--data-dir", data_dir, *PAIR, "--mode", "dann", "--out-dir", tmp_path, "--device", "cpu",
             "--width", 4, "--epochs", 4, "--steps", 30, "--batch-size", 32)
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["class_loss"]) < 0.7 * float(rows[0]["class_loss"])


@pytest.mark.parametrize("mode", MODES)
def test_command_lines(mode, data_dir, tmp_path, python, tiny_run):
    """train.py, inference.py and common.evaluate, from another folder, as the student calls them."""
    out = tmp_path / "a run"
    trained = python(TRAIN, "--data-dir", data_dir, *PAIR, "--mode", mode, "--out-dir", out, *tiny_run, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count("\n") == 3  # in a file: a line an epoch and the last one
    assert json.loads((out / "config.json").read_text())["mode"] == mode
    labelled = python(INFERENCE, "--img-dir", os.path.join(data_dir, "digits", "mnistm", "test"), "--target", "mnistm",
                      "--weights", "a run/model.pth", "--output", "new folder/pred.csv", cwd=tmp_path)
    assert labelled.returncode == 0, labelled.stderr
    lines = (tmp_path / "new folder" / "pred.csv").read_text().splitlines()
    assert lines[0] == "image_name,label" and [line[:10] for line in lines[1:]] == [f"{i:05d}.png," for i in range(20)]
    scored = python("-m", "common.evaluate", tmp_path / "new folder" / "pred.csv",
                    os.path.join(data_dir, "digits", "mnistm", "test.csv"), cwd=ROOT)
    assert scored.returncode == 0 and scored.stdout.startswith("Accuracy: ") and "/20 (" in scored.stdout


def test_resume_equals_an_uninterrupted_run_bit_for_bit(data_dir, tmp_path, monkeypatch, tiny_run):
    arguments = ["--data-dir", data_dir, *PAIR, "--mode", "dann", *tiny_run]
    run_main(monkeypatch, *arguments, "--out-dir", tmp_path / "whole")

    end_epoch = train.Run.end_epoch
    with monkeypatch.context() as patch:
        def end_and_interrupt(self, row):
            end_epoch(self, row)
            raise KeyboardInterrupt
        patch.setattr(train.Run, "end_epoch", end_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_main(patch, *arguments, "--out-dir", tmp_path / "halves")
    assert not (tmp_path / "halves" / "model.pth").exists()
    torch.rand(7)  # whatever else drew random numbers meanwhile
    run_main(monkeypatch, *arguments, "--out-dir", tmp_path / "halves", "--resume")

    whole, halves = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "halves"))
    for part in ("net", "discriminator"):
        for key, value in whole["parts"][part].items():
            assert torch.equal(value, halves["parts"][part][key]), key
    for key, value in whole["parts"]["ema"]["state"].items():
        assert torch.equal(value, halves["parts"]["ema"]["state"][key]), key
    untimed = [[{k: v for k, v in row.items() if "second" not in k} for row in saved["rows"]] for saved in (whole, halves)]
    assert untimed[0] == untimed[1]


def test_target_labels_are_not_read(make_data, tmp_path, monkeypatch, tiny_run):
    data = make_data(tmp_path / "data")
    arguments = ["--data-dir", data, *PAIR, "--mode", "dann", *tiny_run]
    run_main(monkeypatch, *arguments, "--out-dir", tmp_path / "with")
    for split in ("train", "test"):
        os.remove(os.path.join(data, "digits", "mnistm", f"{split}.csv"))
    shutil.rmtree(os.path.join(data, "digits", "mnistm", "test"))
    run_main(monkeypatch, *arguments, "--out-dir", tmp_path / "without")
    first, second = (load_weights(tmp_path / name / "model.pth")[0] for name in ("with", "without"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_source_mode_needs_no_target(make_data, tmp_path, monkeypatch, tiny_run):
    data = make_data(tmp_path / "data")
    shutil.rmtree(os.path.join(data, "digits", "mnistm"))
    run_main(monkeypatch, "--data-dir", data, *PAIR, "--mode", "source", *tiny_run, "--out-dir", tmp_path / "run")
    assert (tmp_path / "run" / "model.pth").exists()


def test_augmentation_is_batched_and_never_mirrors():
    """Each image gets a draw of its own, and a digit half of which is blank keeps the blank half where it was."""
    half = torch.zeros(64, 3, 28, 28, dtype=torch.uint8)
    half[:, :, :, :14] = torch.randint(0, 256, (64, 3, 28, 14))  # texture on the left, blank on the right
    torch.manual_seed(0)
    out = augment_digits(half, jittered=0)
    assert out.shape == half.shape and out.dtype == torch.float32
    roughness = out.diff(dim=2).abs().mean((1, 2))  # [N, column]
    assert (roughness[:, :10].mean(1) > 3 * roughness[:, 18:].mean(1)).all()
    assert (out[0] != out[1]).any()
    signs = (out[:, :, :, 22:].mean((1, 2, 3)) > 0)
    assert 10 < signs.sum() < 54  # about half of them inverted


@pytest.mark.parametrize("change, message", [
    (["--resume"], "there is no"),
    (["--data-dir", "nowhere"], "nowhere"),
    (["--device", "tpu"], "unknown device 'tpu'"),
    (["--device", "cuda:77"], "no such GPU"),
    (["--out-dir", os.path.join(TRAIN, "run")], "cannot make the folder"),
])
def test_bad_training_input(change, message, data_dir, tmp_path, python, tiny_run):
    process = python(TRAIN, "--data-dir", data_dir, *PAIR, "--mode", "dann", "--out-dir", tmp_path / "run", *tiny_run, *change)
    assert message in one_line_error(process)
    assert not (tmp_path / "run").exists()


def test_resume_of_another_configuration_or_a_damaged_checkpoint(data_dir, tmp_path, python, monkeypatch, tiny_run):
    arguments = ["--data-dir", data_dir, *PAIR, "--mode", "source", *tiny_run, "--out-dir", tmp_path]
    run_main(monkeypatch, *arguments)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    assert "was made with lr = 0.003, not 0.1" in one_line_error(python(TRAIN, *arguments, "--lr", "0.1", "--resume"))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    (tmp_path / "checkpoint.pt").write_bytes(before[:len(before) // 2])
    assert "is damaged" in one_line_error(python(TRAIN, *arguments, "--resume"))


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
        run_main(monkeypatch, "--data-dir", data, *PAIR, "--mode", "dann", *tiny_run, "--out-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()
