"""Training runs, inference and pictures of problems 1 and 2: what holds for both."""
import csv
import os

from common.augment import flip_half
from common.pictures import draw_latents, grid, to_pixels
from p1_vae import inference as p1_inference
from p1_vae import train as p1
from p2_gan import inference as p2_inference
from p2_gan import train as p2

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_resume_is_bit_for_bit, one_line_exit, run_main
from PIL import Image

TINY = ["--width", "2", "--epochs", "2", "--batch-size", "8", "--device", "cpu"]
RUNS = {"p1": (p1, ["--latent-dim", "8", "--flow-epochs", "2"]),
        "p2 residual": (p2, []), "p2 dcgan": (p2, ["--model", "dcgan", "--augment"])}
every_run = pytest.mark.parametrize("train, options", RUNS.values(), ids=RUNS)
both = pytest.mark.parametrize("train", [p1, p2], ids=["p1", "p2"])
FIGURES = {p1: "fig1_4", p2: "fig2_2"}
DIGIT_NET = os.path.join(ROOT, "p3_dann", "weights", "usps_mnistm.pth")


def inference_of(train):
    return os.path.join(os.path.dirname(train.__file__), "inference.py")


def figure_of(train):
    return np.asarray(Image.open(os.path.join(ROOT, "report", "figures", f"{FIGURES[train]}.png")))


@every_run
def test_command_lines(train, options, data_dir, tmp_path, python):
    """train.py and inference.py, from another folder, as the student calls them."""
    process = python(train.__file__, "--data-dir", data_dir, "--out-dir", "a run", *TINY, *options, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("\n") == {p1: 6, p2: 3}[train]  # in a file: a line an epoch and the last one
    with open(tmp_path / "a run" / "log.csv", newline="") as file:
        log = list(csv.DictReader(file))
    assert [row["step"] for row in log] == ["5", "10"]
    for options in (["--output", "grid.png"], ["--num-images", "3", "--output-dir", "s"]):
        process = python(inference_of(train), *options, "--weights", "a run/model.pth", cwd=tmp_path)
        assert process.returncode == 0, process.stderr
    assert Image.open(tmp_path / "grid.png").size == (530, 266)
    assert sorted(os.listdir(tmp_path / "s")) == ["00000.png", "00001.png", "00002.png"]


@every_run
def test_resume_equals_an_uninterrupted_run_bit_for_bit(train, options, data_dir, tmp_path, monkeypatch):
    assert_resume_is_bit_for_bit(train, ["--data-dir", data_dir, *TINY, *options], tmp_path, monkeypatch)


@both
@pytest.mark.parametrize("change, message", [
    (["--resume"], "there is no"),
    (["--data-dir", "nowhere"], "nowhere"),
    (["--batch-size", "41"], "less than one batch"),
])
def test_bad_training_input(train, change, message, data_dir, tmp_path, monkeypatch, capsys):
    assert message in one_line_exit(run_main, capsys, train, monkeypatch, "--data-dir", data_dir, *TINY,
                                    "--out-dir", tmp_path / "run", *change)
    assert not (tmp_path / "run").exists()


@both
def test_committed_figure_is_what_the_command_writes(train, python, tmp_path):
    for options, environment in (([], None), (["--device", "cpu"], {"OMP_NUM_THREADS": "2"})):
        process = python(inference_of(train), "--output", "new/a.png", *options, cwd=tmp_path, env=environment)
        assert process.returncode == 0, process.stderr
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), figure_of(train))


@both
def test_samples_begin_with_the_grids_faces(train, python, tmp_path):
    process = python(inference_of(train), "--num-images", 3, "--output-dir", "s", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert sorted(os.listdir(tmp_path / "s")) == ["00000.png", "00001.png", "00002.png"]
    first = np.asarray(Image.open(tmp_path / "s" / "00000.png")).astype(int)
    assert abs(first - figure_of(train)[2:66, 2:66]).max() <= 2  # float32 here, float64 there


@both
@pytest.mark.parametrize("options, message", [
    (["--output", "a.gif"], "must end in .png or .jpg"),
    (["--output", "."], "must end in"),
    (["--output", "a file/b.png"], "cannot make the folder"),
    (["--output", "b.png", "--weights", "absent.pth"], "weights not found"),
    (["--output", "b.png", "--weights", DIGIT_NET], "not a model of problem"),
])
def test_bad_inference_input(train, options, message, monkeypatch, capsys, tmp_path):
    (tmp_path / "a file").write_text("kept")
    monkeypatch.chdir(tmp_path)
    inference = {p1: p1_inference, p2: p2_inference}[train]
    assert message in one_line_exit(run_main, capsys, inference, monkeypatch, *options)
    assert os.listdir(tmp_path) == ["a file"]


def test_latents_are_the_frozen_stream():
    z = draw_latents(32, 512)
    assert z.dtype == torch.float64 and z.shape == (32, 512)
    assert z[0, :3].tolist() == [1.764052345967664, 0.4001572083672233, 0.9787379841057392]  # NumPy's legacy seed 0
    assert torch.equal(draw_latents(5, 512), z[:5])


def test_grid_layout():
    pixels = np.arange(32, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 3), np.uint8)
    picture = grid(pixels)
    assert picture.shape == (266, 530, 3)
    assert picture[2, 2, 0] == 0 and picture[2, 68, 0] == 1 and picture[68, 2, 0] == 8 and picture[263, 527, 0] == 31
    assert (picture[:2] == 255).all() and (picture[:, 66:68] == 255).all() and (picture[-2:] == 255).all()


def test_pixels_are_rounded_and_clipped():
    values = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.2]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_pixels(values)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_about_half_of_the_faces_are_mirrored():
    x = torch.arange(2000 * 4).view(2000, 1, 1, 4)
    y = flip_half(x)
    mirrored = (y == x.flip(3)).all(3)
    assert ((y == x).all(3) | mirrored).all() and 0.45 < mirrored.float().mean() < 0.55
