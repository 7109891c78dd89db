"""Train and score every row of the table of problem 1 or 2, into report/results/p1.csv or p2.csv.

    python3 report/run_faces.py p1 --data-dir hw3_data          # trains what is not in runs/ yet; resumes
    python3 report/run_faces.py p1 --data-dir hw3_data --only shipped --ship     # and ship the row `shipped`
    python3 report/run_faces.py p1_sampling --data-dir hw3_data     # the shipped VAE's ways to draw; nothing is trained
    python3 report/run_faces.py p2_truncation --data-dir hw3_data   # the shipped GAN's latents times 0.6 to 1.4

fd_efflite, precision, recall: report/fd_efflite.py, of 5,000 generated faces to the first 5,000 training faces.
fd_test: the same distance to the test faces; there are fewer, so it is larger and compares only within its column.
nearer_to_training: of how many generated faces the nearest, among as many training as test faces and by the same
features, is a training face: 0.5 where none of these is copied.
Of a VAE also fd_normal, of 5,000 faces decoded from N(0, I) without the flow; of the test faces' reconstructions from
the posterior's mean fd_reconstructed (2,621 faces, which adds some points) and test_mse, the mean squared error per
value, images on [0, 1]; kl, in nats per image, of the log's last epoch; flow_seconds, of the second stage, which
train_seconds leaves out. The VAEs of the sweep over lambda are shorter and narrower than the shipped one; `plain` has
its length and width, but a larger lambda and no flow; `repeated` is the same command, run again. The GANs `width_16`
and `width_32` are earlier ones; `width_16` is the command without options.
"""
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data import list_images
from common.pictures import save_picture
from p1_vae import inference as p1_inference
from p1_vae import train as p1
from p2_gan import inference as p2_inference
from p2_gan import train as p2
from report.fd_efflite import features, frechet, precision_and_recall
from report.runs import RESULTS, copy, make_parser, read_log, ship, train, write_results

COUNT = 5000  # faces of either kind
SHORT = ["--epochs", "3", "--flow-epochs", "5", "--width", "16"]
VAES = {f"lambda_{weight}": ["--kl-weight", weight, *SHORT] for weight in ("3e-7", "1e-6", "3e-6", "1e-5")}
VAES |= {"plain": ["--kl-weight", "1e-5", "--flow-epochs", "0"], "shipped": [], "repeated": []}
WIDE = ["--width", "32", "--batch-size", "128"]
GANS = {"dcgan": ["--model", "dcgan"], "width_16": [], "width_32": [*WIDE, "--epochs", "129"],
        "shipped": [*WIDE, "--epochs", "94", "--warm-up", "1000", "--lr-end", "2e-4", "--r1-end", "0.05",
                    "--shifted", "0.2"]}
PROBLEMS = {"p1": (p1, p1_inference, VAES), "p2": (p2, p2_inference, GANS)}
# of the shipped models: row -> the options of inference.py
WAYS = {"p1_sampling": {"N(0, I)": ["--without-flow"], "Gaussian": ["--guidance", "0"], "flow": ["--guidance", "1"],
                        "flow with guidance": []},
        "p2_truncation": {f"{t:g}": ["--truncation", f"{t:g}"] for t in (0.6, 0.8, 1, 1.2, 1.4)}}


def generate(inference, folder, *options):
    """Let a model draw the faces into a folder; their features [N, D]."""
    inference.main(["--num-images", str(COUNT), "--output-dir", str(folder), *options])
    return features(folder, list_images(folder))


def vae_columns(data_dir, out_dir, last, real):
    """A VAE's own columns, from the test faces, the log's last row and the features [N, D] of training faces."""
    reconstructed, test = Path(out_dir, "reconstructed"), Path(data_dir, "face", "test")
    weights = ["--weights", str(Path(out_dir, "model.pth"))]
    p1_inference.main([*weights, "--reconstruct", str(test), "--output-dir", str(reconstructed)])
    mse = pandas.read_csv(reconstructed / "mse.csv")["mse"].mean()
    weight = json.loads(Path(out_dir, "config.json").read_text())["kl_weight"]
    normal, flow = generate(p1_inference, Path(out_dir, "normal"), *weights, "--without-flow"), Path(out_dir, "flow")
    return {"kl_weight": f"{weight:g}", "test_mse": f"{mse:.5f}", "kl": f"{last['kl']:.0f}",
            "dimensions_in_use": int(last["dimensions_in_use"]), "fd_normal": f"{frechet(real, normal):.1f}",
            "fd_reconstructed": f"{frechet(real, features(reconstructed, list_images(test))):.1f}",
            "flow_seconds": round(read_log(flow)["seconds"].sum()) if flow.exists() else ""}


def gan_columns(data_dir, out_dir, last, real):
    """A GAN's own columns, from the log's last row."""
    return {"steps": int(last["step"]), **{key: f"{last[key]:.2f}" for key in ("accuracy_real", "accuracy_fake")}}


def measures(generated, real, test):
    """The columns of all rows, from the features [N, D] of generated, training and test faces."""
    precision, recall = precision_and_recall(real, generated)
    nearest = torch.cdist(generated, torch.cat([real[:len(test)], test])).argmin(1)
    return {"fd_efflite": f"{frechet(real, generated):.1f}", "fd_test": f"{frechet(test, generated):.1f}",
            "precision": f"{precision:.3f}", "recall": f"{recall:.3f}",
            "nearer_to_training": f"{(nearest < len(test)).double().mean():.3f}"}


COLUMNS = {"p1": vae_columns, "p2": gan_columns}


def shown_epochs(epochs):
    """1, 2, 4 and so on, and the last."""
    return [2 ** i for i in range((epochs - 1).bit_length())] + [epochs]


def write_progress(out_dir, epochs):
    """The first line of a GAN's sample grids after some of its epochs, stacked, into report/results/p2_progress.png."""
    grids = [np.asarray(Image.open(Path(out_dir, f"samples_{epoch:03d}.png"))) for epoch in shown_epochs(epochs)]
    save_picture(RESULTS / "p2_progress.png", np.concatenate([grid[2:68] for grid in grids]))  # without upper margins


def main():
    parser = make_parser(__doc__, [*PROBLEMS, *WAYS])
    rows_help = "; ".join(f"{problem}: {', '.join(rows)}" for problem, (_, _, rows) in PROBLEMS.items())
    parser.add_argument("--only", nargs="+", metavar="ROW", help=rows_help)
    args = parser.parse_args()
    table = args.table
    trainer, inference, rows = PROBLEMS[table[:2]]
    names = args.only or list(rows)
    if set(names) - rows.keys():
        parser.error(f"{table} has the rows {', '.join(rows)}")
    if table in WAYS and (args.only or args.ship):
        parser.error(f"{table} has neither --only nor --ship")
    if args.ship and "shipped" not in names:
        parser.error("--ship needs the row `shipped`")

    faces, tests = Path(args.data_dir, "face", "train"), Path(args.data_dir, "face", "test")
    images = list_images(faces)
    if len(images) < 2 * COUNT:  # before hours of training
        raise SystemExit(f"{faces} has {len(images)} images; the distance needs {2 * COUNT}")
    real, others = features(faces, images[:COUNT]), features(faces, images[COUNT:2 * COUNT])
    test = features(tests, list_images(tests))
    if table in WAYS:
        write_results(table, [
            {"row": row, **measures(generate(inference, Path(args.runs_dir, table, row), *options), real, test),
             "command": shlex.join(["python3", f"{inference.__name__.replace('.', '/')}.py", "--num-images", str(COUNT),
                                    "--output-dir", "DIR", *options])}
            for row, options in WAYS[table].items()], ["row"])
        return
    out_dirs = {name: Path(args.runs_dir, f"{table}_{name}") for name in names}
    commands = {name: train(trainer, rows[name], args.data_dir, out_dirs[name]) for name in names}
    if "plain" in names:  # what the assignment asks for in its plainest form: N(0, I), decoded
        inference.main(["--weights", str(out_dirs["plain"] / "model.pth"), "--output", str(RESULTS / "p1_plain.png")])
    results = [{"row": "real faces", **measures(others, real, test)}]
    for name, command in commands.items():
        log = read_log(out_dirs[name])
        columns = COLUMNS[table](args.data_dir, out_dirs[name], log.iloc[-1], real)
        generated = generate(inference, out_dirs[name] / "generated", "--weights", str(out_dirs[name] / "model.pth"))
        results.append({"row": name, **columns, **measures(generated, real, test),
                        "train_seconds": round(log["seconds"].sum()), "command": command})
    write_results(table, results, ["row"])
    if args.ship:
        ship(Path(trainer.__file__).parent.name, {Path(trainer.__file__).parent.name[3:]: out_dirs["shipped"]})
        if table == "p1":
            copy(out_dirs["shipped"] / "flow" / "log.csv", RESULTS / "p1_vae_flow_log.csv")
        else:
            write_progress(out_dirs["shipped"], len(read_log(out_dirs["shipped"])))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("interrupted: the same command continues")
