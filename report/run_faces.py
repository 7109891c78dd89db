"""Train and score every row of the table of problem 1 or 2, into report/results/p1.csv or p2.csv.

    python3 report/run_faces.py p1 --data-dir hw3_data          # trains what is not in runs/ yet; resumes
    python3 report/run_faces.py p1 --data-dir hw3_data --only shipped --ship     # and ship the row `shipped`

fd_efflite: the Fréchet distance (report/fd_efflite.py) of 5,000 faces from N(0, I) to the first 5,000 training faces.
test_mse: the mean squared error of the test faces' reconstructions from the posterior's mean, per value, images on
[0, 1]. kl: in nats per image, of the log's last epoch. The VAEs of the sweep over lambda, and those that leave a part
out, are shorter and narrower than the shipped one; `long_3e-7` is as long.
"""
import csv
import json
import os
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.data import list_images
from common.files import write_csv
from common.pictures import MARGIN, save_picture
from report.fd_efflite import features, frechet
from report.runs import RESULTS, ROOT, make_parser, read_log, run, ship, train, train_seconds

import numpy as np
from PIL import Image

COUNT = 5000  # faces of either kind
SHORT = ["--epochs", "6", "--width", "16"]
VAES = {f"lambda_{weight}": ["--kl-weight", weight, *SHORT] for weight in ("1e-6", "3e-6", "1e-5", "3e-5", "1e-4")}
VAES |= {"no_warm_up": ["--kl-weight", "1e-5", *SHORT, "--warm-up", "0"],
         "plain": ["--kl-weight", "1e-5", *SHORT[:2], "--width", "32", "--model", "plain"],
         "long_3e-7": ["--kl-weight", "3e-7"],
         "shipped": []}
GANS = {"dcgan": ["--model", "dcgan"], "shipped": []}
PROBLEMS = {"p1": ("p1_vae", VAES), "p2": ("p2_gan", GANS)}


def vae_columns(inference, data_dir, out_dir, last):
    """A VAE's columns beside the distance, from the test faces and the log's last row."""
    reconstructed = os.path.join(out_dir, "reconstructed")
    run(*inference, "--reconstruct", os.path.join(data_dir, "face", "test"), "--output-dir", reconstructed)
    with open(os.path.join(reconstructed, "mse.csv"), newline="") as file:
        mse = statistics.mean(float(row["mse"]) for row in csv.DictReader(file))
    with open(os.path.join(out_dir, "config.json")) as file:
        weight = json.load(file)["kl_weight"]
    return {"kl_weight": f"{weight:g}", "test_mse": f"{mse:.5f}", "kl": f"{float(last['kl']):.0f}",
            "dimensions_in_use": last["dimensions_in_use"]}


def gan_columns(inference, data_dir, out_dir, last):
    """A GAN's columns beside the distance, from the log's last row."""
    return {"steps": last["step"], **{key: f"{float(last[key]):.2f}" for key in ("accuracy_real", "accuracy_fake")}}


COLUMNS = {"p1": vae_columns, "p2": gan_columns}


def shown_epochs(epochs):
    """1, 2, 4, ... and the last."""
    return [2 ** i for i in range((epochs - 1).bit_length())] + [epochs]


def write_progress(out_dir, epochs):
    """The first line of a GAN's sample grids after some of its epochs, stacked, into report/results/p2_progress.png."""
    grids = [np.asarray(Image.open(os.path.join(out_dir, f"samples_{epoch:03d}.png")))
             for epoch in shown_epochs(epochs)]
    lines = [grid[MARGIN:MARGIN + 64 + MARGIN] for grid in grids]
    save_picture(os.path.join(RESULTS, "p2_progress.png"), np.concatenate(lines))


def main():
    parser = make_parser(__doc__, PROBLEMS)
    rows_help = "; ".join(f"{problem}: {', '.join(rows)}" for problem, (_, rows) in PROBLEMS.items())
    parser.add_argument("--only", nargs="+", metavar="ROW", help=rows_help)
    args = parser.parse_args()
    folder, rows = PROBLEMS[args.table]
    names = args.only or list(rows)
    if set(names) - rows.keys():
        parser.error(f"{args.table} has the rows {', '.join(rows)}")
    if args.ship and "shipped" not in names:
        parser.error("--ship needs the row `shipped`")

    faces = os.path.join(args.data_dir, "face", "train")
    images = list_images(faces)
    if len(images) < 2 * COUNT:  # before hours of training
        raise SystemExit(f"{faces} has {len(images)} images; the distance needs {2 * COUNT}")
    if args.table == "p1":
        list_images(os.path.join(args.data_dir, "face", "test"))
    real = features(faces, images[:COUNT])
    out_dirs = {name: os.path.join(args.runs_dir, f"{args.table}_{name}") for name in names}
    commands = {name: train(os.path.join(folder, "train.py"), rows[name], args.data_dir, out_dirs[name])
                for name in names}
    others = features(faces, images[COUNT:2 * COUNT])
    results = [{"row": "real faces", "fd_efflite": f"{frechet(real, others):.1f}"}]
    for name, command in commands.items():
        log, generated = read_log(out_dirs[name]), os.path.join(out_dirs[name], "generated")
        inference = [os.path.join(ROOT, folder, "inference.py"),
                     "--weights", os.path.join(out_dirs[name], "model.pth")]
        columns = COLUMNS[args.table](inference, args.data_dir, out_dirs[name], log[-1])
        run(*inference, "--num-images", str(COUNT), "--output-dir", generated)
        distance = frechet(real, features(generated, list_images(generated)))
        results.append({"row": name, **columns, "fd_efflite": f"{distance:.1f}", "train_seconds": train_seconds(log),
                        "command": command})
    header = list(results[-1])
    write_csv(os.path.join(RESULTS, f"{args.table}.csv"), header,
              [[row.get(key, "") for key in header] for row in results])
    if args.ship:
        ship(folder, {folder.split("_")[1]: out_dirs["shipped"]})
        if args.table == "p2":
            write_progress(out_dirs["shipped"], len(read_log(out_dirs["shipped"])))


if __name__ == "__main__":
    main()
