"""Course-format data: a folder of images and, where labels are wanted, a CSV `image_name,label`."""
import csv
import math
import mmap
import multiprocessing
import os

import numpy as np
import torch
from PIL import Image

SCENARIOS = {"mnistm": "usps", "svhn": "mnistm", "usps": "svhn"}  # target -> source
CLASSES = 10
CHUNK = 256  # images that a process decodes at a time


def list_images(folder):
    """Names of the images in `folder`, sorted; hidden files, CSVs and sub-folders are skipped."""
    if not os.path.isdir(folder):
        raise SystemExit(f"image folder not found: {folder}")
    names = sorted(e.name for e in os.scandir(folder)
                   if e.is_file() and not e.name.startswith(".") and not e.name.lower().endswith(".csv"))
    if not names:
        raise SystemExit(f"no images in folder: {folder}")
    return names


def _decode(path, size):
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16-bit grey: convert("RGB") would clip it to white
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if image.mode != "RGB":
                image = image.convert("RGB")
            if image.size != (size, size):
                image = image.resize((size, size), Image.BILINEAR)
            return np.asarray(image)
    except FileNotFoundError:
        raise ValueError(f"image not found: {path}")
    except Exception as error:  # Pillow raises many types for damaged files
        raise ValueError(f"not a readable image: {path} ({type(error).__name__})")


def _start_worker(*job):
    global _job
    _job = job


def _decode_chunk(start):
    folder, names, images = _job
    for i in range(start, min(start + CHUNK, len(names))):
        images[i] = _decode(os.path.join(folder, names[i]), images.shape[1])


def load_images(folder, names, size=28):
    """Decode `names` in `folder` into one uint8 tensor [N, 3, size, size], channels last.

    Grey, RGBA, palette and 16-bit images become RGB; other sizes are resized bilinearly.
    Exits with the name of the first file that is absent or no readable image.
    Forked processes fill one shared array: threads would wait for each other at Python's lock, at half the speed of one.
    """
    shape = (len(names), size, size, 3)
    images = np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape)
    chunks = range(0, len(names), CHUNK)
    try:
        with multiprocessing.get_context("fork").Pool(min(len(chunks), len(os.sched_getaffinity(0))),
                                                      _start_worker, (folder, names, images)) as pool:
            pool.map(_decode_chunk, chunks, chunksize=1)
    except ValueError as error:
        raise SystemExit(str(error))
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def read_labels(path):
    """Read a CSV with the columns image_name and label (0-9) into {name: label}, in file order."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"image_name", "label"} - set(reader.fieldnames or ())
            if missing:
                raise SystemExit(f"{path}: no column {' or '.join(sorted(missing))}")
            labels = {}
            for row in reader:
                if row["label"] not in [str(c) for c in range(CLASSES)]:
                    raise SystemExit(f"{path}, line {reader.line_num}: label {row['label']!r} is not 0-9")
                labels[row["image_name"]] = int(row["label"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SystemExit(f"cannot read {path}: {error}")
    if not labels:
        raise SystemExit(f"{path}: no rows")
    return labels


def load_labelled(data_dir, domain, split, limit=None):
    """Images uint8 [N, 3, 28, 28] and labels int64 [N] of DATA_DIR/digits/DOMAIN/SPLIT, first `limit` rows of its CSV."""
    labels = read_labels(os.path.join(data_dir, "digits", domain, f"{split}.csv"))
    names = list(labels)[:limit]
    images = load_images(os.path.join(data_dir, "digits", domain, split), names)
    return images, torch.tensor([labels[name] for name in names])


def load_unlabelled(data_dir, domain, split, limit=None):
    """Images uint8 [N, 3, 28, 28] of DATA_DIR/digits/DOMAIN/SPLIT in name order; its CSV is not opened."""
    folder = os.path.join(data_dir, "digits", domain, split)
    return load_images(folder, list_images(folder)[:limit])


def load_faces(data_dir, split, limit=None):
    """Images uint8 [N, 3, 64, 64] of DATA_DIR/face/SPLIT in name order."""
    folder = os.path.join(data_dir, "face", split)
    return load_images(folder, list_images(folder)[:limit], size=64)
