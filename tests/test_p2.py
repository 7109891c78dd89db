"""Problem 2: the GAN's networks, losses and its two steps."""
import pytest
import torch

from common.weights import load_weights
from p2_gan import train
from p2_gan.model import LATENT, MODELS

both = pytest.mark.parametrize("model", MODELS)


def run_gan(data_dir, out_dir, *options):
    """One epoch of five steps, unless the options say otherwise."""
    train.main(["--data-dir", str(data_dir), "--out-dir", str(out_dir), "--width", "2", "--epochs", "1",
                "--batch-size", "8", "--device", "cpu", *map(str, options)])


@pytest.fixture
def players():
    """A generator, a discriminator and their optimizers, of a model; a batch of real images and latents."""
    def make(model, rate=1e-3):
        torch.manual_seed(0)
        nets = [net(2) for net in MODELS[model]]
        optimizers = [torch.optim.SGD(net.parameters(), rate) for net in nets]
        return *nets, *optimizers, torch.rand(16, 3, 64, 64), torch.randn(16, LATENT)
    return make


def weights_of(net):
    return [p.detach().clone() for p in net.parameters()]


@both
def test_shapes_and_ranges(model):
    generator, discriminator = (net(4) for net in MODELS[model])
    x = generator(torch.randn(3, LATENT))
    assert x.shape == (3, 3, 64, 64) and 0 <= x.min() and x.max() <= 1
    assert train.score(discriminator, x).shape == (3,)


def test_the_discriminator_sees_images_around_zero():
    assert train.score(lambda x: x.amax((1, 2, 3)), torch.full((1, 3, 64, 64), 0.75)).tolist() == [0.5]


def test_losses_by_hand():
    real, fake, zero = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0]), torch.zeros(2)
    # differences 5 and 0.5: log(1 + e^-5) = 0.006715 and log(1 + e^-0.5) = 0.474077
    assert train.relativistic(real, fake).item() == pytest.approx((0.006715 + 0.474077) / 2, abs=1e-6)
    assert train.generator_relativistic(fake, real).item() == pytest.approx((0.006715 + 0.474077) / 2, abs=1e-6)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    assert train.cross_entropy(real, fake).item() == pytest.approx((bce(real, zero + 1) + bce(fake, zero)).item())
    assert train.generator_cross_entropy(real, fake).item() == pytest.approx(bce(fake, zero + 1).item())


def test_gradient_penalty_by_hand():
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    weights = torch.tensor([3.0, 0.5], requires_grad=True)
    penalty = train.gradient_penalty(weights * images.sum((1, 2, 3)), images)  # 48 slopes of 3, 48 of 0.5
    assert penalty.item() == pytest.approx((48 * 9 + 48 * 0.25) / 2)
    penalty.backward()  # it teaches the network: its derivative by a weight w is 48 * w
    assert weights.grad.tolist() == pytest.approx([144, 24])


@both
def test_the_discriminators_step(model, players):
    """Its loss falls, real images score more against generated ones, and the generator is left alone."""
    generator, discriminator, _, optimizer, real, z = players(model, 1e-2)
    loss_of, _ = train.LOSSES[model]
    fake, others = generator(z), weights_of(generator)
    before, real_score, fake_score = train.discriminator_step(discriminator, optimizer, loss_of, real, fake, 0)
    assert before == loss_of(real_score, fake_score)
    after = [train.score(discriminator, x.detach()) for x in (real, fake)]
    assert loss_of(*after) < before and (after[0] - after[1]).mean() > (real_score - fake_score).mean()
    assert all(p.grad is None for p in generator.parameters())
    assert all(map(torch.equal, others, weights_of(generator)))


@both
def test_the_generators_step(model, players):
    """Its loss falls, its images score more, and the discriminator is left alone but can learn again."""
    generator, discriminator, optimizer, _, real, z = players(model, 1e-2)
    others, real_score, fake = weights_of(discriminator), train.score(discriminator, real).detach(), generator(z)
    before = train.generator_step(discriminator, optimizer, train.LOSSES[model][1], real_score, fake)
    after = train.score(discriminator, generator(z))
    assert train.LOSSES[model][1](real_score, after) < before and after.mean() > train.score(discriminator, fake).mean()
    assert all(map(torch.equal, others, weights_of(discriminator)))
    assert all(p.grad is None and p.requires_grad for p in discriminator.parameters())


def test_the_penalty_is_half_of_its_weight_times_the_squared_gradient(players):
    """What it adds to the discriminator's step, at real images."""
    moved = {}
    for r1 in (0.0, 3.0):
        generator, discriminator, _, optimizer, real, z = players("residual", 1.0)
        before = weights_of(discriminator)
        train.discriminator_step(discriminator, optimizer, train.relativistic, real.clone(), generator(z), r1)
        moved[r1] = [a - b for a, b in zip(weights_of(discriminator), before)]
    _, discriminator, _, _, real, _ = players("residual")
    real.requires_grad_()
    penalty = 1.5 * train.gradient_penalty(train.score(discriminator, real), real)
    gradient = torch.autograd.grad(penalty, discriminator.parameters(), allow_unused=True)
    for a, b, g in zip(moved[3.0], moved[0.0], gradient):
        torch.testing.assert_close(a - b, torch.zeros_like(a) if g is None else -g, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("model, end", [("residual", 2.68e-5), ("dcgan", 2e-4)])
def test_penalty_and_learning_rate_of_the_discriminator_fall(model, end, data_dir, tmp_path, monkeypatch):
    seen, step = [], train.discriminator_step

    def watched(discriminator, optimizer, loss_of, real, fake, r1):
        seen.append((optimizer.param_groups[0]["lr"], r1))
        return step(discriminator, optimizer, loss_of, real, fake, r1)
    monkeypatch.setattr(train, "discriminator_step", watched)
    run_gan(data_dir, tmp_path, "--model", model, "--epochs", 2, "--lr-discriminator", 4e-4, "--r1", 0.5,
            "--r1-end", 0.02)
    rates, penalties = zip(*seen)  # 5 steps an epoch; the penalty in the first and the ninth, with 8 times its weight
    assert rates == pytest.approx([4e-4] * 5 + [(4e-4 * end) ** 0.5] * 5)
    assert penalties == pytest.approx([8 * 0.5, 0, 0, 0, 0, 0, 0, 0, 8 * (0.5 * 0.02) ** 0.5, 0])


@both
def test_the_steps_get_their_own_optimizer_and_images(model, data_dir, tmp_path, monkeypatch):
    calls = []
    for name in ("discriminator_step", "generator_step"):
        step = getattr(train, name)
        monkeypatch.setattr(train, name, lambda *args, name=name, step=step: calls.append((name, args)) or step(*args))
    run_gan(data_dir, tmp_path, "--model", model)
    assert [name for name, _ in calls] == ["discriminator_step", "generator_step"] * 5
    for (_, (d, d_optimizer, d_loss, real, fake, _)), (_, (d2, g_optimizer, g_loss, _, fake2)) in zip(calls[::2],
                                                                                                   calls[1::2]):
        assert d is d2 and fake is fake2 and (d_loss, g_loss) == train.LOSSES[model]
        assert d_optimizer.param_groups[0]["params"] == list(d.parameters())
        assert g_optimizer is not d_optimizer and fake.requires_grad
        assert real.mean() > 0.1 and real.max() <= 1  # discs on a dark ground


def test_the_discriminator_keeps_the_signals_scale():
    torch.manual_seed(0)
    layers = MODELS["residual"][1](16)[:4]  # up to the last block
    x = torch.randn(8, 3, 64, 64)
    assert 0.5 < layers(x).std() / x.std() < 2


@both
def test_the_weights_come_with_their_own_batch_statistics(model, data_dir, tmp_path):
    """Each batch norm gives mean 0 and variance 1 for new latents; 5 steps are too few for a running average."""
    run_gan(data_dir, tmp_path, "--model", model)
    generator, means, variances = MODELS[model][0](2).eval(), [], []
    generator.load_state_dict(load_weights(tmp_path / "model.pth")[0])

    def watch(norm, inputs, outputs):
        plain = (inputs[0] - norm.running_mean[:, None, None]) / norm.running_var[:, None, None].sqrt()
        means.append(plain.mean((0, 2, 3)))
        variances.append(plain.var((0, 2, 3)))
    for layer in generator.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(watch)
    generator(torch.randn(2048, LATENT))
    assert len(means) == (9 if model == "residual" else 4)
    assert torch.cat(means).abs().max() < 0.15 and (torch.cat(variances) - 1).abs().max() < 0.2
