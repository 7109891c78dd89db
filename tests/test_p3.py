"""Problem 3: the gradient reversal, its schedule, the networks."""
from common.digit_net import DigitNet
from p3_dann import train
from p3_dann.model import DomainDiscriminator, GradientReversal

import pytest
import torch


def test_gradient_reversal_by_hand():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    w = torch.tensor([3.0, 5.0], requires_grad=True)
    y = GradientReversal.apply(x, 0.25)
    assert torch.equal(y, x)
    (w * y ** 2).sum().backward()  # d/dx = 2 w x = (6, -20), reversed and scaled; d/dw = x^2, untouched
    assert x.grad.tolist() == [-1.5, 5.0]
    assert w.grad.tolist() == [1.0, 4.0]


def test_reversal_schedule_is_the_published_one():
    assert train.reversal_strength(0, 100, 1) == 0
    assert train.reversal_strength(10, 100, 1) == pytest.approx(0.462117, abs=1e-6)  # tanh(10 p / 2)
    assert train.reversal_strength(100, 100, 0.5) == pytest.approx(0.5 * 0.999909, abs=1e-6)


def test_shapes():
    net, discriminator = DigitNet(4), DomainDiscriminator(4)
    features = net.features(torch.rand(5, 3, 28, 28))
    assert features.shape == (5, 32)
    assert net(torch.rand(5, 3, 28, 28)).shape == (5, 10)
    assert discriminator(features).shape == (5,)


def test_input_brightness_and_contrast_do_not_matter():
    net, x = DigitNet(4).eval(), torch.rand(5, 3, 28, 28)
    torch.testing.assert_close(net(0.5 * x + 0.2), net(x), rtol=0.02, atol=0.02)
