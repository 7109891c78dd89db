"""Train and score every row of the table of problem 1 or 2, into report/results/p1.csv or p2.csv.

    python3 report/run_faces.py p1 --data-dir hw3_data          # trains what is not in runs/ yet; resumes
    python3 report/run_faces.py p1 --data-dir hw3_data --only shipped --ship     # and ship the row `shipped`

fd_efflite, precision, recall: report/fd_efflite.py, of 5,000 generated faces to the first 5,000 training faces.
fd_test: the same distance to the test faces; there are fewer, so it is larger and compares only within its column.
Of a VAE also fd_normal, of 5,000 faces decoded from N(0, I) without the flow; of the test faces' reconstructions from
the posterior's mean fd_reconstructed (2,621 faces, which adds some points) and test_mse, the mean squared error per
value, images on [0, 1]; kl, in nats per image, of the log's last epoch; flow_seconds, of the second stage, which
train_seconds leaves out. The VAEs of the sweep over lambda are shorter and narrower than the shipped one.
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
from report.fd_efflite import features, frechet, precision_and_recall
from report.runs import RESULTS, ROOT, copy, make_parser, read_log, run, ship, train, train_seconds

import numpy as np
from PIL import Image

COUNT = 5000  # faces of either kind
SHORT = ["--epochs", "3", "--flow-epochs", "5", "--width", "16"]
VAES = {f"lambda_{weight}": ["--kl-weight", weight, *SHORT] for weight in ("3e-7", "1e-6", "3e-6", "1e-5")}
VAES["shipped"] = []
GANS = {"dcgan": ["--model", "dcgan"], "shipped": []}
PROBLEMS = {"p1": ("p1_vae", VAES), "p2": ("p2_gan", GANS)}


def generate(inference, folder, *options):
    """Let the command `inference` draw the faces into `folder`; their features [N, D]."""
    run(*inference, "--num-images", str(COUNT), "--output-dir", folder, *options)
    return features(folder, list_images(folder))


def vae_columns(inference, data_dir, out_dir, last, real):
    """A VAE's own columns, from the test faces, the log's last row and the features [N, D] of training faces."""
    reconstructed, test = os.path.join(out_dir, "reconstructed"), os.path.join(data_dir, "face", "test")
    run(*inference, "--reconstruct", test, "--output-dir", reconstructed)
    normal = generate(inference, os.path.join(out_dir, "normal"), "--without-flow")
    with open(os.path.join(reconstructed, "mse.csv"), newline="") as file:
        mse = statistics.mean(float(row["mse"]) for row in csv.DictReader(file))
    with open(os.path.join(out_dir, "config.json")) as file:
        weight = json.load(file)["kl_weight"]
    return {"kl_weight": f"{weight:g}", "test_mse": f"{mse:.5f}", "kl": f"{float(last['kl']):.0f}",
            "dimensions_in_use": last["dimensions_in_use"], "fd_normal": f"{frechet(real, normal):.1f}",
            "fd_reconstructed": f"{frechet(real, features(reconstructed, list_images(test))):.1f}",
            "flow_seconds": train_seconds(read_log(os.path.join(out_dir, "flow")))}


def gan_columns(inference, data_dir, out_dir, last, real):
    """A GAN's own columns, from the log's last row."""
    return {"steps": last["step"], **{key: f"{float(last[key]):.2f}" for key in ("accuracy_real", "accuracy_fake")}}


def measures(generated, real, test):
    """The columns of all rows, from the features [N, D] of generated, training and test faces."""
    precision, recall = precision_and_recall(real, generated)
    return {"fd_efflite": f"{frechet(real, generated):.1f}", "fd_test": f"{frechet(test, generated):.1f}",
            "precision": f"{precision:.3f}", "recall": f"{recall:.3f}"}


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
    test = os.path.join(args.data_dir, "face", "test")
    real, test = features(faces, images[:COUNT]), features(test, list_images(test))
    out_dirs = {name: os.path.join(args.runs_dir, f"{args.table}_{name}") for name in names}
    commands = {name: train(os.path.join(folder, "train.py"), rows[name], args.data_dir, out_dirs[name])
                for name in names}
    others = features(faces, images[COUNT:2 * COUNT])
    results = [{"row": "real faces", **measures(others, real, test)}]
    for name, command in commands.items():
        log = read_log(out_dirs[name])
        inference = [os.path.join(ROOT, folder, "inference.py"),
                     "--weights", os.path.join(out_dirs[name], "model.pth")]
        generated = generate(inference, os.path.join(out_dirs[name], "generated"))
        results.append({"row": name, **COLUMNS[args.table](inference, args.data_dir, out_dirs[name], log[-1], real),
                        **measures(generated, real, test), "train_seconds": train_seconds(log), "command": command})
    header = list(results[-1])
    write_csv(os.path.join(RESULTS, f"{args.table}.csv"), header,
              [[row.get(key, "") for key in header] for row in results])
    if args.ship:
        ship(folder, {folder.split("_")[1]: out_dirs["shipped"]})
        if args.table == "p1":
            copy(os.path.join(out_dirs["shipped"], "flow", "log.csv"), os.path.join(RESULTS, "p1_vae_flow_log.csv"))
        else:
            write_progress(out_dirs["shipped"], len(read_log(out_dirs["shipped"])))


if __name__ == "__main__":
    main()
