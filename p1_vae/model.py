"""A convolutional VAE for 64x64 faces: Kingma & Welling 2014, "Auto-Encoding Variational Bayes", ICLR.

Its codes are no N(0, I), so a second stage maps noise to codes (Dai & Wipf 2019, "Diagnosing and Enhancing VAE
Models", ICLR), here a flow.

The decoder convolves first and then enlarges bilinearly, which leaves no checkerboard pattern. Its last layer gives
2x2 pixels each (Shi et al. 2016), so that no convolution runs at 64x64.
"""
import torch
import torch.nn.functional as F
from torch import nn


class ResidualBlock(nn.Module):
    """x + two 3x3 convolutions of it, with batch norm and ReLU before each.

    He et al. 2016, "Identity Mappings in Deep Residual Networks".
    """

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


class VelocityBlock(nn.Module):
    """x + two linear layers of its layer norm; the time scales and shifts (Peebles & Xie 2023, "DiT", adaLN)."""

    def __init__(self, width, frequencies):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.time = nn.Linear(2 * frequencies, 3 * width)
        nn.init.zeros_(self.time.weight)
        nn.init.zeros_(self.time.bias)

    def forward(self, x, waves):
        scale, shift, gate = self.time(waves).chunk(3, 1)
        y = self.norm(x) * (1 + scale) + shift
        return x + (1 + gate) * self.out(F.silu(self.hidden(y)))


class Flow(nn.Module):
    """Noise u ~ N(0, I) [N, dim] -> codes z [N, dim], along dz / dt = velocity(z, t) from t = 0 to 1.

    Lipman et al. 2023, "Flow Matching for Generative Modeling", ICLR. The velocity is the exact one for Gaussian codes,
    plus what a network adds to it, in the axes of that Gaussian. For samples the network's part is enlarged.
    """

    def __init__(self, dim, width, blocks=4, frequencies=8):
        super().__init__()
        self.start, self.end = nn.Linear(dim, width), nn.Linear(width, dim)
        self.blocks = nn.ModuleList([VelocityBlock(width, frequencies) for _ in range(blocks)])
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)
        self.register_buffer("frequencies", torch.pi * torch.arange(1, frequencies + 1), persistent=False)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("axes", torch.eye(dim))
        self.register_buffer("variance", torch.ones(dim))  # along each axis

    def fit_gaussian(self, mean, log_variance):
        """Set the Gaussian to that of the draws of posteriors, means and log variances [N, dim] each."""
        variance, axes = torch.linalg.eigh(mean.T.cov() + log_variance.exp().mean(0).diag())
        for buffer, value in ((self.mean, mean.mean(0)), (self.axes, axes), (self.variance, variance)):
            buffer.copy_(value)

    def velocity(self, z, t, guidance=1.0):
        """[N, dim] at the points z [N, dim] and times t [N, 1]; guidance multiplies what the network adds."""
        y = (z - t * self.mean) @ self.axes
        variance = (1 - t) ** 2 + t ** 2 * self.variance  # of y
        phase = t * self.frequencies
        waves, x = torch.cat([phase.cos(), phase.sin()], 1), self.start(y / variance.sqrt())
        for block in self.blocks:
            x = block(x, waves)
        gaussian = (t * self.variance - (1 - t)) / variance * y  # E[code - noise | y], both about their means
        return (gaussian + guidance * self.end(x)) @ self.axes.T + self.mean

    def loss(self, codes):
        """The velocity's mean squared error on straight lines from noise to codes [N, dim] (eq. 23, sigma_min = 0).

        Times are drawn around the middle (Esser et al. 2024, "Scaling Rectified Flow Transformers", logit-normal).
        """
        noise, t = torch.randn_like(codes), torch.randn_like(codes[:, :1]).sigmoid()
        return F.mse_loss(self.velocity(torch.lerp(noise, codes, t), t), codes - noise)

    def forward(self, u, steps=32, guidance=1.5):
        """By Heun's method.

        Guidance above 1 leads away from what the Gaussian alone would draw, towards the likelier codes (Karras et al.
        2024, "Guiding a Diffusion Model with a Bad Version of Itself", NeurIPS).
        """
        for step in range(steps):
            t = torch.full_like(u[:, :1], step / steps)
            first = self.velocity(u, t, guidance)
            u = u + (first + self.velocity(u + first / steps, t + 1 / steps, guidance)) / (2 * steps)
        return u


class VAE(nn.Module):
    """Images [N, 3, 64, 64] on [0, 1] -> means and log variances [N, latent_dim]; latents -> images on [0, 1]."""

    def __init__(self, width=32, latent_dim=512):
        super().__init__()
        w = width
        self.encoder = nn.Sequential(
            nn.Conv2d(3, w, 4, 2, 1), down(w, 2 * w), down(2 * w, 4 * w), down(4 * w, 8 * w),
            nn.BatchNorm2d(8 * w), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * w * 16, 2 * latent_dim))
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 8 * w * 16), nn.Unflatten(1, (8 * w, 4, 4)),
            up(8 * w, 4 * w), up(4 * w, 2 * w), up(2 * w, w), ResidualBlock(w),
            nn.BatchNorm2d(w), nn.ReLU(inplace=True), nn.Conv2d(w, 12, 3, padding=1), nn.PixelShuffle(2), nn.Sigmoid())
        self.flow = Flow(latent_dim, 32 * width)

    def encode(self, x):
        """The posterior's mean and log variance, [N, latent_dim] each, in float32 or more."""
        mean, log_variance = self.encoder(2 * x - 1).chunk(2, 1)
        return mean.to(x.dtype), log_variance.to(x.dtype)

    def decode(self, z):
        return self.decoder(z)

    def sampler(self):
        """The network from noise u ~ N(0, I) [N, latent_dim] to images on [0, 1]."""
        return nn.Sequential(self.flow, self.decoder)

    def forward(self, x):
        """Reconstructions from one draw of each posterior, the means and the log variances."""
        mean, log_variance = self.encode(x)
        return self.decode(draw(mean, log_variance)), mean, log_variance


def draw(mean, log_variance):
    """One draw of each posterior, mean + sigma * noise, [N, latent_dim]."""
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


def kl_divergence(mean, log_variance):
    """KL(N(mean, sigma^2) || N(0, 1)) per image and dimension, [N, latent_dim], in nats.

    Kingma & Welling 2014, appendix B.
    """
    return -0.5 * (1 + log_variance - mean ** 2 - log_variance.exp())
