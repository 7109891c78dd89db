import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: with such small networks a second thread only waits
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
import pandas
import pytest
from PIL import Image

from common import training
from common.prepare_data import write_digits, write_split

ROOT = Path(__file__).resolve().parents[1]


def make_data(root, count=40, seed=0):
    """Write a tiny data set in the course's layout: stripes stand for digits, discs for faces."""
    rng = np.random.RandomState(seed)
    labels = np.arange(count) % 10
    stripes = np.sin(np.arange(28) * (labels[:, None] + 1) / 4)[:, :, None, None]
    rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
    disc = (rows ** 2 + columns ** 2 < 0.5)[:, :, None]
    for split in ("train", "test"):
        for domain in ("usps", "mnistm", "svhn"):
            digits = 127 + 100 * stripes + rng.normal(0, 20, (count, 28, 28, 3))
            write_digits(root / "digits" / domain / split, digits.clip(0, 255).astype(np.uint8), labels)
        faces = [np.where(disc, rng.randint(100, 200, 3), 40) + rng.randint(0, 20, (64, 64, 3)) for _ in labels]
        names = [f"{i:05d}.png" for i in range(count)]
        write_split(root / "face" / split, map(Image.fromarray, np.uint8(faces)),
                    pandas.DataFrame({"image_name": names, "Male": labels % 2, "Blond_Hair": labels // 5,
                                  "Smiling": labels % 3 // 2}))
    return root


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def float32(monkeypatch):
    """Also where the processor has bfloat16: what is compared differs by less than its rounding."""
    monkeypatch.setattr(training, "has_bf16", lambda device: False)


def run(*command, **options):
    """A command as a user types it, from any folder; python3 is the one that runs the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **options.pop("env", {})}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, timeout=300, **options)


def two_at_a_time(function, items):
    """The function's results for the items, in parallel: for what waits for other processes."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, items))


def error_line(process):
    """The one line on standard error of a process that ended with a status that is not 0."""
    assert process.returncode != 0
    line, = process.stderr.strip().splitlines()
    return line


@pytest.fixture
def clone(tmp_path):
    """A fresh copy of the repository, but for the report, under a name with a space and a letter outside ASCII."""
    folder = tmp_path / "my café clone"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv", "*data", "runs", "report", "tests"))
    return folder


@pytest.fixture
def server(tmp_path_factory):
    """An HTTP server on the loopback: the folder that it serves, and its address."""
    folder = tmp_path_factory.mktemp("web")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
