"""Augmentation of digits: batched, and it leaves the class alone."""
from common.augment import augment_digits, cutout, neighbours, sharpness, solarize, strong_digits, weak_digits

import pytest
import torch


@pytest.mark.parametrize("augment", [augment_digits, weak_digits, strong_digits])
def test_shapes_and_seeds(augment):
    images = torch.randint(0, 256, (6, 3, 28, 28), dtype=torch.uint8)
    torch.manual_seed(0)
    first, second = augment(images), augment(images)
    assert first.shape == images.shape and first.dtype == torch.float32
    assert not torch.equal(first, second)  # random
    torch.manual_seed(0)
    assert torch.equal(augment(images), first)  # and repeatable


def test_weak_augmentation_stays_near():
    x = torch.randint(0, 256, (32, 3, 7, 7)).repeat_interleave(4, 2).repeat_interleave(4, 3).to(torch.uint8)
    assert (weak_digits(x) - x / 255).abs().mean() < 0.15


def test_solarize_inverts_what_is_bright():
    x = torch.rand(200, 3, 8, 8)
    out = solarize(x, fraction=1)
    changed = out != x
    torch.testing.assert_close(out[changed], 1 - x[changed])
    for image, was_changed in zip(x, changed):
        if was_changed.any() and not was_changed.all():
            assert image[was_changed].min() > image[~was_changed].max()
    assert torch.equal(solarize(x, fraction=0), x)


def test_neighbours_look_in_from_the_sides_only():
    x = torch.arange(64.0).view(64, 1, 1, 1).expand(64, 3, 28, 28)
    out = neighbours(x, fraction=1)
    assert torch.equal(out[..., 9:19], x[..., 9:19])  # the middle is the image's own
    assert (out[..., 0] != x[..., 0]).float().mean() > 0.8 and (out[..., -1] != x[..., -1]).float().mean() > 0.8


def test_cutout_blanks_a_square_of_at_most_half_the_side():
    out = cutout(torch.ones(200, 3, 28, 28), fraction=1)
    assert torch.equal(out[:, 0], out[:, 1]) and set(out.unique().tolist()) == {0, 1}
    holes = out[:, 0] == 0
    assert holes.any(1).sum(1).max() <= 14 and holes.any(2).sum(1).max() <= 14
    assert 0.02 < holes.float().mean() < 0.25


def test_sharpness_keeps_flat_images_flat():
    flat = torch.rand(4, 3, 1, 1).expand(4, 3, 28, 28)
    torch.testing.assert_close(sharpness(flat), flat)


def test_augmentation_is_batched_and_never_mirrors():
    """Each image gets a draw of its own, and a digit half of which is blank keeps the blank half where it was."""
    half = torch.zeros(64, 3, 28, 28, dtype=torch.uint8)
    half[:, :, :, :14] = torch.randint(0, 256, (64, 3, 28, 14))  # texture on the left, blank on the right
    torch.manual_seed(0)
    out = augment_digits(half, jittered=0)
    roughness = out.diff(dim=2).abs().mean((1, 2))  # [N, column]
    assert (roughness[:, :10].mean(1) > 3 * roughness[:, 18:].mean(1)).all()
    assert (out[0] != out[1]).any()
    signs = (out[:, :, :, 22:].mean((1, 2, 3)) > 0)
    assert 10 < signs.sum() < 54  # about half of them inverted
