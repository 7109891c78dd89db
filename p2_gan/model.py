"""A residual GAN for 64x64 faces, and the textbook DCGAN.

Generator: residual blocks (Miyato et al. 2018, "Spectral Normalization for GANs", ICLR, table 4). The latent scales and
shifts their batch norm (Chen et al. 2019, "On Self Modulation for GANs", ICLR).
Discriminator: residual blocks without normalisation, as in StyleGAN2 (Karras et al. 2020, CVPR); a gradient penalty
keeps it smooth.
DCGAN: Radford et al. 2016, ICLR.
"""
import torch.nn.functional as F
from torch import nn

LATENT = 128


class Modulation(nn.Module):
    """Features [N, channels, H, H], latents [N, 128] -> ReLU of the batch norm that the latent scales and shifts."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.affine = nn.Linear(LATENT, 2 * channels)

    def forward(self, x, z):
        scale, shift = self.affine(z)[:, :, None, None].chunk(2, 1)
        return F.relu(self.norm(x) * (1 + scale) + shift, inplace=True)


class UpBlock(nn.Module):
    """Features [N, inputs, H, H] -> [N, outputs, 2H, 2H].

    Two modulated convolutions, the second transposed, plus a 1x1 convolution enlarged by copying.
    """

    def __init__(self, inputs, outputs):
        super().__init__()
        self.first, self.second = Modulation(inputs), Modulation(outputs)
        self.narrow = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.enlarge = nn.ConvTranspose2d(outputs, outputs, 4, 2, 1, bias=False)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x, z):
        y = self.second(self.narrow(self.first(x, z)), z)
        return self.enlarge(y) + F.interpolate(self.skip(x), scale_factor=2)


class Generator(nn.Module):
    """Latents [N, 128] -> images [N, 3, 64, 64] on [0, 1]."""

    def __init__(self, width):
        super().__init__()
        self.start = nn.Sequential(nn.Linear(LATENT, 16 * 32 * width), nn.Unflatten(1, (32 * width, 4, 4)))
        self.blocks = nn.ModuleList([UpBlock(2 * outputs, outputs)
                                     for outputs in (16 * width, 8 * width, 4 * width, 2 * width)])
        self.last = Modulation(2 * width)
        self.pixels = nn.Sequential(nn.Conv2d(2 * width, 3, 3, padding=1), nn.Sigmoid())

    def forward(self, z):
        x = self.start(z)
        for block in self.blocks:
            x = block(x, z)
        return self.pixels(self.last(x, z))


class ScaledLeakyReLU(nn.Module):
    """Leaky ReLU times sqrt(2), which keeps the signal's variance."""

    def forward(self, x):
        return F.leaky_relu(x, 0.1) * 2 ** 0.5


class DownBlock(nn.Module):
    """Features [N, inputs, H, H] -> [N, outputs, H / 2, H / 2]: two convolutions, plus a 1x1 one of the averages."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.refine = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.halve = nn.Conv2d(inputs, outputs, 4, 2, 1)
        self.skip = nn.Conv2d(inputs, outputs, 1)
        self.act = ScaledLeakyReLU()

    def forward(self, x):
        y = self.halve(self.act(self.refine(self.act(x))))
        return (y + self.skip(F.avg_pool2d(x, 2))) * 0.5 ** 0.5


def discriminator(w):
    """Images [N, 3, 64, 64] on [-1, 1] -> one score [N] each, higher for real. Only differences of scores matter."""
    net = nn.Sequential(nn.Conv2d(3, 2 * w, 4, 2, 1),
                        DownBlock(2 * w, 4 * w), DownBlock(4 * w, 8 * w), DownBlock(8 * w, 16 * w),
                        ScaledLeakyReLU(), nn.Flatten(), nn.Linear(16 * 16 * w, 1), nn.Flatten(0))
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")  # the activations bring their own gain
            nn.init.zeros_(layer.bias)
    return net


def dcgan_init(net):
    """The network with weights from N(0, 0.02), those of batch norm from N(1, 0.02), as Radford et al. have it."""
    for layer in net.modules():
        if hasattr(layer, "weight"):
            nn.init.normal_(layer.weight, float(isinstance(layer, nn.BatchNorm2d)), 0.02)
    return net


def dcgan_generator(w):
    """Latents [N, 128] -> images [N, 3, 64, 64] on [0, 1], by transposed convolutions."""
    def up(inputs, outputs, *where):
        return [nn.ConvTranspose2d(inputs, outputs, 4, *where, bias=False), nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True)]
    return dcgan_init(nn.Sequential(
        nn.Unflatten(1, (LATENT, 1, 1)), *up(LATENT, 8 * w), *up(8 * w, 4 * w, 2, 1), *up(4 * w, 2 * w, 2, 1),
        *up(2 * w, w, 2, 1), nn.ConvTranspose2d(w, 3, 4, 2, 1), nn.Sigmoid()))


def dcgan_discriminator(w):
    """Images [N, 3, 64, 64] on [-1, 1] -> one logit [N] each, above 0 for real."""
    def down(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs),
                nn.LeakyReLU(0.2, inplace=True)]
    return dcgan_init(nn.Sequential(
        nn.Conv2d(3, w, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True), *down(w, 2 * w), *down(2 * w, 4 * w),
        *down(4 * w, 8 * w), nn.Conv2d(8 * w, 1, 4), nn.Flatten(0)))


MODELS = {"residual": (Generator, discriminator), "dcgan": (dcgan_generator, dcgan_discriminator)}
