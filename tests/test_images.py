"""Folders of images and their labels: what is read, skipped or refused, and that reading always ends."""
import os
import signal
import struct
import subprocess
import sys
import time
import zlib

from common.data import even_chances, list_images, load_images, load_labelled, load_unlabelled, read_labels
from common.files import write_csv

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

GREY = np.linspace(0, 255, 28 * 28).reshape(28, 28).astype(np.uint8)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], 2)
LOAD = f"""
import sys
sys.path.insert(0, {ROOT!r})
from common.data import load_images
print("reading", flush=True)
load_images(sys.argv[1], ["a.png"] * int(sys.argv[2]))
"""


def load(path):
    return load_images(str(path.parent), [path.name])[0].permute(1, 2, 0).numpy()


def on_white(colour, alpha):
    return colour * (alpha[:, :, None] / 255) + 255 - alpha[:, :, None].astype(float)


def test_images_of_every_kind(tmp_path):
    palette = Image.fromarray(COLOUR).quantize(16)
    pictures = {
        "a.png": (Image.fromarray(GREY), np.stack([GREY] * 3, 2)),
        "b.png": (Image.fromarray(COLOUR), COLOUR),
        "c.png": (Image.fromarray(np.dstack([COLOUR, np.full_like(GREY, 255)])), COLOUR),
        "d.png": (palette, np.asarray(palette.convert("RGB"))),
        "e.png": (Image.fromarray(GREY.astype(np.uint16) * 257), np.stack([GREY] * 3, 2)),
        "f.png": (Image.fromarray(GREY > 127), np.stack([(GREY > 127) * np.uint8(255)] * 3, 2)),
        "g.bmp": (Image.fromarray(COLOUR), COLOUR),
    }
    for name, (picture, _) in pictures.items():
        picture.save(tmp_path / name)
    images = load_images(str(tmp_path), list(pictures))
    assert images.dtype == torch.uint8 and images.shape == (7, 3, 28, 28)
    for image, (name, (_, expected)) in zip(images, pictures.items()):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected, err_msg=name)


def test_other_sizes_are_resized(tmp_path):
    Image.new("RGB", (100, 40), (10, 200, 30)).save(tmp_path / "wide.png")
    assert load(tmp_path / "wide.png")[5, 5].tolist() == [10, 200, 30]


@pytest.mark.parametrize("colour", [COLOUR, np.zeros_like(COLOUR)], ids=["colours", "ink in the alpha channel only"])
def test_alpha_is_composited_on_white(colour, tmp_path):
    Image.fromarray(np.dstack([colour, GREY.T])).save(tmp_path / "rgba.png")
    np.testing.assert_allclose(load(tmp_path / "rgba.png"), on_white(colour, GREY.T), atol=1)
    Image.fromarray(np.dstack([colour[:, :, 0], GREY.T])).save(tmp_path / "la.png")
    np.testing.assert_allclose(load(tmp_path / "la.png"), on_white(colour[:, :, :1].repeat(3, 2), GREY.T), atol=1)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_is_white(mode, tmp_path):
    Image.fromarray((GREY > 127).astype(np.uint8)).convert(mode).save(
        tmp_path / "key.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    image = load(tmp_path / "key.png")
    assert (image[GREY <= 127] == 255).all() and (image[GREY > 127] < 255).all()


@pytest.mark.parametrize("name, values", [
    ("a.png", GREY.astype(np.uint16)), ("a.tif", GREY.astype(np.uint16)),
    ("a.tif", GREY.astype(np.int32)), ("a.tif", GREY.astype(np.int32) * 257),
    ("a.tif", GREY.astype(np.float32)), ("a.tif", GREY.astype(np.float32) / 255),
])
def test_wide_grey_values_are_scaled_by_their_range(name, values, tmp_path):
    Image.fromarray(values).save(tmp_path / name)
    np.testing.assert_array_equal(load(tmp_path / name), np.stack([GREY] * 3, 2))


@pytest.mark.parametrize("change", [lambda x: x - 1, lambda x: x * 1000, lambda x: np.where(x > 99, np.nan, x)])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_grey_values_of_unknown_scale_are_refused(dtype, change, tmp_path):
    with np.errstate(invalid="ignore"):
        Image.fromarray(change(GREY.astype(np.float64)).astype(dtype)).save(tmp_path / "a.tif")
    with pytest.raises(SystemExit, match=r"a\.tif \(grey values from .* to .*: unknown scale\)$"):
        load(tmp_path / "a.tif")


def write_16_bit_png(path, pixels):
    """Of colours, which Pillow can't write."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 2: 4, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def test_16_bit_colours(tmp_path):
    write_16_bit_png(tmp_path / "a.png", COLOUR.astype(np.uint16) * 257)
    np.testing.assert_array_equal(load(tmp_path / "a.png"), COLOUR)


@pytest.mark.parametrize("pixels", [COLOUR, np.dstack([GREY] * 2), np.dstack([COLOUR, GREY])])
def test_16_bit_colours_that_pillow_reads_as_nothing_are_refused(pixels, tmp_path):
    write_16_bit_png(tmp_path / "a.png", pixels)
    with pytest.raises(SystemExit, match=r"a\.png \(its 16-bit colours"):
        load(tmp_path / "a.png")


def test_listing(tmp_path, capsys):
    for name in ("c.png", "b.JPG", ".hidden.png", "labels.csv", "LABELS.CSV"):
        (tmp_path / name).write_bytes(b"")  # damaged images are listed, so that reading stops at them
    Image.fromarray(GREY).save(tmp_path / "no extension", "PNG")
    Image.fromarray(GREY).save(tmp_path / "odd.extension", "JPEG")
    (tmp_path / "link to an image").symlink_to("no extension")
    (tmp_path / "broken link").symlink_to("absent")
    (tmp_path / "broken.png").symlink_to("broken.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    images = ["b.JPG", "broken link", "broken.png", "c.png", "link to an image", "no extension", "odd.extension"]
    assert list_images(str(tmp_path)) == images and capsys.readouterr().err == ""
    np.testing.assert_array_equal(load(tmp_path / "link to an image")[:, :, 0], GREY)

    for name in ("Thumbs.db", "desktop.ini", "README", "Icon\r"):
        (tmp_path / name).write_bytes(b"no image")
    assert list_images(str(tmp_path)) == images
    assert capsys.readouterr().err == "skipped, not an image: 'Icon\\r', 'README', 'Thumbs.db', 'desktop.ini'\n"
    for i in range(3):
        (tmp_path / f"{i}.txt").write_bytes(b"")
    list_images(str(tmp_path))
    assert capsys.readouterr().err.endswith(" and 2 more\n")


def test_a_folder_that_cannot_be_read(tmp_path):
    folder, user = tmp_path / "folder", os.geteuid()
    folder.mkdir(mode=0)
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(SystemExit, match=r"the image folder cannot be read: .*folder \(Permission denied\)$"):
            list_images(str(folder))
    finally:
        os.seteuid(user)


def test_loading_labelled_and_unlabelled(data_dir):
    images, labels = load_labelled(data_dir, "usps", "train", limit=13)
    assert images.shape == (13, 3, 28, 28) and labels.tolist() == [i % 10 for i in range(13)]
    assert torch.equal(load_unlabelled(data_dir, "usps", "train", limit=13), images)
    assert len(load_unlabelled(data_dir, "usps", "train")) == 40


def test_classes_are_drawn_evenly():
    labels = torch.tensor([0] * 6 + [1] * 3 + [7])
    chances = even_chances(labels)
    assert [chances[labels == c].sum().item() for c in (0, 1, 7)] == pytest.approx([1, 1, 1])


def test_odd_image_names_survive_the_csv(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a, b.png", 'quo"te.png', "é.png", " spaces .png", os.fsdecode(b"not UTF-8 \xff.png")):
        (folder / name).write_bytes(b"")
    names = list_images(str(folder))
    write_csv(tmp_path / "t.csv", ("image_name", "label"), [(name, 1) for name in names])
    assert len(names) == 5 and list(read_labels(tmp_path / "t.csv")) == names


@pytest.fixture
def start_loading(tmp_path):
    """A function that starts a process which reads the same image many times; it is killed after the test."""
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    started = []

    def start(count, before=(), stderr=subprocess.PIPE):
        command = [*before, sys.executable, "-c", LOAD, tmp_path, str(count)]
        options = {"stdout": subprocess.PIPE, "stderr": stderr, "text": True, "start_new_session": True}
        started.append(subprocess.Popen(command, **options))
        return started[-1]
    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_no_worker_can_be_killed_and_waited_for(start_loading):
    process, end = start_loading(5000), time.time() + 60
    while process.poll() is None:
        assert time.time() < end, "still waiting"
        subprocess.run(["pkill", "-KILL", "-P", str(process.pid)])
        time.sleep(0.02)
    assert process.communicate() == ("reading\n", "") and process.returncode == 0


def test_no_shared_memory(start_loading):
    without = ["unshare", "--mount", "bash", "-c", 'mount -t tmpfs -o ro tmpfs /dev/shm && exec "$@"', "bash"]
    if subprocess.run([*without, "true"], capture_output=True).returncode:
        pytest.skip("no right to mount")
    assert start_loading(5, without).communicate(timeout=60) == ("reading\n", "")


def test_ctrl_c_in_loading(start_loading):
    process = start_loading(200_000)
    assert process.stdout.readline() == "reading\n"
    time.sleep(0.5)  # well within the reading
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "interrupted\n")


def test_progress_on_a_terminal(start_loading):
    terminal, end = os.openpty()
    process = start_loading(2500, stderr=end)
    os.close(end)
    assert process.communicate(timeout=60) == ("reading\n", None) and process.returncode == 0
    lines = os.read(terminal, 10_000).decode().split("\r")
    assert [line.split("  left ")[0] for line in lines] == ["image 1000/2500", "image 2000/2500", "\033[K"]
    os.close(terminal)
