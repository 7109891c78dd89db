"""Problem 2: the GAN's networks, losses and its two steps."""
import pytest
import torch

from common.weights import load_weights
from p2_gan import train
from p2_gan.model import LATENT, MODELS

both = pytest.mark.parametrize("model", MODELS)


def players(model, rate):
    """A generator, a discriminator and their optimizers, of a model; a batch of real images and latents."""
    torch.manual_seed(0)
    nets = [net(2) for net in MODELS[model]]
    optimizers = [torch.optim.SGD(net.parameters(), rate) for net in nets]
    return *nets, *optimizers, torch.rand(16, 3, 64, 64), torch.randn(16, LATENT)


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
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    weights = torch.tensor([3.0, 0.5], requires_grad=True)
    penalty = train.gradient_penalty(weights * images.sum((1, 2, 3)), images)  # 48 slopes of 3, 48 of 0.5
    assert penalty.item() == pytest.approx((48 * 9 + 48 * 0.25) / 2)
    penalty.backward()  # it teaches the network: its derivative by a weight w is 48 * w
    assert weights.grad.tolist() == pytest.approx([144, 24])


@both
def test_a_step_betters_its_own_network_and_leaves_the_other_alone(model):
    """Its loss falls; the discriminator parts real images from generated ones, and these then gain on them again."""
    generator, discriminator, g_optimizer, d_optimizer, real, z = players(model, 1e-2)
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


def test_the_penalty_is_half_of_its_weight_times_the_squared_gradient():
    """What it adds to the gradient of the discriminator's step, at real images."""
    gradients = {}
    for r1 in (None, 3.0):
        generator, discriminator, _, optimizer, real, z = players("residual", rate=0)
        train.discriminator_step(discriminator, optimizer, train.relativistic, real, generator(z), r1)
        gradients[r1] = [p.grad for p in discriminator.parameters()]
    penalty = 1.5 * train.gradient_penalty(train.score(discriminator, real), real)
    expected = torch.autograd.grad(penalty, discriminator.parameters(), allow_unused=True)
    for a, b, g in zip(gradients[3.0], gradients[None], expected):
        torch.testing.assert_close(a - b, torch.zeros_like(a) if g is None else g, rtol=1e-2, atol=1e-4)


@pytest.fixture(scope="module", params=MODELS)
def trained(request, data_dir, tmp_path_factory):
    """A model's name, the folder of its run of two epochs of five steps, and the arguments of its steps in turn."""
    folder, calls = tmp_path_factory.mktemp("run"), []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("discriminator_step", "generator_step"):
            def watched(discriminator, optimizer, *rest, step=getattr(train, name)):
                *images, r1 = rest  # rate and weight are tensors that change in place
                calls.append((discriminator, optimizer, float(optimizer.param_groups[0]["lr"]), *images,
                              None if r1 is None else r1.clone() if name.startswith("d") else r1))
                return step(discriminator, optimizer, *rest)
            patch.setattr(train, name, watched)
        train.main(["--data-dir", str(data_dir), "--out-dir", str(folder), "--width", "2", "--epochs", "2",
                    "--batch-size", "8", "--device", "cpu", "--model", request.param, "--lr-discriminator", "4e-4",
                    "--r1", "0.5", "--r1-end", "0.02"])
    return request.param, folder, calls


def test_what_the_steps_are_given(trained, data_dir):
    """Their own optimizers and the same images; the discriminator's rate and its penalty's weight fall."""
    model, _, calls = trained
    assert len(calls) == 20
    for of_d, of_g in zip(calls[::2], calls[1::2]):
        (d, d_optimizer, _, d_loss, real, fake, _), (same, g_optimizer, _, g_loss, _, its_own) = of_d, of_g
        assert d is same and fake is its_own and (d_loss, g_loss) == train.LOSSES[model]
        assert d_optimizer.param_groups[0]["params"] == list(d.parameters())
        assert g_optimizer is not d_optimizer and fake.requires_grad
        assert real.mean() > 0.1 and real.max() <= 1  # discs on a dark ground
    seen = torch.cat([call[4].detach() for call in calls[:10:2]]).mean((1, 2, 3))  # an epoch has every face once
    faces = train.load_faces(data_dir, "train").float().mean((1, 2, 3)) / 255
    torch.testing.assert_close(seen.sort().values, faces.sort().values)
    end = {"residual": 2.68e-5, "dcgan": 2e-4}[model]
    assert [call[2] for call in calls[::2]] == pytest.approx([4e-4] * 5 + [(4e-4 * end) ** 0.5] * 5)
    # the penalty is in the first and the ninth step, with 8 times its weight
    penalised = {step: call[6].item() for step, call in enumerate(calls[::2]) if call[6] is not None}
    assert penalised == pytest.approx({0: 8 * 0.5, 8: 8 * (0.5 * 0.02) ** 0.5})


def test_the_weights_come_with_their_own_batch_statistics(trained):
    """Each batch norm gives mean 0 and variance 1 for new latents; 10 steps are too few for a running average."""
    model, folder, _ = trained
    generator, means, variances = MODELS[model][0](2).eval(), [], []
    generator.load_state_dict(load_weights(folder / "model.pth")[0])

    def watch(norm, inputs, outputs):
        plain = (inputs[0] - norm.running_mean[:, None, None]) / norm.running_var[:, None, None].sqrt()
        means.append(plain.mean((0, 2, 3)))
        variances.append(plain.var((0, 2, 3)))
    for layer in generator.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(watch)
    with torch.no_grad():
        generator(torch.randn(512, LATENT))
    assert len(means) == (9 if model == "residual" else 4)
    assert torch.cat(means).abs().max() < 0.15 and (torch.cat(variances) - 1).abs().max() < 0.2


def test_the_discriminator_keeps_the_signals_scale():
    torch.manual_seed(0)
    layers = MODELS["residual"][1](16)[:4]  # up to the last block
    x = torch.randn(8, 3, 64, 64)
    assert 0.5 < layers(x).std() / x.std() < 2
