"""Build the course's data set from its public sources, in the course's own layout.

    python3 -m common.prepare_data hw3_data                    # downloads 1.8 GB into hw3_data/sources, once
    python3 -m common.prepare_data hw3_data --only digits      # or face
    python3 -m common.prepare_data hw3_data --svhn-subset      # SVHN's first 4,434 / 10,000 digits
    python3 -m common.prepare_data hw3_data --source-dir DIR   # uses the files in DIR, downloads the others into it

What can be built is built, and a line tells what is missing. The same command continues: downloaded files and finished
splits are kept. To build a split again, remove its folder and its CSV first.
    digits/usps    USPS, 16x16, enlarged to 28x28, grey
    digits/mnistm  |photo patch - 255 where the MNIST digit is|, 200 training photographs of BSDS500, seed 0
    digits/svhn    SVHN's cropped digits, 32x32, reduced to 28x28
    face           CelebA, aligned, the first 40,000 training and 2,621 test faces: 110x110 pixels, reduced to 64x64

Ganin et al. 2016, section 5.2.4, do not say that MNIST-M's digits are binarised. The course's are: eleven public models
score on the images built here what they print for the course's, ten within 0.8 points and one within 1.2; with grey
digits they were off by 0.5 to 9.3. A public report shows three of its test faces: CelebA's 189533, 189545 and
189549, which the box below fits to a pixel.
"""
import argparse
import gzip
import hashlib
import http.client
import io
import shutil
import socket
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas
import torch
from PIL import Image
from torchvision.datasets import MNIST, SVHN, USPS, CelebA
from torchvision.datasets.utils import check_integrity

from common.files import Progress

TIMEOUT = 30  # seconds without a byte after which a server is given up
BSDS_URL = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz"
BSDS_PHOTOS = "BSR/BSDS500/data/images/train/"
BSDS_SHA256 = "b626d29a9653bf7a573863ad2470032b8d6e01a04a88d1c1e4b599055eb60e71"  # of the 200 files, in name order
DAMAGED = "{} is damaged or another version: remove it, then the same command downloads it"
SVHN_SUBSET = {"train": 4434, "test": 10000}
CELEBA_URL = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
CELEBA_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (its host refuses downloads on many days)"
FACES = {"train": (0, 0, 40000), "test": (2, 40000, 2621)}  # CelebA's partition, our first number, how many faces
FACE_BOX = (35, 68, 145, 178)  # left, upper, right and lower edge in the aligned image of 178x218
ATTRIBUTES = ["Bangs", "Big_Lips", "Black_Hair", "Blond_Hair", "Brown_Hair", "Heavy_Makeup", "High_Cheekbones", "Male",
              "Mouth_Slightly_Open", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Lipstick"]


def is_there(folder):
    """Whether FOLDER is a finished split, with a file for each row of FOLDER.csv. Exits if it is incomplete."""
    csv, files = Path(f"{folder}.csv"), len(list(folder.glob("*")))
    rows = max(0, len(csv.read_text().splitlines()) - 1) if csv.exists() else 0
    if files and not 0 < rows <= files:
        raise SystemExit(f"{folder} is incomplete: it has {files:,} files, but {csv} is missing or has {rows:,} rows: "
                         "remove both, then the same command builds them")
    if files:
        print(f"{folder}: there already ({rows:,} images), left as it is", flush=True)
    return files > 0


def write_split(folder, images, table):
    """Write the PIL `images` under the names in the table's column image_name, and the table as FOLDER.csv.

    The images go into FOLDER.part, which is renamed when all are written: no split looks whole and is not. A finished
    split is left as it is.
    """
    if is_there(folder):
        return
    part, progress = Path(f"{folder}.part"), Progress(f"{folder}:", len(table))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for done, (name, image) in enumerate(zip(table["image_name"], images), 1):
        image.save(part / name, compress_level=1)
        progress.refresh(done)
    progress.clear()
    table.to_csv(f"{folder}.csv", index=False)
    part.rename(folder)
    print(f"{folder}: {len(table):,} images", flush=True)


def write_digits(folder, images, labels):
    """As `write_split`, from uint8 images [N, H, W] or [N, H, W, 3] and their labels; other sizes become 28x28."""
    table = pandas.DataFrame({"image_name": [f"{i:05d}.png" for i in range(len(labels))], "label": labels})
    write_split(folder, (Image.fromarray(image).resize((28, 28), Image.BILINEAR) for image in images), table)


def fetch(sources, name, urls, md5, page):
    """The path of SOURCES/NAME. If it is missing, it is downloaded from the first of `urls` that works."""
    path = Path(sources, name)
    if check_integrity(path, md5):
        return path
    if path.exists():
        raise SystemExit(DAMAGED.format(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    socket.setdefaulttimeout(TIMEOUT)
    for url in urls:
        print(f"downloading {name}", flush=True)
        try:
            torch.hub.download_url_to_file(url, path, progress=sys.stderr.isatty())
            if check_integrity(path, md5):
                return path
            path.unlink()
            reason = "the server sent something else"
        except (OSError, http.client.HTTPException) as error:
            reason = str(error)
    raise SystemExit(f"cannot download {name} ({reason}): get it from {page} and put it into {sources}")


def blend(digits, photos, rng):
    """MNIST-M's |photo patch - 255 * (digit > 0)|, uint8: digits [N, 28, 28], photos [H, W, 3] -> [N, 28, 28, 3]."""
    out = np.empty((*digits.shape, 3), np.uint8)
    for i, digit in enumerate(digits):
        photo = photos[rng.randint(len(photos))]
        row, column = rng.randint(photo.shape[0] - 28), rng.randint(photo.shape[1] - 28)
        out[i] = np.abs(photo[row:row + 28, column:column + 28].astype(int) - 255 * (digit[:, :, None] > 0))
    return out


def read_photos(sources):
    """BSDS500's training photographs, uint8 [H, W, 3] each."""
    path = fetch(sources, "BSR_bsds500.tgz", [BSDS_URL], None, BSDS_URL)
    try:
        with tarfile.open(path) as archive:
            names = sorted(n for n in archive.getnames() if n.startswith(BSDS_PHOTOS) and n.endswith(".jpg"))
            files = [archive.extractfile(name).read() for name in names]
    except (tarfile.TarError, EOFError):  # a web page, half an archive
        files = []
    if hashlib.sha256(b"".join(files)).hexdigest() != BSDS_SHA256:
        raise SystemExit(DAMAGED.format(path))
    return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]


def read_mnistm(sources, split):
    """uint8 [N, 28, 28, 3] and labels [N]. Test takes its patches after train, from one random stream."""
    photos, rng = read_photos(sources), np.random.RandomState(0)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        files = [fetch(sources, name, [mirror + name for mirror in MNIST.mirrors], md5, MNIST.mirrors[0])
                 for name, md5 in MNIST.resources if name.startswith(prefix)]
        digits, labels = (np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8) for file in files)
        images = blend(digits[16:].reshape(-1, 28, 28), photos, rng)  # behind the headers of 16 and 8 bytes
        if part == split:
            return images, labels[8:]


def read_usps(sources, split):
    """uint8 [N, 16, 16] and labels [N]."""
    url, name, md5 = USPS.split_list[split]
    fetch(sources, name, [url], md5, url)
    data = USPS(sources, train=split == "train")
    return data.data, data.targets


def read_svhn(sources, split, subset):
    """uint8 [N, 32, 32, 3] and labels [N]."""
    url, name, md5 = SVHN.split_list[split]
    fetch(sources, name, [url], md5, url)
    data = SVHN(sources, split)
    count = SVHN_SUBSET[split] if subset else None
    return data.data.transpose(0, 2, 3, 1)[:count], data.labels[:count]


def read_faces(sources, split):
    """PIL images, one at a time, and a table of their names and attributes, 1.0 or 0.0."""
    files = {name: fetch(sources, name, [CELEBA_URL.format(file_id)], md5, CELEBA_PAGE)
             for file_id, md5, name in CelebA.file_list
             if name in ("img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt")}
    partitions = pandas.read_csv(files["list_eval_partition.txt"], sep=r"\s+", header=None, index_col=0)[1]
    attributes = pandas.read_csv(files["list_attr_celeba.txt"], sep=r"\s+", skiprows=1)  # 1 or -1; the index is a name
    partition, first, count = FACES[split]
    attributes = attributes[partitions[attributes.index] == partition][:count]
    table = (attributes[ATTRIBUTES] == 1).astype(float)
    table.insert(0, "image_name", [f"{i:05d}.png" for i in range(first, first + len(table))])
    archive = zipfile.ZipFile(files["img_align_celeba.zip"])
    faces = (Image.open(archive.open(f"img_align_celeba/{name}")).convert("RGB") for name in attributes.index)
    return (face.crop(FACE_BOX).resize((64, 64), Image.BILINEAR) for face in faces), table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--only", choices=["face", "digits"])
    parser.add_argument("--svhn-subset", action="store_true", help="only its first 4,434 train and 10,000 test digits")
    parser.add_argument("--source-dir", type=Path, help="default: ROOT/sources")
    args = parser.parse_args()
    parts = {"digits/mnistm": (read_mnistm, write_digits), "digits/usps": (read_usps, write_digits),
             "digits/svhn": (lambda sources, split: read_svhn(sources, split, args.svhn_subset), write_digits),
             "face": (read_faces, write_split)}
    missing = []
    for part, (read, write) in parts.items():
        if args.only and not part.startswith(args.only):
            continue
        try:
            for split in ("train", "test"):
                folder = args.root / part / split
                if not is_there(folder):
                    write(folder, *read(args.source_dir or args.root / "sources", split))
        except (OSError, SystemExit) as error:  # the other parts may be built all the same
            missing.append(f"{part} is missing: {error}")
    if missing:
        raise SystemExit("\n".join(missing))


if __name__ == "__main__":
    main()
