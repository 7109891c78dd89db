"""Batched augmentation: each image has random numbers of its own (torchvision's v2 draws one set a batch).

Digits keep their label and are never flipped: a mirrored digit is another one, or none.
"""
import math

import torch
import torch.nn.functional as F


def uniform(low, high, shape, device):
    return torch.rand(shape, device=device) * (high - low) + low


def random_affine(x, degrees=10, scale=1.15, shear=0.1, translate=0.07):
    """Rotate by up to ±degrees, zoom each axis by its own factor of up to `scale`, shear, shift by up to ±translate."""
    n, device = len(x), x.device
    angle = uniform(-degrees, degrees, n, device) * math.pi / 180
    skew = uniform(-shear, shear, n, device)
    zoom = (uniform(-1, 1, (2, n), device) * math.log(scale)).exp()
    shift = uniform(-2 * translate, 2 * translate, (2, n), device)  # the sampling grid runs from -1 to 1
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([cos * zoom[0], (skew * cos - sin) * zoom[1], shift[0],
                         sin * zoom[0], (skew * sin + cos) * zoom[1], shift[1]], dim=1).view(n, 2, 3)
    grid = F.affine_grid(theta, x.shape, align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def smooth_noise(n, size, cells, device):
    """Unit normals on a grid of cells x cells per image and channel, enlarged bilinearly to [n, 3, size, size]."""
    noise = torch.randn(n, 3, cells, cells, device=device)
    return F.interpolate(noise, size=size, mode="bilinear", align_corners=True)


def jitter_lighting(x, jittered):
    """Floats [N, 3, H, H] -> [N, 3, H, H] around 0: polarity and, in a fraction `jittered` of them, light and noise.

    Polarity: half of the images are inverted, since a digit may be dark on bright or bright on dark. In half of them
    each channel is inverted or not on its own, since a digit of MNIST-M may differ from its background in hue alone.
    Light: contrast and brightness that vary smoothly over the image and differ between channels: uneven light, tinted
    strokes and textured backgrounds. DigitNet removes overall brightness and contrast, so contrast only changes how
    strong a digit is beside background and noise.
    """
    n, _, size, _ = x.shape
    device = x.device
    x = x - x.mean((1, 2, 3), keepdim=True)
    polarity = torch.randint(0, 2, (n, 3, 1, 1), device=device) * 2 - 1
    polarity = torch.where(torch.rand((n, 1, 1, 1), device=device) < 0.5, polarity, polarity[:, :1])
    on = (torch.rand((n, 1, 1, 1), device=device) < jittered).float()
    amount = on * torch.rand((n, 1, 1, 1), device=device)
    contrast = polarity * (1 + on * uniform(-0.6, 0.6, (n, 1, 1, 1), device))
    contrast = contrast + 0.5 * amount * smooth_noise(n, size, 2, device)
    brightness = 0.3 * amount * smooth_noise(n, size, 5, device)
    noise = on * uniform(0, 0.1, (n, 1, 1, 1), device) * torch.randn_like(x)
    return x * contrast + brightness + noise


def augment_digits(images):
    """uint8 [N, 3, H, H] -> float [N, 3, H, H] around 0: position, polarity, light and noise."""
    return jitter_lighting(random_affine(images.float() / 255), 0.5)


def solarize(x, fraction):
    """Invert the pixels above a random threshold, in a fraction of the images [N, 3, H, H] on [0, 1]."""
    threshold = torch.rand((len(x), 1, 1, 1), device=x.device)
    on = torch.rand((len(x), 1, 1, 1), device=x.device) < fraction
    return torch.where(on & (x >= threshold), 1 - x, x)


def cutout(x, fraction=0.5):
    """Set a square of up to half the side to 0 in a fraction of the images [N, 3, H, H] (DeVries & Taylor 2017)."""
    n, _, size, _ = x.shape
    half = uniform(0, size / 4, (n, 1, 1), x.device) * (torch.rand((n, 1, 1), device=x.device) < fraction)
    centre = uniform(0, size, (2, n, 1, 1), x.device)
    along = torch.arange(size, device=x.device) + 0.5
    inside = ((along[:, None] - centre[0]).abs() < half) & ((along - centre[1]).abs() < half)
    return x.masked_fill(inside[:, None], 0)


def neighbours(x, fraction=0.5):
    """Lay a strip of another image's middle over either edge, left and right, in a fraction of the images [N, 3, H, H].

    As in street numbers, where the neighbouring digits are partly visible. A strip is up to 0.3 of the side wide.
    """
    n, _, _, size = x.shape
    other = x[torch.randperm(n, device=x.device)].roll(size // 2, 3)
    width = uniform(0, 0.3 * size, (2, n, 1, 1, 1), x.device)
    width = width * (torch.rand_like(width) < fraction)
    along = torch.arange(size, device=x.device) + 0.5
    return torch.where((along < width[0]) | (along > size - width[1]), other, x)


def sharpness(x):
    """Soften or sharpen each of the images [N, 3, H, H] by a random amount."""
    soft = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return x + uniform(-1, 1, (len(x), 1, 1, 1), x.device) * (soft - x)


def weak_digits(images):
    """uint8 [N, 3, H, H] -> float on [0, 1], rotated, zoomed and shifted a little: the views for pseudo-labels."""
    return random_affine(images.float() / 255, degrees=5, scale=1.05, shear=0.05, translate=0.05)


def strong_digits(images):
    """uint8 [N, 3, H, H] -> float [N, 3, H, H] around 0: augment_digits, stronger, with all of the above."""
    x = random_affine(images.float() / 255, degrees=15, scale=1.2, shear=0.15, translate=0.08)
    x = sharpness(solarize(neighbours(x), 0.15))
    return cutout(jitter_lighting(x, 0.5))


def half_strong_digits(images):
    """uint8 [N, 3, H, H] -> float [N, 3, H, H]: every other image weak, the rest strong, as AdaMatch's source."""
    views = weak_digits(images)
    views[::2] = strong_digits(images[::2])
    return views


def flip_half(images):
    """Mirror about half of the images [N, C, H, W]: a mirrored face is still a face."""
    return torch.where(torch.rand((len(images), 1, 1, 1), device=images.device) < 0.5, images.flip(3), images)
