"""Augmentation: batched, within its ranges, and no digit is ever mirrored."""
import math

import pytest
import torch

from common import augment


def affine_of(transform, count=4000, size=28):
    """The matrices [count, 2, 2] and shifts [count, 2] of what `transform` does, read off pictures of coordinates."""
    along = (torch.arange(size) + 0.5) * 2 / size - 1  # -1 to 1
    x = torch.stack([along.expand(size, size), along[:, None].expand(size, size), torch.zeros(size, size)])
    y = transform(x.expand(count, 3, size, size))[:, :2]
    middle, step = size // 2, 2 / size
    centre = y[:, :, middle - 1:middle + 1, middle - 1:middle + 1]
    columns = (centre[:, :, :, 1] - centre[:, :, :, 0]).mean(2) / step  # d(where it comes from) / d column
    rows = (centre[:, :, 1] - centre[:, :, 0]).mean(2) / step
    return torch.stack([columns, rows], 2), centre.mean((2, 3))


def test_ranges_of_the_affine_transform():
    """±degrees, a zoom up to `scale` either way, ±translate of the side; and the ranges are used to their ends."""
    matrix, shift = affine_of(lambda x: augment.random_affine(x, degrees=10, scale=1.15, shear=0, translate=0.07))
    angle = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]) * 180 / math.pi
    zooms = matrix.norm(dim=1).log() / math.log(1.15)
    for value, limit in ((angle, 10), (zooms, 1), (shift / 2, 0.07)):
        assert 0.97 * limit < value.max() < 1.01 * limit and -0.97 * limit > value.min() > -1.01 * limit
    matrix, _ = affine_of(lambda x: augment.random_affine(x, degrees=0, scale=1, shear=0.1, translate=0))
    assert 0.097 < matrix[:, 0, 1].abs().max() < 0.101 and matrix[:, 1, 0].abs().max() < 1e-3
    assert (torch.linalg.det(matrix) > 0.9).all()  # a mirror image has a negative determinant
    ones = torch.ones(200, 3, 28, 28)
    torch.testing.assert_close(augment.random_affine(ones), ones)  # no dark edges
    matrix, shift = affine_of(lambda x: augment.weak_digits(255 * (x + 1) / 2) * 2 - 1)  # it stays near
    assert (matrix - torch.eye(2)).abs().max() < 0.2 and 0.04 < shift.abs().max() / 2 < 0.0505


@pytest.mark.parametrize("transform", [augment.augment_digits, augment.weak_digits, augment.strong_digits])
def test_each_digit_has_a_draw_of_its_own(transform):
    x = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8).expand(7, 3, 28, 28)
    out = transform(x)
    assert out.shape == x.shape and out.dtype == torch.float32
    assert not any(torch.equal(out[0], other) for other in out[1:])


def test_half_of_the_channels_are_inverted_and_some_have_other_light():
    """In half of the images each channel on its own, so that in 3/8 of all the three differ: 1/2 times 6/8."""
    x = torch.rand(1000, 3, 28, 28)
    centred = x - x.mean((1, 2, 3), keepdim=True)
    plain = augment.jitter_lighting(x, 0)
    signs = (plain * centred).mean((2, 3), keepdim=True).sign()
    torch.testing.assert_close(plain, signs * centred)
    for channel in range(3):
        assert 0.4 < (signs[:, channel] < 0).float().mean() < 0.6
    assert 0.32 < (signs.sum(1).abs() < 3).float().mean() < 0.43
    contrast = augment.jitter_lighting(x, 1).std((1, 2, 3)) / x.std((1, 2, 3))
    assert 0.3 < contrast.min() < 0.6 and 1.4 < contrast.max() < 2.5


def test_parts_of_the_strong_augmentation():
    x = torch.rand(200, 3, 28, 28)
    out = augment.solarize(x, fraction=1)
    inverted = out != x
    torch.testing.assert_close(out[inverted], 1 - x[inverted])
    dark, bright = x.masked_fill(inverted, 0).amax((1, 2, 3)), x.masked_fill(~inverted, 1).amin((1, 2, 3))
    assert (dark < bright).all() and 0.4 < inverted.float().mean() < 0.6
    assert torch.equal(augment.solarize(x, fraction=0), x)

    out = augment.cutout(torch.ones_like(x), fraction=1)
    assert torch.equal(out[:, 0], out[:, 1]) and set(out.unique().tolist()) == {0, 1}
    holes = out[:, 0] == 0  # squares of at most half the side
    assert 12 < holes.any(1).sum(1).max() <= 14 and holes.any(2).sum(1).max() <= 14

    holes = augment.cutout(torch.ones(2000, 3, 28, 28))[:, 0] == 0  # anywhere, in half of the images
    assert 0.3 < holes.any(2).any(1).float().mean() < 0.55  # the smallest ones fall between pixels
    assert holes[:, 2, 25].any() and holes[:, 25, 2].any() and holes[:, 14, 14].any()

    change = augment.sharpness(x).std((1, 2, 3)) / x.std((1, 2, 3))
    assert change.min() < 0.6 and change.max() > 1.5
    flat = x[:, :, :1, :1].expand_as(x)
    torch.testing.assert_close(augment.sharpness(flat), flat)


def test_neighbours_are_the_middles_of_other_images():
    torch.manual_seed(0)
    x = (100.0 * torch.arange(200).view(200, 1, 1, 1) + torch.arange(28)).expand(200, 3, 28, 28)
    out = augment.neighbours(x, fraction=1)
    assert torch.equal(out[..., 9:19], x[..., 9:19])  # the middle is the image's own
    assert (out[..., -1] != x[..., -1]).float().mean() > 0.8
    left, own = out[:, 0, 0, 0], x[:, 0, 0, 0]
    covered = left != own
    assert covered.float().mean() > 0.8 and (left[covered] % 100 == 14).all()  # column 14 of another image
    assert ((left // 100).long() != torch.arange(200))[covered].float().mean() > 0.9
    assert 0.3 < (augment.neighbours(x, fraction=0.5)[:, 0, 0, 0] != own).float().mean() < 0.6


def test_uneven_light():
    """On grey images, what is added: smooth brightness and fine noise; on stripes, a contrast that changes across."""
    torch.manual_seed(0)
    grey = torch.full((500, 3, 28, 28), 0.5)
    added = augment.jitter_lighting(grey, 1)
    fine = added.diff(dim=3).diff(dim=3).square().mean((1, 2, 3)).sqrt() / 6 ** 0.5  # of white noise: its deviation
    assert 0.03 < fine.mean() < 0.08 and 0.1 < added.mean(1).std((1, 2)).max() < 0.5
    assert 0.2 < (augment.jitter_lighting(grey, 0.3) != 0).flatten(1).any(1).float().mean() < 0.4
    stripes = (torch.arange(28) % 2 * 2 - 1.0).expand(500, 3, 28, 28)
    contrast = augment.jitter_lighting(stripes, 1).diff(dim=3) / stripes.diff(dim=3)
    left, right = contrast[..., :8].mean((1, 2, 3)), contrast[..., -8:].mean((1, 2, 3))
    assert 0.1 < (left - right).std() < 0.5


def test_what_the_augmentations_of_problems_3_and_4_consist_of(monkeypatch):
    used, parts = [], ("random_affine", "neighbours", "solarize", "sharpness", "jitter_lighting", "cutout", "flip_half")
    for name in parts:
        def watched(x, *rest, name=name, function=getattr(augment, name), **options):
            used.append((name, *rest, *options.values()))
            return function(x, *rest, **options)
        monkeypatch.setattr(augment, name, watched)
    digits = torch.zeros(2, 3, 28, 28, dtype=torch.uint8)
    augment.augment_digits(digits)
    assert used == [("random_affine",), ("jitter_lighting", 0.5)]
    used.clear()
    augment.strong_digits(digits)
    assert used == [("random_affine", 15, 1.2, 0.15, 0.08), ("neighbours",), ("solarize", 0.15), ("sharpness",),
                    ("jitter_lighting", 0.5), ("cutout",)]


def test_every_other_image_is_strongly_augmented(monkeypatch):
    monkeypatch.setattr(augment, "weak_digits", lambda images: images.float())
    monkeypatch.setattr(augment, "strong_digits", lambda images: images.float() + 100)
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 2, 2)
    assert augment.half_strong_digits(images)[:, 0, 0, 0].tolist() == [100, 1, 102, 3, 104, 5]


def test_about_half_of_the_faces_are_mirrored():
    x = torch.arange(2000 * 4).view(2000, 1, 1, 4)
    y = augment.flip_half(x)
    mirrored = (y == x.flip(3)).all(3)
    assert ((y == x).all(3) | mirrored).all() and 0.45 < mirrored.float().mean() < 0.55
