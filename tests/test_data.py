"""Folders of images and their labels: what is read, skipped or refused; predictions, pictures and outputs."""
import os

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from common.data import list_images, load_images, load_labelled, load_unlabelled, read_labels
from common.evaluate import accuracy
from common.files import replace_file, write_output
from common.pictures import save_picture
from common.predict import predict_folder

GREY = np.linspace(0, 255, 28 * 28).reshape(28, 28).astype(np.uint8)
COLOUR = np.dstack([GREY, 255 - GREY, GREY // 2])
PALETTE = Image.fromarray(COLOUR).quantize(16)


@pytest.mark.parametrize("name, picture, expected", [
    ("grey.png", GREY, np.dstack([GREY] * 3)), ("colour.bmp", COLOUR, COLOUR),
    ("palette.png", PALETTE, np.asarray(PALETTE.convert("RGB"))),
    ("black and white.png", GREY > 127, np.dstack([(GREY > 127) * 255] * 3)),
    ("alpha.png", np.dstack([0 * COLOUR, GREY]), np.dstack([255 - GREY] * 3)),
    ("grey alpha.png", np.dstack([0 * GREY, GREY]), np.dstack([255 - GREY] * 3)),
    ("larger.png", np.full((40, 100, 3), (10, 200, 30), np.uint8), np.full((28, 28, 3), (10, 200, 30))),
])
def test_images_become_rgb_with_transparency_on_white(name, picture, expected, tmp_path):
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(tmp_path / name)
    loaded, = load_images(tmp_path, [name])
    np.testing.assert_array_equal(loaded.permute(1, 2, 0), expected)


@pytest.mark.parametrize("name, content", [
    ("16 bits.png", GREY.astype(np.uint16) * 257), ("float.tif", GREY.astype(np.float32)), ("text.png", b"no image"),
    ("cut.png", (ROOT / "tests" / "golden" / "usps_0.png").read_bytes()[:200]), ("empty.png", b""),
])
def test_images_that_would_be_misread_are_named(name, content, tmp_path):
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit, match=f"cannot read the image .*{name}"):
        predict_folder(torch.nn.Identity(), tmp_path, tmp_path / "o.csv")
    assert not (tmp_path / "o.csv").exists()


def test_listing(tmp_path):
    for name in ("c.png", "b.JPG", ".hidden.png", "labels.csv", "10.png", "9.png", "Thumbs.db", "desktop.ini",
                 "report.pdf", "model.h5", "figure.eps"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert list_images(tmp_path) == ["10.png", "9.png", "b.JPG", "c.png"]
    for name, message in (("folder.png", "no images in folder"), ("absent", "cannot read the image folder .*absent: ")):
        with pytest.raises(SystemExit, match=message):
            list_images(tmp_path / name)


def test_labels_and_images_belong_together(data_dir, tmp_path):
    """Whatever the order of the rows."""
    images, labels = load_labelled(data_dir, "usps", "train", limit=13)
    assert images.shape == (13, 3, 28, 28) and labels.tolist() == [i % 10 for i in range(13)]
    assert torch.equal(load_unlabelled(data_dir, "usps", "train", limit=13), images)
    folder = tmp_path / "digits" / "usps"
    folder.mkdir(parents=True)
    (folder / "train").symlink_to(data_dir / "digits" / "usps" / "train")
    (folder / "train.csv").write_text("label,image_name\n2,00012.png\n0,00000.png\n")
    turned, labels = load_labelled(tmp_path, "usps", "train")
    assert torch.equal(turned, images[[12, 0]]) and labels.tolist() == [2, 0]
    (folder / "train.csv").write_text("label,image_name\n2,00012.png\n0,absent.png\n")
    with pytest.raises(SystemExit, match="train.csv names absent.png, but there is no image .*usps/train/absent"):
        load_labelled(tmp_path, "usps", "train")


@pytest.mark.parametrize("text, message", [
    ("name,label\n0.png,1\n", "image_name"), ("image_name,class\n0.png,1\n", "label"), ("", "cannot read"),
    ("image_name,label\n0.png,1\n1.png,10\n", "line 3: label '10' is not 0-9"),
    ("image_name,label\n0.png,1\n0.png,1\n0.png,2\n", "line 4: 0.png is named twice, with other labels"),
])
def test_bad_label_files(text, message, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(SystemExit, match=message) as error:
        read_labels(tmp_path / "t.csv")
    assert "t.csv" in str(error.value) and "\n" not in str(error.value)


def test_the_label_is_the_class_of_the_largest_logit_in_name_order(tmp_path):
    """Images whose brightest column is the 2nd, 5th ...; a network whose logits are the columns' brightness."""
    class Columns(torch.nn.Module):
        def forward(self, x):
            assert x.max() == pytest.approx(250 / 255)  # on [0, 1]
            return x.mean((1, 2))[:, :10]
    classes = {"a, b.png": 2, "é.png": 5, "9.png": 0, "10.png": 9, "\udca4@.png": 3}  # the last one is in Big5
    for name, label in classes.items():
        pixels = np.full((28, 28), 10, np.uint8)
        pixels[:, label] = 250
        with open(tmp_path / name, "wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    predict_folder(Columns(), tmp_path, tmp_path / "new" / "o.csv")
    rows = 'image_name,label\n10.png,9\n9.png,0\n"a, b.png",2\né.png,5\n'.encode() + b"\xa4@.png,3\n"
    assert (tmp_path / "new" / "o.csv").read_bytes() == rows
    assert read_labels(tmp_path / "new" / "o.csv") == classes


def test_accuracy(tmp_path):
    truth, prediction = tmp_path / "truth.csv", tmp_path / "pred.csv"
    truth.write_text("image_name,label\na,1\nb,2\nc,3\n")
    prediction.write_text("image_name,label\nc,3\na,1\nb,0\n")
    assert accuracy(prediction, truth) == (2, 3)
    for text in ("a,1\nb,0\n", "a,1\nb,0\nc,1\nx,1\n"):
        prediction.write_text(f"image_name,label\n{text}")
        with pytest.raises(SystemExit, match="do not name the same images: only one has [cx]"):
            accuracy(prediction, truth)


def test_outputs_are_written_as_by_any_program(tmp_path):
    """A link is followed; what can't be written is named in one line, as is a picture's name."""
    (tmp_path / "real.csv").write_text("old and longer")
    (tmp_path / "link.csv").symlink_to("real.csv")
    write_output(tmp_path / "link.csv", b"new")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_text() == "new"
    for path in (tmp_path, tmp_path / "real.csv" / "o.csv", ""):
        with pytest.raises(SystemExit, match=f"cannot write '{path}': [A-Z]"):
            write_output(path, b"new")
    with pytest.raises(SystemExit, match="must end in .png or .jpg: ''"):
        save_picture("", COLOUR)


def test_a_file_that_is_replaced_is_whole_at_any_moment(tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_text("the last whole one")

    def interrupted(file):
        file.write(b"half of")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        replace_file(path, interrupted)
    assert os.listdir(tmp_path) == ["checkpoint.pt"] and path.read_text() == "the last whole one"
