"""Make a small data set in the course's layout, offline and in seconds, from what the packages ship.

    python3 -m common.sample_data sample_data

It stands in for the real data to try every command; no result of the report comes from it.
    digits/usps    real: the 1,797 handwritten digits of scikit-learn (UCI, 8x8), enlarged, grey
    digits/mnistm  the same digits blended over patches of scikit-learn's two photographs, by MNIST-M's recipe
    digits/svhn    drawn: matplotlib's fonts as street numbers, with neighbours, tints, blur and noise
"""
import argparse
import os
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_digits, load_sample_images

from common.runtime import write_csv

TEST = 397  # of the 1,797


def write_split(root, name, split, images, labels):
    """Write uint8 images [N, H, W] or [N, H, W, 3] as PNGs, then the CSV that names them."""
    folder = os.path.join(root, "digits", name, split)
    try:
        os.makedirs(folder, exist_ok=True)
        names = [f"{i:05d}.png" for i in range(len(images))]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda n, x: Image.fromarray(x).save(os.path.join(folder, n), compress_level=1), names, images))
    except OSError as error:
        raise SystemExit(f"cannot write {folder}: {error}")
    write_csv(f"{folder}.csv", ("image_name", "label"), zip(names, labels))


def handwritten():
    """scikit-learn's digits as uint8 [1797, 28, 28] and their labels: 8x8 in steps of 1/16, enlarged to 20x20 with a margin."""
    digits = load_digits()
    out = np.zeros((len(digits.images), 28, 28), np.uint8)
    for i, image in enumerate(digits.images):
        small = Image.fromarray((image * 255 / 16).astype(np.uint8))
        out[i, 4:24, 4:24] = np.asarray(small.resize((20, 20), Image.BICUBIC))
    return out, digits.target


def blended(digits, rng):
    """|photo patch - digit| (Ganin et al. 2016, section 5.2.4) as uint8 [N, 28, 28, 3]."""
    photos = load_sample_images().images
    out = np.empty((*digits.shape, 3), np.uint8)
    for i, digit in enumerate(digits):
        photo = photos[rng.randint(len(photos))]
        row, column = rng.randint(photo.shape[0] - 28), rng.randint(photo.shape[1] - 28)
        out[i] = np.abs(photo[row:row + 28, column:column + 28].astype(int) - digit[:, :, None])
    return out


def street_number(label, fonts, rng):
    """One digit in a random font and tint with cut-off neighbours, blurred and noisy: uint8 [28, 28, 3]."""
    ground, ink = rng.randint(0, 256, (2, 3))
    while abs(int(ground.mean()) - int(ink.mean())) < 50:
        ground, ink = rng.randint(0, 256, (2, 3))
    image = Image.new("RGB", (56, 56), tuple(map(int, ground)))
    draw = ImageDraw.Draw(image)
    font = fonts[rng.randint(len(fonts))].font_variant(size=int(rng.randint(34, 50)))
    step = font.size * rng.uniform(0.6, 0.8)
    for place in (-1, 0, 1):
        text = str(label) if place == 0 else str(rng.randint(10))
        if place == 0 or rng.rand() < 0.6:
            draw.text((28 + place * step, 28), text, tuple(map(int, ink)), font, anchor="mm")
    image = image.rotate(rng.uniform(-10, 10), Image.BILINEAR, fillcolor=tuple(map(int, ground)))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2))).resize((28, 28), Image.BILINEAR)
    light = np.linspace(-1, 1, 28)[:, None, None] * rng.uniform(-30, 30)
    return (np.asarray(image) + light + rng.normal(0, 6, (28, 28, 3))).clip(0, 255).astype(np.uint8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    root = parser.parse_args().root
    rng = np.random.RandomState(0)
    digits, labels = handwritten()
    folder = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
    fonts = [ImageFont.truetype(os.path.join(folder, f"DejaVu{style}.ttf"), 40)
             for style in ("Sans", "Sans-Bold", "Serif", "Serif-Bold", "SansMono", "Sans-Oblique")]
    drawn_labels = rng.permutation(labels)
    domains = {"usps": (digits, labels), "mnistm": (blended(digits, rng), labels),
               "svhn": (np.stack([street_number(y, fonts, rng) for y in drawn_labels]), drawn_labels)}
    for name, (x, y) in domains.items():
        write_split(root, name, "train", x[:-TEST], y[:-TEST])
        write_split(root, name, "test", x[-TEST:], y[-TEST:])
        print(f"{root}/digits/{name}: {len(x) - TEST} train, {TEST} test")


if __name__ == "__main__":
    main()
