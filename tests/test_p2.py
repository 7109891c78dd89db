"""Problem 2: the GAN's networks, losses and its two steps."""
import copy

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch.optim.swa_utils import update_bn

from common.pictures import draw_latents, grid, to_pixels
from common.weights import load_weights, save_weights
from p2_gan import inference, train
from p2_gan.model import LATENT, MODELS

both = pytest.mark.parametrize("model", MODELS)


@both
def test_shapes_and_ranges(model):
    generator, discriminator = (net(4) for net in MODELS[model])
    x = generator(torch.randn(3, LATENT))
    assert x.shape == (3, 3, 64, 64) and 0 <= x.min() and x.max() <= 1
    assert train.score(discriminator, x).shape == (3,)
    seen = train.score(lambda x: x.amax((1, 2, 3)), torch.full((1, 3, 64, 64), 0.75))
    assert seen.tolist() == [0.5]  # the discriminator sees images around zero


def test_losses_by_hand():
    real, fake, zero = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0]), torch.zeros(2)
    # differences 5 and 0.5: log(1 + e^-5) = 0.006715 and log(1 + e^-0.5) = 0.474077
    assert train.relativistic(real, fake).item() == pytest.approx((0.006715 + 0.474077) / 2, abs=1e-6)
    assert train.generator_relativistic(fake, real).item() == pytest.approx((0.006715 + 0.474077) / 2, abs=1e-6)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    assert train.cross_entropy(real, fake).item() == pytest.approx((bce(real, zero + 1) + bce(fake, zero)).item())
    assert train.generator_cross_entropy(real, fake).item() == pytest.approx(bce(fake, zero + 1).item())


def test_gradient_penalty_by_hand():
    """In a step whose loss itself teaches nothing: half of its weight times the squared gradient, at real images."""
    weights, images = torch.tensor([3.0, 0.5], requires_grad=True), torch.rand(2, 3, 4, 4)
    loss, *scores = train.discriminator_step(
        lambda x: weights * x.sum((1, 2, 3)), torch.optim.SGD([weights], lr=0), lambda real, fake: 0 * real.sum(),
        images, torch.zeros_like(images), r1=4.0)
    # 48 slopes of 2 w for each image: 4 / 2 * the mean of 48 * (2 w)^2, whose derivative by a weight w is 384 w
    assert weights.grad.tolist() == pytest.approx([384 * 3, 384 * 0.5])
    assert loss == 0 and not any(x.requires_grad for x in scores)


def test_shift():
    """A part of the images, each by its own rows and columns, all channels alike, with zeros behind."""
    torch.manual_seed(0)
    images = 0.1 + torch.rand(400, 3, 12, 12, requires_grad=True)
    places = {(y, x): torch.nn.functional.pad(images, (8 + x, 8 - x, 8 + y, 8 - y))[:, :, 8:-8, 8:-8]
              for y in range(-8, 9) for x in range(-8, 9)}
    for fraction in (1, 0.2):
        shifted = train.shift(images, fraction)
        equal = torch.stack([(shifted == place).flatten(1).all(1) for place in places.values()], 1)
        assert (equal.sum(1) == 1).all()
        drawn = np.array(list(places))[equal.int().argmax(1)]
        assert abs((drawn != 0).any(1).mean() - fraction) < 0.06
        assert (abs(drawn.mean(0)) < 1.1).all()
        if fraction == 1:  # enough of them to reach both ends
            assert (drawn.min(0) == -8).all() and (drawn.max(0) == 8).all()
        assert (drawn[:, 0] != drawn[:, 1]).mean() > 0.7 * fraction
    shifted.sum().backward()  # the generator learns through it
    assert train.shift(images, 0.0) is images


@both
def test_a_step_betters_its_own_network_and_leaves_the_other_alone(model):
    """Its loss falls; the discriminator parts real images from generated ones, and these then gain on them again."""
    torch.manual_seed(0)
    generator, discriminator = (net(2) for net in MODELS[model])
    g_optimizer, d_optimizer = (torch.optim.SGD(net.parameters(), lr=1e-2) for net in (generator, discriminator))
    real, z = torch.rand(16, 3, 64, 64), torch.randn(16, LATENT)
    (d_loss, g_loss), fake, others = train.LOSSES[model], generator(z), [p.clone() for p in generator.parameters()]
    before, real_score, fake_score = train.discriminator_step(discriminator, d_optimizer, d_loss, real, fake, None)
    assert before == d_loss(real_score, fake_score)
    after = [train.score(discriminator, x.detach()) for x in (real, fake)]
    assert d_loss(*after) < before and (after[0] - after[1]).mean() > (real_score - fake_score).mean()
    assert all(p.grad is None for p in generator.parameters())
    assert all(map(torch.equal, others, generator.parameters()))

    discriminator.zero_grad()
    others = [p.clone() for p in discriminator.parameters()]
    before = train.generator_step(discriminator, g_optimizer, g_loss, real_score, fake)
    better = train.score(discriminator, generator(z))
    assert g_loss(real_score, better) < before and better.mean() > after[1].mean()
    assert all(map(torch.equal, others, discriminator.parameters()))
    assert all(p.grad is None and p.requires_grad for p in discriminator.parameters())


# what the discriminator's steps return in `trained`, for 8 real and for 8 generated images
SCORES = torch.tensor([9.0, 9, 9, 9, 9, 9, 3, 3]), torch.tensor([2.0, 1, 1, 1, 1, 1, 1, 7])


@pytest.fixture(scope="module", params=["small", "dcgan"])
def trained(request, data_dir, tmp_path_factory):
    """A preset's model, the folder of its run of two epochs of five steps, the arguments of its steps and of shift."""
    folder, calls, shifted = tmp_path_factory.mktemp("run"), [], []
    preset = train.PRESETS[request.param] | {"lr": [1e-4, 2e-5], "lr_discriminator": [8e-5, 4e-6], "warm_up": 4,
                                             "r1": [0.5, 0.02], "shifted": 0.2}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("discriminator_step", "generator_step"):
            def watched(discriminator, optimizer, *rest, name=name, step=getattr(train, name)):
                rate = float(optimizer.param_groups[0]["lr"])  # a tensor that changes in place
                calls.append((discriminator, optimizer, rate, *rest))
                result = step(discriminator, optimizer, *rest)
                return (result[0], *SCORES) if name == "discriminator_step" else result
            patch.setattr(train, name, watched)
        patch.setattr(train, "shift", lambda x, fraction: shifted.append((x.clone(), fraction)) or shifted[-1][0])
        patch.setattr(train, "STATISTICS", 2)
        patch.setitem(train.PRESETS, request.param, preset)
        train.main(["--data-dir", str(data_dir), "--out-dir", str(folder), "--width", "2", "--epochs", "2",
                    "--batch-size", "8", "--device", "cpu", "--preset", request.param, "--lr", "5e-4"])
    return preset["model"], folder, calls, shifted


def test_what_the_steps_are_given(trained, data_dir):
    """Their own optimizers, the same shifted images; rates, five times the preset's, rise, then fall as the penalty."""
    model, _, calls, shifted = trained
    assert len(calls) == 20 and [fraction for _, fraction in shifted] == [0.2] * 20
    for of_d, of_g, (shifted_real, _), (shifted_fake, _) in zip(calls[::2], calls[1::2], shifted[::2], shifted[1::2]):
        (d, d_optimizer, _, d_loss, real, fake, _), (same, g_optimizer, _, g_loss, scores, its_own) = of_d, of_g
        assert real is shifted_real and fake is its_own is shifted_fake and scores is SCORES[0]
        assert d is same and (d_loss, g_loss) == train.LOSSES[model]
        assert d_optimizer.param_groups[0]["params"] == list(d.parameters())
        assert g_optimizer is not d_optimizer and fake.requires_grad
        assert real.mean() > 0.1 and real.max() <= 1  # discs on a dark ground
    seen = torch.cat([call[4].detach() for call in calls[:10:2]])
    faces = train.load_faces(data_dir, "train").float() / 255
    torch.testing.assert_close(*(x.mean((1, 2, 3)).sort().values for x in (seen, faces)))  # every face, mirrored or not
    as_they_are = torch.stack([(faces == x).flatten(1).all(1).any() for x in seen])
    assert 0.2 < as_they_are.float().mean() < 0.8
    betas, rise = {"residual": [0.0, 0.99], "dcgan": [0.5, 0.999]}[model], np.array([0.25, 0.5, 0.75] + [1] * 7)
    assert all(list(call[1].param_groups[0]["betas"]) == betas for call in calls[:2])
    for seen, first, last in ((calls[::2], 4e-4, 2e-5), (calls[1::2], 5e-4, 1e-4)):
        assert [call[2] for call in seen] == pytest.approx(rise * ([first] * 5 + [(first * last) ** 0.5] * 5))
    # the penalty is in the first and the ninth step, with 8 times its weight
    penalised = {step: call[6].item() for step, call in enumerate(calls[::2]) if call[6] is not None}
    assert penalised == pytest.approx({0: 8 * 0.5, 8: 8 * (0.5 * 0.02) ** 0.5})


def test_what_a_run_leaves(trained):
    """Samples of the averaged generator; weights with their own batch statistics; how many scores are on their side."""
    model, folder, *_ = trained
    generator = MODELS[model][0](2).eval()
    generator.load_state_dict(torch.load(folder / "checkpoint.pt", weights_only=True)["parts"]["ema"]["state"])
    with torch.inference_mode():
        expected = grid(generator(draw_latents(32, LATENT).float()))
    assert abs(np.int16(Image.open(folder / "samples_002.png")) - expected).max() <= 1
    row = pandas.read_csv(folder / "log.csv").iloc[0]  # the side of the scores' middle, 4.5; logits have a zero
    assert (row["accuracy_real"], row["accuracy_fake"]) == ((6 / 8, 7 / 8) if model == "residual" else (1, 0))

    generator.load_state_dict(load_weights(folder / "model.pth")[0])
    norms = [layer for layer in generator.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    shipped = [(norm.running_mean, norm.running_var) for norm in copy.deepcopy(norms)]
    update_bn([torch.randn(512, LATENT)], generator)  # 10 steps are too few for a running average
    assert len(norms) == (9 if model == "residual" else 4)
    for norm, (mean, variance) in zip(norms, shipped):
        assert ((norm.running_mean - mean) / variance.sqrt()).abs().max() < 0.15
        assert (norm.running_var / variance - 1).abs().max() < 0.2


def test_how_the_networks_start():
    """The residual discriminator's layers keep the signal's scale; DCGAN's are as published."""
    torch.manual_seed(0)
    x = torch.randn(8, 3, 64, 64)
    for layer in MODELS["residual"][1](16)[:4]:
        x, before = layer(x), x
        assert 0.65 < x.std() / before.std() < 1.1
    for layer in (layer for net in MODELS["dcgan"] for layer in net(16).modules() if hasattr(layer, "weight")):
        mean = float(isinstance(layer, torch.nn.BatchNorm2d))
        assert abs(layer.weight.mean() - mean) < 0.02 and 0.01 < layer.weight.std() < 0.03
    assert [x.negative_slope for x in MODELS["dcgan"][1](2) if isinstance(x, torch.nn.LeakyReLU)] == [0.2] * 4


@both
def test_what_is_drawn(model, tmp_path):
    torch.manual_seed(0)
    path, net = tmp_path / "gan.pth", MODELS[model][0](2)
    torch.nn.init.normal_(next(net.parameters()))
    save_weights(path, net.state_dict(), {"width": 2, "model": model})
    with torch.inference_mode():
        expected = to_pixels(inference.load_generator(path)(draw_latents(252, LATENT).float()))
    inference.main(["--num-images", "252", "--output-dir", str(tmp_path), "--weights", str(path)])
    pictures = [np.asarray(Image.open(tmp_path / f"{i:05d}.png")) for i in range(252)]  # 250 are a batch
    inference.main(["--output", str(tmp_path / "grid.png"), "--weights", str(path)])
    first = np.asarray(Image.open(tmp_path / "grid.png"))[2:66, 2:66]
    assert abs(np.int16(pictures) - expected).max() <= 1 and abs(np.int16(first) - expected[0]).max() <= 1
