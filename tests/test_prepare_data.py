"""The data set builder, on small files in each source's true format, served over HTTP on the loopback."""
import bz2
import glob
import gzip
import hashlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from common import prepare_data
from common.data import load_faces, load_labelled
from conftest import wait_for

COUNT = 20  # images of each split


def compressed(image, name):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, name)
    return buffer.getvalue()


def tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def make_sources(rng):
    """{file name: content} of every source, and what is in them."""
    files, true = {}, {}
    for split, usps, mnist, svhn in (("train", "usps.bz2", "train", "train_32x32.mat"), ("test", "usps.t.bz2", "t10k", "test_32x32.mat")):
        labels = rng.permutation(np.arange(COUNT) % 10)
        x = rng.randint(0, 256, (COUNT, 16, 16))
        lines = (f"{label + 1} " + " ".join(f"{i}:{v / 127.5 - 1:.4f}" for i, v in enumerate(image.ravel(), 1)) for label, image in zip(labels, x))
        files[usps] = bz2.compress("\n".join(lines).encode())
        true["usps", split] = x, labels

        x, labels = rng.randint(0, 256, (COUNT, 28, 28)).astype(np.uint8), rng.permutation(labels)
        files[f"{mnist}-images-idx3-ubyte.gz"] = gzip.compress(np.array([2051, COUNT, 28, 28], ">i4").tobytes() + x.tobytes())
        files[f"{mnist}-labels-idx1-ubyte.gz"] = gzip.compress(np.array([2049, COUNT], ">i4").tobytes() + labels.astype(np.uint8).tobytes())
        true["mnistm", split] = x, labels

        x, labels = rng.randint(0, 256, (COUNT, 32, 32, 3)).astype(np.uint8), rng.permutation(labels)
        buffer = io.BytesIO()
        savemat(buffer, {"X": x.transpose(1, 2, 3, 0), "y": np.where(labels, labels, 10)[:, None].astype(np.uint8)})  # their zero is a 10
        files[svhn] = buffer.getvalue()
        true["svhn", split] = x, labels

    photos = [rng.randint(0, 256, (40, 60, 3)).astype(np.uint8) for _ in range(3)]
    photo_files = {f"{prepare_data.BSDS_PHOTOS}{i}.jpg": compressed(photo, "JPEG") for i, photo in enumerate(photos)}
    files["BSR_bsds500.tgz"] = tar({**photo_files, "BSR/BSDS500/data/images/test/9.jpg": b"not of the recipe"})
    true["photos"] = list(photo_files.values())

    names = [f"{i:06d}.jpg" for i in range(1, 3 * COUNT + 1)]
    partitions = np.arange(len(names)) % 3  # train, validation and test
    attributes = rng.choice([-1, 1], (len(names), 40))
    columns = [f"Other_{i}" for i in range(27)] + list(prepare_data.ATTRIBUTES[::-1])
    faces = rng.randint(0, 256, (len(names), 218, 178, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, face in zip(names, faces):
            archive.writestr(f"img_align_celeba/{name}", compressed(face, "JPEG"))
    files["img_align_celeba.zip"] = buffer.getvalue()
    files["list_eval_partition.txt"] = "".join(f"{name} {p}\n" for name, p in zip(names, partitions)).encode()
    rows = "".join(f"{name} {' '.join(f'{v:2d}' for v in row)}\n" for name, row in zip(names, attributes))
    files["list_attr_celeba.txt"] = f"{len(names)}\n{' '.join(columns)} \n{rows}".encode()
    true["smiling"] = {split: attributes[partitions == p, columns.index("Smiling")] for split, p in (("train", 0), ("test", 2))}
    return files, true


@pytest.fixture(scope="module")
def sources():
    return make_sources(np.random.RandomState(0))


@pytest.fixture
def served(sources, server, monkeypatch):
    """A folder with the sources' files, served in place of the true ones; each file's sum is the expected one."""
    folder, url, _ = server
    files, true = sources
    for name, content in files.items():
        (folder / name).write_bytes(content)

    def md5(name):
        return hashlib.md5(files[name]).hexdigest()
    for data in (prepare_data.USPS, prepare_data.SVHN):
        monkeypatch.setattr(data, "split_list", {split: [f"{url}/{name}", name, md5(name)] for split, (_, name, *_) in data.split_list.items() if name in files})
    monkeypatch.setattr(prepare_data.MNIST, "mirrors", ["http://127.0.0.1:9/", f"{url}/"])  # nobody listens at the first
    monkeypatch.setattr(prepare_data.MNIST, "resources", [(name, md5(name)) for name, _ in prepare_data.MNIST.resources])
    monkeypatch.setattr(prepare_data, "BSDS_URL", f"{url}/BSR_bsds500.tgz")
    monkeypatch.setattr(prepare_data, "BSDS_SHA256", hashlib.sha256(b"".join(true["photos"])).hexdigest())
    monkeypatch.setattr(prepare_data, "CELEBA_URL", url + "/{}")
    monkeypatch.setattr(prepare_data.CelebA, "file_list", [(name, md5(name), name) for _, _, name in prepare_data.CelebA.file_list if name in files])
    return folder


def build(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare_data.py", *map(str, arguments)])
    prepare_data.main()


def every_file(root):
    return {os.path.relpath(os.path.join(folder, name), root): os.stat(os.path.join(folder, name)).st_mtime_ns
            for folder, _, names in os.walk(root) for name in names}


def test_the_courses_layout_from_every_source(served, sources, tmp_path, monkeypatch):
    root, (_, true) = tmp_path / "data", sources
    build(monkeypatch, root)
    for split in ("train", "test"):
        x, labels = true["usps", split]
        images, y = load_labelled(str(root), "usps", split)
        assert images.shape == (COUNT, 3, 28, 28) and y.tolist() == labels.tolist()
        assert Image.open(root / "digits" / "usps" / split / "00000.png").mode == "L"
        small = np.stack([np.asarray(Image.fromarray(image.numpy()[0]).resize((16, 16), Image.BOX)) for image in images])
        assert np.corrcoef(small.ravel(), x.ravel())[0, 1] > 0.8

        x, labels = true["svhn", split]
        images, y = load_labelled(str(root), "svhn", split)
        assert y.tolist() == labels.tolist() and 0 in y.tolist()
        expected = np.stack([np.asarray(Image.fromarray(image).resize((28, 28), Image.BILINEAR)) for image in x])
        assert (images.permute(0, 2, 3, 1).numpy() == expected).all()

        faces = load_faces(str(root), split)
        assert faces.shape == (COUNT, 3, 64, 64)
        header, *rows = (root / "face" / f"{split}.csv").read_text().splitlines()
        assert header.split(",") == ["image_name", *prepare_data.ATTRIBUTES]
        smiling = [row.split(",")[header.split(",").index("Smiling")] for row in rows]
        assert smiling == [str(float(v == 1)) for v in true["smiling"][split]]
    assert (root / "face" / "test" / "40000.png").exists()  # numbers as in the course's: after the 40,000

    photos = [np.asarray(Image.open(io.BytesIO(file))) for file in true["photos"]]
    rng = np.random.RandomState(0)
    for split in ("train", "test"):
        x, labels = true["mnistm", split]
        images, y = load_labelled(str(root), "mnistm", split)
        assert y.tolist() == labels.tolist()
        assert (images.permute(0, 2, 3, 1).numpy() == prepare_data.blend(x, photos, rng)).all()

    before = every_file(root)
    for file in served.iterdir():
        file.unlink()
    build(monkeypatch, root)  # needs no server and writes nothing
    assert every_file(root) == before


def test_blending_by_hand():
    photo = np.full((29, 29, 3), 100, np.uint8)
    digit = np.zeros((1, 28, 28), np.uint8)
    digit[0, 5, 7] = 250
    out = prepare_data.blend(digit, [photo], np.random.RandomState(0))
    assert out[0, 5, 7].tolist() == [150] * 3 and (np.delete(out.reshape(-1, 3), 5 * 28 + 7, 0) == 100).all()


def test_faces_are_the_middle_of_the_aligned_image():
    image = np.zeros((218, 178, 3), np.uint8)
    image[40:188, 15:163] = 200
    assert (np.asarray(prepare_data.crop_face(compressed(image, "PNG"))) == 200).all()


def test_the_same_split_again_after_an_interruption(served, tmp_path, monkeypatch):
    """Half a split from a run that was killed is written anew; what was whole stays."""
    root = tmp_path / "data"
    build(monkeypatch, root, "--only", "digits")
    split = root / "digits" / "mnistm" / "test"
    expected, before = [path.read_bytes() for path in sorted(split.iterdir())], every_file(root / "digits" / "svhn")
    split.rename(f"{split}.part")
    (root / "digits" / "mnistm" / "test.part" / "00003.png").write_bytes(b"half of a fi")
    (root / "sources" / "usps.bz2").rename(root / "sources" / "usps.bz2.part")
    build(monkeypatch, root, "--only", "digits")
    assert [path.read_bytes() for path in sorted(split.iterdir())] == expected
    assert every_file(root / "digits" / "svhn") == before
    assert sorted(path.name for path in (root / "digits" / "mnistm").iterdir()) == ["test", "test.csv", "train", "train.csv"]


def test_files_that_the_user_has(served, tmp_path, monkeypatch):
    server = tmp_path / "moved"
    served.rename(server)  # nothing to download any more
    build(monkeypatch, tmp_path / "data", "--source-dir", server)
    assert load_faces(str(tmp_path / "data"), "train").shape[0] == COUNT


@pytest.mark.parametrize("name, only, message", [
    ("img_align_celeba.zip", "face", "mmlab"), ("list_attr_celeba.txt", "face", "mmlab"), ("usps.bz2", "digits", "libsvm"),
    ("train-labels-idx1-ubyte.gz", "digits", "mnist"), ("test_32x32.mat", "digits", "127.0.0.1"), ("BSR_bsds500.tgz", "digits", "berkeley")])
@pytest.mark.parametrize("damage", ["gone", "another"])
def test_a_source_that_refuses(name, only, message, damage, served, tmp_path, monkeypatch):
    """Google Drive answers with a page that says no; others with an error."""
    if damage == "gone":
        (served / name).unlink()
    else:
        (served / name).write_bytes(b"<html>Quota exceeded</html>")
    root = tmp_path / "data"
    with pytest.raises(SystemExit) as error:
        build(monkeypatch, root, "--only", only)
    assert name in str(error.value) and "\n" not in str(error.value)
    if damage == "gone" or name != "BSR_bsds500.tgz":  # its photographs' sum is checked, not its own
        assert not (root / "sources" / name).exists()
    folder = {"face": "face", "usps.bz2": "digits/usps/train", "test_32x32.mat": "digits/svhn/test"}.get(only if only == "face" else name, "digits/mnistm")
    assert not (root / folder).exists()


def test_damaged_files_of_the_user(served, tmp_path, monkeypatch):
    (served / "list_attr_celeba.txt").write_text("another version")
    with pytest.raises(SystemExit, match="list_attr_celeba.txt is damaged"):
        build(monkeypatch, tmp_path / "data", "--only", "face", "--source-dir", served)
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written(served, tmp_path, monkeypatch):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(SystemExit, match="cannot"):
        build(monkeypatch, tmp_path / "data", "--only", "digits", "--source-dir", served)


def test_killed_in_the_making_of_the_data(served, tmp_path, monkeypatch):
    def slowly(*arguments):
        time.sleep(0.05)
        return fast(*arguments)

    def interrupted():
        os.setsid()
        with monkeypatch.context() as patch:
            patch.setattr(prepare_data.Image, "fromarray", slowly)
            build(patch, tmp_path / "halves", "--only", "digits")
    fast = prepare_data.Image.fromarray
    build(monkeypatch, tmp_path / "whole", "--only", "digits")
    process = multiprocessing.get_context("fork").Process(target=interrupted)
    process.start()
    wait_for(lambda: glob.glob(str(tmp_path / "halves" / "digits" / "usps" / "train.part" / "*")))
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    mnistm = every_file(tmp_path / "halves" / "digits" / "mnistm")
    assert len(mnistm) == 42 and not (tmp_path / "halves" / "digits" / "usps" / "train").exists()
    build(monkeypatch, tmp_path / "halves", "--only", "digits")
    assert every_file(tmp_path / "halves" / "digits" / "mnistm") == mnistm  # what was whole is not written again
    assert not subprocess.run(["diff", "-r", tmp_path / "whole", tmp_path / "halves"], capture_output=True).stdout


def test_disk_full_in_the_making_of_the_data(served, small_disk, monkeypatch):
    root = small_disk(64)
    with pytest.raises(SystemExit, match="cannot write"):
        build(monkeypatch, root, "--only", "digits", "--source-dir", served)
    assert not glob.glob(str(root / "**" / "*.part"), recursive=True)
    whole = [folder for folder in glob.glob(str(root / "digits" / "*" / "*")) if os.path.isdir(folder)]
    assert all(len(os.listdir(folder)) == 20 and os.path.exists(f"{folder}.csv") for folder in whole) and len(whole) < 6
