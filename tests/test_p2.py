"""Problem 2: the GAN's networks, losses, augmentation and steps."""
from common.augment import diff_augment
from common.weights import load_weights
from p2_gan import train
from p2_gan.model import LATENT, MODELS

import pytest
import torch
from conftest import run_main


def run_gan(monkeypatch, data_dir, out_dir, *options):
    """One epoch of five steps, unless the options say otherwise."""
    run_main(train, monkeypatch, "--data-dir", data_dir, "--out-dir", out_dir, "--width", 2, "--epochs", 1,
             "--batch-size", 8, "--device", "cpu", *options)


@pytest.mark.parametrize("model", MODELS)
def test_shapes_and_ranges(model):
    generator, discriminator = (net(4) for net in MODELS[model])
    x = generator(torch.randn(3, LATENT))
    assert x.shape == (3, 3, 64, 64) and 0 <= x.min() and x.max() <= 1
    assert discriminator(2 * x - 1).shape == (3,)


def test_faces_are_drawn_from_wider_latents(monkeypatch):
    torch.manual_seed(0)
    generator, z = MODELS["residual"][0](4).eval(), torch.randn(3, LATENT)
    wider = generator(z)
    monkeypatch.setattr("p2_gan.model.SPREAD", 1)
    torch.testing.assert_close(generator(1.1 * z), wider)


def test_losses_by_hand():
    real, fake, zero = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0]), torch.zeros(2)
    # differences 5 and 0.5: log(1 + e^-5) = 0.006715 and log(1 + e^-0.5) = 0.474077
    assert train.relativistic(real, fake).item() == pytest.approx((0.006715 + 0.474077) / 2, abs=1e-6)
    assert train.relativistic(real + 7, fake + 7).item() == pytest.approx(train.relativistic(real, fake).item())
    assert train.cross_entropy(zero, zero).item() == pytest.approx(2 * torch.log(torch.tensor(2.0)).item())
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    assert train.cross_entropy(real, fake).item() == pytest.approx((bce(real, zero + 1) + bce(fake, zero)).item())


@pytest.mark.parametrize("model", MODELS)
def test_the_losses_point_the_two_against_each_other(model):
    """The discriminator wants real images to score more and generated ones less, the generator the reverse."""
    discriminator_loss, generator_loss = train.LOSSES[model]
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    discriminator_loss(real, fake).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()
    fake.grad = None
    generator_loss(real.detach(), fake).backward()
    assert (fake.grad < 0).all()


def test_gradient_penalty_by_hand():
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    weights = torch.tensor([3.0, 0.5], requires_grad=True)
    penalty = train.gradient_penalty(weights * images.sum((1, 2, 3)), images)  # 48 slopes of 3, 48 of 0.5
    assert penalty.item() == pytest.approx((48 * 9 + 48 * 0.25) / 2)
    penalty.backward()  # it teaches the network: its derivative by a weight w is 48 * w
    assert weights.grad.tolist() == pytest.approx([144, 24])


@pytest.mark.parametrize("model, end", [("residual", 2.68e-5), ("dcgan", 2e-4)])
def test_penalty_and_learning_rate_of_the_discriminator_fall(model, end, data_dir, tmp_path, monkeypatch):
    seen, weights, step = {}, [], torch.optim.Adam.step

    def watched_step(optimizer):
        seen.setdefault(optimizer, []).append(optimizer.param_groups[0]["lr"])
        step(optimizer)

    def penalty(scores, images):
        one = torch.ones((), requires_grad=True)
        one.register_hook(lambda weight: weights.append(weight.item()))
        return one
    monkeypatch.setattr(torch.optim.Adam, "step", watched_step)
    monkeypatch.setattr(train, "gradient_penalty", penalty)
    run_gan(monkeypatch, data_dir, tmp_path, "--model", model, "--epochs", 2, "--lr", 3e-4, "--lr-discriminator", 4e-4,
            "--r1", 0.5, "--r1-end", 0.0076)
    of_discriminator, of_generator = seen.values()  # 5 steps an epoch
    assert of_discriminator == pytest.approx([4e-4] * 5 + [(4e-4 * end) ** 0.5] * 5) and of_generator == [3e-4] * 10
    # in the first and the ninth step, with eight times the weight
    assert weights == pytest.approx([8 * 0.25, 8 / 2 * (0.5 * 0.0076) ** 0.5])


def test_the_penalty_flattens_the_discriminator(data_dir, tmp_path, monkeypatch):
    """Two equal runs but for the penalty's weight: with it, real images' scores depend less on the pixels."""
    seen = {}
    penalty = train.gradient_penalty
    for weight in (1e-6, 30.0):
        values = seen[weight] = []
        monkeypatch.setattr(train, "gradient_penalty", lambda *inputs: values.append(penalty(*inputs)) or values[-1])
        run_gan(monkeypatch, data_dir, tmp_path / str(weight), "--epochs", 8, "--lr-discriminator", 5e-3,
                "--r1", weight, "--r1-end", weight * 0.0152)
    assert len(seen[30]) == 5  # 40 steps
    assert seen[30][0] == seen[1e-6][0] and seen[30][-1] < 0.2 * seen[1e-6][-1]


def test_the_discriminator_keeps_the_signals_scale():
    torch.manual_seed(0)
    layers = MODELS["residual"][1](16)[:4]  # up to the last block
    x = torch.randn(8, 3, 64, 64)
    assert 0.5 < layers(x).std() / x.std() < 2


def test_augmentation_shifts_and_cuts_out_and_is_differentiable():
    torch.manual_seed(0)
    x = (1 + torch.arange(64.0) + 100 * torch.arange(64.0)[:, None]).expand(100, 3, 64, 64).clone().requires_grad_()
    y = diff_augment(x)
    assert y.shape == x.shape
    gone = (y[:, 0] == 0).float().mean((1, 2))  # cut out, at most a quarter, or shifted out, at most 1 - (7 / 8)^2
    assert 0.06 < gone.min() and gone.max() < 0.5
    shifts = set()
    for picture in y[:, 0].detach():
        row, column = (picture > 0).nonzero()[len(picture.nonzero()) // 2].tolist()
        value = int(picture[row, column]) - 1
        shifts |= {row - value // 100, column - value % 100}
    assert min(shifts) == -8 and max(shifts) == 8
    y.sum().backward()
    # 1 for each pixel that is still seen
    torch.testing.assert_close(x.grad.sum((1, 2, 3)), (y != 0).float().sum((1, 2, 3)))


@pytest.mark.parametrize("model", MODELS)
def test_each_step_changes_its_own_network_alone(model, data_dir, tmp_path, monkeypatch):
    seen, owners, step = [], [], torch.optim.Adam.step

    def watched_step(optimizer):
        if optimizer not in seen:
            seen.append(optimizer)
        networks = [o.param_groups[0]["params"] for o in seen]
        weights = [[p.detach().clone() for p in network] for network in networks]
        step(optimizer)
        changed = [not all(map(torch.equal, network, before)) for network, before in zip(networks, weights)]
        assert changed == [o is optimizer for o in seen]
        owners.append(seen.index(optimizer))
    monkeypatch.setattr(torch.optim.Adam, "step", watched_step)
    run_gan(monkeypatch, data_dir, tmp_path, "--model", model)
    assert owners == [0, 1] * 5


@pytest.mark.parametrize("model", MODELS)
def test_the_discriminator_learns(model, data_dir, tmp_path, monkeypatch):
    run_gan(monkeypatch, data_dir, tmp_path, "--model", model, "--width", 4, "--epochs", 6, "--lr", 1e-6,
            "--lr-discriminator", 2e-3)
    first, *_, last = (tmp_path / "log.csv").read_text().splitlines()[1:]
    assert float(last.split(",")[2]) < 0.8 * float(first.split(",")[2])
    assert len(list(tmp_path.glob("samples_*.png"))) == 6


@pytest.mark.parametrize("model", MODELS)
def test_the_weights_come_with_their_own_batch_statistics(model, data_dir, tmp_path, monkeypatch):
    """Each batch norm gives mean 0 and variance 1 for new latents; 5 steps are too few for a running average."""
    run_gan(monkeypatch, data_dir, tmp_path, "--model", model)
    generator, means, variances = MODELS[model][0](2).eval(), [], []
    generator.load_state_dict(load_weights(tmp_path / "model.pth")[0])

    def watch(norm, inputs, outputs):
        plain = (inputs[0] - norm.running_mean[:, None, None]) / norm.running_var[:, None, None].sqrt()
        means.append(plain.mean((0, 2, 3)))
        variances.append(plain.var((0, 2, 3)))
    for layer in generator.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(watch)
    monkeypatch.setattr("p2_gan.model.SPREAD", 1)  # as in training
    generator(torch.randn(2048, LATENT))
    assert len(means) == (9 if model == "residual" else 4)
    assert torch.cat(means).abs().max() < 0.15 and (torch.cat(variances) - 1).abs().max() < 0.2
