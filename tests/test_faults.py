"""What goes wrong outside the program: killed, disk full, two at once, no right to write, another locale. README has the table."""
import ast
import functools
import glob
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image

from common import runtime
from conftest import PATH, ROOT, bash, one_line_error, wait_for

WEIGHTS = "p3_dann/weights/usps_mnistm.pth"


@pytest.fixture
def start():
    """Start a command in a process group of its own; whatever it left is killed after the test."""
    started = []

    def run(*command, **options):
        started.append(subprocess.Popen([*map(str, command)], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options))
        return started[-1]
    yield run
    for process in started:
        kill(process)


def kill(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


@functools.cache
def training(data_dir):
    return [os.path.join(ROOT, "p3_dann", "train.py"), "--data-dir", data_dir, "--source", "usps", "--target", "mnistm", "--mode", "dann",
            "--width", "2", "--epochs", "3", "--steps", "100", "--batch-size", "8", "--device", "cpu"]


def test_killed_in_an_epoch(data_dir, tmp_path, start, python):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert python(*training(data_dir), "--out-dir", whole).returncode == 0
    process = start(sys.executable, *training(data_dir), "--out-dir", halves)
    wait_for(lambda: (halves / "log.csv").exists())
    kill(process)
    assert not (halves / "model.pth").exists()
    assert python(*training(data_dir), "--out-dir", halves, "--resume").returncode == 0
    a, b = (torch.load(folder / "model.pth", weights_only=True)["model"] for folder in (whole, halves))
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_killed_in_the_write_of_a_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save("the last whole one", path)

    def write_half(part):
        with open(part, "wb") as file:
            file.write(b"half of")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    process = multiprocessing.get_context("fork").Process(target=runtime.write_atomic, args=(str(path), write_half))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert torch.load(path, weights_only=True) == "the last whole one"


def test_killed_in_a_download_of_weights(test_images, tmp_path, clone, server, start):
    folder, address, _ = server
    repository = clone()
    shutil.move(repository / WEIGHTS, tmp_path / "weights.pth")
    (folder / WEIGHTS).parent.mkdir(parents=True)
    os.mkfifo(folder / WEIGHTS)  # a server that is asked and never answers
    command = ["bash", repository / "hw3_p3.sh", test_images, "mnistm", tmp_path / "o.csv"]
    environment = {**os.environ, "PATH": PATH, "HW3_WEIGHTS_URL": address}
    process = start(*command, env=environment)
    wait_for(lambda: subprocess.run(["pgrep", "-g", str(process.pid), "wget"], capture_output=True).returncode == 0)
    kill(process)
    assert not (repository / WEIGHTS).exists() and not (tmp_path / "o.csv").exists()
    (folder / WEIGHTS).unlink()
    shutil.copy(tmp_path / "weights.pth", folder / WEIGHTS)
    assert bash(*command[1:], env={"HW3_WEIGHTS_URL": address}).returncode == 0
    assert (repository / WEIGHTS).read_bytes() == (tmp_path / "weights.pth").read_bytes()


def test_disk_full_in_training(data_dir, small_disk, python):
    """The second checkpoint does not fit beside the first: one line, and the first is whole."""
    disk = small_disk(100)
    process = python(*training(data_dir), "--out-dir", disk / "run")
    assert "No space left" in one_line_error(process) or "cannot write" in one_line_error(process)
    left = os.listdir(disk / "run")
    assert not [name for name in left if name.endswith(".part")] and "model.pth" not in left
    if "checkpoint.pt" in left:
        torch.load(disk / "run" / "checkpoint.pt", weights_only=True)


def test_disk_full_in_a_wrapper(test_images, small_disk):
    disk = small_disk(4)
    (disk / "filler").write_bytes(b"0" * 4096)
    process = bash(os.path.join(ROOT, "hw3_p3.sh"), test_images, "mnistm", disk / "o.csv")
    assert "cannot write" in one_line_error(process) and os.listdir(disk) == ["filler"]


def test_two_wrappers_at_once_without_weights(test_images, tmp_path, clone, server):
    folder, address, _ = server
    repository = clone()
    (folder / WEIGHTS).parent.mkdir(parents=True)
    shutil.move(repository / WEIGHTS, folder / WEIGHTS)
    environment = {**os.environ, "PATH": PATH, "HW3_WEIGHTS_URL": address}
    both = [subprocess.Popen(["bash", repository / "hw3_p3.sh", test_images, "mnistm", tmp_path / f"{i}.csv"], env=environment) for i in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "0.csv").read_text() == (tmp_path / "1.csv").read_text()
    assert (repository / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    assert not glob.glob(str(repository / "**" / "*.part"), recursive=True)


def test_a_clone_that_cannot_be_written(test_images, tmp_path, clone):
    repository, view = clone(), tmp_path / "read-only clone"
    view.mkdir()
    if subprocess.run(["mount", "--bind", repository, view], capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", view], check=True)
        assert bash(view / "hw3_p1.sh", tmp_path / "o.png").returncode == 0
        assert bash(view / "hw3_p3.sh", test_images, "mnistm", tmp_path / "o.csv").returncode == 0
    finally:
        subprocess.run(["umount", view], check=True)


def test_locale_c(test_images, tmp_path):
    locale = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for i, environment in enumerate(({}, locale)):
        assert bash(os.path.join(ROOT, "hw3_p3.sh"), test_images, "mnistm", tmp_path / f"é {i}.csv", env=environment).returncode == 0
    assert (tmp_path / "é 0.csv").read_bytes() == (tmp_path / "é 1.csv").read_bytes()


@pytest.mark.parametrize("problem, figure", [("p1", "fig1_4"), ("p2", "fig2_2")])
def test_one_thread_gives_the_committed_pictures(problem, figure, tmp_path):
    assert bash(os.path.join(ROOT, f"hw3_{problem}.sh"), tmp_path / "o.png", env={"OMP_NUM_THREADS": "1"}).returncode == 0
    with Image.open(tmp_path / "o.png") as picture, Image.open(os.path.join(ROOT, "report", "figures", f"{figure}.png")) as committed:
        assert picture.tobytes() == committed.tobytes()


@pytest.mark.parametrize("path", glob.glob(os.path.join(ROOT, "*", "*.py")), ids=lambda path: os.path.relpath(path, ROOT))
def test_the_code_is_python_3_10s(path):
    with open(path, encoding="utf-8") as file:
        ast.parse(file.read(), feature_version=(3, 10))
