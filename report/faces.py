"""Train and score the face models of problem 1, a row a run, into report/results/p1.csv.

    python3 report/faces.py --data-dir hw3_data             # trains what is not in runs/ yet, goes on where it stopped
    python3 report/faces.py --data-dir hw3_data --ship      # and make the row `shipped` the shipped weights

test_mse is the mean squared error of the reconstructed test faces, per value, images on [0, 1], from the posterior's mean; fd_efflite
the Fréchet distance (report/frechet.py) of 5,000 faces from N(0, I) to the first 5,000 training faces; kl is in nats per image,
from the log's last epoch. The runs of the sweep over lambda, and of what leaves a part out, are shorter and narrower than the shipped one.
"""
import argparse
import csv
import json
import os
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, os.pardir)
sys.path.insert(0, ROOT)
from common.data import list_images
from common.runtime import write_csv
from report.frechet import features, frechet
from report.table import RESULTS, read_log, run, ship, train

COUNT = 5000  # faces of either kind
SHORT = ["--epochs", "6", "--width", "16"]
ROWS = {f"lambda_{weight}": ["--kl-weight", weight, *SHORT] for weight in ("1e-6", "3e-6", "1e-5", "3e-5", "1e-4")}
ROWS |= {"no_warm_up": ["--kl-weight", "1e-5", *SHORT, "--warm-up", "0"],
         "plain": ["--kl-weight", "1e-5", *SHORT[:2], "--width", "32", "--model", "plain"],
         "shipped": []}


def score(data_dir, out_dir, real):
    """(test MSE, FD-EffLite to features `real`) of a run's model, by the commands that anyone else would use."""
    inference = [os.path.join(ROOT, "p1_vae", "inference.py"), "--weights", os.path.join(out_dir, "model.pth")]
    reconstructed, generated = os.path.join(out_dir, "reconstructed"), os.path.join(out_dir, "generated")
    run(*inference, "--reconstruct", os.path.join(data_dir, "face", "test"), "--output-dir", reconstructed)
    run(*inference, "--num-images", str(COUNT), "--output-dir", generated)
    with open(os.path.join(reconstructed, "mse.csv"), newline="") as file:
        mse = statistics.mean(float(row["mse"]) for row in csv.DictReader(file))
    return mse, frechet(real, features(generated, list_images(generated)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--runs-dir", default="runs")
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", default=list(ROWS), help=", ".join(ROWS))
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    if args.ship and "shipped" not in args.only:
        parser.error("--ship needs the row `shipped`")

    faces = os.path.join(args.data_dir, "face", "train")
    names = list_images(faces)
    real = features(faces, names[:COUNT])
    out_dirs = {name: os.path.join(args.runs_dir, f"p1_{name}") for name in args.only}
    commands = {name: train(os.path.join("p1_vae", "train.py"), ROWS[name], args.data_dir, out_dirs[name]) for name in args.only}
    results = [("real faces", "", "", "", "", f"{frechet(real, features(faces, names[COUNT:2 * COUNT])):.1f}", "", "")]
    for name, command in commands.items():
        mse, distance = score(args.data_dir, out_dirs[name], real)
        log = read_log(out_dirs[name])
        with open(os.path.join(out_dirs[name], "config.json")) as file:
            weight = json.load(file)["kl_weight"]
        results.append((name, f"{weight:g}", f"{mse:.5f}", f"{float(log[-1]['kl']):.0f}", log[-1]["dimensions_in_use"],
                        f"{distance:.1f}", round(sum(float(epoch["seconds"]) for epoch in log)), command))
    header = ("row", "kl_weight", "test_mse", "kl", "dimensions_in_use", "fd_efflite", "train_seconds", "command")
    write_csv(os.path.join(RESULTS, "p1.csv"), header, results)
    if args.ship:
        ship("p1_vae", {"vae": out_dirs["shipped"]})


if __name__ == "__main__":
    main()
