"""What goes wrong outside the program: killed, disk full, two at once, no right to write. README has the table."""
import ast
import functools
import glob
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys

from common import files

import pytest
import torch
from conftest import PATH, ROOT, bash, one_line_error, wait_for
from PIL import Image

WEIGHTS = "p3_dann/weights/usps_mnistm.pth"


@pytest.fixture
def start():
    """Start a command in a process group of its own; whatever it left is killed after the test."""
    started = []

    def run(*command, **options):
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        started.append(subprocess.Popen([*map(str, command)], start_new_session=True, **options))
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
    return [os.path.join(ROOT, "p3_dann", "train.py"), "--data-dir", data_dir, "--source", "usps", "--target", "mnistm",
            "--mode", "dann", "--width", "2", "--epochs", "3", "--steps", "100", "--batch-size", "8", "--device", "cpu"]


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

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the kernel kills the process at the 1,001st byte
        files.write_atomic(str(path), lambda file: torch.save(torch.zeros(10 ** 5), file))
    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGXFSZ
    assert torch.load(path, weights_only=True) == "the last whole one"


def maps(pid):
    """The libraries that a process has loaded."""
    with open(f"/proc/{pid}/maps") as file:
        return file.read()


def waits_for_a_download(process):
    wget, install = (subprocess.run(["pgrep", "-g", str(process.pid), "-f", pattern], capture_output=True, text=True)
                     for pattern in ("^wget", "weights.py install"))
    return wget.stdout and install.stdout and "_hashlib" in maps(install.stdout.split()[0])


def imports_torch(process):
    return "libtorch" in maps(process.pid)


def test_killed_in_a_download_of_weights(test_images, tmp_path, clone, server, start):
    folder, address, _ = server
    repository = clone()
    shutil.move(repository / WEIGHTS, tmp_path / "weights.pth")
    (folder / WEIGHTS).parent.mkdir(parents=True)
    os.mkfifo(folder / WEIGHTS)  # a server that is asked and never answers
    command = ["bash", repository / "hw3_p3.sh", test_images, "mnistm", tmp_path / "o.csv"]
    environment = {**os.environ, "PATH": PATH, "HW3_WEIGHTS_URL": address}
    process = start(*command, env=environment)
    wait_for(lambda: waits_for_a_download(process))
    kill(process)
    assert not (repository / WEIGHTS).exists() and not (tmp_path / "o.csv").exists()
    (folder / WEIGHTS).unlink()
    shutil.copy(tmp_path / "weights.pth", folder / WEIGHTS)
    assert bash(*command[1:], env={"HW3_WEIGHTS_URL": address}).returncode == 0
    assert (repository / WEIGHTS).read_bytes() == (tmp_path / "weights.pth").read_bytes()


@pytest.mark.parametrize("moment", [waits_for_a_download, imports_torch])
def test_ctrl_c_of_a_wrapper(moment, test_images, tmp_path, clone, server, start):
    folder, address, _ = server
    repository = clone()
    if moment == waits_for_a_download:
        (repository / WEIGHTS).unlink()
        (folder / WEIGHTS).parent.mkdir(parents=True)
        os.mkfifo(folder / WEIGHTS)
    process = start("bash", repository / "hw3_p3.sh", test_images, "mnistm", tmp_path / "o.csv", text=True,
                    env={**os.environ, "PATH": PATH, "HW3_WEIGHTS_URL": address}, stderr=subprocess.PIPE,
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    wait_for(lambda: moment(process))
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "interrupted\n" and process.returncode != 0
    assert not (tmp_path / "o.csv").exists()


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
    both = [subprocess.Popen(["bash", repository / "hw3_p3.sh", test_images, "mnistm", tmp_path / f"{i}.csv"],
                             env=environment) for i in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "0.csv").read_text() == (tmp_path / "1.csv").read_text()
    assert (repository / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    assert not glob.glob(str(repository / "**" / "*.part"), recursive=True)


def test_a_clone_that_cannot_be_written(test_images, tmp_path, clone, server, monkeypatch, python):
    folder, address, asked = server
    repository, view = clone(), tmp_path / "read-only clone"
    (folder / WEIGHTS).parent.mkdir(parents=True)
    shutil.move(repository / WEIGHTS, folder / WEIGHTS)  # downloaded to the temporary folder
    view.mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    if subprocess.run(["mount", "--bind", repository, view], capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", view], check=True)
        assert bash(view / "hw3_p1.sh", tmp_path / "o.png").returncode == 0
        process = bash(view / "hw3_p3.sh", test_images, "mnistm", tmp_path / "o.csv", env={"HW3_WEIGHTS_URL": address})
        assert process.returncode == 0 and asked == [f"/{WEIGHTS}"]
        assert python(view / "common" / "weights.py", "url", view / WEIGHTS).stdout == ""  # no second download
    finally:
        subprocess.run(["umount", view], check=True)


def test_no_temporary_folder(tmp_path):
    """Whole weights need none: all is read-only but the folder of the output."""
    read_only = """mount --make-rprivate / && mount --bind / / && mount -o remount,ro,bind / && cd / &&
                   mount -t tmpfs none "$1" && test -e "$0" || exit 77
                   bash "$0" "$1/o.png" && test -s "$1/o.png" """
    process = subprocess.run(["unshare", "-m", "bash", "-c", read_only, os.path.join(ROOT, "hw3_p1.sh"), tmp_path],
                             env={**os.environ, "PATH": PATH}, capture_output=True, text=True, timeout=300)
    if process.returncode == 77 or "unshare" in process.stderr:
        pytest.skip("no right to mount")
    assert process.returncode == 0 and process.stderr == ""


def test_locale_c(test_images, tmp_path):
    locale = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for i, environment in enumerate(({}, locale)):
        output = tmp_path / f"é {i}.csv"
        assert bash(os.path.join(ROOT, "hw3_p3.sh"), test_images, "mnistm", output, env=environment).returncode == 0
    assert (tmp_path / "é 0.csv").read_bytes() == (tmp_path / "é 1.csv").read_bytes()


@pytest.mark.parametrize("problem, figure", [("p1", "fig1_4"), ("p2", "fig2_2")])
def test_one_thread_gives_the_committed_pictures(problem, figure, tmp_path):
    wrapper, figure = os.path.join(ROOT, f"hw3_{problem}.sh"), os.path.join(ROOT, "report", "figures", f"{figure}.png")
    assert bash(wrapper, tmp_path / "o.png", env={"OMP_NUM_THREADS": "1"}).returncode == 0
    with Image.open(tmp_path / "o.png") as picture, Image.open(figure) as committed:
        assert picture.tobytes() == committed.tobytes()


@pytest.mark.parametrize("path", glob.glob(os.path.join(ROOT, "*", "*.py")),
                         ids=lambda path: os.path.relpath(path, ROOT))
def test_the_code_is_python_3_10s(path):
    with open(path, encoding="utf-8") as file:
        ast.parse(file.read(), feature_version=(3, 10))
