"""Make a small data set in the course's layout, offline and in seconds, from data that the installed packages bring.

    python3 -m common.sample_data sample_data

It is there to try the commands without the real data; no result of the report comes from it.
    digits/usps    real: the 1,797 handwritten digits of scikit-learn (UCI, 8x8), enlarged, grey
    digits/mnistm  the same digits blended with patches of scikit-learn's two photographs, as MNIST-M was made
    digits/svhn    the same digits in two colours each
    face           drawn: ovals and lines, with the 13 attributes of the course's CSV, some of which can be seen
"""
import argparse
from pathlib import Path

import numpy as np
import pandas
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits, load_sample_images

from common.prepare_data import ATTRIBUTES, blend, write_digits, write_split


def face(has, rng):
    """A PIL image of 64x64: an oval with hair, eyes and a mouth, by some of the attributes {name: 0.0 or 1.0}."""
    image = Image.new("RGB", (64, 64), tuple(rng.randint(40, 230, 3).tolist()))
    draw, (x, y) = ImageDraw.Draw(image), rng.randint(29, 36, 2)
    hair = "goldenrod" if has["Blond_Hair"] else "black" if has["Black_Hair"] else "saddlebrown"
    draw.ellipse((x - 21, y - 27, x + 21, y + (8 if has["Male"] else 30)), hair)
    skin = tuple((rng.uniform(0.6, 1) * np.array([250, 205, 170])).astype(int).tolist())
    draw.ellipse((x - 16, y - 21, x + 16, y + 23), skin)
    for eye in (x - 7, x + 7):
        draw.ellipse((eye - 2, y - 5, eye + 2, y), "black")
    lips = "crimson" if has["Wearing_Lipstick"] else "sienna"
    draw.arc((x - 7, y + 5, x + 7, y + 15), *((20, 160) if has["Smiling"] else (70, 110)), lips, 2)
    return image


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    root, rng = parser.parse_args(argv).root, np.random.RandomState(0)
    small, labels = load_digits().images, load_digits().target  # 8x8, 0 to 16; they become 20x20, with a margin
    images = [Image.fromarray((image * 255 / 16).astype(np.uint8)).resize((20, 20), Image.BICUBIC) for image in small]
    digits = np.pad(images, ((0, 0), (4, 4), (4, 4)))
    ground, ink = rng.randint(0, 100, (len(digits), 1, 1, 3)), rng.randint(150, 256, (len(digits), 1, 1, 3))
    strokes = digits * (digits > 100)  # without their blurred edges, which else would close all loops
    domains = {"usps": digits, "mnistm": blend(strokes, load_sample_images().images, rng),
               "svhn": (ground + (ink - ground) * (digits[..., None] / 255)).astype(np.uint8)}
    for domain, images in domains.items():
        write_digits(root / "digits" / domain / "train", images[:1400], labels[:1400])
        write_digits(root / "digits" / domain / "test", images[1400:], labels[1400:])
    for split, first, count in (("train", 0, 1000), ("test", 1000, 200)):
        table = pandas.DataFrame(rng.randint(0, 2, (count, len(ATTRIBUTES))).astype(float), columns=ATTRIBUTES)
        images = [face(has, rng) for has in table.to_dict("records")]
        table.insert(0, "image_name", [f"{i:05d}.png" for i in range(first, first + count)])
        write_split(root / "face" / split, images, table)


if __name__ == "__main__":
    main()
