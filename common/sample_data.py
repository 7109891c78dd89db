"""Make a small data set in the course's layout, offline and in seconds, from data that the installed packages bring.

    python3 -m common.sample_data sample_data

It is there to try the commands without the real data; no result of the report comes from it.
    digits/usps    real: the 1,797 handwritten digits of scikit-learn (UCI, 8x8), enlarged, grey
    digits/mnistm  the same digits blended with patches of scikit-learn's two photographs, as MNIST-M was made
    digits/svhn    drawn: street numbers in matplotlib's fonts, with neighbours, colours, blur and noise
    face           drawn: ovals and arcs, with the 13 attributes of the course's CSV
"""
import argparse
import os

from common.prepare_data import ATTRIBUTES, blend, write_digits, write_split

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_digits, load_sample_images

TEST = 397  # of the 1,797 digits
FACES = {"train": 1000, "test": 200}


def handwritten():
    """scikit-learn's digits as uint8 [1797, 28, 28], and their labels: 8x8 enlarged to 20x20, with a margin."""
    digits = load_digits()
    out = np.zeros((len(digits.images), 28, 28), np.uint8)
    for i, image in enumerate(digits.images):
        small = Image.fromarray((image * 255 / 16).astype(np.uint8))
        out[i, 4:24, 4:24] = np.asarray(small.resize((20, 20), Image.BICUBIC))
    return out, digits.target


def street_number(label, fonts, rng):
    """One digit in a random font and colour, with cut-off neighbours, blur and noise: uint8 [28, 28, 3]."""
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


def shade(colour, factor):
    return tuple(min(255, int(c * factor)) for c in colour)


def face(rng):
    """A drawn face, a PIL image of 64x64, and its attributes {name: 0.0 or 1.0}.

    It is drawn at four times this size and then reduced, which makes its lines smooth.
    """
    hair = ("Black_Hair", "Blond_Hair", "Brown_Hair")[rng.randint(3)]
    true = {hair, ("Straight_Hair", "Wavy_Hair")[rng.randint(2)]}
    often = ("Male", "Smiling", "Mouth_Slightly_Open", "Bangs", "Big_Lips", "High_Cheekbones")
    true |= {name for name in often if rng.rand() < 0.45}
    if "Male" not in true:
        true |= {name for name in ("Heavy_Makeup", "Wearing_Lipstick") if rng.rand() < 0.6}
    skin = shade((250, 205, 170), rng.uniform(0.5, 1))
    hair_colour = {"Black_Hair": (40, 35, 35), "Blond_Hair": (225, 190, 110), "Brown_Hair": (120, 75, 45)}[hair]
    hair_colour = shade(hair_colour, rng.uniform(0.8, 1.1))
    lips = (190, 30, 60) if "Wearing_Lipstick" in true else shade(skin, 0.75)
    image = Image.new("RGB", (256, 256), tuple(rng.randint(40, 230, 3).tolist()))
    draw = ImageDraw.Draw(image)
    x, y = 128 + rng.randint(-8, 9), 128 + rng.randint(-6, 7)
    w, h = rng.randint(58, 70), rng.randint(78, 90)  # half axes of the head

    def oval(cx, cy, rx, ry, colour):
        draw.ellipse((x + cx - rx, y + cy - ry, x + cx + rx, y + cy + ry), colour)

    long = 0 if "Male" in true else 60
    oval(0, -18, w + 16, h + 8, hair_colour)
    if long:
        draw.rectangle((x - w - 16, y - 20, x + w + 16, y + long + 40), hair_colour)
    if "Wavy_Hair" in true:
        for at in range(-30, long + 40, 22):
            oval(-w - 14, at, 14, 14, hair_colour), oval(w + 14, at, 14, 14, hair_colour)
    draw.rectangle((x - 24, y + h - 30, x + 24, 256), shade(skin, 0.85))
    draw.ellipse((x - 100, 224, x + 100, 330), tuple(rng.randint(30, 220, 3).tolist()))
    oval(0, 0, w, h, skin)
    draw.chord((x - w, y - h, x + w, y + h), *((205, 335) if "Bangs" in true else (225, 315)), hair_colour)
    if "High_Cheekbones" in true:
        oval(-w * 0.55, 24, 14, 8, shade(skin, 0.9)), oval(w * 0.55, 24, 14, 8, shade(skin, 0.9))
    iris = tuple(rng.randint(30, 130, 3).tolist())
    for side in (-26, 26):
        if "Heavy_Makeup" in true:
            oval(side, -14, 19, 13, (110, 70, 120))
        oval(side, -10, 14, 8, (245, 245, 245)), oval(side, -10, 7, 7, iris), oval(side, -10, 3, 3, (10, 10, 10))
        draw.line((x + side - 16, y - 28, x + side + 16, y - 30), shade(hair_colour, 0.7), 7 if "Male" in true else 4)
    draw.line((x, y - 6, x - 8, y + 22, x + 4, y + 24), shade(skin, 0.75), 4)
    thick = 8 if "Big_Lips" in true else 5
    if "Mouth_Slightly_Open" in true:
        oval(0, 46, 20, 6 + thick, lips), oval(0, 46, 14, 6, (250, 250, 245))
    elif "Smiling" in true:
        draw.arc((x - 26, y + 20, x + 26, y + 58), 20, 160, lips, thick)
    else:
        draw.line((x - 20, y + 48, x + 20, y + 48), lips, thick)
    light = np.linspace(-1, 1, 64)[None, :, None] * rng.uniform(-30, 30)
    pixels = np.asarray(image.resize((64, 64), Image.BILINEAR)) + light + rng.normal(0, 3, (64, 64, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), {name: float(name in true) for name in ATTRIBUTES}


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
    domains = {"usps": (digits, labels), "mnistm": (blend(digits, load_sample_images().images, rng), labels),
               "svhn": (np.stack([street_number(y, fonts, rng) for y in drawn_labels]), drawn_labels)}
    for name, (x, y) in domains.items():
        write_digits(os.path.join(root, "digits", name, "train"), x[:-TEST], y[:-TEST])
        write_digits(os.path.join(root, "digits", name, "test"), x[-TEST:], y[-TEST:])
    first = 0
    for split, count in FACES.items():
        images, attributes = zip(*(face(rng) for _ in range(count)))
        rows = [(f"{i:05d}.png", *values.values()) for i, values in enumerate(attributes, first)]
        write_split(os.path.join(root, "face", split), ("image_name", *ATTRIBUTES), rows, images)
        first += count


if __name__ == "__main__":
    main()
