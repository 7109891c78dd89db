"""Build the course's data set from its public sources, in the course's own layout.

    python3 -m common.prepare_data hw3_data                    # downloads 1.8 GB into hw3_data/sources, once
    python3 -m common.prepare_data hw3_data --only digits      # or face
    python3 -m common.prepare_data hw3_data --svhn-subset      # SVHN's first 4,434 / 10,000 digits
    python3 -m common.prepare_data hw3_data --source-dir DIR   # uses the files in DIR, downloads the others into it

After an interruption the same command continues: downloaded files and finished splits are kept.
To build a split again, remove its folder and its CSV first.
    digits/usps    USPS, 16x16, enlarged to 28x28, grey
    digits/mnistm  |photo patch - MNIST digit| with the 200 training photographs of BSDS500, seed 0
                   (Ganin et al. 2016, section 5.2.4)
    digits/svhn    SVHN's cropped digits, 32x32, reduced to 28x28
    face           CelebA, aligned: the middle 148x148, reduced to 64x64;
                   the first 40,000 of its train partition and the first 2,621 of its test partition
"""
import argparse
import contextlib
import gzip
import hashlib
import http.client
import io
import os
import shutil
import sys
import tarfile
import time
import urllib.request
import zipfile

import common
from common.files import write_csv

import numpy as np
from PIL import Image
from torchvision.datasets import MNIST, SVHN, USPS, CelebA
from torchvision.datasets.utils import check_integrity

TIMEOUT = 30  # seconds without a byte after which a server is given up
BSDS_URL = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz"
BSDS_PAGE = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html"
BSDS_PHOTOS = "BSR/BSDS500/data/images/train/"
# The sum of the 200 photographs' files, in the order of their names.
BSDS_SHA256 = "b626d29a9653bf7a573863ad2470032b8d6e01a04a88d1c1e4b599055eb60e71"
ATTRIBUTES = ("Bangs", "Big_Lips", "Black_Hair", "Blond_Hair", "Brown_Hair", "Heavy_Makeup", "High_Cheekbones", "Male",
              "Mouth_Slightly_Open", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Lipstick")
SVHN_SUBSET = {"train": 4434, "test": 10000}
FACES = {"train": ("0", 40000), "test": ("2", 2621)}  # CelebA's code for the partition, and how many of its faces
CELEBA_URL = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
CELEBA_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


def show_progress(name, done, total, unit, started):
    """On a terminal, one line that is refreshed, and cleared at the end."""
    if sys.stdout.isatty():
        left = int((time.time() - started) * (total / done - 1))
        line = f"{name}: {done:,.0f} of {total:,.0f} {unit}  left {left // 60}m{left % 60:02d}s"
        print(line if done < total else "", end="\033[K\r", flush=True)


def is_there(folder):
    """Whether FOLDER is a finished split, with a file for each row of FOLDER.csv. Exits if it is incomplete."""
    files = os.listdir(folder) if os.path.isdir(folder) else []
    if not files:
        return False
    rows = 0
    if os.path.exists(f"{folder}.csv"):
        with open(f"{folder}.csv", "rb") as file:
            rows = max(0, sum(1 for _ in file) - 1)
    if not 0 < rows <= len(files):
        raise SystemExit(f"{folder} is incomplete: it has {len(files):,} files, but {folder}.csv is missing or has "
                         f"{rows:,} rows: remove both, then the same command builds them")
    print(f"{folder}: there already ({rows:,} images), left as it is", flush=True)
    return True


def write_split(folder, header, rows, images):
    """Write the PIL `images` under the names that `rows` (image_name, ...) begin with, and `rows` as FOLDER.csv.

    The images go into FOLDER.part, which is renamed when all are written. A finished split is left as it is.
    """
    if is_there(folder):
        return
    part, started = f"{folder}.part", time.time()
    try:
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part)
        for done, (row, image) in enumerate(zip(rows, images), 1):
            image.save(os.path.join(part, row[0]), compress_level=1)
            if done % 100 == 0 or done == len(rows):
                show_progress(folder, done, len(rows), "images", started)
        write_csv(f"{folder}.csv", header, rows)
        os.rename(part, folder)
    except (OSError, SystemExit) as error:  # write_csv exits; Ctrl-C does not wait until thousands of files are removed
        shutil.rmtree(part, ignore_errors=True)
        raise SystemExit(f"cannot write {folder}: {error}")
    print(f"{folder}: {len(rows):,} images", flush=True)


def write_digits(folder, images, labels):
    """As `write_split`, from uint8 images [N, H, W] or [N, H, W, 3] and their labels; other sizes become 28x28."""
    rows = [(f"{i:05d}.png", int(label)) for i, label in enumerate(labels)]
    resized = (Image.fromarray(image).resize((28, 28), Image.BILINEAR) for image in images)
    write_split(folder, ("image_name", "label"), rows, resized)


def blend(digits, photos, rng):
    """MNIST-M's |photo patch - digit|: uint8 digits [N, 28, 28], photos [H, W, 3] each -> uint8 [N, 28, 28, 3]."""
    out = np.empty((*digits.shape, 3), np.uint8)
    for i, digit in enumerate(digits):
        photo = photos[rng.randint(len(photos))]
        row, column = rng.randint(photo.shape[0] - 28), rng.randint(photo.shape[1] - 28)
        out[i] = np.abs(photo[row:row + 28, column:column + 28].astype(int) - digit[:, :, None])
    return out


def download(url, path):
    """Write what `url` gives to `path`. An error ends it if the server stops sending or closes the connection early."""
    request = urllib.request.Request(url, headers={"User-Agent": "pytorch/vision"})  # some hosts refuse Python's own
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, open(path, "wb") as file:
        size, started = response.length, time.time()  # the size is None where the server does not tell it
        while block := response.read(2 ** 18):
            file.write(block)
            if size:
                show_progress(os.path.basename(path), file.tell() / 1e6, size / 1e6, "MB", started)
        if response.length:
            raise OSError(f"the connection was closed {response.length:,} bytes before the end")


def fetch(sources, name, urls, md5, page):
    """The path of SOURCES/NAME. If it is missing, it is downloaded from the first of `urls` that works."""
    path = os.path.join(sources, name)
    if os.path.exists(path):
        if not check_integrity(path, md5):
            raise SystemExit(f"{path} is damaged or another version (its MD5 is not {md5}): "
                             "remove it, then the same command downloads it")
        return path
    part = f"{path}.part"
    for url in urls:
        try:
            os.makedirs(sources, exist_ok=True)
            print(f"downloading {name}", flush=True)
            download(url, part)
            if not check_integrity(part, md5):
                raise OSError("the server sent something else")
            os.replace(part, path)
            return path
        except (OSError, http.client.HTTPException) as error:
            problem = " ".join(str(error).split())  # a server's words may hold line breaks
        finally:
            with contextlib.suppress(OSError):
                os.remove(part)
    raise SystemExit(f"cannot download {name} ({problem}): get it from {page} and put it into {sources}")


def read_usps(sources, split):
    """uint8 [N, 16, 16] and labels [N]."""
    url, name, md5 = USPS.split_list[split]
    fetch(sources, name, [url], md5, os.path.dirname(url))
    data = USPS(sources, train=split == "train")
    return data.data, data.targets


def read_mnist(sources, split):
    """uint8 [N, 28, 28] and labels [N]."""
    arrays = []
    for name, md5 in MNIST.resources:
        if name.startswith("train" if split == "train" else "t10k"):
            path = fetch(sources, name, [mirror + name for mirror in MNIST.mirrors], md5, MNIST.mirrors[0])
            with gzip.open(path) as file:
                arrays.append(np.frombuffer(file.read(), np.uint8))
    images, labels = arrays  # in the order of the list: idx files with headers of 16 and 8 bytes
    return images[16:].reshape(-1, 28, 28), labels[8:]


def read_svhn(sources, split):
    """uint8 [N, 32, 32, 3] and labels [N]."""
    url, name, md5 = SVHN.split_list[split]
    fetch(sources, name, [url], md5, os.path.dirname(url))
    data = SVHN(sources, split)
    return data.data.transpose(0, 2, 3, 1), data.labels


def read_photos(sources):
    """BSDS500's training photographs, uint8 [H, W, 3] each."""
    path = fetch(sources, "BSR_bsds500.tgz", [BSDS_URL], None, BSDS_PAGE)
    try:
        with tarfile.open(path, "r:gz") as archive:
            names = sorted(n for n in archive.getnames() if n.startswith(BSDS_PHOTOS) and n.endswith(".jpg"))
            files = [archive.extractfile(name).read() for name in names]
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SystemExit(f"{path} is damaged ({error}): remove it, then the same command downloads it")
    if hashlib.sha256(b"".join(files)).hexdigest() != BSDS_SHA256:
        raise SystemExit(f"{path} has other photographs than expected (their SHA-256 is not {BSDS_SHA256}): "
                         "remove it, then the same command downloads it")
    return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]


def prepare_digits(root, sources, svhn_subset):
    folders = {(name, split): os.path.join(root, "digits", name, split)
               for name in ("usps", "mnistm", "svhn") for split in ("train", "test")}
    missing = {key: folder for key, folder in folders.items() if not is_there(folder)}
    if ("mnistm", "train") in missing or ("mnistm", "test") in missing:
        photos, rng = read_photos(sources), np.random.RandomState(0)
        for split in ("train", "test"):  # both take their patches from one random stream, so test needs train's first
            digits, labels = read_mnist(sources, split)
            images = blend(digits, photos, rng)
            if ("mnistm", split) in missing:
                write_digits(missing["mnistm", split], images, labels)
    for split in ("train", "test"):
        if ("usps", split) in missing:
            write_digits(missing["usps", split], *read_usps(sources, split))
        if ("svhn", split) in missing:
            images, labels = read_svhn(sources, split)
            count = SVHN_SUBSET[split] if svhn_subset else len(labels)
            write_digits(missing["svhn", split], images[:count], labels[:count])


def crop_face(data):
    """A file of CelebA's aligned images, 178x218 -> 64x64."""
    return Image.open(io.BytesIO(data)).convert("RGB").crop((15, 40, 163, 188)).resize((64, 64), Image.BILINEAR)


def prepare_faces(root, sources):
    folders = {split: os.path.join(root, "face", split) for split in FACES}
    missing = [split for split, folder in folders.items() if not is_there(folder)]
    if not missing:
        return
    paths = {}
    for file_id, md5, name in CelebA.file_list:
        if name in ("img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt"):
            paths[name] = fetch(sources, name, [CELEBA_URL.format(file_id)], md5,
                                f"{CELEBA_PAGE} (its host refuses downloads on many days)")
    with open(paths["list_eval_partition.txt"]) as file:
        partition = dict(line.split() for line in file)
    with open(paths["list_attr_celeba.txt"]) as file:
        _, header, *lines = map(str.split, file)
    columns = [1 + header.index(name) for name in ATTRIBUTES]
    first = 0
    with zipfile.ZipFile(paths["img_align_celeba.zip"]) as archive:
        for split, (code, count) in FACES.items():
            chosen = [line for line in lines if partition[line[0]] == code][:count]
            rows = [(f"{i:05d}.png", *(str(float(line[c] == "1")) for c in columns))
                    for i, line in enumerate(chosen, first)]
            images = (crop_face(archive.read(f"img_align_celeba/{line[0]}")) for line in chosen)
            if split in missing:
                write_split(folders[split], ("image_name", *ATTRIBUTES), rows, images)
            first += count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--only", choices=["face", "digits"])
    parser.add_argument("--svhn-subset", action="store_true",
                        help="only the first 4,434 train and 10,000 test digits of SVHN")
    parser.add_argument("--source-dir", help="default: ROOT/sources")
    args = parser.parse_args()
    common.interrupted = "interrupted: the same command continues"
    sources = args.source_dir or os.path.join(args.root, "sources")
    if args.only != "face":
        prepare_digits(args.root, sources, args.svhn_subset)
    if args.only != "digits":
        prepare_faces(args.root, sources)


if __name__ == "__main__":
    main()
