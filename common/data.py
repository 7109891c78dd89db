"""Course-format data: a folder of images and, where labels are wanted, a CSV `image_name,label`."""
from pathlib import Path

import numpy as np
import pandas
import torch
from PIL import Image

from common.files import Progress

SCENARIOS = {"mnistm": "usps", "svhn": "mnistm", "usps": "svhn"}  # target -> source
UNREADABLE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # Pillow needs other programs to read these


def list_images(folder):
    """Names of the files in `folder` whose extension says that Pillow reads them, sorted; hidden ones are skipped."""
    try:
        files = [path for path in Path(folder).iterdir() if not path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise SystemExit(f"cannot read the image folder {folder}: {error.strerror}")
    formats = Image.registered_extensions()  # also those that Pillow only writes, as .pdf
    names = sorted(path.name for path in files if formats.get(path.suffix.lower()) in Image.OPEN.keys() - UNREADABLE)
    if not names:
        raise SystemExit(f"no images in folder: {folder}")
    return names


def to_rgb(image):
    """RGB, with transparency on white. Refuses 16-bit and floating-point greys, which convert("RGB") would clip."""
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its pixels are 16-bit or floating-point numbers, mode {image.mode}: convert it to 8 bits")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def load_images(folder, names, size=28):
    """Decode `names` in `folder` into one uint8 tensor [N, 3, size, size], channels last; other sizes are resized.

    Exits with the name of the first file that is absent or no readable image.
    All in one process: a pool can hang, and threads share Python's lock.
    """
    pixels = np.empty((len(names), size, size, 3), np.uint8)
    progress = Progress(f"reading {folder}:", len(names))
    for i, name in enumerate(names):
        try:
            with Image.open(Path(folder, name)) as image:
                image = to_rgb(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's, for damaged files
            raise SystemExit(f"cannot read the image {Path(folder, name)}: {error}")
        pixels[i] = image if image.size == (size, size) else image.resize((size, size), Image.BILINEAR)
        progress.refresh(i + 1)
    progress.clear()
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def read_labels(path):
    """Read a CSV with the columns image_name and label (0-9) into {name: label}, in file order."""
    try:
        table = pandas.read_csv(path, usecols=["image_name", "label"], dtype=object, keep_default_na=False,
                                encoding_errors="surrogateescape")
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise SystemExit(f"cannot read {path}: {error}")
    labels = {}
    for line, (name, label) in enumerate(zip(table["image_name"], table["label"]), 2):
        if label not in list("0123456789"):
            raise SystemExit(f"{path}, line {line}: label '{label}' is not 0-9")
        if labels.setdefault(name, int(label)) != int(label):
            raise SystemExit(f"{path}, line {line}: {name} is named twice, with other labels")
    return labels


def load_labelled(data_dir, domain, split, limit=None):
    """Images uint8 [N, 3, 28, 28], labels int64 [N] of the first `limit` names in DATA_DIR/digits/DOMAIN/SPLIT.csv."""
    folder = Path(data_dir, "digits", domain, split)
    labels = read_labels(f"{folder}.csv")
    names = list(labels)[:limit]
    for name in names:
        if not (folder / name).exists():
            raise SystemExit(f"{folder}.csv names {name}, but there is no image {folder / name}")
    return load_images(folder, names), torch.tensor([labels[name] for name in names])


def load_unlabelled(data_dir, domain, split, limit=None):
    """Images uint8 [N, 3, 28, 28] of DATA_DIR/digits/DOMAIN/SPLIT in name order; its CSV is not opened."""
    folder = Path(data_dir, "digits", domain, split)
    return load_images(folder, list_images(folder)[:limit])


def load_faces(data_dir, split, limit=None):
    """Images uint8 [N, 3, 64, 64] of DATA_DIR/face/SPLIT in name order."""
    folder = Path(data_dir, "face", split)
    return load_images(folder, list_images(folder)[:limit], size=64)


def class_balanced_weights(labels):
    """Weights [N] for torch.multinomial under which each class in labels [N] is drawn equally often."""
    return 1 / labels.bincount()[labels]
