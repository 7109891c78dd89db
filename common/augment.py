"""Batched, label-preserving augmentation of digits. No flips: a mirrored digit is another digit, or none."""
import math

import torch
import torch.nn.functional as F


def uniform(low, high, shape, device):
    return torch.rand(shape, device=device) * (high - low) + low


def random_affine(x, degrees=10, scale=1.15, shear=0.1, translate=0.07):
    """Rotate by up to ±degrees, zoom each side by up to a factor `scale` in or out, shear, and shift by up to ±translate of the side."""
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


def augment_digits(images, jittered=0.5):
    """uint8 [N, 3, H, H] -> float [N, 3, H, H] around 0: position, polarity, and in a fraction `jittered` of the images light and noise.

    Polarity: half of the images are inverted, since a digit may be dark on bright or bright on dark.
    Light: contrast and brightness that vary smoothly over the image, each channel for itself: uneven light, tinted
    strokes, textured grounds. Overall brightness and contrast need no jitter: DigitNet standardises its input.
    """
    n, _, size, _ = images.shape
    device = images.device
    x = random_affine(images.float() / 255)
    x = x - x.mean((1, 2, 3), keepdim=True)
    polarity = torch.randint(0, 2, (n, 1, 1, 1), device=device) * 2 - 1
    on = (torch.rand((n, 1, 1, 1), device=device) < jittered).float()
    light = on * torch.rand((n, 1, 1, 1), device=device)
    contrast = polarity * (1 + on * uniform(-0.6, 0.6, (n, 1, 1, 1), device)) + 0.5 * light * smooth_noise(n, size, 2, device)
    brightness = 0.3 * light * smooth_noise(n, size, 5, device)
    noise = on * uniform(0, 0.1, (n, 1, 1, 1), device) * torch.randn_like(x)
    return x * contrast + brightness + noise
