"""The data set builder, on small files in the true format of each source, served over HTTP by this machine."""
import bz2
import contextlib
import glob
import gzip
import hashlib
import io
import multiprocessing
import os
import signal
import socketserver
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

from common import prepare_data
from common.data import load_faces, load_labelled

import numpy as np
import pytest
from conftest import ROOT, one_line_error, wait_for
from PIL import Image
from scipy.io import savemat

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
    """{file name: content} of every source, and the images and labels in them."""
    files, true = {}, {}
    for split, usps, mnist, svhn in (("train", "usps.bz2", "train", "train_32x32.mat"),
                                     ("test", "usps.t.bz2", "t10k", "test_32x32.mat")):
        labels = rng.permutation(np.arange(COUNT) % 10)
        x = rng.randint(0, 256, (COUNT, 16, 16))
        pixels = (" ".join(f"{i}:{v / 127.5 - 1:.4f}" for i, v in enumerate(image.ravel(), 1)) for image in x)
        lines = (f"{label + 1} {line}" for label, line in zip(labels, pixels))
        files[usps] = bz2.compress("\n".join(lines).encode())
        true["usps", split] = x, labels

        x, labels = rng.randint(0, 256, (COUNT, 28, 28)).astype(np.uint8), rng.permutation(labels)
        for name, magic, array in (("images-idx3", 2051, x), ("labels-idx1", 2049, labels.astype(np.uint8))):
            header = np.array([magic, *array.shape], ">i4")
            files[f"{mnist}-{name}-ubyte.gz"] = gzip.compress(header.tobytes() + array.tobytes())
        true["mnistm", split] = x, labels

        x, labels = rng.randint(0, 256, (COUNT, 32, 32, 3)).astype(np.uint8), rng.permutation(labels)
        buffer = io.BytesIO()
        y = np.where(labels, labels, 10)[:, None].astype(np.uint8)  # SVHN's label of a zero is 10
        savemat(buffer, {"X": x.transpose(1, 2, 3, 0), "y": y})
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
    smiling = attributes[:, columns.index("Smiling")]
    true["smiling"] = {split: smiling[partitions == p] for split, p in (("train", 0), ("test", 2))}
    return files, true


@pytest.fixture(scope="module")
def sources():
    return make_sources(np.random.RandomState(0))


@pytest.fixture
def served(sources, server, monkeypatch):
    """A folder with the files of `sources`, downloaded instead of the true ones; their sums are the expected ones."""
    folder, url, _ = server
    files, true = sources
    for name, content in files.items():
        (folder / name).write_bytes(content)

    def md5(name):
        return hashlib.md5(files[name]).hexdigest()
    for data in (prepare_data.USPS, prepare_data.SVHN):
        names = {split: name for split, (_, name, *_) in data.split_list.items() if name in files}
        monkeypatch.setattr(data, "split_list", {split: [f"{url}/{n}", n, md5(n)] for split, n in names.items()})
    mnist, celeba = prepare_data.MNIST, prepare_data.CelebA
    monkeypatch.setattr(mnist, "mirrors", ["http://127.0.0.1:9/", f"{url}/"])  # no server answers at the first
    monkeypatch.setattr(mnist, "resources", [(name, md5(name)) for name, _ in mnist.resources])
    monkeypatch.setattr(prepare_data, "BSDS_URL", f"{url}/BSR_bsds500.tgz")
    monkeypatch.setattr(prepare_data, "BSDS_SHA256", hashlib.sha256(b"".join(true["photos"])).hexdigest())
    monkeypatch.setattr(prepare_data, "CELEBA_URL", url + "/{}")
    monkeypatch.setattr(celeba, "file_list", [(n, md5(n), n) for _, _, n in celeba.file_list if n in files])
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
        reduced = [Image.fromarray(image.numpy()[0]).resize((16, 16), Image.BOX) for image in images]
        assert np.corrcoef(np.stack(reduced).ravel(), x.ravel())[0, 1] > 0.8

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
    assert (root / "face" / "test" / "40000.png").exists()  # numbered as in the course's data: after the 40,000

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
    """Half a split from a run that was killed is written again; finished splits stay."""
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
    assert sorted(os.listdir(root / "digits" / "mnistm")) == ["test", "test.csv", "train", "train.csv"]


def test_files_that_the_user_has(served, tmp_path, monkeypatch):
    server = tmp_path / "moved"
    served.rename(server)  # so nothing can be downloaded
    build(monkeypatch, tmp_path / "data", "--source-dir", server)
    assert load_faces(str(tmp_path / "data"), "train").shape[0] == COUNT


@pytest.mark.parametrize("name, folder", [
    ("img_align_celeba.zip", "face"), ("list_attr_celeba.txt", "face"), ("usps.bz2", "digits/usps/train"),
    ("train-labels-idx1-ubyte.gz", "digits/mnistm"), ("test_32x32.mat", "digits/svhn/test"),
    ("BSR_bsds500.tgz", "digits/mnistm")])
@pytest.mark.parametrize("damage", ["gone", "another"])
def test_a_source_that_refuses(name, folder, damage, served, tmp_path, monkeypatch):
    """Google Drive refuses with a web page; other hosts answer with an error."""
    if damage == "gone":
        (served / name).unlink()
    else:
        (served / name).write_bytes(b"<html>Quota exceeded</html>")
    root = tmp_path / "data"
    with pytest.raises(SystemExit) as error:
        build(monkeypatch, root, "--only", folder.split("/")[0])
    assert name in str(error.value) and "\n" not in str(error.value)
    if damage == "gone" or name != "BSR_bsds500.tgz":  # the sum of its photographs is checked, not its own
        assert not (root / "sources" / name).exists()
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


def test_killed_while_it_builds(served, tmp_path, monkeypatch):
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
    assert every_file(tmp_path / "halves" / "digits" / "mnistm") == mnistm  # finished splits are not written again
    assert not subprocess.run(["diff", "-r", tmp_path / "whole", tmp_path / "halves"], capture_output=True).stdout


def test_disk_full_while_it_builds(served, small_disk, monkeypatch):
    root = small_disk(64)
    with pytest.raises(SystemExit, match="cannot write"):
        build(monkeypatch, root, "--only", "digits", "--source-dir", served)
    assert not glob.glob(str(root / "**" / "*.part"), recursive=True)
    whole = [folder for folder in glob.glob(str(root / "digits" / "*" / "*")) if os.path.isdir(folder)]
    assert all(len(os.listdir(folder)) == 20 and os.path.exists(f"{folder}.csv") for folder in whole) and len(whole) < 6


def test_the_part_of_svhn_in_the_tables(served, sources, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare_data, "SVHN_SUBSET", {"train": 6, "test": 4})
    build(monkeypatch, tmp_path / "full", "--only", "digits")
    build(monkeypatch, tmp_path / "part", "--only", "digits", "--svhn-subset")
    for domain, split, count in (("svhn", "train", 6), ("svhn", "test", 4), ("usps", "train", COUNT)):
        full, labels = load_labelled(str(tmp_path / "full"), domain, split)
        part, part_labels = load_labelled(str(tmp_path / "part"), domain, split)
        assert len(full) == COUNT and (part == full[:count]).all()
        assert part_labels.tolist() == labels[:count].tolist() == sources[1][domain, split][1][:count].tolist()

    before = every_file(tmp_path / "full")
    capsys.readouterr()
    build(monkeypatch, tmp_path / "full", "--only", "digits", "--svhn-subset")  # the full set stays
    assert every_file(tmp_path / "full") == before
    assert f"svhn/train: there already ({COUNT} images), left as it is" in capsys.readouterr().out


def test_empty_split_folders_are_built(served, tmp_path, monkeypatch):
    folders = ["digits/usps/test", "digits/mnistm/train", "digits/svhn/train", "face/train"]
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "digits" / "usps" / "test.csv").write_text("image_name,label\n")
    build(monkeypatch, tmp_path)
    for folder in folders:
        rows = (tmp_path / f"{folder}.csv").read_text().splitlines()
        assert len(os.listdir(tmp_path / folder)) == len(rows) - 1 == COUNT


@pytest.mark.parametrize("split", ["digits/svhn/test", "digits/mnistm/train", "face/test"])
@pytest.mark.parametrize("damage", ["no CSV", "no rows", "an image less"])
def test_an_incomplete_split_is_not_touched(split, damage, served, tmp_path, monkeypatch):
    root, only = tmp_path / "data", split.split("/")[0]
    build(monkeypatch, root, "--only", only)
    csv = root / f"{split}.csv"
    if damage == "no CSV":
        csv.unlink()
    elif damage == "no rows":
        csv.write_text(csv.read_text().splitlines(True)[0])
    else:
        next((root / split).iterdir()).unlink()
    before = every_file(root)
    with pytest.raises(SystemExit, match="remove both") as error:
        build(monkeypatch, root, "--only", only)
    assert str(root / split) in str(error.value) and "\n" not in str(error.value)
    assert every_file(root) == before


@pytest.fixture
def time_limit():
    def stop(*_):
        pytest.fail("still waiting after 30 seconds")
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def bad_server():
    """A function that starts a server which sends these bytes and then hangs up or stays silent; gives its address."""
    with contextlib.ExitStack() as stack:
        def start(answer, hangs_up):
            end = threading.Event()

            class Handler(socketserver.BaseRequestHandler):
                def handle(self):
                    self.request.recv(4096)
                    self.request.sendall(answer)
                    if not hangs_up:
                        end.wait()
            server = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            stack.callback(end.set)
            return f"http://127.0.0.1:{server.server_address[1]}"
        yield start


@pytest.mark.parametrize("answer, hangs_up", [
    (b"", False), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", False),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc", False),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", True), (b"HTTP/1.1 OK 200\r\n\r\n", True), (b"", True)],
    ids=["silent", "stops", "stops in a chunk", "hangs up in a chunk", "hangs up", "nonsense", "hangs up at once"])
def test_a_server_that_fails_half_way(answer, hangs_up, bad_server, server, tmp_path, monkeypatch, time_limit):
    """It is left after a time for the next mirror; without one, one line says where to get the file."""
    monkeypatch.setattr(prepare_data, "TIMEOUT", 0.2, raising=False)
    bad, sources = bad_server(answer, hangs_up), tmp_path / "sources"
    with pytest.raises(SystemExit, match="cannot download x.bz2 .* get it from the page") as error:
        prepare_data.fetch(str(sources), "x.bz2", [f"{bad}/x.bz2"], None, "the page")
    assert "\n" not in str(error.value) and not list(sources.iterdir())

    (server[0] / "x.bz2").write_bytes(b"abcdefghi")
    path = prepare_data.fetch(str(sources), "x.bz2", [f"{bad}/x.bz2", f"{server[1]}/x.bz2"], None, "the page")
    assert open(path, "rb").read() == b"abcdefghi" and len(list(sources.iterdir())) == 1


def test_ctrl_c_in_a_download(bad_server, tmp_path):
    """The proxy accepts the connection and stays silent."""
    process = subprocess.Popen([sys.executable, "-m", "common.prepare_data", tmp_path / "data"], cwd=ROOT, text=True,
                               env={**os.environ, "https_proxy": bad_server(b"", False)},
                               # a job in the background ignores Ctrl-C
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith("downloading")
    process.send_signal(signal.SIGINT)
    _, process.stderr = process.communicate(timeout=20)
    assert one_line_error(process).startswith("interrupted")
    assert not list(tmp_path.glob("data/sources/*"))


def test_no_other_process_is_needed(tmp_path, monkeypatch):
    """A worker that is killed could leave this one waiting for ever."""
    writers, save = [], Image.Image.save

    def noted(*arguments, **options):
        writers.append(os.getpid())
        save(*arguments, **options)
    monkeypatch.setattr(Image.Image, "save", noted)
    prepare_data.write_digits(str(tmp_path / "train"), np.zeros((3, 28, 28), np.uint8), [0, 1, 2])
    assert writers == [os.getpid()] * 3


def test_no_shared_memory(tmp_path):
    script = (f"import numpy as np, sys; sys.path.insert(0, {ROOT!r}); from common.prepare_data import write_digits; "
              f"write_digits({str(tmp_path / 'train')!r}, np.zeros((3, 28, 28), np.uint8), [0, 1, 2])")
    without = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o ro none /dev/shm || exit 77; exec "$@"', "sh"]
    process = subprocess.run([*without, sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    if process.returncode == 77 or "unshare" in process.stderr:
        pytest.skip("no right to hide /dev/shm")
    assert process.returncode == 0, process.stderr
    assert len(os.listdir(tmp_path / "train")) == 3
