"""Draw the report's figures from the shipped weights, the committed logs and results, and the data; write its tables.

    python3 report/figures.py --data-dir hw3_data [--only fig1_4 fig3_4_usps_mnistm_class tables ...]

Test images enter here as pictures, points and counts; no model and no setting is chosen by them.
"""
import argparse
import functools
import os
import sys

import numpy as np
import pandas
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import confusion_matrix

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, os.pardir)
sys.path.insert(0, ROOT)
from common.data import CLASSES, SCENARIOS, load_faces, load_labelled
from common.pictures import draw_latents, grid, to_pixels, write_grid
from common.predict import forward, load_digit_net
from common.tsne import CLASS_COLOURS, DOMAIN_COLOURS, embed, plt, save_figure, scatter
from common.weights import load_weights
from p1_vae.inference import load_vae
from p2_gan.inference import load_generator
from p2_gan.model import LATENT, MODELS
from report.faces import shown_epochs
from report.latex import TITLES, write_latex

CPU = torch.device("cpu")
VAE_WEIGHTS = os.path.join(ROOT, "p1_vae", "weights", "vae.pth")
GAN_WEIGHTS = os.path.join(ROOT, "p2_gan", "weights", "gan.pth")
METHODS = {"p3_dann": "DANN", "p4_uda": "AdaMatch"}
SAMPLES = 1000  # test images of each domain in a t-SNE figure


def draw_printed(columns, path):
    """Two lists of lines that `print(model)` gave, as a picture."""
    figure = plt.figure(figsize=(14.5, 0.128 * max(map(len, columns)) + 0.2))
    for x, lines in zip((0.005, 0.51), columns):
        figure.text(x, 0.99, "\n".join(lines), family="monospace", fontsize=7.5, va="top")
    save_figure(figure, path)


def draw_vae_printed(data_dir, path):
    lines = str(load_vae(VAE_WEIGHTS, CPU)[0]).splitlines()
    half = -(-len(lines) // 2)
    draw_printed((lines[:half], lines[half:]), path)


def draw_curves(log, panels, path):
    """A panel for each title of `panels` {title: {column of report/results/LOG: label}}, over the training steps."""
    log = pandas.read_csv(os.path.join(HERE, "results", log))
    figure, axes = plt.subplots(1, len(panels), figsize=(9, 3.3), layout="constrained")
    for axis, (title, columns) in zip(axes, panels.items()):
        for colour, (column, label) in zip(DOMAIN_COLOURS, columns.items()):
            axis.plot(log["step"], log[column], marker=".", color=colour, label=label)
        axis.set(title=title, xlabel="training step")
        axis.locator_params(axis="x", nbins=5)
        axis.grid(alpha=0.3)
        if len(columns) > 1:
            axis.legend(frameon=False)
    save_figure(figure, path)


def draw_vae_curves(data_dir, path):
    draw_curves("p1_vae_log.csv", {"reconstruction: MSE per value, images on [0, 1]": {"mse": ""}, "KL divergence: nats per image": {"kl": ""}}, path)


def draw_gan_curves(data_dir, path):
    draw_curves("p2_gan_log.csv", {"relativistic losses": {"d_loss": "discriminator", "g_loss": "generator"},
                                   "discriminator's accuracy": {"accuracy_real": "on real faces", "accuracy_fake": "on generated faces"}}, path)


def draw_sweep(data_dir, path):
    """Test MSE against the Fréchet distance of samples, a point for each lambda."""
    table = pandas.read_csv(os.path.join(HERE, "results", "p1.csv"))
    sweep, long = table[table["row"].str.startswith("lambda_")], table[table["row"].isin(["long_3e-7", "shipped"])]
    figure, axis = plt.subplots(figsize=(6, 4.2), layout="constrained")
    axis.plot(sweep["test_mse"], sweep["fd_efflite"], marker="o", color=DOMAIN_COLOURS[0], label="the sweep's short runs")
    axis.plot(long["test_mse"], long["fd_efflite"], marker="*", markersize=13, linestyle="--", color=DOMAIN_COLOURS[1], label="long runs, 1e-5 is shipped")
    for _, row in pandas.concat([sweep, long]).iterrows():
        axis.annotate(f"λ = {row['kl_weight']:.0e}".replace("e-0", "e-"), (row["test_mse"], row["fd_efflite"]), (6, 6), textcoords="offset points", fontsize=9)
    axis.set(xlabel="MSE of reconstructed test faces, per value, images on [0, 1]", ylabel="FD-EffLite of 5,000 samples")
    axis.margins(x=0.22, y=0.12)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    save_figure(figure, path)


def show_faces(axis, pixels):
    """One face or one picture of faces, uint8 [H, W, 3], without ticks."""
    axis.matshow(pixels)
    axis.set(xticks=[], yticks=[])


@functools.cache
def reconstructed(data_dir):
    """The test faces and their reconstructions from the posterior's mean, floats [N, 3, 64, 64] on [0, 1], and the MSE [N] of each."""
    net, _ = load_vae(VAE_WEIGHTS, CPU)
    images = load_faces(data_dir, "test")
    x, y = images.float() / 255, forward(lambda x: net.decode(net.encode(x)[0]), images, CPU)
    return x, y, (y - x).square().mean((1, 2, 3))


def random_ten(mse):
    return torch.randperm(len(mse), generator=torch.Generator().manual_seed(0))[:10]


def worst_ten(mse):
    return mse.topk(10).indices


def draw_reconstructions(choose, data_dir, path):
    """The test images that `choose` takes by their MSE, their reconstructions, and the MSE of each."""
    chosen = choose(reconstructed(data_dir)[2])
    x, y, errors = (values[chosen] for values in reconstructed(data_dir))
    figure, axes = plt.subplots(2, 10, figsize=(12, 2.9), layout="constrained")
    for row, pictures, title in zip(axes, (x, y), ("test image", "reconstruction")):
        row[0].set_ylabel(title)
        for axis, picture in zip(row, to_pixels(pictures)):
            show_faces(axis, picture)
    for axis, mse in zip(axes[1], errors.tolist()):
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


def draw_gan_printed(data_dir, path):
    config = load_weights(GAN_WEIGHTS)[1]
    draw_printed([str(net(config["width"])).splitlines() for net in MODELS[config["model"]]], path)


def draw_gan_grid(data_dir, path):
    write_grid(path, load_generator(GAN_WEIGHTS, CPU), LATENT)


def draw_progress(data_dir, path):
    """The same 8 latents over training."""
    epochs = shown_epochs(len(pandas.read_csv(os.path.join(HERE, "results", "p2_gan_log.csv"))))
    pixels = np.asarray(Image.open(os.path.join(HERE, "results", "p2_progress.png")))
    figure, axis = plt.subplots(figsize=(6, 5.6 * pixels.shape[0] / pixels.shape[1]), layout="constrained")
    show_faces(axis, pixels)
    axis.set_yticks((np.arange(len(epochs)) + 0.5) * pixels.shape[0] / len(epochs), epochs)
    axis.tick_params(length=0)
    axis.set_ylabel("after so many epochs")
    save_figure(figure, path)


@functools.cache
@torch.inference_mode()
def gan_faces(count):
    """Images [count, 3, 64, 64] on [0, 1] of the first latents of seed 0."""
    return load_generator(GAN_WEIGHTS, CPU)(draw_latents(count, LATENT).float())


def draw_neighbours(data_dir, path):
    """8 generated faces and the three training faces nearest to each, mirrored or not, by the distance of their pixels at 32x32."""
    fakes, images = gan_faces(8), load_faces(data_dir, "train")
    small = F.avg_pool2d(fakes, 2).flatten(1)
    both = torch.cat([small, F.avg_pool2d(fakes.flip(3), 2).flatten(1)])
    distances = torch.cat([torch.cdist(both, F.avg_pool2d(part.float() / 255, 2).flatten(1)) for part in images.split(2000)], 1)
    nearest = distances.view(2, 8, -1).amin(0).topk(3, largest=False).indices.T
    figure, axes = plt.subplots(4, 8, figsize=(9, 4.7), layout="constrained")
    for row, pictures, title in zip(axes, (fakes, *(images[i].float() / 255 for i in nearest)), ("generated", "nearest", "second", "third")):
        row[0].set_ylabel(title)
        for axis, picture in zip(row, to_pixels(pictures)):
            show_faces(axis, picture)
    save_figure(figure, path)


@torch.inference_mode()
def draw_vae_and_gan(data_dir, path):
    """16 faces each of the VAE, of the GAN and of the training set."""
    vae, latent_dim = load_vae(VAE_WEIGHTS, CPU)
    sets = {"VAE": vae.decode(draw_latents(16, latent_dim).float()), "GAN": gan_faces(16), "training faces": load_faces(data_dir, "train", 16) / 255}
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.3), layout="constrained")
    for axis, (title, faces) in zip(axes, sets.items()):
        show_faces(axis, grid(to_pixels(faces), columns=4))
        axis.set_title(title)
        axis.axis("off")
    save_figure(figure, path)


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


def draw_mistakes(problem, data_dir, path):
    """For each pair of domains the confusion of classes, and the mistakes that the network is surest of."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.6), height_ratios=(4, 2), layout="constrained")
    for (above, below), (target, source) in zip(axes.T, SCENARIOS.items()):
        images, labels = load_labelled(data_dir, target, "test")
        net = load_digit_net(os.path.join(ROOT, problem, "weights", f"{source}_{target}.pth"), CPU)
        confidence, called = forward(net, images, CPU).softmax(1).max(1)
        shares = 100 * confusion_matrix(labels, called, labels=range(CLASSES), normalize="true")
        above.matshow(shares, cmap="Blues", vmin=0, vmax=20)
        above.xaxis.tick_bottom()
        for (row, column), share in np.ndenumerate(shares):
            if share > 0.5:
                above.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=8, color="white" if share > 12 else "black")
        above.set(title=f"{METHODS[problem]}, {TITLES[source]} → {TITLES[target]}: % of a class", xlabel="called", ylabel="label",
                  xticks=range(CLASSES), yticks=range(CLASSES))
        surest = (confidence * (called != labels)).topk(12).indices
        show_faces(below, grid(images[surest].permute(0, 2, 3, 1).numpy(), columns=6))
        names = [f"{labels[i]}→{called[i]}" for i in surest]
        below.set_title("\n".join(" ".join(names[i:i + 6]) for i in (0, 6)), fontsize=9)
        below.axis("off")
    save_figure(figure, path)


FIGURES = {"fig1_1": draw_vae_printed, "fig1_2": draw_vae_curves, "table1_3": functools.partial(draw_reconstructions, random_ten),
           "fig1_7": functools.partial(draw_reconstructions, worst_ten), "fig1_4": draw_vae_grid,
           "fig1_5_male": functools.partial(draw_vae_latents, "Male"), "fig1_5_blond": functools.partial(draw_vae_latents, "Blond_Hair"),
           "fig1_6": draw_sweep, "fig2_1": draw_gan_printed, "fig2_2": draw_gan_grid, "fig2_3": draw_gan_curves, "fig2_4": draw_progress,
           "fig2_5": draw_neighbours, "fig2_6": draw_vae_and_gan}
FIGURES |= {f"{number}_{source}_{target}_{colour}": functools.partial(draw_tsne, problem, source, target, colour)
            for number, problem in (("fig3_4", "p3_dann"), ("fig4_2", "p4_uda"))
            for target, source in SCENARIOS.items() for colour in ("class", "domain")}
FIGURES["fig4_3"] = functools.partial(draw_mistakes, "p4_uda")
FIGURES["tables"] = lambda data_dir, path: write_latex(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="FIGURE", default=list(FIGURES), help=", ".join(FIGURES))
    parser.add_argument("--output-dir", default=os.path.join(HERE, "figures"))
    args = parser.parse_args()
    os.makedirs(args.output_dir, exist_ok=True)
    missing = 0
    for name in args.only:
        path = os.path.join(args.output_dir, f"{name}.tex" if name == "tables" else f"{name}.png")
        try:
            FIGURES[name](args.data_dir, path)
            print(f"wrote {path}", flush=True)
        except (SystemExit, FileNotFoundError) as error:  # the other figures may need less
            print(f"{name}: {error}", file=sys.stderr)
            missing += 1
    if missing:
        raise SystemExit(f"{missing} of {len(args.only)} not drawn")


if __name__ == "__main__":
    main()
