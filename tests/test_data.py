"""Folders of images and their labels: what is read, skipped or refused; predictions, pictures and outputs."""
import os

import numpy as np
import pytest
import torch
from PIL import Image

from common.data import class_balanced_weights, list_images, load_images, load_labelled, load_unlabelled, read_labels
from common.evaluate import accuracy
from common.files import replace_file, write_output
from common.pictures import draw_latents, grid, to_pixels, write_samples
from common.predict import predict_folder

GREY = np.linspace(0, 255, 28 * 28).reshape(28, 28).astype(np.uint8)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], 2)


def load(path):
    return load_images(path.parent, [path.name])[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name, picture, expected", [
    ("grey.png", Image.fromarray(GREY), np.stack([GREY] * 3, 2)),
    ("colour.bmp", Image.fromarray(COLOUR), COLOUR),
    ("palette.png", Image.fromarray(COLOUR).quantize(16), None),
    ("black and white.png", Image.fromarray(GREY > 127), np.stack([(GREY > 127) * np.uint8(255)] * 3, 2)),
    ("alpha.png", Image.fromarray(np.dstack([np.zeros_like(COLOUR), GREY])), np.stack([255 - GREY] * 3, 2)),
    ("grey alpha.png", Image.fromarray(np.dstack([GREY * 0, GREY])), np.stack([255 - GREY] * 3, 2)),
    ("larger.png", Image.new("RGB", (100, 40), (10, 200, 30)), np.full((28, 28, 3), (10, 200, 30))),
])
def test_images_become_rgb_with_transparency_on_white(name, picture, expected, tmp_path):
    picture.save(tmp_path / name)
    np.testing.assert_array_equal(load(tmp_path / name), np.asarray(picture.convert("RGB")) if expected is None
                                  else expected)


@pytest.mark.parametrize("name, content", [
    ("16 bits.png", GREY.astype(np.uint16) * 257), ("float.tif", GREY.astype(np.float32)), ("text.png", b"no image"),
    ("cut.png", None), ("empty.png", b""), ("a link.png", "absent.png"),
])
def test_images_that_would_be_misread_are_named(name, content, tmp_path):
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(path)
    elif isinstance(content, str):
        path.symlink_to(content)
    else:
        Image.fromarray(COLOUR).save(path)
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2] if content is None else content)
    with pytest.raises(SystemExit, match=f"cannot read the image .*{name}"):
        predict_folder(torch.nn.Identity(), tmp_path, tmp_path / "o.csv")
    assert not (tmp_path / "o.csv").exists()


def test_listing(tmp_path, capsys):
    for name in ("c.png", "b.JPG", ".hidden.png", "labels.csv", "10.png", "9.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert list_images(tmp_path) == ["10.png", "9.png", "b.JPG", "c.png"] and capsys.readouterr().err == ""
    for name in ("Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"")
    assert len(list_images(tmp_path)) == 4 and capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit, match="no images in folder"):
        list_images(tmp_path / "folder.png")
    with pytest.raises(SystemExit, match="cannot read the image folder .*absent: No such file"):
        list_images(tmp_path / "absent")


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


@pytest.mark.parametrize("text, message", [
    ("name,label\n0.png,1\n", "image_name"), ("image_name,class\n0.png,1\n", "label"), ("", "cannot read"),
    ("image_name,label\n0.png,1\n1.png,10\n", "line 3: label '10' is not 0-9"), ("image_name,label\n", "no rows"),
])
def test_bad_label_files(text, message, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(SystemExit, match=message) as error:
        read_labels(tmp_path / "t.csv")
    assert "t.csv" in str(error.value) and "\n" not in str(error.value)


def test_classes_are_drawn_evenly():
    labels = torch.tensor([0] * 6 + [1] * 3 + [7])
    weights = class_balanced_weights(labels)
    assert [weights[labels == c].sum().item() for c in (0, 1, 7)] == pytest.approx([1, 1, 1])


def test_the_label_is_the_class_of_the_largest_logit_in_name_order(tmp_path):
    """Images whose brightest column is the 2nd, 5th ...: a network whose logits are the columns' brightness."""
    classes = {"a, b.png": 2, "é.png": 5, "9.png": 0, "10.png": 9}
    for name, label in classes.items():
        pixels = np.full((28, 28), 10, np.uint8)
        pixels[:, label] = 250
        Image.fromarray(pixels).save(tmp_path / name)
    logits = torch.nn.Sequential(torch.nn.AvgPool2d((28, 1)), torch.nn.Flatten(), torch.nn.Linear(84, 10, bias=False))
    with torch.no_grad():
        logits[2].weight.copy_(torch.eye(10, 84))
    predict_folder(logits, tmp_path, tmp_path / "new" / "o.csv")
    assert (tmp_path / "new" / "o.csv").read_text() == 'image_name,label\n10.png,9\n9.png,0\n"a, b.png",2\né.png,5\n'
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
    """A link is followed, a device written to; what can't be written is named in one line."""
    (tmp_path / "real.csv").write_text("old and longer")
    (tmp_path / "link.csv").symlink_to("real.csv")
    write_output(tmp_path / "link.csv", b"new")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_text() == "new"
    write_output("/dev/null", b"new")
    for path in (tmp_path, tmp_path / "real.csv" / "o.csv", ""):
        with pytest.raises(SystemExit, match=f"cannot write '{path}': [A-Z]"):
            write_output(path, b"new")


def test_a_file_that_is_replaced_is_whole_at_any_moment(tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_text("the last whole one")

    def interrupted(file):
        file.write(b"half of")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        replace_file(path, interrupted)
    assert os.listdir(tmp_path) == ["checkpoint.pt"] and path.read_text() == "the last whole one"
    if os.fork() == 0:
        replace_file(path, lambda file: (file.write(b"half of"), file.flush(), os.kill(os.getpid(), 9)))
    assert os.wait()[1] == 9 and path.read_text() == "the last whole one"
    replace_file(path, lambda file: file.write(b"new"))
    assert path.read_text() == "new"


def test_latents_are_the_frozen_stream():
    z = draw_latents(32, 512)
    assert z.dtype == torch.float64 and z.shape == (32, 512)
    assert z[0, :3].tolist() == [1.764052345967664, 0.4001572083672233, 0.9787379841057392]  # NumPy's legacy seed 0
    assert torch.equal(draw_latents(5, 512), z[:5])


def test_pixels_and_grid():
    values = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.2]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_pixels(values)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]
    picture = grid(torch.arange(32).view(32, 1, 1, 1).expand(32, 3, 64, 64) / 255)
    assert picture.shape == (266, 530, 3)
    assert picture[2, 2, 0] == 0 and picture[2, 68, 0] == 1 and picture[68, 2, 0] == 8 and picture[263, 527, 0] == 31
    assert (picture[:2] == 255).all() and (picture[:, 66:68] == 255).all() and (picture[-2:] == 255).all()


def test_samples_are_the_latents_in_their_order(tmp_path):
    latents = torch.arange(3.0)[:, None] * 100 / 255
    net = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 1, 1)), torch.nn.Upsample(scale_factor=4),
                              torch.nn.Conv2d(1, 3, 1, bias=False))
    torch.nn.init.ones_(net[2].weight)
    write_samples(tmp_path / "s", net, latents, "cpu")
    names = sorted(os.listdir(tmp_path / "s"))
    assert names == ["00000.png", "00001.png", "00002.png"]
    assert [np.asarray(Image.open(tmp_path / "s" / name)).max() for name in names] == [0, 100, 200]
