"""Generated pictures: latents that are the same on every machine, grids, folders of images."""
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from common.runtime import write_atomic

COLUMNS, MARGIN = 8, 2


def draw_latents(count, dim, seed=0):
    """N(0, 1), float64 [count, dim]. RandomState's stream is frozen by NumPy's policy; torch's differs between versions and devices."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((count, dim)))


def to_pixels(images):
    """Floats [N, 3, H, W] on [0, 1] -> uint8 [N, H, W, 3]."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def grid(pixels, columns=COLUMNS):
    """uint8 [N, H, W, 3] -> one picture, row by row, with white margins: 32 faces of 64 pixels give 530 x 266."""
    n, height, width, _ = pixels.shape
    rows = -(-n // columns)
    out = np.full((rows * (height + MARGIN) + MARGIN, columns * (width + MARGIN) + MARGIN, 3), 255, np.uint8)
    for i, picture in enumerate(pixels):
        y, x = (MARGIN + (i // columns) * (height + MARGIN), MARGIN + (i % columns) * (width + MARGIN))
        out[y:y + height, x:x + width] = picture
    return out


def make_folder(path):
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"cannot make the folder {path}: {error}")


def save_picture(path, pixels):
    """Write uint8 [H, W, 3] as PNG or, where the path ends so, JPEG; makes the folder where it is not there."""
    kind = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(os.path.splitext(path)[1].lower())
    if kind is None:
        raise SystemExit(f"the output must end in .png or .jpg: {path}")
    if os.path.isdir(path):
        raise SystemExit(f"the output path is a folder: {path}")
    make_folder(os.path.dirname(os.path.abspath(path)))
    write_atomic(path, lambda part: Image.fromarray(pixels).save(part, kind, quality=95, subsampling=0))


def save_pictures(folder, names, pixels):
    """Write uint8 [N, H, W, 3] as PNGs of these names, encoded in threads."""
    make_folder(folder)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name, x: write_atomic(os.path.join(folder, name), lambda part: Image.fromarray(x).save(part, "PNG", compress_level=1)),
                      names, pixels))


@torch.inference_mode()
def write_grid(path, generate, latent_dim, seed=0):
    """Save the grid of the 32 pictures that `generate`, a network in eval mode, makes of latents of this seed.

    On the CPU in float64, so that rounding to pixels is the same on every machine, thread count and torch version.
    """
    save_picture(path, grid(to_pixels(generate.cpu().double()(draw_latents(32, latent_dim, seed)))))


@torch.inference_mode()
def write_samples(folder, generate, latent_dim, count, device, seed=0):
    """Save `count` pictures 00000.png ... from the first latents of this seed, in float32 on `device`."""
    done, started = 0, time.time()
    for z in draw_latents(count, latent_dim, seed).float().split(250):
        names = [f"{i:05d}.png" for i in range(done, done + len(z))]
        save_pictures(folder, names, to_pixels(generate(z.to(device))))
        done += len(z)
        left = (time.time() - started) / done * (count - done)
        print(f"{done}/{count} pictures  left {left // 60:.0f}m{left % 60:02.0f}s", end="\r" if sys.stdout.isatty() and done < count else "\n", flush=True)
