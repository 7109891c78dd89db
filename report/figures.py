"""Draw the report's figures from the shipped weights, the committed logs and results, and the data.

    python3 report/figures.py --data-dir hw3_data [--only fig1_4 fig3_4_usps_mnistm_class ...]

Test images enter here as pictures and points only; nothing is chosen by them.
"""
import argparse
import functools
import os
import sys

import pandas
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, os.pardir)
sys.path.insert(0, ROOT)
from common.data import SCENARIOS, load_faces, load_labelled
from common.pictures import to_pixels, write_grid
from common.predict import forward, load_digit_net
from common.tsne import CLASS_COLOURS, DOMAIN_COLOURS, embed, plt, save_figure, scatter
from p1_vae.inference import load_vae

CPU = torch.device("cpu")
VAE_WEIGHTS = os.path.join(ROOT, "p1_vae", "weights", "vae.pth")
TITLES = {"usps": "USPS", "mnistm": "MNIST-M", "svhn": "SVHN"}
METHODS = {"p3_dann": "DANN", "p4_uda": "AdaMatch"}
SAMPLES = 1000  # test images of each domain in a t-SNE figure


def draw_printed(text, path):
    """What `print(model)` gives, as a picture in two columns."""
    lines = text.splitlines()
    half = -(-len(lines) // 2)
    figure = plt.figure(figsize=(14, 0.128 * half + 0.2))
    for x, column in ((0.005, lines[:half]), (0.505, lines[half:])):
        figure.text(x, 0.99, "\n".join(column), family="monospace", fontsize=7.5, va="top")
    save_figure(figure, path)


def draw_vae_printed(data_dir, path):
    draw_printed(str(load_vae(VAE_WEIGHTS, CPU)[0]), path)


def draw_vae_curves(data_dir, path):
    log = pandas.read_csv(os.path.join(HERE, "results", "p1_vae_log.csv"))
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
    for axis, key, title in zip(axes, ("mse", "kl"), ("reconstruction: MSE per value, images on [0, 1]", "KL divergence: nats per image")):
        axis.plot(log["step"], log[key], marker=".", color=DOMAIN_COLOURS[0])
        axis.set(title=title, xlabel="training step")
        axis.grid(alpha=0.3)
    save_figure(figure, path)


def draw_sweep(data_dir, path):
    """Test MSE against the Fréchet distance of samples, a point for each lambda."""
    table = pandas.read_csv(os.path.join(HERE, "results", "p1.csv"))
    sweep, shipped = table[table["row"].str.startswith("lambda_")], table[table["row"] == "shipped"].iloc[0]
    figure, axis = plt.subplots(figsize=(6, 4.2), layout="constrained")
    axis.plot(sweep["test_mse"], sweep["fd_efflite"], marker="o", color=DOMAIN_COLOURS[0], label="the sweep's short runs")
    axis.plot(shipped["test_mse"], shipped["fd_efflite"], marker="*", markersize=13, linestyle="", color=DOMAIN_COLOURS[1], label="the shipped run")
    for _, row in [*sweep.iterrows(), (0, shipped)]:
        axis.annotate(f"λ = {row['kl_weight']:g}".replace("e-0", "e-"), (row["test_mse"], row["fd_efflite"]), (6, 6), textcoords="offset points", fontsize=9)
    axis.set(xlabel="MSE of reconstructed test faces, per value, images on [0, 1]", ylabel="FD-EffLite of 5,000 samples")
    axis.margins(x=0.2, y=0.12)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    save_figure(figure, path)


@torch.inference_mode()
def draw_reconstructions(data_dir, path):
    """Ten random test images, their reconstructions, and the MSE of each."""
    net, _ = load_vae(VAE_WEIGHTS, CPU)
    images = load_faces(data_dir, "test")
    x = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:10]].float() / 255
    y = net.decode(net.encode(x)[0])
    figure, axes = plt.subplots(2, 10, figsize=(12, 2.9), layout="constrained")
    for row, pictures, title in zip(axes, (x, y), ("test image", "reconstruction")):
        row[0].set_ylabel(title)
        for axis, picture in zip(row, to_pixels(pictures)):
            axis.matshow(picture)
            axis.set(xticks=[], yticks=[])
    for axis, mse in zip(axes[1], (y - x).square().mean((1, 2, 3)).tolist()):
        axis.set_xlabel(f"{mse:.4f}")
    figure.supxlabel("MSE per value, images on [0, 1]", fontsize=10)
    save_figure(figure, path)


def draw_vae_grid(data_dir, path):
    net, latent_dim = load_vae(VAE_WEIGHTS, CPU)
    write_grid(path, net.decoder, latent_dim)


@functools.cache
def vae_points(data_dir):
    """t-SNE points [N, 2] of the test faces' posterior means."""
    net, _ = load_vae(VAE_WEIGHTS, CPU)
    return embed(forward(lambda x: net.encode(x)[0], load_faces(data_dir, "test"), CPU))


def draw_vae_latents(attribute, data_dir, path):
    """The latents of the test faces, coloured by an attribute."""
    present = pandas.read_csv(os.path.join(data_dir, "face", "test.csv")).sort_values("image_name")[attribute].astype(int)
    name = attribute.replace("_", " ").lower()
    scatter(path, vae_points(data_dir), present, [f"not {name}", name], DOMAIN_COLOURS, f"VAE, latents of the test faces: {name}")


@functools.cache
def embedded(data_dir, problem, source, target):
    """t-SNE points [N, 2], classes [N] and domains [N] (0 source, 1 target) of test images of both domains."""
    net = load_digit_net(os.path.join(ROOT, problem, "weights", f"{source}_{target}.pth"), CPU)
    features, labels = [], []
    for domain in (source, target):
        x, y = load_labelled(data_dir, domain, "test")
        subset = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:SAMPLES]
        features.append(forward(net.features, x[subset], CPU))
        labels.append(y[subset])
    return embed(torch.cat(features)), torch.cat(labels), [0] * len(labels[0]) + [1] * len(labels[1])


def draw_tsne(problem, source, target, colour, data_dir, path):
    points, classes, domains = embedded(data_dir, problem, source, target)
    title = f"{METHODS[problem]}, {TITLES[source]} → {TITLES[target]}: {colour}"
    if colour == "class":
        scatter(path, points, classes, list("0123456789"), CLASS_COLOURS, title)
    else:
        scatter(path, points, domains, [f"{TITLES[source]} (source)", f"{TITLES[target]} (target)"], DOMAIN_COLOURS, title)


FIGURES = {"fig1_1": draw_vae_printed, "fig1_2": draw_vae_curves, "table1_3": draw_reconstructions, "fig1_4": draw_vae_grid,
           "fig1_5_male": functools.partial(draw_vae_latents, "Male"), "fig1_5_blond": functools.partial(draw_vae_latents, "Blond_Hair"),
           "fig1_6": draw_sweep}
FIGURES |= {f"{number}_{source}_{target}_{colour}": functools.partial(draw_tsne, problem, source, target, colour)
            for number, problem in (("fig3_4", "p3_dann"), ("fig4_2", "p4_uda"))
            for target, source in SCENARIOS.items() for colour in ("class", "domain")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="FIGURE", default=list(FIGURES), help=", ".join(FIGURES))
    parser.add_argument("--output-dir", default=os.path.join(HERE, "figures"))
    args = parser.parse_args()
    os.makedirs(args.output_dir, exist_ok=True)
    for name in args.only:
        path = os.path.join(args.output_dir, f"{name}.png")
        FIGURES[name](args.data_dir, path)
        print(f"wrote {path}", flush=True)


if __name__ == "__main__":
    main()
