"""Problem 3: DANN. Broken at any line of its loss or its schedule, a test here fails."""
import copy
from types import SimpleNamespace

import pytest
import torch

from common.augment import augment_digits
from common.digit_net import DigitNet
from p3_dann import train
from p3_dann.model import DomainDiscriminator, GradientReversal


@pytest.fixture
def batch():
    """Source images, their labels, and target images that differ from them in brightness along a ramp."""
    torch.manual_seed(0)
    x = torch.randint(0, 256, (8, 3, 28, 28), dtype=torch.uint8)
    target = (torch.arange(28) * 9).expand(8, 3, 28, 28).to(torch.uint8)
    return x, torch.arange(8), target


@pytest.fixture
def nets():
    torch.manual_seed(0)
    return DigitNet(2), DomainDiscriminator(16)


def test_the_reversal_layer_by_hand():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = GradientReversal.apply(x, 0.25)
    assert torch.equal(y, x)
    (3 * y ** 2).sum().backward()  # 6 x = (6, -12), reversed and scaled
    assert x.grad.tolist() == [-1.5, 3.0]


def test_the_net_goes_against_the_discriminator_and_the_discriminator_does_not(nets, batch, float32):
    """And the discriminator learns at its full rate from the start, when nothing is reversed yet."""
    def dann(nets, strength=1.0):
        torch.manual_seed(1)  # the same augmentation each time
        return train.dann_loss(*nets, augment_digits, *batch, strength)[:2]

    def gradient(strength):
        loss, _ = dann(nets, strength)
        return [torch.autograd.grad(loss, list(net.parameters()), retain_graph=True) for net in nets]
    before = dann(nets)[1]["domain_loss"].item()
    plain, reversed_ = gradient(0.0), gradient(1.0)
    torch.testing.assert_close(plain[1], reversed_[1])
    added = [-0.003 * (a - b) for a, b in zip(reversed_[0], plain[0])]  # what the reversal adds to a step of the net
    for which, step, sign in ((0, added, 1), (1, [-0.1 * g for g in reversed_[1]], -1)):
        moved = copy.deepcopy(nets)
        with torch.no_grad():
            torch._foreach_add_(list(moved[which].parameters()), step)
        assert sign * (dann(moved)[1]["domain_loss"].item() - before) > 1e-4


def test_the_losses_by_hand(batch):
    """The networks see augmented images, DANN both domains in one batch. Of the source's classes seven are right and
    one is wrong by a logit of 8. A discriminator has no loss that says 1 for the source, which comes first, 0 after it.
    """
    (x, y, target), seen = batch, []
    logits, right = 8.0 * torch.eye(10)[[0, 1, 2, 3, 4, 5, 6, 9]], torch.tensor([20.0] * 8 + [-20.0] * 8)
    loss, metrics = train.supervised_loss(lambda views: seen.append(views) or logits, torch.neg, x, y)
    assert loss.item() == metrics["class_loss"].item() == pytest.approx(1, rel=0.01)
    assert metrics["class_accuracy"] == 7 / 8 and torch.equal(seen[0], -x)
    net = SimpleNamespace(features=lambda views: seen.append(views) or views,
                          classifier=lambda features: torch.cat([logits, 8.0 * torch.eye(10)[[9] * 8]]))
    for domain_logits, accuracy in ((right, 1), (-right, 0)):
        loss, metrics, _ = train.dann_loss(net, lambda features: domain_logits, torch.neg, x, y, target, 1.0)
        assert metrics["class_loss"].item() == pytest.approx(1, rel=0.01) and metrics["class_accuracy"] == 7 / 8
        assert metrics["domain_accuracy"] == accuracy and (metrics["domain_loss"] < 1e-6) == accuracy
        assert loss == metrics["class_loss"] + metrics["domain_loss"] and torch.equal(seen[-1], -torch.cat([x, target]))


def test_target_information_is_of_the_target(nets, batch, float32):
    """The shares and the entropy in the log are means over the predictions for the target."""
    probs = nets[0].eval()(batch[2] / 255).softmax(1)
    _, metrics, shares = train.dann_loss(*nets, train.AUGMENTATIONS["none"], *batch, 1.0)
    torch.testing.assert_close(shares, probs.mean(0))
    torch.testing.assert_close(metrics["target_entropy"], -(probs * probs.log()).sum(1).mean())


def test_shapes_and_that_brightness_contrast_and_tint_do_not_matter(nets):
    net, x = nets[0].eval(), torch.rand(5, 3, 28, 28)
    assert net.features(x).shape == (5, 16) and net(x).shape == (5, 10) and nets[1](net.features(x)).shape == (5,)
    features, changed = net.features(x), net.features(torch.tensor([0.5, 0.8, 0.4])[:, None, None] * x + 0.2)
    assert (changed - features).norm() < 0.02 * (features - features.mean(0)).norm()
