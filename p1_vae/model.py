"""A convolutional VAE for 64x64 faces: Kingma & Welling 2014, "Auto-Encoding Variational Bayes", ICLR.

The decoder convolves first and then enlarges bilinearly, which leaves no checkerboard pattern. Its last layer gives
2x2 pixels each (Shi et al. 2016), so that no convolution runs at 64x64.
"""
import torch
from torch import nn


class ResidualBlock(nn.Module):
    """x + two 3x3 convolutions of it, with batch norm and ReLU before each (He et al. 2016, "Identity Mappings")."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 3, padding=1, bias=False))

    def forward(self, x):
        return x + self.layers(x)


def down(inputs, outputs):
    """Features [N, inputs, H, H] -> [N, outputs, H / 2, H / 2]."""
    return nn.Sequential(ResidualBlock(inputs), nn.BatchNorm2d(inputs), nn.ReLU(inplace=True),
                         nn.Conv2d(inputs, outputs, 4, 2, 1))


def up(inputs, outputs):
    """Features [N, inputs, H, H] -> [N, outputs, 2H, 2H]."""
    return nn.Sequential(ResidualBlock(inputs), nn.Conv2d(inputs, outputs, 3, padding=1),
                         nn.Upsample(scale_factor=2, mode="bilinear"))


class VAE(nn.Module):
    """Images [N, 3, 64, 64] on [0, 1] -> means and log variances [N, latent_dim]; latents -> images on [0, 1].

    `flow` is the second stage, from noise to latents [N, latent_dim]; a plain VAE has none.
    """

    def __init__(self, width=32, latent_dim=512, flow=None):
        super().__init__()
        w = width
        self.encoder = nn.Sequential(
            nn.Conv2d(3, w, 4, 2, 1), down(w, 2 * w), down(2 * w, 4 * w), down(4 * w, 8 * w),
            nn.BatchNorm2d(8 * w), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * w * 16, 2 * latent_dim))
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 8 * w * 16), nn.Unflatten(1, (8 * w, 4, 4)),
            up(8 * w, 4 * w), up(4 * w, 2 * w), up(2 * w, w), ResidualBlock(w),
            nn.BatchNorm2d(w), nn.ReLU(inplace=True), nn.Conv2d(w, 12, 3, padding=1), nn.PixelShuffle(2), nn.Sigmoid())
        self.flow = flow

    def encode(self, x):
        """The posterior's mean and log variance, [N, latent_dim] each, in float32 or more."""
        mean, log_variance = self.encoder(2 * x - 1).chunk(2, 1)
        return mean.to(x.dtype), log_variance.to(x.dtype)

    def decode(self, z):
        return self.decoder(z)

    def forward(self, x):
        """Reconstructions from one draw of each posterior, the means and the log variances."""
        mean, log_variance = self.encode(x)
        return self.decode(reparameterize(mean, log_variance)), mean, log_variance


def reparameterize(mean, log_variance):
    """One draw of each posterior, mean + sigma * noise, [N, latent_dim]; gradients flow into both (section 2.4)."""
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


def kl_divergence(mean, log_variance):
    """KL(N(mean, sigma^2) || N(0, 1)) per image and dimension, [N, latent_dim], in nats (Kingma & Welling, app. B)."""
    return -0.5 * (1 + log_variance - mean ** 2 - log_variance.exp())
