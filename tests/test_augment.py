"""Augmentation: batched, within its ranges, and no digit is ever mirrored."""
import math

import pytest
import torch

from common.augment import (
    augment_digits,
    cutout,
    flip_half,
    jitter_lighting,
    neighbours,
    random_affine,
    sharpness,
    solarize,
    strong_digits,
    weak_digits,
)


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
    matrix, shift = affine_of(lambda x: random_affine(x, degrees=10, scale=1.15, shear=0, translate=0.07))
    angle = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]) * 180 / math.pi
    zooms = matrix.norm(dim=1).log() / math.log(1.15)
    for value, limit in ((angle, 10), (zooms, 1), (shift / 2, 0.07)):
        assert 0.97 * limit < value.max() < 1.01 * limit and -0.97 * limit > value.min() > -1.01 * limit
    matrix, _ = affine_of(lambda x: random_affine(x, degrees=0, scale=1, shear=0.1, translate=0))
    assert 0.097 < matrix[:, 0, 1].abs().max() < 0.101 and matrix[:, 1, 0].abs().max() < 1e-3
    assert (torch.linalg.det(matrix) > 0.9).all()  # a mirror image has a negative determinant


@pytest.mark.parametrize("augment, share", [(augment_digits, 0.95), (weak_digits, 0.99), (strong_digits, 0.9)])
def test_digits_are_never_mirrored(augment, share):
    """What comes out is more like what went in, or its inverse, than like its mirror image."""
    torch.manual_seed(0)
    x = torch.nn.functional.interpolate(torch.rand(500, 3, 4, 4), size=28, mode="bilinear")
    out = augment((255 * x).to(torch.uint8))

    def likeness(a, b):
        a, b = (t[:, :, 6:22, 6:22].flatten(1) for t in (a, b))  # neighbours cover the edges
        return torch.nn.functional.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)).abs()
    right = [likeness(out, x) > likeness(out, mirrored) for mirrored in (x.flip(3), x.flip(2))]
    assert (right[0] & right[1]).float().mean() > share


@pytest.mark.parametrize("augment", [augment_digits, weak_digits, strong_digits])
def test_each_image_has_a_draw_of_its_own_and_a_seed_repeats_it(augment):
    images = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8).expand(6, 3, 28, 28)
    torch.manual_seed(0)
    first = augment(images)
    assert first.shape == images.shape and first.dtype == torch.float32
    assert not any(torch.equal(first[0], other) for other in first[1:])
    torch.manual_seed(0)
    assert torch.equal(augment(images), first)


def test_weak_augmentation_stays_near():
    matrix, shift = affine_of(lambda x: weak_digits(255 * (x + 1) / 2) * 2 - 1)
    assert (matrix - torch.eye(2)).abs().max() < 0.2 and 0.04 < shift.abs().max() / 2 < 0.0505


def test_half_of_the_digits_are_inverted_and_some_have_other_light():
    x = torch.rand(1000, 3, 28, 28)
    centred = x - x.mean((1, 2, 3), keepdim=True)
    plain = jitter_lighting(x, 0)
    signs = (plain * centred).mean((1, 2, 3)).sign()
    torch.testing.assert_close(plain, signs[:, None, None, None] * centred)
    assert 0.4 < (signs < 0).float().mean() < 0.6
    contrast = jitter_lighting(x, 1).std((1, 2, 3)) / x.std((1, 2, 3))
    assert 0.3 < contrast.min() < 0.6 and 1.4 < contrast.max() < 2.5


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
    assert 12 < holes.any(1).sum(1).max() <= 14 and holes.any(2).sum(1).max() <= 14


def test_sharpness_softens_and_sharpens_but_keeps_flat_images_flat():
    flat = torch.rand(4, 3, 1, 1).expand(4, 3, 28, 28)
    torch.testing.assert_close(sharpness(flat), flat)
    x = torch.rand(100, 3, 28, 28)
    change = sharpness(x).std((1, 2, 3)) / x.std((1, 2, 3))
    assert change.min() < 0.6 and change.max() > 1.5


def test_about_half_of_the_faces_are_mirrored():
    x = torch.arange(2000 * 4).view(2000, 1, 1, 4)
    y = flip_half(x)
    mirrored = (y == x.flip(3)).all(3)
    assert ((y == x).all(3) | mirrored).all() and 0.45 < mirrored.float().mean() < 0.55
