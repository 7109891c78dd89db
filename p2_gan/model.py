"""A residual GAN for 64x64 faces with spectral normalisation, and the textbook DCGAN.

Residual generator and discriminator, hinge loss: Miyato et al. 2018, "Spectral Normalization for GANs", ICLR (its table 4, with fewer channels).
Differentiable augmentation: Zhao et al. 2020, NeurIPS. DCGAN: Radford et al. 2016, ICLR.
"""
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

LATENT = 128


class UpBlock(nn.Module):
    """Features [N, inputs, H, H] -> [N, outputs, 2H, 2H]: two convolutions beside a 1x1 one."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs), nn.ReLU(inplace=True), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.Upsample(scale_factor=2))

    def forward(self, x):
        return self.layers(x) + self.skip(x)


class Generator(nn.Module):
    """Latents [N, 128] -> images [N, 3, 64, 64] on [0, 1]."""

    def __init__(self, width=32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(LATENT, 16 * 8 * width), nn.Unflatten(1, (8 * width, 4, 4)),
            UpBlock(8 * width, 8 * width), UpBlock(8 * width, 4 * width), UpBlock(4 * width, 2 * width),
            nn.BatchNorm2d(2 * width), nn.ReLU(inplace=True), nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.PixelShuffle(2),
            nn.ReLU(inplace=True), nn.Conv2d(width // 2, 3, 3, padding=1), nn.Sigmoid())

    def forward(self, z):
        return self.layers(z)


class DownBlock(nn.Module):
    """Features [N, inputs, H, H] -> [N, outputs, H / 2, H / 2]: two convolutions beside a 1x1 one; no batch norm."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), spectral_norm(nn.Conv2d(inputs, inputs, 3, padding=1)),
            nn.ReLU(inplace=True), spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1)), nn.AvgPool2d(2))
        self.skip = nn.Sequential(nn.AvgPool2d(2), spectral_norm(nn.Conv2d(inputs, outputs, 1)))

    def forward(self, x):
        return self.layers(x) + self.skip(x)


class Discriminator(nn.Module):
    """Images [N, 3, 64, 64] on [0, 1] -> one score [N] each, above 0 for real."""

    def __init__(self, width=32):
        super().__init__()
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(3, 2 * width, 4, 2, 1)), DownBlock(2 * width, 4 * width), DownBlock(4 * width, 8 * width),
            DownBlock(8 * width, 8 * width), nn.ReLU(inplace=True), nn.Flatten(), spectral_norm(nn.Linear(16 * 8 * width, 1)), nn.Flatten(0))

    def forward(self, x):
        return self.layers((2 * x - 1).contiguous(memory_format=torch.channels_last))


def dcgan_generator(w):
    """Latents [N, 128] -> images [N, 3, 64, 64] on [0, 1], by transposed convolutions."""
    def up(inputs, outputs, *where):
        return [nn.ConvTranspose2d(inputs, outputs, 4, *where, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(nn.Unflatten(1, (LATENT, 1, 1)), *up(LATENT, 8 * w), *up(8 * w, 4 * w, 2, 1), *up(4 * w, 2 * w, 2, 1),
                         *up(2 * w, w, 2, 1), nn.ConvTranspose2d(w, 3, 4, 2, 1), nn.Sigmoid())


def dcgan_discriminator(w):
    """Images [N, 3, 64, 64] on [0, 1] -> one logit [N] each."""
    def down(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(nn.Conv2d(3, w, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True), *down(w, 2 * w), *down(2 * w, 4 * w), *down(4 * w, 8 * w),
                         nn.Conv2d(8 * w, 1, 4), nn.Flatten(0))
