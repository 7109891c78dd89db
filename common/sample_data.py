"""Make a small data set in the course's layout, offline and in seconds, from data that the installed packages bring.

    python3 -m common.sample_data sample_data

It is there to try the commands without the real data; no result of the report comes from it.
    digits/usps    real: the 1,797 handwritten digits of scikit-learn (UCI, 8x8), enlarged, grey
    digits/mnistm  the same digits blended with patches of scikit-learn's two photographs, as MNIST-M was made
    digits/svhn    drawn: street numbers in Pillow's font, with neighbours, colours, blur and noise
    face           drawn: ovals and lines, with the 13 attributes of the course's CSV, half of which can be seen
"""
import argparse
from pathlib import Path

import numpy as np
import pandas
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_digits, load_sample_images

from common.prepare_data import ATTRIBUTES, blend, write_digits, write_split


def handwritten():
    """scikit-learn's digits as uint8 [1797, 28, 28], and their labels: 8x8 enlarged to 20x20, with a margin."""
    digits = load_digits()
    images = [Image.fromarray((image * 255 / 16).astype(np.uint8)) for image in digits.images]
    return np.pad([image.resize((20, 20), Image.BICUBIC) for image in images], ((0, 0), (4, 4), (4, 4))), digits.target


def street_number(label, rng):
    """A digit of any size and colour, turned, with neighbours that are cut off, blur and noise: uint8 [28, 28, 3]."""
    ground, ink = map(tuple, rng.permutation([rng.randint(0, 100, 3), rng.randint(150, 256, 3)]).tolist())
    image, size = Image.new("RGB", (56, 56), ground), rng.randint(44, 60)
    for place, digit in ((-1, rng.randint(10)), (1, rng.randint(10)), (0, label)):
        text = "I" if digit == 1 else str(digit)  # the font's 1 is much like a 7
        ImageDraw.Draw(image).text((28 + 0.7 * size * place, 28), text, ink, ImageFont.load_default(size), anchor="mm",
                                   stroke_width=rng.randint(2))
    image = image.rotate(rng.uniform(-10, 10), Image.BILINEAR, fillcolor=ground)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2))).resize((28, 28), Image.BILINEAR)
    return (image + rng.normal(0, 6, (28, 28, 3))).clip(0, 255).astype(np.uint8)


def face(has, rng):
    """A PIL image of 64x64, drawn at four times this size, with some of the attributes {name: 0.0 or 1.0}."""
    image = Image.new("RGB", (256, 256), tuple(rng.randint(40, 230, 3).tolist()))
    draw, (x, y) = ImageDraw.Draw(image), rng.randint(120, 137, 2)
    hair = "goldenrod" if has["Blond_Hair"] else "black" if has["Black_Hair"] else "saddlebrown"
    skin = tuple((rng.uniform(0.6, 1) * np.array([250, 205, 170])).astype(int).tolist())
    draw.rounded_rectangle((x - 85, y - 110, x + 85, y + (20 if has["Male"] else 120)), 85, hair)
    draw.ellipse((x - 65, y - 85, x + 65, y + 90), skin)
    for eye in (x - 27, x + 27):
        draw.ellipse((eye - 9, y - 18, eye + 9, y), "black")
    lips = "crimson" if has["Wearing_Lipstick"] else "sienna"
    draw.arc((x - 28, y + 22, x + 28, y + 60), *((20, 160) if has["Smiling"] else (70, 110)), lips, 9)
    return image.resize((64, 64), Image.BILINEAR)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    root, rng = parser.parse_args(argv).root, np.random.RandomState(0)
    digits, labels = handwritten()
    drawn = rng.permutation(labels)
    ink = digits * (digits > 100)  # of the blurred strokes, which else would close all loops
    domains = {"usps": (digits, labels), "mnistm": (blend(ink, load_sample_images().images, rng), labels),
               "svhn": (np.stack([street_number(label, rng) for label in drawn]), drawn)}
    for domain, (images, truth) in domains.items():
        write_digits(root / "digits" / domain / "train", images[:1400], truth[:1400])
        write_digits(root / "digits" / domain / "test", images[1400:], truth[1400:])
    for split, first, count in (("train", 0, 1000), ("test", 1000, 200)):
        table = pandas.DataFrame(rng.randint(0, 2, (count, len(ATTRIBUTES))).astype(float), columns=ATTRIBUTES)
        images = [face(has, rng) for has in table.to_dict("records")]
        table.insert(0, "image_name", [f"{i:05d}.png" for i in range(first, first + count)])
        write_split(root / "face" / split, images, table)


if __name__ == "__main__":
    main()
