"""Generated pictures: latents that are the same on every machine, grids, folders of images."""
import copy
import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from common.files import Progress, write_output


def draw_latents(count, dim):
    """N(0, 1), float64 [count, dim], of seed 0.

    NumPy's policy keeps RandomState's stream as it is; torch's differs between versions and devices.
    """
    return torch.from_numpy(np.random.RandomState(0).standard_normal((count, dim)))


def to_pixels(images):
    """Floats [..., 3, H, W] on [0, 1] -> uint8 [..., H, W, 3]."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8).movedim(-3, -1).cpu().numpy()


def grid(images, columns=8):
    """Floats [N, 3, H, W] on [0, 1], whole rows -> one picture, uint8, with white margins: 266 x 530 for 32 faces.

    As torchvision's make_grid, whose import takes 1.6 s, as long as torch's own.
    """
    tiles = F.pad(images, (2, 0, 2, 0), value=1).unflatten(0, (-1, columns))  # [rows, columns, 3, 2 + H, 2 + W]
    picture = tiles.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    return to_pixels(F.pad(picture, (0, 2, 0, 2), value=1))


def save_picture(path, pixels, compress_level=6):
    """Write uint8 [H, W, 3] as PNG or JPEG, by the extension of the path; makes the folder."""
    kind = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(Path(path).suffix.lower())
    if kind is None:
        raise SystemExit(f"the name of a picture must end in .png or .jpg: '{path}'")
    buffer = io.BytesIO()  # of the options, each kind takes its own
    Image.fromarray(pixels).save(buffer, kind, compress_level=compress_level, quality=95, subsampling=0)
    write_output(path, buffer.getvalue())


@torch.inference_mode()
def write_grid(path, generate, latents):
    """Save the grid of the pictures that `generate`, a network in eval mode, makes of float64 latents [N, dim].

    On the CPU in float64, so that rounding to pixels is the same on every machine, thread count and torch version.
    """
    save_picture(path, grid(copy.deepcopy(generate).double()(latents)))


@torch.inference_mode()
def write_samples(folder, generate, latents, device):
    """Save a picture 00000.png ... for each of the latents [N, dim], made in float32 on `device`."""
    progress = Progress("pictures", len(latents))
    generate = generate.to(device)
    for start in range(0, len(latents), 250):
        pixels = to_pixels(generate(latents[start:start + 250].float().to(device)))
        for i, picture in enumerate(pixels, start):
            save_picture(Path(folder, f"{i:05d}.png"), picture, compress_level=1)
        progress.refresh(start + len(pixels))
    progress.clear()
