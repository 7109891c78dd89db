"""Course-format data: a folder of images and, where labels are wanted, a CSV `image_name,label`."""
import csv
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

SCENARIOS = {"mnistm": "usps", "svhn": "mnistm", "usps": "svhn"}  # target -> source
CLASSES = 10


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
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # Pillow's remarks on odd palettes and metadata
            if image.mode.startswith("I"):  # 16-bit grey: convert("RGB") would clip it to white
                image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            image = image.convert("RGB")
            if image.size != (size, size):
                image = image.resize((size, size), Image.BILINEAR)
            return np.asarray(image)
    except FileNotFoundError:
        raise SystemExit(f"image not found: {path}")
    except Exception as error:  # Pillow raises many types for damaged files
        raise SystemExit(f"not a readable image: {path} ({type(error).__name__})")


def load_images(folder, names, size=28):
    """Decode `names` in `folder`, in threads, into one uint8 tensor [N, 3, size, size].

    Grey, RGBA, palette and 16-bit images become RGB; other sizes are resized bilinearly.
    Exits with the name of the first file that is absent or no readable image.
    """
    images = np.empty((len(names), size, size, 3), np.uint8)

    def decode_range(start):
        for i in range(start, min(start + 256, len(names))):
            images[i] = _decode(os.path.join(folder, names[i]), size)

    with ThreadPoolExecutor() as pool:
        list(pool.map(decode_range, range(0, len(names), 256)))
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


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
