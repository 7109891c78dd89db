import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from common.runtime import write_csv


@pytest.fixture(scope="session")
def make_data():
    """A function that writes a tiny data set in the course's layout: ten kinds of stripes stand for the digits."""
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


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A function that gives a fresh copy of the repository, under a name with a space and a letter outside ASCII."""
    def make():
        copy = tmp_path_factory.mktemp("clones") / "my café clone"
        ignored = shutil.ignore_patterns(".git", ".venv", ".ci-venv", "hw3_data", "sample_data", "runs", "shared", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=ignored)
        return copy
    return make
