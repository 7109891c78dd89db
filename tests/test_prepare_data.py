"""The data set builder, on small files in the true format of each source, served over HTTP by this machine."""
import bz2
import functools
import gzip
import hashlib
import io
import shutil
import socket
import sys
import tarfile
import zipfile

import numpy as np
import pandas
import pytest
from conftest import make_data
from PIL import Image
from scipy.io import savemat

from common import prepare_data
from common.data import load_faces, load_labelled

COUNT = 20  # images of each split


def compressed(image, name="JPEG"):
    Image.fromarray(image).save(buffer := io.BytesIO(), name)
    return buffer.getvalue()


@functools.cache
def sources():
    """{file name: content} of every source, and what is in them."""
    rng, files, true = np.random.RandomState(0), {}, {}

    def digits(*shape):
        return rng.randint(0, 256, (COUNT, *shape)).astype(np.uint8), rng.permutation(np.arange(COUNT) % 10)

    for split, usps, mnist in (("train", "usps.bz2", "train"), ("test", "usps.t.bz2", "t10k")):
        x, y = true["usps", split] = digits(16, 16)
        rows = (" ".join(f"{i}:{v / 127.5 - 1:.4f}" for i, v in enumerate(image.ravel(), 1)) for image in x)
        files[usps] = bz2.compress("\n".join(f"{label + 1} {row}" for label, row in zip(y, rows)).encode())
        x, y = true["mnistm", split] = digits(28, 28)
        files[f"{mnist}-images-idx3-ubyte.gz"] = gzip.compress(bytes(16) + x.tobytes())  # after the header
        files[f"{mnist}-labels-idx1-ubyte.gz"] = gzip.compress(bytes(8) + bytes(y.tolist()))
        x, y = true["svhn", split] = digits(32, 32, 3)
        savemat(buffer := io.BytesIO(), {"X": x.transpose(1, 2, 3, 0), "y": np.where(y, y, 10)})  # 10 is a zero's label
        files[f"{split}_32x32.mat"] = buffer.getvalue()

    true["photos"] = [compressed(rng.randint(0, 256, (40, 60, 3)).astype(np.uint8)) for _ in range(3)]
    names = [f"{prepare_data.BSDS_PHOTOS}{i}.jpg" for i in range(3)] + ["BSR/BSDS500/data/images/test/9.jpg"]
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w:gz") as archive:
        for name, content in zip(names, [*true["photos"], b"not of the recipe"]):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    files["BSR_bsds500.tgz"] = buffer.getvalue()

    faces = pandas.DataFrame(rng.choice([-1, 1], (3 * COUNT, 14)), columns=["Young", *prepare_data.ATTRIBUTES[::-1]])
    faces.index = [f"{i:06d}.jpg" for i in range(1, 3 * COUNT + 1)]
    partitions = pandas.Series(np.arange(3 * COUNT) % 3, faces.index)
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        for name, partition in partitions.items():  # dark faces for training, bright ones for the test
            face = np.full((218, 178, 3), 255, np.uint8)
            face[68:178, 35:145] = 80 * partition  # what is around it is cut off
            archive.writestr(f"img_align_celeba/{name}", compressed(face, "PNG"))
    files["img_align_celeba.zip"] = buffer.getvalue()
    files["list_eval_partition.txt"] = partitions.to_csv(sep=" ", header=False).encode()
    rows = faces.to_csv(sep=" ", index_label=False).replace(" 1", "  1")  # two places for each number
    files["list_attr_celeba.txt"] = f"{len(faces)}\n{rows}".encode()
    for split, partition in (("train", 0), ("test", 2)):
        true["smiling", split] = list(faces["Smiling"][partitions == partition] == 1)
    return files, true


@pytest.fixture
def served(server, monkeypatch):
    """A folder with the files of `sources`, downloaded instead of the true ones; their sums are the expected ones."""
    (folder, url), (files, true) = server, sources()
    (folder / "login").mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (folder / "login" / name).write_text("<html>a login page</html>")
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    for data in (prepare_data.USPS, prepare_data.SVHN):
        monkeypatch.setattr(data, "split_list", {split: [f"{url}/{name}", name, md5[name]] for split, (_, name, _)
                                                 in data.split_list.items() if name in md5})
    monkeypatch.setattr(prepare_data.MNIST, "mirrors", ["http://127.0.0.1:9/", f"{url}/login/", f"{url}/"])
    monkeypatch.setattr(prepare_data.MNIST, "resources", [(n, md5[n]) for n, _ in prepare_data.MNIST.resources])
    faces = [(name, md5[name], name) for _, _, name in prepare_data.CelebA.file_list if name in files]
    monkeypatch.setattr(prepare_data.CelebA, "file_list", faces)
    monkeypatch.setattr(prepare_data, "BSDS_URL", f"{url}/BSR_bsds500.tgz")
    monkeypatch.setattr(prepare_data, "BSDS_SHA256", hashlib.sha256(b"".join(true["photos"])).hexdigest())
    monkeypatch.setattr(prepare_data, "CELEBA_URL", url + "/{}")
    return folder


def build(*arguments):
    """Run the command; the lines with which it fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["prepare_data.py", *map(str, arguments)])
        try:
            prepare_data.main()
        except SystemExit as error:
            return error.code.splitlines()  # Python prints a text, with status 1
    return []


def every_file(folder):
    """{path: when it was written, content}"""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_the_courses_layout_from_every_source(served, tmp_path, monkeypatch):
    """Interrupted, continued, and called once more; an empty folder is no finished split."""
    (tmp_path / "digits" / "usps" / "test").mkdir(parents=True)

    def interrupt(progress, done):
        if "mnistm/test" in progress.name and done == 13:
            raise KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare_data.Progress, "refresh", interrupt)
        build(tmp_path)
    finished, rng, true = every_file(tmp_path / "digits" / "mnistm" / "train"), np.random.RandomState(0), sources()[1]
    assert not (tmp_path / "digits" / "mnistm" / "test").exists() and build(tmp_path) == []
    assert every_file(tmp_path / "digits" / "mnistm" / "train") == finished
    photos = [np.asarray(Image.open(io.BytesIO(file))) for file in true["photos"]]
    for split, first, grey in (("train", 0, 0), ("test", 40000, 160)):
        drawn = [(photos[rng.randint(3)], rng.randint(40 - 28), rng.randint(60 - 28)) for _ in range(COUNT)]
        patches = [photo[row:row + 28, column:column + 28] for photo, row, column in drawn]  # one stream, train's first
        expected = {"mnistm": abs(np.stack(patches) - 255 * (true["mnistm", split][0][:, :, :, None] > 0))}
        for domain in ("usps", "svhn"):
            resized = [Image.fromarray(image).resize((28, 28), Image.BILINEAR) for image in true[domain, split][0]]
            expected[domain] = np.stack([image.convert("RGB") for image in resized]).astype(int)
        for domain, images in expected.items():
            x, labels = load_labelled(tmp_path, domain, split)
            assert abs(x.permute(0, 2, 3, 1).numpy() - images).max() <= (2 if domain == "usps" else 0)  # has decimals
            assert labels.tolist() == true[domain, split][1].tolist()
        assert Image.open(tmp_path / "digits" / "usps" / split / "00000.png").mode == "L"
        assert (load_faces(tmp_path, split) == grey).all()
        table = pandas.read_csv(tmp_path / "face" / f"{split}.csv")
        assert list(table) == ["image_name", *prepare_data.ATTRIBUTES]
        assert list(table["image_name"]) == [f"{first + i:05d}.png" for i in range(COUNT)]  # as in the course's data
        assert list(table["Smiling"]) == true["smiling", split]
    before = every_file(tmp_path)
    shutil.rmtree(served)
    assert build(tmp_path, "--svhn-subset") == [] and every_file(tmp_path) == before  # nothing is asked for or written


def test_what_is_damaged_or_not_to_be_had_leaves_the_others(served, tmp_path, monkeypatch):
    """A server that is silent, one that sends something else, a file of another version."""
    monkeypatch.setattr(prepare_data, "TIMEOUT", 1)
    monkeypatch.setattr(prepare_data, "SVHN_SUBSET", {"train": 6, "test": 4})
    shutil.copy(served / "login" / "test_32x32.mat", served)
    (tmp_path / "list_attr_celeba.txt").write_text("another version")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(prepare_data, "BSDS_URL", url)
        photos, svhn, faces = build(tmp_path / "data", "--svhn-subset", "--source-dir", tmp_path)
    socket.setdefaulttimeout(None)
    assert photos == ("digits/mnistm is missing: cannot download BSR_bsds500.tgz (timed out): "
                      f"get it from {url} and put it into {tmp_path}")
    assert svhn.startswith("digits/svhn is missing: cannot download test_32x32.mat (the server sent something else): ")
    assert not (tmp_path / "test_32x32.mat").exists() and "list_attr_celeba.txt is damaged" in faces
    usps, svhn = (sorted((tmp_path / "data" / "digits").glob(f"{domain}/*/*.png")) for domain in ("usps", "svhn"))
    assert len(usps) == 2 * COUNT and len(svhn) == 6 and all(path.parent.name == "train" for path in svhn)
    (tmp_path / "BSR_bsds500.tgz").write_text("<html>Quota exceeded</html>")
    assert "BSR_bsds500.tgz is damaged" in build(tmp_path / "data", "--only", "digits", "--source-dir", tmp_path)[0]


def test_incomplete_splits_are_not_touched(tmp_path):
    make_data(tmp_path)
    (tmp_path / "digits" / "mnistm" / "train.csv").unlink()
    (tmp_path / "digits" / "svhn" / "test.csv").write_text("image_name,label\n")
    (tmp_path / "face" / "test" / "00000.png").unlink()
    before, lines = every_file(tmp_path), build(tmp_path)
    assert all(f"{tmp_path / split} is incomplete" in line and line.endswith("then the same command builds them")
               for line, split in zip(lines, ("digits/mnistm/train", "digits/svhn/test", "face/test")))
    assert len(lines) == 3 and every_file(tmp_path) == before
