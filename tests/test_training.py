"""What the trainers share, and what holds for all of them: resume, the folder of a run, what enters training."""
import json
import math
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest
import torch
from conftest import run

from common import run as run_module
from common.training import EMA, at_least, descend, entropy, has_bf16, learning_rate, pick_device
from common.weights import load_model, load_weights, save_weights
from p1_vae import train as p1
from p2_gan import train as p2
from p3_dann import train as p3
from p4_uda import train as p4

PAIR = ["--source", "usps", "--target", "mnistm", "--steps", "3"]
TRAININGS = {"p1": (p1, ["--latent-dim", "8", "--flow-epochs", "2"]), "p2": (p2, []),
             "p2 dcgan": (p2, ["--model", "dcgan"]), "p3": (p3, [*PAIR, "--mode", "dann"]),
             "p4": (p4, [*PAIR, "--threshold", "0.1"])}  # so low that a net of two steps keeps some pseudo-labels
every_training = pytest.mark.parametrize("train, options", TRAININGS.values(), ids=TRAININGS)
adapting = pytest.mark.parametrize("train, options", [TRAININGS["p3"], TRAININGS["p4"]], ids=["p3", "p4"])


@pytest.fixture
def tiny(data_dir):
    """The options that make a training run take a second."""
    return ["--data-dir", str(data_dir), "--width", "2", "--epochs", "2", "--batch-size", "8", "--device", "cpu"]


@pytest.fixture
def train_p3(tiny, tmp_path):
    """A function that trains DANN in tmp_path / "run", with more options."""
    return lambda *more: p3.main([*tiny, *TRAININGS["p3"][1], "--out-dir", str(tmp_path / "run"), *more])


def test_learning_rate_warms_up_and_ends_at_zero():
    assert learning_rate(0, 1000, 1, warm_up=100) == pytest.approx(0.01)
    assert learning_rate(500, 1000, 1, warm_up=100) == pytest.approx(0.5)
    assert learning_rate(1000, 1000, 1, warm_up=100) == pytest.approx(0)


def test_a_step_clips_each_group_on_its_own():
    a, b = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b]}], lr=7)
    for _ in range(2):  # the second forgets the first one's gradient
        descend((a * torch.tensor([30.0, -40.0])).sum() + 0.5 * b.sum(), optimizer, rate=0.1, clip=1.0)
    torch.testing.assert_close(a.detach(), 2 * torch.tensor([-0.06, 0.08]))
    torch.testing.assert_close(b.detach(), 2 * torch.tensor([-0.05]))


def test_ema_equals_its_closed_form():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    ema = EMA(net, decay=0.8)
    expected = {k: v.clone() for k, v in net.state_dict().items()}
    for step in range(1, 60):
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


def test_entropy_device_and_options():
    assert entropy(torch.tensor([[0.25] * 4, [1.0, 0, 0, 0]])).tolist() == pytest.approx([math.log(4), 0])
    assert pick_device("cpu") == torch.device("cpu") and has_bf16(torch.device("cpu")) in (True, False)
    assert at_least(2)("2") == 2


@every_training
def test_a_resumed_run_equals_one_that_was_not_stopped_bit_for_bit(train, options, tiny, tmp_path, monkeypatch):
    """Stopped after each stage's first epoch. The model is the average, after as many updates as steps."""
    train.main([*tiny, *options, "--out-dir", str(tmp_path / "whole")])
    end_epoch = run_module.Run.end_epoch
    stages = {Path("halves"): 5 if train in (p1, p2) else 3, Path("halves/flow"): 1}
    for folder in list(stages)[:2 if train is p1 else 1]:
        with monkeypatch.context() as patch:
            def end_and_interrupt(self, row):
                end_epoch(self, row)
                if self.folder == tmp_path / folder:
                    raise KeyboardInterrupt
            patch.setattr(run_module.Run, "end_epoch", end_and_interrupt)
            resume = ["--resume"] if (tmp_path / "halves").exists() else []
            with pytest.raises(KeyboardInterrupt):
                train.main([*tiny, *options, "--out-dir", str(tmp_path / "halves"), *resume])
        assert not (tmp_path / "halves" / "model.pth").exists()
        torch.rand(7)  # whatever else drew random numbers meanwhile
    train.main([*tiny, *options, "--out-dir", str(tmp_path / "halves"), "--resume"])

    whole, halves = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "halves"))
    torch.testing.assert_close(whole["parts"], halves["parts"], rtol=0, atol=0)
    assert (tmp_path / "whole" / "model.pth").read_bytes() == (tmp_path / "halves" / "model.pth").read_bytes()
    logs = [pandas.read_csv(tmp_path / name / "log.csv") for name in ("whole", "halves")]
    pandas.testing.assert_frame_equal(*(log[[c for c in log if "second" not in c]] for log in logs))
    assert list(logs[0]["epoch"]) == [1, 2]

    average = whole["parts"]["ema"]
    assert average["step"] == 2 * stages[Path("halves")]
    model, config = load_weights(tmp_path / "whole" / "model.pth")
    for name, value in average["state"].items():
        if value.is_floating_point() and "running" not in name:  # the GAN's statistics are computed anew
            assert torch.equal(model[name], value.half().float()), name
    assert config["seed"] == 0 and config["width"] == 2 and config["images"] == 40


@adapting
def test_the_targets_labels_are_not_read_and_its_images_are(train, options, tiny, make_data, tmp_path):
    data = make_data(tmp_path / "data")
    arguments = [*tiny, *options, "--data-dir", str(data)]
    train.main([*arguments, "--out-dir", str(tmp_path / "with")])
    for split in ("train", "test"):
        (data / "digits" / "mnistm" / f"{split}.csv").unlink()
    shutil.rmtree(data / "digits" / "mnistm" / "test")
    train.main([*arguments, "--out-dir", str(tmp_path / "without")])
    shutil.rmtree(data / "digits" / "mnistm" / "train")
    shutil.copytree(data / "digits" / "svhn" / "train", data / "digits" / "mnistm" / "train")
    train.main([*arguments, "--out-dir", str(tmp_path / "others")])
    first, second, third = (load_weights(tmp_path / name / "model.pth")[0] for name in ("with", "without", "others"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["classifier.weight"], third["classifier.weight"])


@pytest.mark.parametrize("train, options, loss", [(p3, ["--mode", "dann"], "dann_loss"), (p4, [], "adamatch_loss"),
                                                  (p3, ["--mode", "source"], "supervised_loss"),
                                                  (p4, ["--mode", "target"], "supervised_loss"),
                                                  (p4, ["--without", "balance"], "adamatch_loss")])
def test_what_the_loss_is_given(train, options, loss, tiny, make_data, tmp_path, monkeypatch):
    """Labelled images of one domain with their labels, all classes equally often; target images; the schedule."""
    data = make_data(tmp_path / "data")
    for domain in ("usps", "mnistm"):
        path = data / "digits" / domain / "train.csv"
        table = pandas.read_csv(path)
        table["label"] = (table.index >= 36).astype(int) + (domain == "mnistm")  # nine in ten are of one class
        table.to_csv(path, index=False)
    calls, function = [], getattr(train, loss)
    monkeypatch.setattr(train, loss, lambda *arguments: calls.append(arguments) or function(*arguments))
    train.main([*tiny, *PAIR, *options, "--data-dir", str(data), "--out-dir", str(tmp_path / "run"), "--steps", "10",
                "--batch-size", "32"])
    labelled, first = ("mnistm", 1) if "target" in options else ("usps", 0)
    images = {domain: train.load_unlabelled(data, domain, "train") for domain in ("usps", "mnistm")}
    shares = []
    for step, arguments in enumerate(calls):
        x, y, *rest = arguments[{"dann_loss": 2, "adamatch_loss": 3, "supervised_loss": 1}[loss]:]
        found = (x[:, None] == images[labelled]).flatten(2).all(2)
        assert found.any(1).all() and torch.equal(y, (found.int().argmax(1) >= 36) + first)
        shares.append((y == first).float().mean())
        if rest:
            assert (rest[0][:, None] == images["mnistm"]).flatten(2).all(2).any(1).all()
            assert len(rest[0]) == {"dann_loss": 32, "adamatch_loss": 64}[loss]
            schedule = {"dann_loss": 0.3 * math.tanh(5 * step / 20), "adamatch_loss": p4.target_weight(step, 20)}
            assert rest[1] == pytest.approx(schedule[loss])
    assert sum(shares) / len(shares) == pytest.approx(0.9 if "balance" in options else 0.5, abs=0.08)


def test_the_teacher_is_the_average_of_the_nets_weights(tiny, tmp_path, monkeypatch):
    nets, teachers, function = [], [], p4.adamatch_loss

    def watched(net, teacher, *rest):
        for states, model in ((nets, net), (teachers, teacher)):
            states.append(model.classifier.weight.detach().clone())
        assert net.training and not teacher.training
        return function(net, teacher, *rest)
    monkeypatch.setattr(p4, "adamatch_loss", watched)
    p4.main([*tiny, *TRAININGS["p4"][1], "--out-dir", str(tmp_path)])
    for step in range(1, len(nets)):
        torch.testing.assert_close(teachers[step], teachers[step - 1].lerp(nets[step], 1 - step / (step + 9)))
    assert not torch.equal(nets[0], nets[-1])


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


def test_a_batch_larger_than_the_data(tiny, tmp_path):
    for train in (p1, p2):
        with pytest.raises(SystemExit, match="40 training images are less than one batch of 41"):
            train.main([*tiny, "--batch-size", "41", "--out-dir", str(tmp_path / "run")])


def test_a_folder_belongs_to_one_run(train_p3, tmp_path, capsys):
    """Finished and the same: taken. Other settings, other data, or not finished: one line, and nothing is lost."""
    train_p3()
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    capsys.readouterr()
    train_p3()
    train_p3("--resume")
    assert capsys.readouterr().out.count("model.pth: trained already\n") == 2
    for change, message in ((["--lr", "0.5"], "with lr = 0.003, not 0.5"),
                            (["--limit", "30"], "with limit = None, not 30"),
                            (["--epochs", "1", "--resume"], "with epochs = 2, not 1")):
        with pytest.raises(SystemExit, match=f"run holds a run {message}: use another --out-dir"):
            train_p3(*change)
    (tmp_path / "run" / "model.pth").unlink()
    with pytest.raises(SystemExit, match="holds an unfinished run: continue it with --resume"):
        train_p3()
    train_p3("--resume")  # writes the model again
    after = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert after == before


def test_another_data_set_is_another_run(train_p3, make_data, tmp_path):
    train_p3()
    data = make_data(tmp_path / "data", count=30)
    with pytest.raises(SystemExit, match="holds a run with images = 40, not 30"):
        train_p3("--data-dir", str(data))


def test_the_second_stage_starts_anew_unless_the_run_is_resumed(tiny, tmp_path):
    arguments = [*tiny, *TRAININGS["p1"][1], "--out-dir", str(tmp_path)]
    p1.main(arguments)
    first = pandas.read_csv(tmp_path / "flow" / "log.csv")
    for name in ("model.pth", "checkpoint.pt"):
        (tmp_path / name).unlink()
    p1.main([*arguments, "--seed", "1"])
    assert (pandas.read_csv(tmp_path / "flow" / "log.csv")["flow_loss"] != first["flow_loss"]).all()


@pytest.fixture
def started(tiny, tmp_path):
    """A training of many epochs in a process of its own, on a terminal, after its first one; and what it prints."""
    terminal, other_end = pty.openpty()
    command = [sys.executable, p3.__file__, *tiny, *TRAININGS["p3"][1], "--out-dir", tmp_path / "run",
               "--steps", "100", "--epochs", "1000"]
    process = subprocess.Popen([*map(str, command)], stdout=other_end, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    end = time.time() + 60
    while not (tmp_path / "run" / "log.csv").exists():
        assert process.poll() is None and time.time() < end
        time.sleep(0.05)
    yield process, terminal
    process.kill()


def test_ctrl_c_kill_and_signs_of_life(started, train_p3, tmp_path):
    process, terminal = started
    time.sleep(1.5)  # the line within the epoch is refreshed twice a second
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1].startswith("interrupted: the same command with --resume continues")
    shown = os.read(terminal, 10 ** 6).decode()
    assert re.search(r"step \d+/100000  left \d+m\d\ds  class_loss [\d.]+ .*\033\[K", shown)
    assert re.search(r"epoch 1/1000  class_loss [\d.]+ .*\r\n", shown)
    assert len(torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["rows"]) >= 1


@pytest.mark.parametrize("train, options", [TRAININGS[name] for name in ("p1", "p2", "p3", "p4")])
def test_command_lines(train, options, tiny, tmp_path):
    """train.py and inference.py in processes of their own, from another folder."""
    process = run(sys.executable, train.__file__, *tiny, *options, "--out-dir", "a run", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()  # not a terminal: a line an epoch
    assert len(lines) == (6 if train is p1 else 3) and lines[-1] == "wrote a run/model.pth"
    assert json.loads((tmp_path / "a run" / "config.json").read_text())["epochs"] == 2
    inference = Path(train.__file__).with_name("inference.py")
    if train in (p1, p2):
        outputs = ["--output", "new/grid.jpg"]
    else:
        outputs = ["--img-dir", tiny[1] + "/digits/mnistm/test", "--target", "mnistm", "--output", "new/pred.csv"]
    process = run(sys.executable, inference, *outputs, "--weights", "a run/model.pth", cwd=tmp_path)
    assert process.returncode == 0 and process.stdout == process.stderr == "", process.stderr
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_weights_that_do_not_load(tmp_path):
    """Damaged or of another program: one line. Of another network: the file, then torch's list of what differs."""
    path = tmp_path / "model.pth"
    torch.save({"model": {}, "config": os.system}, tmp_path / "pickled.pth")
    torch.save([1, 2], tmp_path / "other.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("pickled", "other", "empty"):
        with pytest.raises(SystemExit, match=f"{name}.pth is damaged or no weights file"):
            load_weights(tmp_path / f"{name}.pth")
    with pytest.raises(SystemExit, match="weights not found"):
        load_weights(path)
    save_weights(path, {"weight": torch.ones(2, 2), "steps": torch.tensor(7)}, {"width": 2})
    state, config = load_weights(path)
    assert config == {"width": 2} and state["steps"] == 7 and state["weight"].dtype == torch.float32
    with pytest.raises(SystemExit, match=r"(?s)model.pth does not fit this network: .*bias"):
        load_model(path, lambda config: torch.nn.Linear(2, 2))
    with pytest.raises(SystemExit, match="model.pth does not fit this network: 'latent_dim'"):
        load_model(path, lambda config: config["latent_dim"])
