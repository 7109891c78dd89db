"""What DANN adds to the digit classifier: a domain discriminator behind a gradient reversal layer.

Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks", JMLR 17(59).
"""
import torch
from torch import nn


class DomainDiscriminator(nn.Module):
    """Features [N, size] -> logits [N] that they come from the source domain."""

    def __init__(self, size=256):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, size), nn.ReLU(),
                                    nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 1))

    def forward(self, features):
        return self.layers(features).squeeze(1)


class GradientReversal(torch.autograd.Function):
    """The layer R of Ganin et al., eq. 16-17: identity forwards, the gradient times -strength backwards."""

    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.strength * gradient, None
