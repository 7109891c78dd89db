"""Draw the report's figures from the shipped weights, the logs and results in report/results, and the data.

    python3 report/figures.py --data-dir hw3_data [--only fig1_4 fig3_4_usps_mnistm_class tables ...]

What cannot be drawn is named in one line, the rest is drawn. `tables` are the tables and numbers that report.tex uses.
Test images enter here as pictures, points and counts; no model and no setting is chosen by them.
"""
import argparse
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data import SCENARIOS, list_images, load_faces, load_labelled
from common.files import write_output
from common.pictures import draw_latents, grid, to_pixels, write_grid
from common.predict import load_digit_net, run_in_batches
from common.weights import load_weights
from p1_vae.inference import load_vae, sampler
from p2_gan.inference import load_generator
from p2_gan.model import LATENT, MODELS
from report import plots
from report.plots import embed, plt, scatter
from report.runs import RESULTS, ROOT
from report.tables import TITLES, write_tables

METHODS = {"p3_dann": "DANN", "p4_uda": "AdaMatch"}
REACH = 1.5  # the ends of a walk along an attribute, in differences of the mean codes
SAMPLES = 1000  # test images of each domain in a t-SNE figure
VAE_CURVES = {"reconstruction loss:\nMSE per value, images on [0, 1]": {"mse": "training", "test_mse": "test"},
              "KL divergence, nats per image": {"kl": "training", "test_kl": "test"}}
GAN_CURVES = {"relativistic loss": {"d_loss": "discriminator", "g_loss": "generator"},
              "discriminator's accuracy": {"accuracy_real": "real faces", "accuracy_fake": "generated faces"}}


def print_vae(data_dir, path):
    """What print(model) writes."""
    write_output(path, f"{load_vae()[0]}\n".encode())


def print_gan(data_dir, path):
    config = load_weights(ROOT / "p2_gan" / "weights" / "gan.pth")[1]
    write_output(path, "".join(f"{net(config['width'])}\n" for net in MODELS[config["model"]]).encode())


def draw_training(log, panels, data_dir, path):
    """Learning curves of a shipped model: `panels` as plots.draw_curves takes them."""
    plots.save_figure(plots.draw_curves(pandas.read_csv(RESULTS / log), panels), path)


@cache
def reconstructed(data_dir):
    """Test faces and their reconstructions from the posterior's mean, [N, 3, 64, 64] on [0, 1], and each MSE [N]."""
    net, _ = load_vae()
    images = load_faces(data_dir, "test")
    x, y = images.float() / 255, run_in_batches(lambda x: net.decode(net.encode(x)[0]), images)
    return x, y, (y - x).square().mean((1, 2, 3))


def draw_reconstructions(which, data_dir, path):
    """Ten test images, `random` ones or the `worst`, their reconstructions, and the MSE of each."""
    x, y, mse = reconstructed(data_dir)
    chosen = {"random": torch.randperm(len(mse), generator=torch.Generator().manual_seed(0)),
              "worst": mse.argsort(descending=True)}[which][:10]
    figure, axes = plt.subplots(2, 10, figsize=(plots.WIDTH, 1.85), layout="constrained")
    for row, pictures, title in zip(axes, (x, y), ("test\nimage", "recon-\nstruction")):
        row[0].set_ylabel(title, rotation=0, ha="right", va="center")
        for axis, picture in zip(row, to_pixels(pictures[chosen])):
            plots.show_picture(axis, picture)
    for axis, error in zip(axes[1], mse[chosen].tolist()):
        axis.set_xlabel(f"{error:.4f}")
    figure.supxlabel("MSE per value, images on [0, 1]", fontsize=7.5)
    plots.save_figure(figure, path)


def draw_vae_grid(without_flow, data_dir, path):
    net, latent_dim = load_vae()
    write_grid(path, sampler(net, without_flow), draw_latents(32, latent_dim))


@cache
def vae_points(data_dir):
    """t-SNE points [N, 2] of the test faces' posterior means."""
    net, _ = load_vae()
    return embed(run_in_batches(lambda x: net.encode(x)[0], load_faces(data_dir, "test")))


def read_attribute(data_dir, split, attribute):
    """Whether each face, in name order, has the attribute, 1 or 0 [N]; CelebA's own list has -1 for 0."""
    folder = Path(data_dir, "face", split)
    table = pandas.read_csv(f"{folder}.csv", index_col="image_name", dtype={"image_name": str})
    return (table.loc[list_images(folder), attribute] > 0).astype(int)


def draw_vae_latents(attribute, data_dir, path):
    """The latents of the test faces, coloured by an attribute."""
    present, name = read_attribute(data_dir, "test", attribute), attribute.replace("_", " ").lower()
    title = f"VAE, latents of the test faces: {name}"
    groups = [f"not {name}", name]
    plots.save_figure(scatter(vae_points(data_dir), present, groups, plots.TWO_COLOURS, title, width=3.2), path)


@torch.inference_mode()
def draw_walks(data_dir, path):
    """Straight lines between the codes of test faces, and from another one along three attributes.

    An attribute's direction is the mean code with it less the mean code without it, of the first 5,000 training faces.
    """
    net, _ = load_vae()
    known, codes = (run_in_batches(lambda x: net.encode(x)[0], load_faces(data_dir, split, count))
                    for split, count in (("train", 5000), ("test", 5)))
    steps = torch.linspace(0, 1, 8)[:, None]
    rows = {"two faces": torch.lerp(codes[0], codes[1], steps), "two others": torch.lerp(codes[2], codes[3], steps)}
    for attribute in ("Smiling", "Male", "Blond_Hair"):
        present = torch.tensor(read_attribute(data_dir, "train", attribute).to_numpy())[:len(known)] == 1
        direction = known[present].mean(0) - known[~present].mean(0)
        rows[attribute.replace("_", "\n").lower()] = codes[4] + REACH * (2 * steps - 1) * direction
    figure, axis = plt.subplots(figsize=(5.2, 2.9), layout="constrained")
    plots.show_rows(axis, grid(net.decode(torch.cat(list(rows.values())))), rows)
    plots.save_figure(figure, path)


def draw_gan_grid(data_dir, path):
    write_grid(path, load_generator(), draw_latents(32, LATENT))


@torch.inference_mode()
def gan_faces(count):
    """Images [count, 3, 64, 64] on [0, 1] of the first latents of seed 0."""
    return load_generator()(draw_latents(count, LATENT).float())


def draw_neighbours(data_dir, path):
    """8 generated faces and the three training faces nearest to each, mirrored or not, by their pixels at 32x32."""
    fakes, images = gan_faces(8), load_faces(data_dir, "train")
    both = torch.cat([F.avg_pool2d(faces, 2).flatten(1) for faces in (fakes, fakes.flip(3))])
    distances = torch.cat([torch.cdist(both, F.avg_pool2d(part.float() / 255, 2).flatten(1))
                           for part in images.split(2000)], 1)
    nearest = distances.view(2, 8, -1).amin(0).topk(3, largest=False).indices.T
    faces = torch.cat([fakes, *(images[i].float() / 255 for i in nearest)])
    figure, axis = plt.subplots(figsize=(plots.WIDTH, 3.0), layout="constrained")
    plots.show_rows(axis, grid(faces), ["generated", "nearest\ntraining face", "2nd nearest", "3rd nearest"])
    plots.save_figure(figure, path)


@torch.inference_mode()
def draw_vae_and_gan(data_dir, path):
    """16 faces each of the VAE, of the GAN and of the training set."""
    vae, latent_dim = load_vae()
    sets = {"VAE": sampler(vae)(draw_latents(16, latent_dim).float()), "GAN": gan_faces(16),
            "training faces": load_faces(data_dir, "train", 16) / 255}
    figure, axes = plt.subplots(1, 3, figsize=(plots.WIDTH, 2.4), layout="constrained")
    for axis, (title, faces) in zip(axes, sets.items()):
        plots.show_picture(axis, grid(faces, columns=4))
        axis.set_title(title)
    plots.save_figure(figure, path)


def load_pair(problem, source, target):
    return load_digit_net(ROOT / problem / "weights" / f"{source}_{target}.pth")


@cache
def embedded(data_dir, problem, source, target):
    """t-SNE points [N, 2], classes [N] and domains [N] (0 source, 1 target) of test images of both domains."""
    net = load_pair(problem, source, target)
    features, labels = [], []
    for domain in (source, target):
        x, y = load_labelled(data_dir, domain, "test")
        subset = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:SAMPLES]
        features.append(run_in_batches(net.features, x[subset]))
        labels.append(y[subset])
    return embed(torch.cat(features)), torch.cat(labels), [0] * len(labels[0]) + [1] * len(labels[1])


def draw_tsne(problem, source, target, colour, data_dir, path):
    points, classes, domains = embedded(data_dir, problem, source, target)
    title = f"{METHODS[problem]}, {TITLES[source]} → {TITLES[target]}: {colour}"
    if colour == "class":  # each digit is written on the medoid of the target's images of it
        of_target, written = np.array(domains) == 1, []
        for digit in classes[of_target].unique().tolist():
            own = points[of_target & (classes == digit).numpy()]
            distances = np.linalg.norm(own[:, None] - own, axis=2).sum(1)
            written.append((own[distances.argmin()], digit))
        figure = scatter(points, classes, list("0123456789"), plots.CLASS_COLOURS, title, written=written)
    else:
        names = [f"{TITLES[source]} (source)", f"{TITLES[target]} (target)"]
        figure = scatter(points, domains, names, plots.TWO_COLOURS, title)
    plots.save_figure(figure, path)


def draw_mistakes(problem, data_dir, path):
    """For each pair of domains the confusion matrix, and the mistakes in which the network is most confident."""
    figure = plt.figure(figsize=(plots.WIDTH, 3.9))  # places as fractions of it
    matrices = figure.add_gridspec(1, 3, left=0.05, right=0.99, bottom=0.44, top=0.94, wspace=0.16).subplots()
    pictures = figure.add_gridspec(2, 14, left=0.05, right=0.99, bottom=0.01, top=0.31, wspace=0.1).subplots()
    for axis in pictures.flat:  # a column between the pairs stays empty
        axis.axis("off")
    for pair, (target, source) in enumerate(SCENARIOS.items()):
        images, labels = load_labelled(data_dir, target, "test")
        confidence, predicted = run_in_batches(load_pair(problem, source, target), images).softmax(1).max(1)
        plots.draw_confusion(matrices[pair], labels, predicted)
        matrices[pair].set_title(f"{TITLES[source]} → {TITLES[target]}, {len(labels):,} images")
        wrong = (predicted != labels).nonzero().squeeze(1)
        for i, mistake in enumerate(wrong[confidence[wrong].argsort(descending=True)][:8]):
            axis = pictures[i // 4, 5 * pair + i % 4]
            plots.show_picture(axis, images[mistake].permute(1, 2, 0).numpy())
            axis.set_title(f"{labels[mistake]} → {predicted[mistake]}", fontsize=7, pad=2)
    matrices[0].set_ylabel("label")
    plots.save_figure(figure, path)


def draw_labelled(data_dir, path):
    """The first test images of each target with the label that AdaMatch gives them; a wrong one is red."""
    figure, axes = plt.subplots(3, 12, figsize=(plots.WIDTH, 2), layout="constrained")
    for row, (target, source) in zip(axes, SCENARIOS.items()):
        images, labels = (part[:len(row)] for part in load_labelled(data_dir, target, "test"))
        predicted = run_in_batches(load_pair("p4_uda", source, target), images).argmax(1)
        row[0].set_ylabel(f"{TITLES[source]} →\n{TITLES[target]}", rotation=0, ha="right", va="center")
        for axis, image, guess, label in zip(row, images, predicted.tolist(), labels.tolist()):
            plots.show_picture(axis, image.permute(1, 2, 0).numpy())
            axis.set_title(guess, color="black" if guess == label else "red", pad=2)
    plots.save_figure(figure, path)


def draw_logs(problem, column, label, data_dir, path):
    """A column of the logs of the shipped models of three pairs, and the target information."""
    logs = {f"{TITLES[source]} → {TITLES[target]}": pandas.read_csv(RESULTS / f"{problem}_{source}_{target}_log.csv")
            for target, source in SCENARIOS.items()}
    plots.save_figure(plots.draw_runs(logs, {column: label, "target_information": "target\ninformation, nats"}), path)


FIGURES = {"fig1_1": print_vae, "fig1_2": partial(draw_training, "p1_vae_log.csv", VAE_CURVES),
           "table1_3": partial(draw_reconstructions, "random"), "fig1_7": partial(draw_reconstructions, "worst"),
           "fig1_4": partial(draw_vae_grid, False), "fig1_4_without_flow": partial(draw_vae_grid, True),
           "fig1_5_male": partial(draw_vae_latents, "Male"),
           "fig1_5_blond": partial(draw_vae_latents, "Blond_Hair"), "fig1_8": draw_walks,
           "fig2_1": print_gan, "fig2_2": draw_gan_grid, "fig2_3": partial(draw_training, "p2_gan_log.csv", GAN_CURVES),
           "fig2_5": draw_neighbours, "fig2_6": draw_vae_and_gan}
FIGURES |= {f"{number}_{source}_{target}_{colour}": partial(draw_tsne, problem, source, target, colour)
            for number, problem in (("fig3_4", "p3_dann"), ("fig4_2", "p4_uda"))
            for target, source in SCENARIOS.items() for colour in ("class", "domain")}
FIGURES |= {"fig3_6": partial(draw_mistakes, "p3_dann"), "fig4_3": partial(draw_mistakes, "p4_uda")}
FIGURES |= {"fig3_7": partial(draw_logs, "p3", "domain_accuracy", "domain accuracy"),
            "fig4_4": partial(draw_logs, "p4", "keep_rate", "pseudo-labels kept"), "digits": draw_labelled}
FIGURES["tables"] = lambda data_dir, path: write_tables(path)
SUFFIXES = {"fig1_1": ".txt", "fig2_1": ".txt", "tables": ".tex"}  # of what is no picture


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="FIGURE", default=list(FIGURES),
                        help=", ".join(FIGURES))
    parser.add_argument("--output-dir", default=ROOT / "report" / "figures")
    args = parser.parse_args()
    missing = 0
    for name in args.only:
        path = Path(args.output_dir, name + SUFFIXES.get(name, ".png"))
        try:
            FIGURES[name](args.data_dir, path)
            print(f"wrote {path}", flush=True)
        except (SystemExit, OSError, ValueError, KeyError) as error:  # the other figures may need less; pandas' errors
            what = f"no column or row {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
            print(f"{name}: {what}", file=sys.stderr)
            missing += 1
    if missing:
        raise SystemExit(f"{missing} of {len(args.only)} not drawn")


if __name__ == "__main__":
    main()
