"""The data set builder, on small files in the true format of each source, served over HTTP by this machine."""
import bz2
import gzip
import hashlib
import io
import shutil
import socket
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pandas
import pytest
from PIL import Image
from scipy.io import savemat

from common import prepare_data
from common.data import load_faces, load_labelled

COUNT = 20  # images of each split
PARTS = ["digits/mnistm", "digits/usps", "digits/svhn", "face"]
SPLITS = [f"{part}/{split}" for part in PARTS for split in ("train", "test")]


def compressed(image, name="JPEG"):
    Image.fromarray(image).save(buffer := io.BytesIO(), name)
    return buffer.getvalue()


@pytest.fixture(scope="module")
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

    names, partitions = [f"{i:06d}.jpg" for i in range(1, 3 * COUNT + 1)], np.arange(3 * COUNT) % 3
    columns = [f"Other_{i}" for i in range(27)] + prepare_data.ATTRIBUTES[::-1]
    attributes = rng.choice([-1, 1], (len(names), 40))
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        for name, partition in zip(names, partitions):  # dark faces for training, bright ones for the test
            archive.writestr(f"img_align_celeba/{name}", compressed(np.full((218, 178, 3), 80 * partition, np.uint8)))
    files["img_align_celeba.zip"] = buffer.getvalue()
    files["list_eval_partition.txt"] = "".join(f"{name} {p}\n" for name, p in zip(names, partitions)).encode()
    rows = "".join(f"{name} {' '.join(f'{v:2d}' for v in row)}\n" for name, row in zip(names, attributes))
    files["list_attr_celeba.txt"] = f"{len(names)}\n{' '.join(columns)} \n{rows}".encode()
    for split, partition in (("train", 0), ("test", 2)):
        true["smiling", split] = list(attributes[partitions == partition, columns.index("Smiling")] == 1)
    return files, true


@pytest.fixture
def served(sources, server, monkeypatch):
    """A folder with the files of `sources`, downloaded instead of the true ones; their sums are the expected ones."""
    (folder, url, _), (files, true) = server, sources
    for name, content in files.items():
        (folder / name).write_bytes(content)
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    for data in (prepare_data.USPS, prepare_data.SVHN):
        names = {split: data.split_list[split][1] for split in ("train", "test")}
        monkeypatch.setattr(data, "split_list", {k: [f"{url}/{name}", name, md5[name]] for k, name in names.items()})
    mnist, celeba = prepare_data.MNIST, prepare_data.CelebA
    monkeypatch.setattr(mnist, "mirrors", ["http://127.0.0.1:9/", f"{url}/"])  # no server answers at the first
    monkeypatch.setattr(mnist, "resources", [(name, md5[name]) for name, _ in mnist.resources])
    monkeypatch.setattr(prepare_data, "BSDS_URL", f"{url}/BSR_bsds500.tgz")
    monkeypatch.setattr(prepare_data, "BSDS_SHA256", hashlib.sha256(b"".join(true["photos"])).hexdigest())
    monkeypatch.setattr(prepare_data, "CELEBA_URL", url + "/{}")
    monkeypatch.setattr(celeba, "file_list", [(n, md5[n], n) for _, _, n in celeba.file_list if n in files])
    return folder


@pytest.fixture
def build(monkeypatch):
    """A function that runs the command and gives the lines with which it fails."""
    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["prepare_data.py", *map(str, arguments)])
        try:
            prepare_data.main()
        except SystemExit as error:
            return error.code.splitlines()  # Python prints a text, with status 1
        return []
    return main


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def every_file(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_courses_layout_from_every_source(served, sources, build, root):
    (_, true), rng = sources, np.random.RandomState(0)
    assert build(root) == []
    photos = [np.asarray(Image.open(io.BytesIO(file))) for file in true["photos"]]
    for split, first, grey in (("train", 0, 0), ("test", 40000, 160)):
        expected = {"mnistm": prepare_data.blend(true["mnistm", split][0], photos, rng)}  # one stream, train's first
        for domain in ("usps", "svhn"):
            resized = [Image.fromarray(image).resize((28, 28), Image.BILINEAR) for image in true[domain, split][0]]
            expected[domain] = np.stack([image.convert("RGB") for image in resized]).astype(int)
        for domain, images in expected.items():
            x, labels = load_labelled(root, domain, split)
            assert abs(x.permute(0, 2, 3, 1).numpy() - images).max() <= (2 if domain == "usps" else 0)  # has decimals
            assert labels.tolist() == true[domain, split][1].tolist()
        assert Image.open(root / "digits" / "usps" / split / "00000.png").mode == "L"
        assert (load_faces(root, split) == grey).all()
        table = pandas.read_csv(root / "face" / f"{split}.csv")
        assert list(table) == ["image_name", *prepare_data.ATTRIBUTES]
        assert list(table["image_name"]) == [f"{first + i:05d}.png" for i in range(COUNT)]  # as in the course's data
        assert list(table["Smiling"]) == true["smiling", split]

    before = every_file(root)
    shutil.rmtree(served)
    assert build(root, "--svhn-subset") == [] and every_file(root) == before  # nothing is asked for or written


def test_blending_by_hand():
    digit = np.zeros((1, 28, 28), np.uint8)
    digit[0, 5, 7] = 250
    out = prepare_data.blend(digit, [np.full((29, 29, 3), 100, np.uint8)], np.random.RandomState(0))
    assert out[0, 5, 7].tolist() == [150] * 3 and (np.delete(out.reshape(-1, 3), 5 * 28 + 7, 0) == 100).all()


def test_faces_are_the_middle_of_the_aligned_image():
    image = np.zeros((218, 178, 3), np.uint8)
    image[40:188, 15:163] = 200
    assert (np.asarray(prepare_data.crop_face(compressed(image, "PNG"))) == 200).all()


def test_interrupted_and_continued(served, build, tmp_path, monkeypatch):
    def interrupt(image, path, **options):
        if "mnistm/test.part/00013" in str(path):
            raise KeyboardInterrupt
        save(image, path, **options)
    save, whole, halves = Image.Image.save, tmp_path / "whole", tmp_path / "halves"
    build(whole)
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(halves)
    assert not (halves / "digits" / "mnistm" / "test").exists()
    finished = halves / "digits" / "mnistm" / "train" / "00000.png"
    before = finished.stat().st_mtime_ns
    assert build(halves) == [] and every_file(halves) == every_file(whole) and finished.stat().st_mtime_ns == before


def test_files_that_the_user_has(served, build, tmp_path, monkeypatch):
    served.rename(tmp_path / "mine")  # so nothing can be downloaded
    assert build(tmp_path / "data", "--source-dir", tmp_path / "mine") == [] and (tmp_path / "data" / "face").exists()
    (tmp_path / "mine" / "list_attr_celeba.txt").write_text("another version")
    line, = build(tmp_path / "new", "--only", "face", "--source-dir", tmp_path / "mine")
    assert "list_attr_celeba.txt is damaged" in line and not (tmp_path / "new").exists()
    monkeypatch.setattr(prepare_data, "BSDS_SHA256", "of other photographs")
    line, = build(tmp_path / "new", "--only", "digits", "--source-dir", tmp_path / "mine")
    assert "BSR_bsds500.tgz is damaged" in line and not (tmp_path / "new" / "digits" / "mnistm").exists()


@pytest.mark.parametrize("damage", ["gone", "a web page", "half"])
def test_sources_that_refuse(damage, served, build, root):
    """Google Drive refuses with a web page; other hosts answer with an error."""
    for name in (names := ["BSR_bsds500.tgz", "usps.bz2", "train_32x32.mat", "img_align_celeba.zip"]):
        content = (served / name).read_bytes()
        (served / name).write_bytes(b"<html>Quota exceeded</html>" if damage == "a web page" else content[:-200])
        if damage == "gone":
            (served / name).unlink()
    lines = build(root)
    assert [line.split(" is missing: ")[0] for line in lines] == PARTS
    assert all(name in line for name, line in zip(names, lines))
    assert not any((root / split).exists() for split in SPLITS)


def test_a_dead_host_leaves_the_others(served, build, root, monkeypatch):
    monkeypatch.setattr(prepare_data, "BSDS_URL", "http://127.0.0.1:9/BSR_bsds500.tgz")
    (served / "test_32x32.mat").unlink()
    photos, svhn = build(root)
    assert photos.startswith("digits/mnistm is missing: cannot download BSR_bsds500.tgz (<urlopen error [Errno 111] ")
    assert photos.endswith(f"get it from http://127.0.0.1:9/BSR_bsds500.tgz and put it into {root / 'sources'}")
    assert svhn.startswith("digits/svhn is missing: cannot download test_32x32.mat (HTTP Error 404: File not found)")
    assert [split for split in SPLITS if (root / split).exists()] == [
        "digits/usps/train", "digits/usps/test", "digits/svhn/train", "face/train", "face/test"]


def test_the_part_of_svhn_in_the_tables(served, sources, build, root, monkeypatch):
    monkeypatch.setattr(prepare_data, "SVHN_SUBSET", {"train": 6, "test": 4})
    build(root, "--only", "digits", "--svhn-subset")
    for domain, split, count in (("svhn", "train", 6), ("svhn", "test", 4), ("usps", "train", COUNT)):
        images, labels = load_labelled(root, domain, split)
        assert len(images) == count and labels.tolist() == sources[1][domain, split][1][:count].tolist()


def test_empty_split_folders_are_built(served, build, root):
    for split in SPLITS:
        (root / split).mkdir(parents=True)
    (root / "digits" / "usps" / "test.csv").write_text("image_name,label\n")
    assert build(root) == []
    for split in SPLITS:
        assert len(pandas.read_csv(root / f"{split}.csv")) == len(list((root / split).iterdir())) == COUNT


def test_incomplete_splits_are_not_touched(served, build, root):
    build(root)
    (root / "digits" / "mnistm" / "train.csv").unlink()
    (root / "digits" / "svhn" / "test.csv").write_text("image_name,label\n")
    (root / "face" / "test" / "40000.png").unlink()
    before, lines = every_file(root), build(root)
    assert all(f"{root / split} is incomplete" in line and line.endswith("then the same command builds them")
               for line, split in zip(lines, ("digits/mnistm/train", "digits/svhn/test", "face/test")))
    assert len(lines) == 3 and every_file(root) == before


@pytest.mark.parametrize("answer, hangs_up", [
    (b"", False), (b"Content-Length: 9\r\n\r\nabc", False), (b"Content-Length: 9\r\n\r\nabc", True),
    (b"Transfer-Encoding: chunked\r\n\r\n10\r\nabc", True)], ids=["silent", "stops", "hangs up", "chunk"])
def test_a_server_that_fails_half_way(answer, hangs_up, server, tmp_path, monkeypatch):
    """It is left after a time for the next mirror; without one, one line says where to get the file."""
    def serve():
        while True:
            connections.append(listener.accept()[0])
            connections[-1].recv(4096)
            connections[-1].sendall(answer and b"HTTP/1.1 200 OK\r\n" + answer)
            if hangs_up:
                connections[-1].close()
    listener, connections = socket.create_server(("127.0.0.1", 0)), []
    threading.Thread(target=serve, daemon=True).start()
    monkeypatch.setattr(prepare_data, "TIMEOUT", 0.2)
    bad, sources = f"http://127.0.0.1:{listener.getsockname()[1]}/x.bz2", tmp_path / "sources"
    with pytest.raises(SystemExit, match="^cannot download x.bz2 .* get it from the page and put it into .*$"):
        prepare_data.fetch(sources, "x.bz2", [bad], None, "the page")
    assert not list(sources.iterdir())
    (server[0] / "x.bz2").write_bytes(b"abcdefghi")
    path = prepare_data.fetch(sources, "x.bz2", [bad, f"{server[1]}/x.bz2"], None, "the page")
    assert path.read_bytes() == b"abcdefghi" and list(sources.iterdir()) == [path]
