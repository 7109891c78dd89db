"""What the trainers share, and what holds for all of them: resume, the folder of a run, what enters training."""
import math
import os
import re
import runpy
import shutil
import signal
import sys
from pathlib import Path

import pandas
import pytest
import torch
from conftest import make_data, run, two_at_a_time

from common.run import Run
from common.training import EMA, learning_rate, optimizer_step
from common.weights import load_model, load_weights, save_weights
from p1_vae import train as p1
from p2_gan import train as p2
from p2_gan.cuda_graph import CudaGraph
from p3_dann import train as p3
from p4_uda import train as p4

PAIR = ["--source", "usps", "--target", "mnistm", "--steps", "3"]
TRAININGS = {"p1": (p1, ["--latent-dim", "8", "--flow-epochs", "2"]),
             "p2": (p2, ["--preset", "wide"]), "p2 dcgan": (p2, ["--preset", "dcgan"]),
             "p3": (p3, [*PAIR, "--mode", "dann"]),
             "p4": (p4, [*PAIR, "--threshold", "0.1"])}  # so low that a net of two steps keeps some pseudo-labels
every_training = pytest.mark.parametrize("train, options", TRAININGS.values(), ids=TRAININGS)


@pytest.fixture(scope="module")
def tiny(data_dir):
    """The options that make a training run take a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(p2, "STATISTICS", 1)
        yield ["--data-dir", str(data_dir), "--width", "2", "--epochs", "2", "--batch-size", "8", "--device", "cpu"]


def test_learning_rate_warms_up_and_ends_at_zero():
    rates = [learning_rate(step, 1000, 1, warm_up=100) for step in (0, 500, 1000)]
    assert rates == pytest.approx([0.01, 0.5, 0])


def test_a_step_clips_each_group_on_its_own():
    a, b = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([{"params": [b]}, {"params": [a]}], lr=7)
    for _ in range(2):  # the second forgets the first one's gradient
        optimizer_step((a * torch.tensor([30.0, -40.0])).sum() + 0.5 * b.sum(), optimizer, rate=0.1, clip=1.0)
    torch.testing.assert_close(a.detach(), 2 * torch.tensor([-0.06, 0.08]))
    torch.testing.assert_close(b.detach(), 2 * torch.tensor([-0.05]))


def test_ema_equals_its_closed_form():
    net = torch.nn.BatchNorm1d(2)
    ema, expected = EMA(net, decay=0.8), dict(weight=torch.ones(2), running_mean=torch.zeros(2))
    for step in range(1, 60):
        for name in expected:
            torch.nn.init.normal_(net.state_dict()[name])
            expected[name] = torch.lerp(expected[name], net.state_dict()[name], max(0.2, 1 - step / (step + 9)))
        ema.update(net)
    for name in expected:
        torch.testing.assert_close(ema.state[name], expected[name])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_cuda_graph_of_a_step_is_the_step():
    sums, device = [], torch.device("cuda")
    for wrapped in (CudaGraph, lambda step, device: step):
        w, rate = torch.ones(3, device=device), torch.zeros([], device=device)
        step = wrapped(lambda: {"sum": w.mul_(1 - rate).sum()}, device)
        for i in range(8):
            rate.fill_(i / 10)
            sums.append(step()["sum"].item())
    assert sums[:8] == sums[8:]


@every_training
def test_a_resumed_run_equals_one_that_was_not_stopped_bit_for_bit(train, options, tiny, tmp_path, monkeypatch, capsys):
    """Stopped by Ctrl-C after each stage's first epoch, in a folder with what is left of another run's second stage.
    The model is the average, after as many updates as steps; another seed gives another one."""
    def end_and_interrupt(self, *row, **more):
        end_epoch(self, *row, **more)
        if self.folder == folder:
            signal.raise_signal(signal.SIGINT)
    end_epoch = Run.end_epoch
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without one
    for seed, name in (("1", "other"), ("0", "whole")):
        train.main([*tiny, *options, "--seed", seed, "--out-dir", str(tmp_path / name)])
    (tmp_path / "halves" / "flow").mkdir(parents=True)
    (tmp_path / "halves" / "flow" / "checkpoint.pt").write_text("of another run")
    command = ["train.py", *tiny, *options, "--out-dir", str(tmp_path / "halves")]
    for folder in [tmp_path / "halves", tmp_path / "halves" / "flow"][:2 if train is p1 else 1]:
        with monkeypatch.context() as patch, pytest.raises(SystemExit, match="^interrupted: .* --resume continues"):
            patch.setattr(Run, "end_epoch", end_and_interrupt)
            patch.setattr(sys, "argv", command)
            runpy.run_path(train.__file__, run_name="__main__")
        assert not (tmp_path / "halves" / "model.pth").exists()
        torch.rand(7)  # whatever else drew random numbers meanwhile
        command.append("--resume")
    capsys.readouterr()
    train.main(command[1:])
    assert "epoch 1/" not in capsys.readouterr().out  # no finished epoch is trained again

    whole, halves = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "halves"))
    torch.testing.assert_close(whole["parts"], halves["parts"], rtol=0, atol=0)
    assert (tmp_path / "whole" / "model.pth").read_bytes() == (tmp_path / "halves" / "model.pth").read_bytes()
    logs = [pandas.read_csv(tmp_path / name / "log.csv") for name in ("whole", "halves")]
    pandas.testing.assert_frame_equal(*(log[[c for c in log if "second" not in c]] for log in logs))
    assert list(logs[0]["epoch"]) == [1, 2]

    average = whole["parts"]["ema"]
    assert average["step"] == 2 * (5 if train in (p1, p2) else 3)
    model, config = load_weights(tmp_path / "whole" / "model.pth")
    for name, value in average["state"].items():
        if value.is_floating_point() and "running" not in name:  # the GAN's statistics are computed anew
            assert torch.equal(model[name], value.half().float()), name
    assert config["seed"] == 0 and config["width"] == 2 and config["images"] == 40
    other, _ = load_weights(tmp_path / "other" / "model.pth")
    assert not any(torch.equal(model[name], other[name]) for name in model if model[name].dim() > 1)


@pytest.mark.parametrize("train, options", [TRAININGS["p3"], TRAININGS["p4"]], ids=["p3", "p4"])
def test_the_targets_labels_are_not_read(train, options, tiny, data_dir, tmp_path):
    without = shutil.copytree(data_dir, tmp_path / "data")
    for split in ("train", "test"):
        (without / "digits" / "mnistm" / f"{split}.csv").unlink()
    shutil.rmtree(without / "digits" / "mnistm" / "test")
    for data in (data_dir, without):
        train.main([*tiny, *options, "--data-dir", str(data), "--out-dir", str(tmp_path / f"run of {data.name}")])
    with_labels, without = (load_weights(path)[0] for path in tmp_path.glob("run of */model.pth"))
    torch.testing.assert_close(with_labels, without, rtol=0, atol=0)


@pytest.mark.parametrize("train, options, loss", [
    (p3, "--mode dann --augmentation strong", "dann_loss"), (p3, "--mode source", "supervised_loss"),
    (p3, "--mode target --augmentation strong", "supervised_loss"), (p4, "--mode target", "supervised_loss"),
    (p4, "", "adamatch_loss"), (p4, "--without balance --threshold 0.3 --hold-out 30", "adamatch_loss")])
def test_what_the_loss_is_given(train, options, loss, tiny, tmp_path, monkeypatch):
    """Labelled images of one domain, all classes equally often; target images; the schedule; the average as teacher."""
    data, calls, function = make_data(tmp_path / "data"), [], getattr(train, loss)
    for first, domain in enumerate(("usps", "mnistm")):  # nine in ten are of one class: 0, of 0 and 1; 1, of 1 and 2
        path = data / "digits" / domain / "train.csv"
        table = pandas.read_csv(path)
        table.assign(label=(table.index >= 36).astype(int) + first).to_csv(path, index=False)

    def watched(*arguments):
        calls.append(arguments)
        value, metrics, *shares = function(*arguments)
        if shares:  # of one class in an epoch's first step, of another one in the two others
            shares = [torch.eye(10)[int(len(calls) % 3 == 1)]]
            metrics["target_entropy"] = torch.tensor(0.3)
        return value, metrics, *shares
    monkeypatch.setattr(train, loss, watched)
    train.main([*tiny, *PAIR, *options.split(), "--data-dir", str(data), "--out-dir", str(tmp_path / "run"),
                "--batch-size", "64"])
    labelled, first = ("mnistm", 1) if "target" in options else ("usps", 0)
    images = {domain: train.load_unlabelled(data, domain, "train") for domain in ("usps", "mnistm")}
    shares, targets = [], images["mnistm"][:10 if "hold-out" in options else 40]
    for step, arguments in enumerate(calls):
        x, y, *rest = arguments[-2:] if loss == "supervised_loss" else arguments[3:]
        found = (x[:, None] == images[labelled]).flatten(2).all(2)
        assert found.any(1).all() and torch.equal(y, (found.int().argmax(1) >= 36) + first)
        shares.append((y == first).float().mean())
        if rest:
            assert (rest[0][:, None] == targets).flatten(2).all(2).any(1).all()
            assert len(rest[0]) == (64 if train is p3 else 128)
            assert rest[1] == pytest.approx(0.3 * math.tanh(5 * step / 6) if train is p3 else p4.target_weight(step, 6))
        if train is p3:
            augment = p3.half_strong_digits if "strong" in options else p3.augment_digits
            assert arguments[1 if loss == "supervised_loss" else 2] is augment
    assert sum(shares) / len(shares) == pytest.approx(0.9 if "balance" in options else 0.5, abs=0.08)
    if loss != "supervised_loss":  # the entropy of the mean prediction minus the mean entropy, in nats
        information = pandas.read_csv(tmp_path / "run" / "log.csv")["target_information"]
        assert information.tolist() == pytest.approx([math.log(3) - 2 / 3 * math.log(2) - 0.3] * 2)
    if loss == "dann_loss":
        optimizer = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["parts"]["optimizer"]
        assert len(optimizer["state"]) == sum(len([*net.parameters()]) for net in calls[0][:2])  # both networks learn
    if loss == "adamatch_loss":
        net, teacher, pseudo_labels = calls[0][:3]
        assert (pseudo_labels.threshold, pseudo_labels.without) == ((0.3, ["balance"]) if options else (0.9, []))
        saved = load_weights(tmp_path / "run" / "model.pth")[0]["classifier.weight"]
        assert net.training and not teacher.training and torch.equal(teacher.classifier.weight.half().float(), saved)


@every_training
def test_a_diverged_training_stops_with_its_last_good_epoch(train, options, tiny, tmp_path):
    with pytest.raises(SystemExit, match="epoch [12]: the training has diverged, .* is not finite"):
        train.main([*tiny, *options, "--lr", "1e30", "--out-dir", str(tmp_path)])
    assert not (tmp_path / "model.pth").exists()


@every_training
@pytest.mark.parametrize("change, message", [
    (["--seed", "-1"], "--seed: -1 is too small: 0 or more"), (["--lr", "nan"], "--lr: nan is too small: 0 or more"),
    (["--device", "cuda:77"], "--device: there is no 'cuda:77' here"), (["--resume"], "--resume: there is no"),
    (["--data-dir", "nowhere"], "cannot read .*nowhere"), (["--out-dir", __file__ + "/run"], "cannot make the folder"),
])
def test_bad_options(train, options, change, message, tiny, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        train.main([*tiny, *options, "--out-dir", str(tmp_path / "run"), *change])
    assert re.search(message, f"{error.value} {capsys.readouterr().err}")
    assert not (tmp_path / "run").exists()


def test_more_than_there_are_data(tiny, tmp_path):
    too_many = ["--batch-size", "41"], "40 training images are less than one batch of 41"
    for train, options, message in ((p1, *too_many), (p2, *too_many), (
            p4, [*PAIR, "--hold-out", "40"], "--hold-out 40: there are 40 target images")):
        with pytest.raises(SystemExit, match=message):
            train.main([*tiny, *options, "--out-dir", str(tmp_path / "run")])


def test_a_folder_belongs_to_one_run(tiny, tmp_path, capsys):
    """Finished and the same: taken. Other settings, other data, or not finished: one line, and nothing is lost."""
    def train_p3(*more):
        p3.main([*tiny, *TRAININGS["p3"][1], "--out-dir", str(tmp_path / "run"), *more])
    train_p3()
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    capsys.readouterr()
    train_p3()
    train_p3("--resume")
    assert capsys.readouterr().out.count("model.pth: trained already; ") == 2
    for change, message in ((["--lr", "0.5"], "with lr = 0.003, not 0.5"),
                            (["--limit", "30"], "with limit = None, not 30"),
                            (["--epochs", "1", "--resume"], "with epochs = 2, not 1"),
                            (["--data-dir", str(make_data(tmp_path / "data", 30))], "with images = 40, not 30"),
                            (["--data-dir", str(make_data(tmp_path / "same size", seed=1))], "with data_crc32 = ")):
        with pytest.raises(SystemExit, match=f"run holds a run {message}.*: use another --out-dir"):
            train_p3(*change)
    (tmp_path / "run" / "model.pth").unlink()
    with pytest.raises(SystemExit, match="holds an unfinished run: continue it with --resume"):
        train_p3()
    train_p3("--resume")  # writes the model again
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    for name in ("model.pth", "checkpoint.pt"):  # as in a run's first epoch
        (tmp_path / "run" / name).unlink()
    with pytest.raises(SystemExit, match="run holds a run with lr = 0.003, not 0.5"):
        train_p3("--lr", "0.5")


def test_command_lines(tiny, tmp_path):
    """train.py and inference.py in processes of their own, from another folder."""
    def train_and_infer(name):
        (train, options), folder = TRAININGS[name], tmp_path / name
        folder.mkdir()
        process = run(sys.executable, train.__file__, *tiny, *options, "--out-dir", "a run", cwd=folder)
        lines = process.stdout.splitlines()  # not a terminal: a line an epoch
        assert len(lines) == (6 if train is p1 else 3) and lines[-1] == "wrote a run/model.pth", process.stderr
        digits = ["--img-dir", tiny[1] + "/digits/mnistm/test", "--target", "mnistm", "--output", "new/pred.csv"]
        process = run(sys.executable, Path(train.__file__).with_name("inference.py"), "--weights", "a run/model.pth",
                      *(["--output", "new/grid.jpg"] if train in (p1, p2) else digits), cwd=folder)
        assert process.returncode == 0 and process.stdout == process.stderr == "", process.stderr
        assert len(list((folder / "new").iterdir())) == 1
    two_at_a_time(train_and_infer, ["p1", "p2 dcgan", "p3", "p4"])


def test_weights_that_do_not_load(tmp_path):
    """Damaged or no weights file: one line. Of another network: the file, then torch's list of what differs."""
    path = tmp_path / "model.pth"
    with pytest.raises(SystemExit, match="weights not found"):
        load_weights(path)
    for write in (Path.touch, lambda path: torch.save([1, 2], path)):
        write(path)
        with pytest.raises(SystemExit, match="model.pth is damaged or no weights file"):
            load_weights(path)
    torch.save({"model": {}, "config": os.system}, path)
    with pytest.raises(Exception, match="Weights only load failed"):  # it is not called
        load_weights(path)
    save_weights(path, {"weight": torch.ones(2, 2), "steps": torch.tensor(7)}, {"width": 2})
    state, config = load_weights(path)
    assert config == {"width": 2} and state["steps"] == 7 and state["weight"].dtype == torch.float32
    for build, message in ((lambda config: torch.nn.Linear(2, 2), ".*bias"),
                           (lambda config: config["latent_dim"], "'latent_dim'")):
        with pytest.raises(SystemExit, match=f"(?s)model.pth does not fit this network, .* anew: {message}"):
            load_model(path, build)
