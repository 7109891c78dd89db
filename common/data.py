"""Course-format data: a folder of images and, where labels are wanted, a CSV `image_name,label`."""
import csv
import io
import os
import re
import sys
import time

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

SCENARIOS = {"mnistm": "usps", "svhn": "mnistm", "usps": "svhn"}  # target -> source
CLASSES = 10


def _is_image(path):
    if os.path.splitext(path)[1].lower() in Image.registered_extensions():
        return True
    try:
        Image.open(path).close()
    except UnidentifiedImageError:
        return False
    except Exception:  # absent or damaged: load_images will say so
        pass
    return True


def list_images(folder):
    """Names of the images in `folder`, sorted; hidden files, CSVs and sub-folders are skipped.

    A file is an image if Pillow knows its extension or, under any other name, its first bytes. Other files are skipped
    too, with one line on standard error. A broken link counts as a file, so that load_images stops at it.
    """
    try:
        entries = sorted(os.listdir(folder))
    except FileNotFoundError:
        raise SystemExit(f"image folder not found: {folder}")
    except OSError as error:
        raise SystemExit(f"the image folder cannot be read: {folder} ({error.strerror})")
    names, skipped = [], []
    for name in entries:
        path = os.path.join(folder, name)
        is_file = os.path.isfile(path) or not os.path.exists(path)  # or a broken link
        if is_file and not name.startswith(".") and not name.lower().endswith(".csv"):
            (names if _is_image(path) else skipped).append(name)
    if not names:
        raise SystemExit(f"no images in folder: {folder}")
    for name in names:
        if "\n" in name or "\r" in name:  # many programs would read it as two rows of a CSV
            raise SystemExit(f"an image name with a line break in {folder}: {name!r}")
    if skipped:
        more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        print(f"skipped, not an image: {', '.join(map(repr, skipped[:5]))}{more}", file=sys.stderr)
    return names


def _eight_bits(values):
    """Grey values of 16 or 32 bits as 0-255; their range gives the scale: 0-1 (floats), 0-255, 0-65535 (integers)."""
    low, high, whole = values.min(), values.max(), values.dtype.kind in "iu"
    if low >= 0 and high <= 255:
        return np.rint(values * (1 if whole or high > 1 else 255)).astype(np.uint8)
    if low >= 0 and high <= 65535 and whole:
        return (values >> 8).astype(np.uint8)
    raise ValueError(f"grey values from {low} to {high}: unknown scale")


def _to_rgb(image):
    """Pillow's convert("RGB") alone would clip wide grey values and drop alpha; here alpha is composited on white."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    high_bytes = re.search(";16[BLN]", str(image.tile))  # Pillow reads only the high byte of 16-bit colours
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    if image.mode != "RGB":
        image = image.convert("RGB")
    if high_bytes and all(low == high for low, high in image.getextrema()):
        raise ValueError("its 16-bit colours are all the same in 8 bits")
    return image


def _decode(path, size):
    """The image as bytes, `size` x `size` x 3."""
    try:
        with open(path, "rb") as file:
            image = _to_rgb(Image.open(io.BytesIO(file.read())))
        if image.size != (size, size):
            image = image.resize((size, size), Image.BILINEAR)
        return image.tobytes()
    except FileNotFoundError:
        raise SystemExit(f"image not found: {path}")
    except Exception as error:  # Pillow raises many types for damaged files
        reason = error if type(error) is ValueError else type(error).__name__
        raise SystemExit(f"not a readable image: {path} ({reason})")


def load_images(folder, names, size=28):
    """Decode `names` in `folder` into one uint8 tensor [N, 3, size, size], channels last.

    Grey, RGBA, palette and 16-bit images become RGB; other sizes are resized bilinearly.
    Exits with the name of the first file that is absent or no readable image.
    All in one process: a pool of processes can wait for ever for one that was killed, and threads share Python's lock.
    """
    images = np.empty((len(names), size * size * 3), np.uint8)
    terminal, start = os.isatty(2), time.time()
    try:
        for i, name in enumerate(names):
            if terminal and i and i % 1000 == 0:
                left = (time.time() - start) / i * (len(names) - i)
                print(f"image {i}/{len(names)}  left {left:.0f}s", end="\033[K\r", file=sys.stderr, flush=True)
            images[i] = np.frombuffer(_decode(os.path.join(folder, name), size), np.uint8)
    finally:
        if terminal:
            print(end="\033[K", file=sys.stderr, flush=True)
    return torch.from_numpy(images).view(len(names), size, size, 3).permute(0, 3, 1, 2)


def read_labels(path):
    """Read a CSV with the columns image_name and label (0-9) into {name: label}, in file order."""
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
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
    """Images uint8 [N, 3, 28, 28], labels int64 [N] in the first `limit` rows of DATA_DIR/digits/DOMAIN/SPLIT.csv."""
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


def even_chances(labels):
    """Weights [N] for torch.multinomial under which each class in labels [N] is drawn equally often."""
    return 1 / labels.bincount()[labels]
