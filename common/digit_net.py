"""The digit classifier of problems 3 and 4."""
import torch
from torch import nn


def standardise(x, eps=1e-4):
    """Images [N, 3, H, W] -> zero mean, unit variance per image and channel; tint is no class (Shu et al. 2018)."""
    variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
    return (x - mean) * (variance + eps).rsqrt()


def conv(inputs, outputs, kernel=3, stride=1, padding=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
                         nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class DigitNet(nn.Module):
    """Images [N, 3, 28, 28] -> non-negative features [N, 8 * width] -> logits [N, 10]."""

    def __init__(self, width=32):
        super().__init__()
        self.layers = nn.Sequential(
            conv(3, width, kernel=5, stride=2, padding=2), conv(width, width), conv(width, width), nn.MaxPool2d(2),
            conv(width, 2 * width), conv(2 * width, 2 * width), conv(2 * width, 2 * width), nn.MaxPool2d(2),
            conv(2 * width, 8 * width, padding=0), nn.Flatten())  # the last one sees the whole 3x3 map
        self.classifier = nn.Linear(8 * width, 10)

    def features(self, x):
        return self.layers(standardise(x).contiguous(memory_format=torch.channels_last))

    def forward(self, x):
        return self.classifier(self.features(x))
