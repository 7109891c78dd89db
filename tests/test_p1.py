"""Problem 1: the VAE, its loss and its reconstructions; the Fréchet distance."""
import csv
import os
import sys

from common.pictures import write_grid
from p1_vae import inference, train
from p1_vae.model import VAE, Flow, kl_divergence
from report.fd_efflite import features, frechet, precision_and_recall
from report.runs import read_log

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_resume_is_bit_for_bit, one_line_error, run_main
from PIL import Image

INFERENCE = os.path.join(ROOT, "p1_vae", "inference.py")
FACES = os.path.join(ROOT, "report", "figures")  # a folder of images
TINY = ["--width", "2", "--latent-dim", "8", "--epochs", "2", "--flow-epochs", "2", "--batch-size", "8",
        "--device", "cpu"]


def test_kl_equals_torch_distributions():
    mean, log_variance = torch.randn(5, 7), torch.randn(5, 7)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0, 1))
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected, rtol=1e-4, atol=1e-5)


def test_shapes_and_ranges():
    net = VAE(width=4, latent_dim=6)
    x, mean, log_variance = net(torch.rand(3, 3, 64, 64))
    assert x.shape == (3, 3, 64, 64) and 0 <= x.min() and x.max() <= 1
    assert mean.shape == log_variance.shape == (3, 6)


def test_noise_has_the_posteriors_spread():
    net = VAE(width=4, latent_dim=6).eval()
    net.decode = lambda z: z
    with torch.no_grad():
        z, mean, log_variance = net(torch.rand(1, 3, 64, 64).expand(4000, 3, 64, 64)[:500])
        noise = (z - mean) / (0.5 * log_variance).exp()
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1


def test_steps_lower_the_loss():
    torch.manual_seed(0)
    net, x = VAE(width=4, latent_dim=8), 0.3 * torch.rand(8, 3, 1, 1).expand(8, 3, 64, 64)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        y, mean, log_variance = net(x)
        loss = (y - x).square().mean() + 1e-4 * kl_divergence(mean, log_variance).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_warm_up_lets_the_kl_grow(data_dir, tmp_path, monkeypatch):
    kl = {}
    for epochs in ("0", "1000"):
        run_main(train, monkeypatch, "--data-dir", data_dir, *TINY, "--kl-weight", 1, "--warm-up", epochs,
                 "--out-dir", tmp_path / epochs)
        kl[epochs] = float(read_log(tmp_path / epochs)[-1]["kl"])
    assert kl["0"] < kl["1000"]


def learnt_flow(draw_codes):
    """A small flow trained on what `draw_codes(count)` gives, [count, 2]."""
    torch.manual_seed(0)
    flow = Flow(2, width=32, blocks=1)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(300):
        loss = flow.loss(draw_codes(256))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return flow.requires_grad_(False)


def test_the_flow_learns_where_the_codes_are():
    centre, spread = torch.tensor([3.0, -1]), torch.tensor([0.2, 2])
    codes = learnt_flow(lambda count: centre + spread * torch.randn(count, 2))(torch.randn(2000, 2), guidance=1)
    torch.testing.assert_close(codes.mean(0), centre, rtol=0, atol=0.25)
    torch.testing.assert_close(codes.std(0), spread, rtol=0.25, atol=0.1)


def test_guidance_leads_away_from_where_only_the_gaussian_has_codes():
    def two_clusters(count):
        return 4 * torch.randint(2, (count, 1)) - 2 + 0.8 * torch.randn(count, 2)
    flow, noise = learnt_flow(two_clusters), torch.randn(2000, 2)
    between = [(flow(noise, guidance=guidance).mean(1).abs() < 1).float().mean() for guidance in (0, 1, 1.5)]
    assert between[0] > between[1] > 2 * between[2]


def test_the_flow_starts_as_the_gaussian_of_the_codes():
    torch.manual_seed(0)
    mean = torch.randn(500, 3) @ torch.tensor([[2.0, 1, 0], [0, 0.5, 0], [0, 0, 0.1]]) + torch.tensor([1.0, 0, -5])
    log_variance = torch.full((500, 3), 0.04).log()
    flow = Flow(3, width=8)
    flow.fit_gaussian(mean, log_variance)
    with torch.no_grad():
        codes = flow(torch.randn(20000, 3))
    torch.testing.assert_close(codes.mean(0), mean.mean(0), rtol=0, atol=0.05)
    torch.testing.assert_close(codes.T.cov(), mean.T.cov() + 0.04 * torch.eye(3), rtol=0.05, atol=0.02)


def test_an_interrupted_second_stage_resumes_bit_for_bit(data_dir, tmp_path, monkeypatch):
    assert_resume_is_bit_for_bit(train, ["--data-dir", data_dir, *TINY], tmp_path, monkeypatch, after=3)


def test_the_flow_can_be_left_out(python, tmp_path):
    for name, options in (("flow.png", []), ("noise.png", ["--without-flow"])):
        process = python(INFERENCE, "--output", name, *options, cwd=tmp_path)
        assert process.returncode == 0, process.stderr
    net, latent_dim = inference.load_vae(inference.WEIGHTS, torch.device("cpu"))
    for name, generate in (("flow.png", net.sampler()), ("noise.png", net.decoder)):
        write_grid(tmp_path / "expected.png", generate, latent_dim)
        assert (tmp_path / name).read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_precision_and_recall_by_hand():
    real = torch.tensor([[0.0, 0], [1, 0], [10, 0], [12, 0]])  # with k = 1: balls of radius 1, 1, 2 and 2
    generated = torch.tensor([[1.5, 0], [1.8, 0], [5, 0], [5.5, 0]])  # 0.3, 0.3, 0.5 and 0.5
    assert precision_and_recall(real, generated, k=1) == (0.5, 0.0)
    assert precision_and_recall(generated, real, k=1) == (0.0, 0.5)
    assert precision_and_recall(real, real + 0.1, k=1) == (1, 1)


def test_frechet_distance_equals_its_closed_form():
    """Of Gaussians with diagonal covariances: the squared distances of the means and of the standard deviations."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    a = (a - a.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(a.T.cov())).T  # mean 0 and covariance I, exactly
    assert frechet(a, a * torch.tensor([1, 2, 3]) + 1) == pytest.approx(3 + 0 + 1 + 4)
    assert frechet(a, a.flip(0)) == pytest.approx(0, abs=1e-9)


def test_the_features_packages_absence_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(SystemExit, match="pip install efficientnet-lite-pytorch"):
        features(FACES, [])


def test_reconstruction(data_dir, python, tmp_path):
    folder = os.path.join(data_dir, "face", "test")
    process = python(INFERENCE, "--reconstruct", folder, "--output-dir", "r", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    with open(tmp_path / "r" / "mse.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_name"] for row in rows] == sorted(os.listdir(folder))
    assert len(os.listdir(tmp_path / "r")) == len(rows) + 1
    for row in rows[:3]:
        pair = [np.asarray(Image.open(os.path.join(d, row["image_name"]))) / 255 for d in (folder, tmp_path / "r")]
        assert float(row["mse"]) == pytest.approx(((pair[0] - pair[1]) ** 2).mean(), rel=0.02, abs=1e-4)


def test_reconstructions_have_the_format_of_their_names(tmp_path):
    formats = {"a.jpg": "JPEG", "b.JPEG": "JPEG", "c.bmp": "BMP", "d.png": "PNG", "e.webp": "WEBP"}
    for name in formats:
        Image.new("RGB", (64, 64), "red").save(tmp_path / name)
    inference.reconstruct(VAE(width=2, latent_dim=4).eval(), str(tmp_path), str(tmp_path / "r"), torch.device("cpu"))
    assert {name: Image.open(tmp_path / "r" / name).format for name in formats} == formats


@pytest.mark.parametrize("name", ["no extension", "a.xbm"])
def test_reconstructions_that_cannot_be_written(name, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / name, "PNG")
    with pytest.raises(SystemExit, match=f"no picture can be written under the name {name}"):
        inference.reconstruct(None, str(tmp_path), str(tmp_path / "r"), torch.device("cpu"))
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("options, message", [
    (["--num-images", "2", "--output-dir", "a file"], "cannot make the folder"),
    (["--reconstruct", "nowhere", "--output-dir", "r"], "not found"),
    (["--reconstruct", FACES, "--output-dir", FACES], "would replace the images"),
])
def test_bad_folders(options, message, python, tmp_path):
    (tmp_path / "a file").write_text("kept")
    assert message in one_line_error(python(INFERENCE, *options, cwd=tmp_path))
    assert os.listdir(tmp_path) == ["a file"]
