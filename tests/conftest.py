import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: with such small networks a second thread only waits
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.files import write_csv

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
PATH = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]  # python3 is the one that runs the tests


@pytest.fixture(scope="session")
def make_data():
    """A function that writes a tiny data set in the course's layout: stripes stand for digits, discs for faces."""
    def make(root, train=40, test=20):
        rng = np.random.RandomState(0)
        for domain, channels in (("usps", 1), ("mnistm", 3), ("svhn", 3)):
            for split, count in (("train", train), ("test", test)):
                folder = os.path.join(root, "digits", domain, split)
                os.makedirs(folder)
                labels = np.arange(count) % 10
                for i, label in enumerate(labels):
                    stripes = 127 + 100 * np.sin(np.arange(28) * (label + 1) / 4)[:, None, None]
                    noisy = (stripes + rng.normal(0, 20, (28, 28, channels))).clip(0, 255).astype(np.uint8)
                    Image.fromarray(noisy.squeeze()).save(os.path.join(folder, f"{i:05d}.png"))
                write_csv(f"{folder}.csv", ("image_name", "label"), [(f"{i:05d}.png", y) for i, y in enumerate(labels)])
        rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
        disc = (rows ** 2 + columns ** 2 < 0.5)[:, :, None]
        for split, first, count in (("train", 0, train), ("test", 40000, 2 * test)):
            folder = os.path.join(root, "face", split)
            os.makedirs(folder)
            names, male = [f"{first + i:05d}.png" for i in range(count)], [float(i % 2) for i in range(count)]
            for name in names:
                picture = np.where(disc, rng.randint(100, 200, 3), 40) + rng.randint(0, 20, (64, 64, 3))
                Image.fromarray(picture.astype(np.uint8)).save(os.path.join(folder, name))
            write_csv(f"{folder}.csv", ("image_name", "Male", "Smiling"), zip(names, male, male[::-1]))
        return str(root)
    return make


@pytest.fixture(scope="session")
def data_dir(make_data, tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def python():
    """Run `python3 ARGUMENTS` as a user would, from any folder; returns the finished process."""
    def run(*arguments, cwd=None, env=None):
        return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
                              env={**os.environ, **(env or {})}, timeout=300)
    return run


def bash(script, *arguments, cwd=None, env=None):
    return subprocess.run(["bash", str(script), *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, "PATH": PATH, **(env or {})}, timeout=300)


@pytest.fixture(scope="session")
def tiny_run():
    """The options that make a training run take a second: tiny net, two epochs of three steps."""
    return ["--width", "2", "--epochs", "2", "--steps", "3", "--batch-size", "8", "--device", "cpu"]


def one_line_error(process):
    """Bad input ends with a status that is not 0 and one line on standard error, never a traceback."""
    assert process.returncode != 0
    assert "Traceback" not in process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1, process.stderr
    return lines[0]


def run_main(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, arguments)])
    module.main()


def one_line_exit(main, capsys, *arguments):
    """As one_line_error, of a main function in this process, which saves the import of torch."""
    with pytest.raises(SystemExit) as error:
        main(*arguments)
    assert isinstance(error.value.code, str) and capsys.readouterr().err == ""  # Python prints it, with status 1
    assert len(error.value.code.strip().splitlines()) == 1
    return error.value.code


def assert_resume_is_bit_for_bit(train, arguments, tmp_path, monkeypatch, after=1):
    """A run that is interrupted after some epochs and resumed has the weights, optimizer and log of one that is not."""
    run_main(train, monkeypatch, *arguments, "--out-dir", tmp_path / "whole")

    end_epoch, ended = train.Run.end_epoch, []
    with monkeypatch.context() as patch:
        def end_and_interrupt(self, row):
            end_epoch(self, row)
            ended.append(self)
            if len(ended) == after:
                for run in set(ended):
                    os.close(run.folder)  # as the end of the process does
                raise KeyboardInterrupt
        patch.setattr(train.Run, "end_epoch", end_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_main(train, patch, *arguments, "--out-dir", tmp_path / "halves")
    assert not (tmp_path / "halves" / "model.pth").exists()
    torch.rand(7)  # whatever else drew random numbers meanwhile
    run_main(train, monkeypatch, *arguments, "--out-dir", tmp_path / "halves", "--resume")

    whole, halves = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "halves"))
    torch.testing.assert_close(whole["parts"], halves["parts"], rtol=0, atol=0, equal_nan=True)
    untimed = [[{k: v for k, v in row.items() if "second" not in k} for row in saved["rows"]]
               for saved in (whole, halves)]
    assert untimed[0] == untimed[1]
    assert (tmp_path / "whole" / "model.pth").read_bytes() == (tmp_path / "halves" / "model.pth").read_bytes()


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A function that gives a fresh copy of the repository, under a name with a space and a letter outside ASCII."""
    def make():
        copy = tmp_path_factory.mktemp("clones") / "my café clone"
        ignored = shutil.ignore_patterns(".git", ".venv", "hw3_data", "sample_data", "runs", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=ignored)
        return copy
    return make


@pytest.fixture
def tools(tmp_path):
    """A function that gives a PATH on which only these programs are."""
    def make(*names):
        folder = tmp_path / "tools"
        folder.mkdir()
        for name in names:
            (folder / name).symlink_to(shutil.which(name, path=PATH))
        return str(folder)
    return make


@pytest.fixture
def test_images(tmp_path):
    folder = tmp_path / "tëst images"
    folder.mkdir()
    for i in range(5):
        Image.new("RGB", (28, 28), (50 * i, 100, 20)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def server(tmp_path):
    """An HTTP server on the loopback; gives the folder that it serves, its address and the paths asked for."""
    folder, asked = tmp_path / "web", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}", asked
        httpd.shutdown()


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a disk of some KiB; skips where that is not allowed."""
    mounted = []

    def make(kib):
        folder = tmp_path / f"disk {len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", folder]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no right to mount a small disk")
        mounted.append(folder)
        return folder
    yield make
    for folder in mounted:
        subprocess.run(["umount", folder])


def wait_for(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end
        time.sleep(0.01)
