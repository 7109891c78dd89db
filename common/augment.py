"""Batched augmentation. Of digits: label-preserving, without flips, since a mirrored digit is another digit, or none. Of faces: flips."""
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


def light(x, jittered):
    """Floats [N, 3, H, H] -> [N, 3, H, H] around 0: polarity, and in a fraction `jittered` of the images light and noise.

    Polarity: half of the images are inverted, since a digit may be dark on bright or bright on dark.
    Light: contrast and brightness that vary smoothly over the image, each channel for itself: uneven light, tinted
    strokes, textured grounds. Overall brightness and contrast need no jitter: DigitNet standardises its input.
    """
    n, _, size, _ = x.shape
    device = x.device
    x = x - x.mean((1, 2, 3), keepdim=True)
    polarity = torch.randint(0, 2, (n, 1, 1, 1), device=device) * 2 - 1
    on = (torch.rand((n, 1, 1, 1), device=device) < jittered).float()
    amount = on * torch.rand((n, 1, 1, 1), device=device)
    contrast = polarity * (1 + on * uniform(-0.6, 0.6, (n, 1, 1, 1), device)) + 0.5 * amount * smooth_noise(n, size, 2, device)
    brightness = 0.3 * amount * smooth_noise(n, size, 5, device)
    noise = on * uniform(0, 0.1, (n, 1, 1, 1), device) * torch.randn_like(x)
    return x * contrast + brightness + noise


def augment_digits(images, jittered=0.5):
    """uint8 [N, 3, H, H] -> float [N, 3, H, H] around 0: position, polarity, light and noise."""
    return light(random_affine(images.float() / 255), jittered)


def solarize(x, fraction):
    """Invert what is brighter than a random threshold, in a fraction of the images [N, 3, H, H] on [0, 1]; at threshold 0 that is all."""
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
    """Lay a strip of another image's middle over the left edge, the right edge or both, each in a fraction of the images [N, 3, H, H].

    As in street numbers, where the digits next to the one in question look in from the sides. A strip is up to 0.3 of the side wide.
    """
    n, _, _, size = x.shape
    other = x[torch.randperm(n, device=x.device)].roll(size // 2, 3)
    width = uniform(0, 0.3 * size, (2, n, 1, 1, 1), x.device) * (torch.rand((2, n, 1, 1, 1), device=x.device) < fraction)
    along = torch.arange(size, device=x.device) + 0.5
    return torch.where((along < width[0]) | (along > size - width[1]), other, x)


def sharpness(x):
    """From softened to sharpened, by a random amount for each of the images [N, 3, H, H]."""
    soft = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return x + uniform(-1, 1, (len(x), 1, 1, 1), x.device) * (soft - x)


def weak_digits(images):
    """uint8 [N, 3, H, H] -> float on [0, 1], turned, zoomed and shifted a little: what pseudo-labels are made from."""
    return random_affine(images.float() / 255, degrees=5, scale=1.05, shear=0.05, translate=0.05)


def strong_digits(images):
    """uint8 [N, 3, H, H] -> float [N, 3, H, H] around 0: augment_digits further apart, with neighbours, solarize, sharpness and cutout."""
    x = random_affine(images.float() / 255, degrees=15, scale=1.2, shear=0.15, translate=0.08)
    x = sharpness(solarize(neighbours(x), 0.15))
    return cutout(light(x, 0.5))


def flip_half(images):
    """Mirror about half of the images [N, C, H, W]: a mirrored face is a face."""
    return torch.where(torch.rand((len(images), 1, 1, 1), device=images.device) < 0.5, images.flip(3), images)


def diff_augment(x, translate=1 / 8):
    """Shift by up to `translate` of the side, zeros moving in, and cut out a square of half the side: images [N, C, H, H], differentiable.

    For real and generated images alike, in both steps of a GAN (Zhao et al. 2020, DiffAugment: translation and cutout).
    """
    n, _, size, _ = x.shape
    reach = round(size * translate)
    along = torch.arange(size, device=x.device)
    shift = torch.randint(0, 2 * reach + 1, (2, n, 1), device=x.device) + along
    x = F.pad(x, [reach] * 4)[torch.arange(n, device=x.device)[:, None, None], :, shift[0][:, :, None], shift[1][:, None, :]].permute(0, 3, 1, 2)
    centre = torch.randint(0, size + 1, (2, n, 1), device=x.device)
    inside = ((along - centre[0]).abs() < size / 4)[:, :, None] & ((along - centre[1]).abs() < size / 4)[:, None, :]
    return x.masked_fill(inside[:, None], 0)
