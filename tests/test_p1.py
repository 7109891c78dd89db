"""Problem 1: the VAE's loss, its second stage, its reconstructions."""
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch.distributions import Normal, kl_divergence

from common.data import load_faces
from common.pictures import draw_latents, to_pixels
from common.training import optimizer_step
from common.weights import load_weights, save_weights
from p1_vae import flow as second_stage
from p1_vae import inference, train
from p1_vae.flow import Flow, encode_all
from p1_vae.model import VAE, reparameterize

TINY = ["--width", "2", "--latent-dim", "8", "--batch-size", "8", "--device", "cpu"]


def test_reparameterization_has_the_posteriors_spread_and_passes_gradients():
    mean, log_variance = torch.full((20000, 2), 3.0), torch.tensor([1, 0.01]).log().repeat(20000, 1)
    mean.requires_grad_(), log_variance.requires_grad_()
    z = reparameterize(mean, log_variance)
    torch.testing.assert_close(z.mean(0), torch.tensor([3.0, 3.0]), rtol=0, atol=0.03)
    torch.testing.assert_close(z.std(0), torch.tensor([1.0, 0.1]), rtol=0.03, atol=0)
    z.square().sum().backward()  # d/d mean = 2 z; d/d log variance = 2 z * (z - mean) / 2
    torch.testing.assert_close(mean.grad, 2 * z)
    torch.testing.assert_close(log_variance.grad, z * (z - mean), rtol=1e-3, atol=1e-3)


def test_the_encoder_sees_images_around_zero_and_gives_means_first():
    x = torch.zeros(1, 3, 64, 64)
    x[0, 0, 0, 0] = 0.75
    mean, log_variance = VAE.encode(SimpleNamespace(encoder=lambda x: x.flatten(1)[:, :2]), x)
    assert mean.tolist() == [[0.5]] and log_variance.tolist() == [[-1]]


def test_the_loss_is_the_mse_plus_the_weighted_kl(float32):
    torch.manual_seed(0)
    vae, x = VAE(width=2, latent_dim=6), torch.rand(8, 3, 64, 64)
    for weight in (0.0, 1.0, 3.0):
        torch.manual_seed(1)
        loss, metrics, kl_by_dimension = train.vae_loss(vae, x, weight)
        torch.manual_seed(1)
        reconstruction, mean, log_variance = vae(x)
        mse = (reconstruction - x).square().mean()
        kl = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0, 1)).mean(0)  # nats
        torch.testing.assert_close([metrics["mse"], metrics["kl"], kl_by_dimension], [mse, kl.sum(), kl])
        torch.testing.assert_close(loss, mse + weight * kl.sum())
        gradients = [torch.autograd.grad(of, vae.parameters()) for of in (loss, mse + weight * kl.sum())]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)
    assert not torch.equal(vae(x)[0], reconstruction)  # what the decoder sees is a draw


def test_what_the_first_stage_gives_to_the_loss_and_logs(data_dir, tmp_path, monkeypatch, float32):
    """Each dimension counts by its mean over the epoch, whose first step has all of the KL here; the averaged VAE is
    tested, from the posteriors' means."""
    calls, loss, mse, kl = [], train.vae_loss, torch.tensor(0.25), torch.tensor([2.0, 0.06, 0.04, 0, 0, 0, 0, 0])

    def watched(vae, x, weight):
        calls.append((x, weight))
        of_step = 5 * kl * (len(calls) % 5 == 1)
        return loss(vae, x, weight)[0], {"mse": mse, "kl": of_step.sum()}, of_step
    monkeypatch.setattr(train, "vae_loss", watched)
    train.main([*TINY, "--data-dir", str(data_dir), "--out-dir", str(tmp_path), "--epochs", "2", "--flow-epochs", "0",
                "--kl-weight", "0.5"])
    row = pandas.read_csv(tmp_path / "log.csv").iloc[-1]
    assert row["mse"] == 0.25 and row["kl"] == pytest.approx(2.1) and row["dimensions_in_use"] == 2
    assert [weight for _, weight in calls] == [0.5] * 10
    vae, x = VAE(2, 8).eval(), load_faces(data_dir, "test") / 255
    vae.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["parts"]["ema"]["state"])
    with torch.inference_mode():
        mean, log_variance = vae.encode(x)
        assert row["test_mse"] == pytest.approx((vae.decode(mean) - x).square().mean().item(), rel=1e-4)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0, 1)).sum(1).mean().item()
    assert row["test_kl"] == pytest.approx(expected, rel=1e-4)
    seen, faces = torch.cat([x for x, _ in calls[:5]]), load_faces(data_dir, "train").float() / 255
    torch.testing.assert_close(*(x.mean((1, 2, 3)).sort().values for x in (seen, faces)))  # every face, mirrored or not
    as_they_are = torch.stack([(faces == x).flatten(1).all(1).any() for x in seen])
    assert 0.2 < as_they_are.float().mean() < 0.8


def test_both_stages_and_what_the_second_one_learns_from(data_dir, tmp_path, monkeypatch, float32):
    """Each trains all its weights at its rates; the flow sees every code of the averaged VAE and is averaged itself."""
    rates, optimizers, means, encoders, times, velocity = [], [], [], [], [], Flow.velocity

    def watched(loss, optimizer, rate, clip):
        rates.append(rate)
        optimizers.append(optimizer)
        optimizer_step(loss, optimizer, rate, clip)
    for module in (train, second_stage):
        monkeypatch.setattr(module, "optimizer_step", watched)
    monkeypatch.setattr(second_stage, "reparameterize", lambda *rest: means.append(rest[0]) or reparameterize(*rest))
    monkeypatch.setattr(second_stage, "encode_all", lambda vae, x: encoders.append(vae) or encode_all(vae, x))
    monkeypatch.setattr(Flow, "velocity", lambda self, z, t: times.append(t) or velocity(self, z, t))
    train.main([*TINY, "--data-dir", str(data_dir), "--out-dir", str(tmp_path), "--epochs", "1", "--flow-epochs", "2",
                "--lr", "0.5"])
    expected = [train.learning_rate(i, steps, 0.5, warm_up=100) for steps in (5, 2) for i in range(steps)]
    assert rates == pytest.approx(expected)
    faces = load_faces(data_dir, "train") / 255
    codes = torch.cat([encoders[0].encode(x)[0] for x in (faces, faces.flip(3))])
    assert len(means) == 2
    for mean in means:
        torch.testing.assert_close(mean.sort(0).values, codes.sort(0).values)
    assert 0.8 < torch.cat(times).logit().std() < 1.2  # logit-normal
    for optimizer, net, groups in ((optimizers[0], VAE(2, 8), 2), (optimizers[-1], Flow(8, 2), 1)):
        assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4] * groups
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(net.parameters()))

    shipped, _ = load_weights(tmp_path / "model.pth")  # in half precision
    for name, value in encoders[0].state_dict().items():
        assert torch.equal(value if "tracked" in name else value.half().float(), shipped[name])
    average = torch.load(tmp_path / "flow" / "checkpoint.pt", weights_only=True)["parts"]["ema"]
    assert not encoders[0].training and average["step"] == 2 and shipped["flow.mean"].any()
    for name, value in average["state"].items():
        assert torch.equal(value.half().float(), shipped[f"flow.{name}"])


def test_the_flow_leads_from_noise_to_the_codes():
    """At first to their Gaussian; once trained, to the clusters that they are; guidance away from between these."""
    torch.manual_seed(0)
    mean = torch.tensor([3.0, -1]) + 4 * torch.randint(2, (4000, 1)) - 2 + 0.8 * torch.randn(4000, 2)
    flow, noise, log_variance = Flow(2, 1, blocks=1), torch.randn(4000, 2), torch.full((4000, 2), 0.5).log()
    flow.fit_gaussian(mean, log_variance)
    torch.testing.assert_close(flow.axes @ flow.variance.diag() @ flow.axes.T, mean.T.cov() + 0.5 * torch.eye(2))

    def draw(guidance):
        flow.guidance = guidance
        with torch.no_grad():
            codes = flow(noise)
        if guidance <= 1:
            torch.testing.assert_close(codes.mean(0), mean.mean(0), rtol=0, atol=0.3)
            torch.testing.assert_close(codes.T.cov(), mean.T.cov() + 0.5 * torch.eye(2), rtol=0.15, atol=0)
        return ((codes.mean(1) - 1).abs() < 1).float().mean()  # how many are between the clusters
    gaussian, optimizer = draw(guidance=1), torch.optim.Adam(flow.parameters())
    for _ in range(300):
        picked = torch.randint(4000, (256,))
        optimizer_step(flow.loss(reparameterize(mean[picked], log_variance[picked])), optimizer, rate=1e-2, clip=1.0)
    assert gaussian == draw(guidance=0) > draw(guidance=1) > 1.5 * draw(guidance=1.5)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The file of a VAE and a flow as they are before training, but for wide posteriors and a flow that moves."""
    torch.manual_seed(0)
    vae, path = VAE(2, 8, Flow(8, 2)), tmp_path_factory.mktemp("weights") / "vae.pth"
    torch.nn.init.normal_(vae.flow.end.weight)
    torch.nn.init.zeros_(vae.encoder[-1].weight[8:])  # log variances of 0
    save_weights(path, vae.state_dict(), {"width": 2, "latent_dim": 8, "flow_epochs": 1})
    return path


def difference(folder, expected):
    """The largest one between the folder's pictures 00000.png ... and expected ones, uint8 [N, H, W, 3]."""
    pictures = np.stack([np.asarray(Image.open(folder / f"{i:05d}.png")) for i in range(len(expected))])
    return abs(np.int16(pictures) - expected).max()


@pytest.mark.parametrize("options, guidance", [
    ([], 1.5), (["--guidance", "0"], 0), (["--guidance", "1"], 1), (["--without-flow"], None)])
def test_what_is_drawn(options, guidance, weights, tmp_path):
    vae, _ = inference.load_vae(weights)
    vae.flow.guidance, noise = guidance, draw_latents(32, 8).float()
    with torch.inference_mode():
        expected = to_pixels(vae.decoder(noise if guidance is None else vae.flow(noise)))
    inference.main(["--num-images", "32", "--output-dir", str(tmp_path), "--weights", str(weights), *options])
    inference.main(["--output", str(tmp_path / "grid.png"), "--weights", str(weights), *options])
    first = np.asarray(Image.open(tmp_path / "grid.png"))[2:66, 2:66]
    assert difference(tmp_path, expected) <= 1 and abs(np.int16(first) - expected[0]).max() <= 1


def test_reconstructions_are_decoded_from_the_posteriors_means(weights, data_dir, tmp_path):
    faces = data_dir / "face" / "test"
    inference.main(["--reconstruct", str(faces), "--output-dir", str(tmp_path), "--weights", str(weights)])
    vae, _ = inference.load_vae(weights)
    x = load_faces(data_dir, "test") / 255
    with torch.inference_mode():
        y = vae.decode(vae.encode(x)[0])
    assert difference(tmp_path, to_pixels(y)) <= 1 and len(list(tmp_path.iterdir())) == 41
    table = pandas.read_csv(tmp_path / "mse.csv")
    assert list(table["image_name"]) == [f"{i:05d}.png" for i in range(40)]
    assert table["mse"].tolist() == pytest.approx((y - x).square().mean((1, 2, 3)).tolist(), rel=1e-3)
    with pytest.raises(SystemExit, match="would replace the images"):
        inference.main(["--reconstruct", str(faces), "--output-dir", str(faces)])
