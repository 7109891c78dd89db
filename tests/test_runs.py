"""A training run and its folder when something goes wrong, and the scripts that start many runs."""
import contextlib
import errno
import fcntl
import os
import pty
import re
import resource
import signal
import subprocess
import sys

import common
from common.runtime import Run
from p1_vae import train as p1
from p2_gan import train as p2
from p3_dann import train as p3
from p4_uda import train as p4
from report import run_digits, run_faces, runs

import pytest
import torch
from conftest import one_line_error, run_main, wait_for

DIGITS = ["--source", "usps", "--target", "mnistm", "--steps", "3"]
TRAININGS = {"p1": (p1, ["--flow-epochs", "2"]), "p2": (p2, []),
             "p3": (p3, [*DIGITS, "--mode", "dann"]), "p4": (p4, DIGITS)}
every_training = pytest.mark.parametrize("train, options", TRAININGS.values(), ids=TRAININGS)


@pytest.fixture
def arguments(data_dir, tmp_path):
    return ["--data-dir", data_dir, "--out-dir", tmp_path / "run", "--width", 2, "--batch-size", 8, "--device", "cpu"]


@pytest.fixture
def train_p3(arguments, monkeypatch):
    """A function that runs one epoch of problem 3, with more options."""
    return lambda *more: run_main(p3, monkeypatch, *arguments, *TRAININGS["p3"][1], "--epochs", 1, *more)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@every_training
def test_a_diverged_training_stops(train, options, arguments, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"epoch 1: the training has diverged \(.*nan.*\): use a smaller --lr"):
        run_main(train, monkeypatch, *arguments, *options, "--epochs", 2, "--lr", 1e30)
    assert not {"model.pth", "checkpoint.pt", "log.csv"} & set(os.listdir(tmp_path / "run"))


def test_the_last_good_epoch_stays(train_p3, tmp_path, monkeypatch):
    monkeypatch.setattr(p3, "learning_rate", lambda step, steps, peak: peak if step < 3 else 1e30)
    with pytest.raises(SystemExit, match="epoch 2: the training has diverged"):
        train_p3("--epochs", 3)
    assert len(torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["rows"]) == 1
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2
    assert not (tmp_path / "run" / "model.pth").exists()


def test_weights_too_large_for_the_file(train_p3, tmp_path):
    with pytest.raises(SystemExit, match="the weights are too large"):
        train_p3("--steps", 1, "--lr", 1e9)  # the only loss is that of the first weights
    assert not (tmp_path / "run" / "model.pth").exists()


@every_training
@pytest.mark.parametrize("option, value, message", [
    ("--seed", 2 ** 64, "is too large: 18446744073709551615 or less"),
    ("--seed", -1, "is too small: 0 or more"),
    ("--lr", -1, "is too small: 0 or more"),
    ("--lr", "nan", "is too small: 0 or more"),
])
def test_numbers_out_of_range(train, options, option, value, message, arguments, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_main(train, monkeypatch, *arguments, *options, option, value)
    assert f"argument {option}: {value} {message}" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("absent", ["", "model.pth", "checkpoint.pt"])
def test_a_new_run_keeps_out_of_the_folder_of_another(absent, train_p3, tmp_path):
    train_p3("--seed", 2 ** 64 - 1)
    if absent:
        (tmp_path / "run" / absent).unlink()
    before = contents(tmp_path / "run")
    with pytest.raises(SystemExit, match="holds a run already"):
        train_p3("--lr", 0.5)
    assert contents(tmp_path / "run") == before


def test_resume_of_a_finished_run_writes_its_model_again(train_p3, tmp_path):
    train_p3()
    model = (tmp_path / "run" / "model.pth").read_bytes()
    (tmp_path / "run" / "model.pth").unlink()
    train_p3("--resume")
    assert (tmp_path / "run" / "model.pth").read_bytes() == model


def test_two_runs_at_once(train_p3, tmp_path):
    first = Run(str(tmp_path / "run"), {"epochs": 1}, False, {})
    before = contents(tmp_path / "run")
    with pytest.raises(SystemExit, match="is in use by another run"):
        train_p3()
    assert contents(tmp_path / "run") == before
    os.close(first.folder)  # as the end of its process does
    train_p3()


def test_a_file_system_without_locks(train_p3, tmp_path, monkeypatch):
    def flock(folder, operation):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(fcntl, "flock", flock)
    train_p3()
    assert (tmp_path / "run" / "model.pth").exists()


@pytest.mark.parametrize("content", [{"a": 1}, [1], "text", {"config": 1}, b"", b"no checkpoint", "other parts"],
                         ids=repr)
def test_resume_of_a_foreign_checkpoint(content, train_p3, tmp_path):
    path = tmp_path / "run" / "checkpoint.pt"
    path.parent.mkdir()
    if content == "other parts":
        train_p3()
        content = torch.load(path, weights_only=True) | {"parts": {"net": {}}}
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    before = path.read_bytes()
    with pytest.raises(SystemExit, match="is damaged or of another program"):
        train_p3("--resume")
    assert path.read_bytes() == before


def test_a_net_too_large_for_the_memory(arguments):
    limit = 12 * 2 ** 30
    command = [sys.executable, p3.__file__, *map(str, arguments), *TRAININGS["p3"][1], "--width", "100000"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert one_line_error(process).startswith("error: not enough memory")


def test_other_errors_that_name_the_memory_are_shown_whole(capsys):
    common.one_line(RuntimeError, RuntimeError("CUDA error: an illegal memory access was encountered"), None)
    assert capsys.readouterr().err == "RuntimeError: CUDA error: an illegal memory access was encountered\n"


def test_nobody_reads_the_output(arguments, tmp_path):
    """As with `| head -1`."""
    command = [sys.executable, p3.__file__, *map(str, arguments), *TRAININGS["p3"][1], "--epochs", "20"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith(b"epoch 1/20")
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 0
    assert (tmp_path / "run" / "model.pth").exists()


def test_no_output_at_all(train_p3, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as with >&-
    train_p3()
    assert (tmp_path / "run" / "model.pth").exists()


def test_a_terminal_shows_one_line_that_is_refreshed(train_p3, monkeypatch):
    terminal, other_end = pty.openpty()
    monkeypatch.setenv("COLUMNS", "60")
    with open(other_end, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        train_p3("--epochs", 3)
    shown = b""
    with contextlib.suppress(OSError):  # at the end of what was written
        while True:
            shown += os.read(terminal, 10000)
    os.close(terminal)
    lines = shown.decode().split("\r\n")
    assert [line.startswith("\033[A") for line in lines] == [False, True, True, False, False]
    assert all(f"epoch {i}/3" in line for i, line in enumerate(lines[:3], 1))
    assert all(len(line) <= len("\033[A") + 59 + len("\033[K") for line in lines[:2]) and "seconds" in lines[2]


def test_a_terminal_of_another_encoding(tmp_path, monkeypatch):
    with open(tmp_path / "terminal", "w", encoding="ascii") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        run_digits.print_table("p3")
    assert "usps ? mnistm" in (tmp_path / "terminal").read_text()


@pytest.fixture
def stopped_while_loading(make_data, tmp_path):
    """A function that starts `python3 ARGUMENTS`, presses Ctrl-C while the first image is read, and gives stderr."""
    data = make_data(tmp_path / "data")
    image = os.path.join(data, "digits", "usps", "train", "00000.png")
    os.remove(image)
    os.mkfifo(image)  # whoever reads it waits for what is never written
    writers = []

    def is_read():
        with contextlib.suppress(OSError):
            writers.append(os.open(image, os.O_WRONLY | os.O_NONBLOCK))
        return writers
    yield lambda *arguments: press_ctrl_c([*arguments, "--data-dir", data], is_read)
    for writer in writers:
        os.close(writer)


def press_ctrl_c(command, condition):
    """The standard error of `python3 COMMAND` after Ctrl-C in the moment when `condition` is met."""
    with subprocess.Popen([sys.executable, *map(str, command)], start_new_session=True, stderr=subprocess.PIPE,
                          stdout=subprocess.DEVNULL, text=True) as process:
        try:
            wait_for(condition)
            os.killpg(process.pid, signal.SIGINT)
            return process.communicate(timeout=60)[1]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_while_images_are_loaded(stopped_while_loading, tmp_path):
    assert stopped_while_loading(p3.__file__, *TRAININGS["p3"][1], "--out-dir", tmp_path / "run") == "interrupted\n"
    assert not (tmp_path / "run").exists()


def test_ctrl_c_in_a_training(arguments, tmp_path):
    line = press_ctrl_c([p3.__file__, *arguments, *TRAININGS["p3"][1], "--epochs", "10000"],
                        (tmp_path / "run" / "log.csv").exists)
    assert re.fullmatch("interrupted: the same command with --resume continues after epoch \\d+\n", line)


def test_ctrl_c_in_a_script_that_starts_runs(stopped_while_loading, tmp_path):
    line = stopped_while_loading(run_digits.__file__, "p3", "--runs-dir", tmp_path / "runs")
    assert line == "interrupted: the same command continues\n"


def test_a_failed_run_ends_the_script_with_its_own_line(make_data, tmp_path, python):
    data = make_data(tmp_path / "data")
    os.remove(os.path.join(data, "digits", "usps", "train.csv"))
    process = python(run_digits.__file__, "p3", "--data-dir", data, "--runs-dir", tmp_path / "runs")
    assert process.returncode == 1 and one_line_error(process).startswith("cannot read")


@pytest.mark.parametrize("code, status", [
    ("raise SystemExit(3)", "3"),
    ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
])
def test_the_status_of_a_failed_run(code, status):
    with pytest.raises(SystemExit, match=status):
        runs.run("-c", code)


@pytest.mark.parametrize("script, table, remove, message", [
    (run_digits, "p3", "digits/svhn/test.csv", "which the scores need"),
    (run_faces, "p1", None, "has 40 images; the distance needs 10000"),
])
def test_what_the_scores_need_is_checked_first(script, table, remove, message, make_data, tmp_path, monkeypatch):
    data = make_data(tmp_path / "data")
    if remove:
        os.remove(os.path.join(data, remove))
    with pytest.raises(SystemExit, match=message):
        run_main(script, monkeypatch, table, "--data-dir", data, "--runs-dir", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
