"""The shared parts: EMA, files, evaluation, sample data."""
import argparse
import importlib
import os
import signal
import sys

import common
from common.data import load_labelled, load_unlabelled
from common.evaluate import accuracy
from common.files import write_csv
from common.runtime import EMA, at_least, entropy, has_bf16, learning_rate, pick_device
from common.weights import install, load_weights, save_weights, sum_of

import pytest
import torch
from conftest import ROOT, one_line_error
from PIL import Image


def test_learning_rate_warms_up_and_ends_at_zero():
    assert learning_rate(0, 1000, 1) == pytest.approx(0.01)
    assert learning_rate(500, 1000, 1) == pytest.approx(0.5)
    assert learning_rate(1000, 1000, 1) == pytest.approx(0)


def test_entropy():
    assert entropy(torch.tensor([[0.25] * 4, [1.0, 0, 0, 0]])).tolist() == pytest.approx([1.386294, 0])


def test_ema_equals_its_closed_form():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    ema = EMA(net, decay=0.8)
    expected = {k: v.clone() for k, v in net.state_dict().items()}
    for step in range(1, 60):
        torch.manual_seed(step)
        net(torch.randn(8, 2))  # moves the batch-norm buffers
        with torch.no_grad():
            net[0].weight.normal_()
        ema.update(net)
        decay = min(0.8, step / (step + 9))
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                expected[key] = decay * expected[key] + (1 - decay) * value
    for key, value in expected.items():
        torch.testing.assert_close(ema.state[key], value)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.csv"
    write_csv(path, ("a", "b"), [(1, 2)])

    monkeypatch.setattr("os.replace", lambda *paths: os.stat(tmp_path / "absent"))
    with pytest.raises(SystemExit, match="cannot write"):
        write_csv(path, ("a", "b"), [(3, 4)])
    assert path.read_text() == "a,b\n1,2\n" and os.listdir(tmp_path) == ["file.csv"]


def test_weights_round_trip_in_half_precision(tmp_path):
    path = tmp_path / "model.pth"
    state = {"w": torch.randn(3), "n": torch.tensor(7)}
    save_weights(path, state, {"width": 3})
    loaded, config = load_weights(path)
    assert config == {"width": 3} and loaded["n"] == 7
    assert torch.equal(loaded["w"], state["w"].half().float())


def test_weights_install_takes_only_the_listed_content(tmp_path):
    path = tmp_path / "model.pth"
    (tmp_path / "whole").write_bytes(b"whole")
    (tmp_path / "SHA256SUMS").write_text(f"{sum_of(tmp_path / 'whole')}  model.pth\n")
    with pytest.raises(SystemExit, match="model.pth is missing or damaged"):
        install(str(path), b"who")
    assert not path.exists()
    install(str(path), b"whole")
    assert path.read_bytes() == b"whole"
    path.write_bytes(b"whoLe")
    with pytest.raises(SystemExit, match="does not match SHA256SUMS"):
        load_weights(str(path))


def test_pickles_are_not_loaded(tmp_path):
    torch.save({"model": {}, "config": os.system}, tmp_path / "model.pth")
    with pytest.raises(SystemExit, match="weights damaged"):
        load_weights(tmp_path / "model.pth")


def test_weights_of_another_program(tmp_path):
    torch.save([1, 2], tmp_path / "model.pth")
    with pytest.raises(SystemExit, match="of another program"):
        load_weights(tmp_path / "model.pth")


def caught(function, *arguments):
    try:
        function(*arguments)
    except BaseException:
        return sys.exc_info()


@pytest.mark.parametrize("function, argument, message", [
    (signal.raise_signal, signal.SIGINT, "interrupted\n"),
    (importlib.import_module, "not_there", "error: the package not_there is not installed"),
    (torch.empty, 2 ** 55, "error: not enough memory"),
    (bytearray, 2 ** 55, "error: not enough memory"),
    (open, "absent", "error: [Errno 2] No such file or directory: 'absent'\n"),
    (importlib.import_module, "common.not_there", "Traceback"),
    (int, "a", "Traceback"),
])
def test_one_line_where_the_code_is_not_at_fault(function, argument, message, capsys):
    common.one_line(*caught(function, argument))
    assert capsys.readouterr().err.startswith(message)


def test_an_old_torch_is_named(tmp_path, monkeypatch, capsys):
    torch.save([1, 2], tmp_path / "model.pth")
    monkeypatch.setattr(torch, "__version__", "1.4.0")
    common.one_line(*caught(load_weights, tmp_path / "model.pth"))
    assert capsys.readouterr().err == "error: torch 2.6 or newer is needed, this is 1.4.0\n"
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.10.0"))
    common.one_line(*caught(int, "a"))
    assert capsys.readouterr().err.startswith("Traceback")


def test_accuracy(tmp_path):
    truth, prediction = str(tmp_path / "truth.csv"), str(tmp_path / "pred.csv")
    write_csv(truth, ("image_name", "label"), [("a", 1), ("b", 2), ("c", 3)])
    write_csv(prediction, ("image_name", "label"), [("c", 3), ("a", 1), ("b", 0)])
    assert accuracy(prediction, truth) == (2, 3)
    write_csv(prediction, ("image_name", "label"), [("a", 1), ("b", 0)])
    with pytest.raises(SystemExit, match="pred.csv has no row for c"):
        accuracy(prediction, truth)
    write_csv(prediction, ("image_name", "label"), [("a", 1), ("b", 0), ("c", 1), ("x", 1), ("y", 1)])
    with pytest.raises(SystemExit, match="truth.csv has no row for x and 1 more"):
        accuracy(prediction, truth)


def test_evaluate_prints_what_the_course_prints(tmp_path, python):
    write_csv(tmp_path / "t.csv", ("image_name", "label"), [("a", 1), ("b", 2), ("c", 3)])
    write_csv(tmp_path / "p.csv", ("image_name", "label"), [("a", 1), ("b", 2), ("c", 0)])
    process = python("-m", "common.evaluate", tmp_path / "p.csv", tmp_path / "t.csv", cwd=ROOT)
    assert process.stdout == "Accuracy: 2/3 (66.67%)\n"
    assert "usage" in one_line_error(python("-m", "common.evaluate", tmp_path / "p.csv", cwd=ROOT))
    assert "cannot read" in one_line_error(python("-m", "common.evaluate", tmp_path / "p.csv", "absent.csv", cwd=ROOT))


def test_at_least():
    assert at_least(2)("2") == 2
    with pytest.raises(argparse.ArgumentTypeError, match="1 is too small: 2 or more"):
        at_least(2)("1")


def test_device_and_precision():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda")
    assert has_bf16(torch.device("cpu")) in (True, False)


def test_freed_memory_is_kept(python):
    process = python("-c", """
import resource, torch
from common.runtime import pick_device
def fill():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(2 ** 21) for _ in range(8)]  # 64 MiB
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2 ** 20
pick_device("cpu")
[fill() for _ in range(3)]
print(fill())
""", cwd=ROOT)
    assert float(process.stdout) < 16, process.stderr


def test_sample_data(tmp_path, python):
    process = python("-m", "common.sample_data", tmp_path / "s", cwd=ROOT)
    assert process.returncode == 0, process.stderr
    for domain, mode in (("usps", "L"), ("mnistm", "RGB"), ("svhn", "RGB")):
        images, labels = load_labelled(str(tmp_path / "s"), domain, "train")
        assert images.shape == (1400, 3, 28, 28) and labels.bincount(minlength=10).min() > 100
        assert len(load_unlabelled(str(tmp_path / "s"), domain, "test")) == 397
        assert Image.open(tmp_path / "s" / "digits" / domain / "test" / "00000.png").mode == mode
