"""Problem 1: the VAE's loss, its second stage, its reconstructions."""
import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch.distributions import Normal, kl_divergence

from common.pictures import draw_latents, to_pixels
from common.training import descend
from p1_vae import inference, train
from p1_vae.flow import Flow, encode_all
from p1_vae.model import VAE, reparameterize


def test_reparameterization_has_the_posteriors_spread_and_passes_gradients():
    mean, log_variance = torch.full((20000, 2), 3.0), torch.tensor([1, 0.01]).log().repeat(20000, 1)
    mean.requires_grad_(), log_variance.requires_grad_()
    z = reparameterize(mean, log_variance)
    torch.testing.assert_close(z.mean(0), torch.tensor([3.0, 3.0]), rtol=0, atol=0.03)
    torch.testing.assert_close(z.std(0), torch.tensor([1.0, 0.1]), rtol=0.03, atol=0)
    z.square().sum().backward()  # d/d mean = 2 z; d/d log variance = 2 z * (z - mean) / 2
    torch.testing.assert_close(mean.grad, 2 * z)
    torch.testing.assert_close(log_variance.grad, z * (z - mean), rtol=1e-3, atol=1e-3)


def test_the_loss_is_the_mse_plus_the_weighted_kl():
    torch.manual_seed(0)
    vae, x = VAE(width=2, latent_dim=6), torch.rand(8, 3, 64, 64)
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        torch.manual_seed(1)
        losses[weight], metrics = train.vae_loss(vae, x, weight)
    torch.manual_seed(1)
    reconstruction, mean, log_variance = vae(x)
    assert metrics["mse"].item() == pytest.approx((reconstruction - x).square().mean().item(), rel=1e-3)
    posterior, prior = Normal(mean, (0.5 * log_variance).exp()), Normal(0, 1)
    kl = kl_divergence(posterior, prior).sum(1).mean().item()  # nats an image
    assert metrics["kl"].shape == (6,) and metrics["kl"].sum().item() == pytest.approx(kl, rel=1e-3)
    assert losses[0].item() == pytest.approx(metrics["mse"].item())
    assert (losses[1] - losses[0]).item() == pytest.approx(kl, rel=1e-3) and kl > 0
    assert (losses[3] - losses[0]).item() == pytest.approx(3 * kl, rel=1e-3)
    assert not torch.equal(vae(x)[0], reconstruction)  # what the decoder sees is a draw


def test_the_kls_weight_ramps_up_over_the_first_epoch(data_dir, tmp_path, monkeypatch):
    calls, loss = [], train.vae_loss
    monkeypatch.setattr(train, "vae_loss", lambda vae, x, kl: calls.append((x, kl.item())) or loss(vae, x, kl))
    train.main(["--data-dir", str(data_dir), "--out-dir", str(tmp_path), "--width", "2", "--latent-dim", "8",
                "--epochs", "2", "--flow-epochs", "0", "--batch-size", "8", "--kl-weight", "0.5", "--device", "cpu"])
    assert [weight for _, weight in calls] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, *[0.5] * 5])
    seen = torch.cat([x for x, _ in calls[:5]]).mean((1, 2, 3))  # an epoch has every face once, mirrored or not
    faces = train.load_faces(data_dir, "train").float().mean((1, 2, 3)) / 255
    torch.testing.assert_close(seen.sort().values, faces.sort().values)


def test_both_stages_follow_their_rates_and_the_flow_sees_every_code(data_dir, tmp_path, monkeypatch):
    rates, means, draw = [], [], train.flow.reparameterize
    for module in (train, train.flow):
        def watched(loss, optimizer, rate, clip, step=module.descend):
            rates.append(rate.item())
            step(loss, optimizer, rate, clip)
        monkeypatch.setattr(module, "descend", watched)
    monkeypatch.setattr(train.flow, "reparameterize", lambda mean, log: means.append(mean) or draw(mean, log))
    train.main(["--data-dir", str(data_dir), "--out-dir", str(tmp_path), "--width", "2", "--latent-dim", "8",
                "--epochs", "1", "--flow-epochs", "2", "--batch-size", "8", "--lr", "0.5", "--device", "cpu"])
    expected = [train.learning_rate(i, steps, 0.5, warm_up=100) for steps in (5, 2) for i in range(steps)]
    assert rates == pytest.approx(expected)
    assert [len(mean.unique(dim=0)) for mean in means] == [80, 80]  # of 40 faces and of their mirror images


def test_the_flow_leads_from_noise_to_the_codes():
    """At first to their Gaussian; once trained, to the clusters that they are; guidance away from between these."""
    torch.manual_seed(0)
    mean = torch.tensor([3.0, -1]) + 4 * torch.randint(2, (4000, 1)) - 2 + 0.8 * torch.randn(4000, 2)
    flow, noise, log_variance = Flow(2, width=32, blocks=1), torch.randn(4000, 2), torch.full((4000, 2), 0.5).log()
    flow.fit_gaussian(mean, log_variance)
    torch.testing.assert_close(flow.axes @ flow.variance.diag() @ flow.axes.T, mean.T.cov() + 0.5 * torch.eye(2))

    def draw(guidance):
        with torch.no_grad():
            codes = flow(noise, guidance=guidance)
        if guidance <= 1:
            torch.testing.assert_close(codes.mean(0), mean.mean(0), rtol=0, atol=0.3)
            torch.testing.assert_close(codes.T.cov(), mean.T.cov() + 0.5 * torch.eye(2), rtol=0.15, atol=0)
        return ((codes.mean(1) - 1).abs() < 1).float().mean()  # how many are between the clusters
    gaussian, optimizer = draw(guidance=1), torch.optim.Adam(flow.parameters())
    for _ in range(300):
        picked = torch.randint(4000, (256,))
        descend(flow.loss(reparameterize(mean[picked], log_variance[picked])), optimizer, rate=1e-2, clip=1.0)
    assert gaussian == draw(guidance=0) > draw(guidance=1) > 1.5 * draw(guidance=1.5)


def test_the_flow_learns_the_codes_of_all_faces_and_of_their_mirror_images():
    class Corners:  # codes are the red values of the upper corners
        def encode(self, x):
            return x[:, 0, 0, [0, -1]], x[:, 0, 0, [0, -1]] - 5
    faces = torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    faces[:, 0, 0, 0] = torch.tensor([51, 102, 153])
    mean, log_variance = encode_all(Corners(), faces)
    assert mean.tolist() == pytest.approx(np.array([[0.2, 0], [0.4, 0], [0.6, 0], [0, 0.2], [0, 0.4], [0, 0.6]]))
    torch.testing.assert_close(log_variance, mean - 5)


def test_what_is_drawn_without_the_second_stage(tmp_path):
    inference.main(["--num-images", "3", "--output-dir", str(tmp_path), "--without-flow"])
    vae, latent_dim = inference.load_vae()
    with torch.inference_mode():
        expected = to_pixels(vae.decoder(draw_latents(3, latent_dim).float()))
    for i, picture in enumerate(expected):
        np.testing.assert_array_equal(Image.open(tmp_path / f"{i:05d}.png"), picture)


def test_reconstruction(data_dir, tmp_path):
    faces = data_dir / "face" / "test"
    inference.main(["--reconstruct", str(faces), "--output-dir", str(tmp_path)])
    table = pandas.read_csv(tmp_path / "mse.csv")
    assert list(table["image_name"]) == [f"{i:05d}.png" for i in range(40)] and len(list(tmp_path.iterdir())) == 41
    for name, mse in table.head(3).itertuples(index=False):
        a, b = (np.asarray(Image.open(folder / name)) / 255 for folder in (faces, tmp_path))
        assert mse == pytest.approx(((a - b) ** 2).mean(), rel=0.02, abs=1e-4)
    with pytest.raises(SystemExit, match="would replace the images"):
        inference.main(["--reconstruct", str(faces), "--output-dir", str(faces)])
