"""Build the course's data set from its public sources, in its own layout.

    python3 -m common.prepare_data hw3_data                    # downloads 1.8 GB into hw3_data/sources, once
    python3 -m common.prepare_data hw3_data --only digits      # or face
    python3 -m common.prepare_data hw3_data --source-dir DIR   # take what DIR has, download the rest into it

The same command goes on after an interruption: what is downloaded or written stays, a split is there when all of it is.
    digits/usps    USPS, 16x16, enlarged to 28x28, grey
    digits/mnistm  |photo patch - MNIST digit| with the 200 training photographs of BSDS500 (Ganin et al. 2016, section 5.2.4), seed 0
    digits/svhn    SVHN's cropped digits, 32x32, reduced to 28x28
    face           CelebA, aligned: the middle 148x148, reduced to 64x64; the first 40,000 of its train, 2,621 of its test partition
"""
import argparse
import functools
import gzip
import hashlib
import io
import multiprocessing
import os
import shutil
import signal
import sys
import tarfile
import time
import zipfile

import numpy as np
from PIL import Image
from torchvision.datasets import MNIST, SVHN, USPS, CelebA
from torchvision.datasets.utils import check_integrity, download_url

from common.runtime import write_csv

BSDS_URL = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz"
BSDS_PHOTOS = "BSR/BSDS500/data/images/train/"
BSDS_SHA256 = "b626d29a9653bf7a573863ad2470032b8d6e01a04a88d1c1e4b599055eb60e71"  # of the 200 photographs' files, in name order: those that the report's MNIST-M is made from
ATTRIBUTES = ("Bangs", "Big_Lips", "Black_Hair", "Blond_Hair", "Brown_Hair", "Heavy_Makeup", "High_Cheekbones", "Male",
              "Mouth_Slightly_Open", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Lipstick")
FACES = {"train": ("0", 40000), "test": ("2", 2621)}  # CelebA's name for the partition; how many of it
CELEBA_URL = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
CELEBA_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
CHUNK = 256  # pictures that a process writes at a time


def _start_worker(*job):
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer


def _write_chunk(start):
    folder, names, picture = _job
    for i in range(start, min(start + CHUNK, len(names))):
        picture(i).save(os.path.join(folder, names[i]), compress_level=1)


def write_split(folder, header, rows, picture):
    """Write the PIL images picture(0), picture(1), ... under the names that `rows` (image_name, ...) begin with, and `rows` as FOLDER.csv.

    Forked processes share the work in FOLDER.part, which is renamed when all is written; a FOLDER that is there is left as it is.
    """
    if os.path.isdir(folder):
        return print(f"{folder}: there already")
    part, started = f"{folder}.part", time.time()
    try:
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part, exist_ok=True)  # a worker that outlived a kill may still write into it
        with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0)), _start_worker, (part, [row[0] for row in rows], picture)) as pool:
            for done, _ in enumerate(pool.imap_unordered(_write_chunk, range(0, len(rows), CHUNK)), 1):
                left = (time.time() - started) * (len(rows) / (done * CHUNK) - 1)
                if sys.stdout.isatty() and left > 0:
                    print(f"{folder}: {done * CHUNK:,} of {len(rows):,}  left {left // 60:.0f}m{left % 60:02.0f}s", end="\033[K\r", flush=True)
        write_csv(f"{folder}.csv", header, rows)
        os.rename(part, folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise SystemExit(f"cannot write {folder}: {error}")
    print(f"{folder}: {len(rows):,} images", flush=True)


def write_digits(folder, images, labels):
    """As `write_split`, from uint8 images [N, H, W] or [N, H, W, 3] and their labels; other sizes become 28x28."""
    rows = [(f"{i:05d}.png", int(label)) for i, label in enumerate(labels)]
    write_split(folder, ("image_name", "label"), rows, lambda i: Image.fromarray(images[i]).resize((28, 28), Image.BILINEAR))


def blend(digits, photos, rng):
    """MNIST-M's |photo patch - digit| of uint8 digits [N, 28, 28] over patches of random photos [H, W, 3]: uint8 [N, 28, 28, 3]."""
    out = np.empty((*digits.shape, 3), np.uint8)
    for i, digit in enumerate(digits):
        photo = photos[rng.randint(len(photos))]
        row, column = rng.randint(photo.shape[0] - 28), rng.randint(photo.shape[1] - 28)
        out[i] = np.abs(photo[row:row + 28, column:column + 28].astype(int) - digit[:, :, None])
    return out


def fetch(sources, name, urls, md5, page):
    """The path of SOURCES/NAME, downloaded from the first of `urls` that gives it, under another name until it is whole."""
    path = os.path.join(sources, name)
    if os.path.exists(path):
        if not check_integrity(path, md5):
            raise SystemExit(f"{path} is damaged or another version (its MD5 is not {md5}): delete it, and it is downloaded")
        return path
    part = f"{path}.part"
    for url in urls:
        try:
            os.makedirs(sources, exist_ok=True)
            if os.path.exists(part):
                os.remove(part)
            print(f"downloading {name}", flush=True)
            download_url(url, sources, f"{name}.part", md5)
            os.replace(part, path)
            return path
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong sum a RuntimeError
            problem = error
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
    path = fetch(sources, "BSR_bsds500.tgz", [BSDS_URL], None, "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html")
    try:
        with tarfile.open(path, "r:gz") as archive:
            names = sorted(name for name in archive.getnames() if name.startswith(BSDS_PHOTOS) and name.endswith(".jpg"))
            files = [archive.extractfile(name).read() for name in names]
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SystemExit(f"{path} is damaged ({error}): delete it, and it is downloaded again")
    if hashlib.sha256(b"".join(files)).hexdigest() != BSDS_SHA256:
        raise SystemExit(f"{path} has other photographs than expected (their SHA-256 is not {BSDS_SHA256}): delete it, and it is downloaded again")
    return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]


def prepare_digits(root, sources):
    folders = {(name, split): os.path.join(root, "digits", name, split) for name in ("usps", "mnistm", "svhn") for split in ("train", "test")}
    if not all(os.path.isdir(folders["mnistm", split]) for split in ("train", "test")):
        photos, rng = read_photos(sources), np.random.RandomState(0)
        for split in ("train", "test"):  # one stream for both, so the second needs the first
            digits, labels = read_mnist(sources, split)
            write_digits(folders["mnistm", split], blend(digits, photos, rng), labels)
    for name, read in (("usps", read_usps), ("svhn", read_svhn)):
        for split in ("train", "test"):
            if not os.path.isdir(folders[name, split]):
                write_digits(folders[name, split], *read(sources, split))


open_zip = functools.cache(zipfile.ZipFile)  # once a process: two must not share one file's position


def crop_face(data):
    """A file of CelebA's aligned images, 178x218 -> 64x64."""
    return Image.open(io.BytesIO(data)).convert("RGB").crop((15, 40, 163, 188)).resize((64, 64), Image.BILINEAR)


def prepare_faces(root, sources):
    if all(os.path.isdir(os.path.join(root, "face", split)) for split in FACES):
        return
    paths = {}
    for file_id, md5, name in CelebA.file_list:
        if name in ("img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt"):
            paths[name] = fetch(sources, name, [CELEBA_URL.format(file_id)], md5, f"{CELEBA_PAGE} (its host refuses downloads on many days)")
    with open(paths["list_eval_partition.txt"]) as file:
        partition = dict(line.split() for line in file)
    with open(paths["list_attr_celeba.txt"]) as file:
        _, header, *lines = map(str.split, file)
    columns = [1 + header.index(name) for name in ATTRIBUTES]
    first = 0
    for split, (code, count) in FACES.items():
        chosen = [line for line in lines if partition[line[0]] == code][:count]
        rows = [(f"{i:05d}.png", *(str(float(line[c] == "1")) for c in columns)) for i, line in enumerate(chosen, first)]
        write_split(os.path.join(root, "face", split), ("image_name", *ATTRIBUTES), rows,
                    lambda i: crop_face(open_zip(paths["img_align_celeba.zip"]).read(f"img_align_celeba/{chosen[i][0]}")))
        first += count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--only", choices=["face", "digits"])
    parser.add_argument("--source-dir", help="default: ROOT/sources")
    args = parser.parse_args()
    sources = args.source_dir or os.path.join(args.root, "sources")
    if args.only != "face":
        prepare_digits(args.root, sources)
    if args.only != "digits":
        prepare_faces(args.root, sources)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\ninterrupted: the same command goes on")
