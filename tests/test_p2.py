"""Problem 2: the GAN's networks, losses and its two steps."""
import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from common.pictures import draw_latents, grid, to_pixels
from common.weights import load_weights, save_weights
from p2_gan import inference, train
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


def test_shift():
    """A part of the images, each by its own rows and columns, all channels alike, with zeros behind."""
    torch.manual_seed(0)
    images = 0.1 + torch.rand(400, 3, 20, 20, requires_grad=True)
    places = {(y, x): torch.nn.functional.pad(images, (8 + x, 8 - x, 8 + y, 8 - y))[:, :, 8:-8, 8:-8]
              for y in range(-8, 9) for x in range(-8, 9)}
    for fraction in (1, 0.2):
        shifted = train.shift(images, fraction)
        equal = torch.stack([(shifted == place).flatten(1).all(1) for place in places.values()], 1)
        assert (equal.sum(1) == 1).all()
        drawn = np.array(list(places))[equal.int().argmax(1)]
        assert abs((drawn != 0).any(1).mean() - fraction) < 0.06
        assert (drawn.min(0) == -8).all() and (drawn.max(0) == 8).all() and (abs(drawn.mean(0)) < 1.1).all()
        assert (drawn[:, 0] != drawn[:, 1]).mean() > 0.7 * fraction
    shifted.sum().backward()  # the generator learns through it
    assert train.shift(images, 0.0) is images


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
                    "--lr-end", "1e-4", "--warm-up", "4", "--r1", "0.5", "--r1-end", "0.02"])
    return request.param, folder, calls


def test_what_the_steps_are_given(trained, data_dir):
    """Their own optimizers and the same images; both rates rise for four steps; then they and the penalty fall."""
    model, _, calls = trained
    assert len(calls) == 20
    for of_d, of_g in zip(calls[::2], calls[1::2]):
        (d, d_optimizer, _, d_loss, real, fake, _), (same, g_optimizer, _, g_loss, _, its_own) = of_d, of_g
        assert d is same and fake is its_own and (d_loss, g_loss) == train.LOSSES[model]
        assert d_optimizer.param_groups[0]["params"] == list(d.parameters())
        assert g_optimizer is not d_optimizer and fake.requires_grad
        assert real.mean() > 0.1 and real.max() <= 1  # discs on a dark ground
    seen = torch.cat([call[4].detach() for call in calls[:10:2]])
    faces = train.load_faces(data_dir, "train").float() / 255
    torch.testing.assert_close(*(x.mean((1, 2, 3)).sort().values for x in (seen, faces)))  # every face, mirrored or not
    as_they_are = torch.stack([(faces == x).flatten(1).all(1).any() for x in seen])
    assert 0.2 < as_they_are.float().mean() < 0.8
    betas, rate = {"residual": ([0.0, 0.99], 5e-4), "dcgan": ([0.5, 0.999], 2e-4)}[model]
    assert all(list(call[1].param_groups[0]["betas"]) == betas for call in calls[:2])
    end, rise = {"residual": 2.68e-5, "dcgan": 2e-4}[model], np.array([0.25, 0.5, 0.75] + [1] * 7)
    for seen, start, last in ((calls[::2], 4e-4, end), (calls[1::2], rate, 1e-4)):
        assert [call[2] for call in seen] == pytest.approx(rise * ([start] * 5 + [(start * last) ** 0.5] * 5))
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
    for block, channels in zip(layers[1:], (32, 64, 128)):
        x = torch.randn(8, channels, 32, 32)
        assert 0.65 < block(x).std() / x.std() < 0.95


def test_dcgan_starts_as_published():
    torch.manual_seed(0)
    for layer in (layer for net in MODELS["dcgan"] for layer in net(16).modules() if hasattr(layer, "weight")):
        mean = float(isinstance(layer, torch.nn.BatchNorm2d))
        assert abs(layer.weight.mean() - mean) < 0.02 and 0.01 < layer.weight.std() < 0.03
    slopes = [layer.negative_slope for layer in MODELS["dcgan"][1](2) if isinstance(layer, torch.nn.LeakyReLU)]
    assert slopes == [0.2] * 4


def test_the_samples_are_of_the_averaged_generator(trained):
    model, folder, _ = trained
    generator = MODELS[model][0](2).eval()
    generator.load_state_dict(torch.load(folder / "checkpoint.pt", weights_only=True)["parts"]["ema"]["state"])
    with torch.inference_mode():
        expected = grid(generator(draw_latents(32, LATENT).float()))
    assert abs(np.int16(Image.open(folder / "samples_002.png")) - expected).max() <= 1


def test_the_logs_accuracies(data_dir, tmp_path, monkeypatch):
    """The shares of the scores on their side of the middle between the means, 4.5 here."""
    real, fake = torch.tensor([9.0, 9, 9, 9, 9, 9, 3, 3]), torch.tensor([2.0, 1, 1, 1, 1, 1, 1, 7])
    monkeypatch.setattr(train, "discriminator_step", lambda *rest: (torch.tensor(0.0), real, fake))
    monkeypatch.setattr(train, "generator_step", lambda *rest: torch.tensor(0.0))
    train.main(["--data-dir", str(data_dir), "--out-dir", str(tmp_path), "--width", "2", "--epochs", "1",
                "--batch-size", "8", "--device", "cpu"])
    row = pandas.read_csv(tmp_path / "log.csv").iloc[0]
    assert (row["accuracy_real"], row["accuracy_fake"]) == (6 / 8, 7 / 8)


def test_both_steps_see_images_shifted(data_dir, tmp_path, monkeypatch):
    """This part of the real and of the generated ones; both steps have the same images."""
    fractions, seen = [], []
    shift, discriminator_step, generator_step = train.shift, train.discriminator_step, train.generator_step

    def watched_discriminator(discriminator, optimizer, loss_of, real, fake, r1):
        for images in (real, fake):  # 8 of 17 shifts are to the right
            assert (images[:, :, :, 0] == 0).all((1, 2)).any() and (images[:, :, 32, 32] > 0).any()
        seen.append(fake)
        return discriminator_step(discriminator, optimizer, loss_of, real, fake, r1)

    def watched_generator(discriminator, optimizer, loss_of, real_score, fake):
        assert fake is seen[-1] and fake.requires_grad
        return generator_step(discriminator, optimizer, loss_of, real_score, fake)
    monkeypatch.setattr(train, "shift", lambda x, fraction: fractions.append(fraction) or shift(x, fraction))
    monkeypatch.setattr(train, "discriminator_step", watched_discriminator)
    monkeypatch.setattr(train, "generator_step", watched_generator)
    train.main(["--data-dir", str(data_dir), "--out-dir", str(tmp_path), "--width", "2", "--epochs", "1",
                "--batch-size", "16", "--device", "cpu", "--shifted", "0.9"])
    assert fractions == [0.9] * 4


def test_rates_and_shifts_unless_asked_for(capsys):
    args = train.parse_args(["--data-dir", "x", "--lr", "1e-4"])
    assert (args.lr_end, args.warm_up, args.shifted) == (1e-4, 0, 0)
    with pytest.raises(SystemExit):
        train.parse_args(["--data-dir", "x", "--shifted", "20"])
    assert "--shifted is a part, 0 to 1" in capsys.readouterr().err


@both
def test_what_is_drawn(model, tmp_path):
    torch.manual_seed(0)
    path, net = tmp_path / "gan.pth", MODELS[model][0](2)
    torch.nn.init.normal_(next(net.parameters()))
    save_weights(path, net.state_dict(), {"width": 2, "model": model})
    with torch.inference_mode():
        expected = to_pixels(inference.load_generator(path)(draw_latents(2, LATENT).float()))
    inference.main(["--num-images", "2", "--output-dir", str(tmp_path), "--weights", str(path)])
    inference.main(["--output", str(tmp_path / "grid.png"), "--weights", str(path)])
    pictures = [np.asarray(Image.open(tmp_path / f"{i:05d}.png")) for i in range(2)]
    pictures.append(np.asarray(Image.open(tmp_path / "grid.png"))[2:66, 2:66])
    assert abs(np.int16(pictures) - expected[[0, 1, 0]]).max() <= 1
