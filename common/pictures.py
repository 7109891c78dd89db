"""Generated pictures: latents that are the same on every machine, grids, folders of images."""
import os
import time
from concurrent.futures import ThreadPoolExecutor

from common.files import check_output, make_folder, write_atomic
from common.runtime import progress

import numpy as np
import torch
from PIL import Image

COLUMNS, MARGIN = 8, 2


def draw_latents(count, dim, seed=0):
    """N(0, 1), float64 [count, dim].

    NumPy's policy keeps RandomState's stream as it is; torch's differs between versions and devices.
    """
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


def check_picture(path):
    """Exit with one line where a grid can't be written to `path`."""
    if path and os.path.splitext(path)[1].lower() not in (".png", ".jpg", ".jpeg"):
        raise SystemExit(f"the output must end in .png or .jpg: {path}")
    check_output(path)


def save_picture(path, pixels, compress_level=6):
    """Write uint8 [H, W, 3] in the format of the path's extension; makes the folder where it is not there."""
    kind = Image.registered_extensions()[os.path.splitext(path)[1].lower()]
    options = {"PNG": {"compress_level": compress_level}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    write_atomic(path, lambda file: Image.fromarray(pixels).save(file, kind, **options))


def save_pictures(folder, names, pixels):
    """Write uint8 [N, H, W, 3] under these names, in threads, with little compression."""
    make_folder(folder)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name, x: save_picture(os.path.join(folder, name), x, compress_level=1), names, pixels))


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
        progress(f"{done}/{count} pictures  left {left // 60:.0f}m{left % 60:02.0f}s", done == len(z), done == count)
