"""Train and score every row of problem 3's table: 3 scenarios x (source, dann, target) x seeds.

    python3 report/table.py --data-dir hw3_data            # 27 runs into runs/, goes on where it stopped
    python3 report/table.py --data-dir hw3_data --ship     # and make seed 0's DANN runs the shipped weights

All runs are trained first; then each is scored once on the target's test images with the commands that anyone else
would use, and the scores go into report/results/p3.csv. A run whose model.pth is there is not trained again.
"""
import argparse
import csv
import os
import shlex
import shutil
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, os.pardir)
sys.path.insert(0, ROOT)
from common.data import SCENARIOS
from common.evaluate import accuracy
from common.runtime import write_atomic, write_csv, write_text
from common.weights import sum_of

RESULTS = os.path.join(HERE, "results", "p3.csv")
MODES = {"source": "source only", "dann": "DANN", "target": "target only"}


def run(*command):
    print("$ python3", shlex.join(command), flush=True)
    subprocess.run([sys.executable, *command], check=True)


def train(data_dir, out_dir, row):
    """Train a row unless its model is there; returns the command without the paths of this machine."""
    source, target, mode, seed = row
    options = ["--source", source, "--target", target, "--mode", mode, "--seed", str(seed)]
    if not os.path.exists(os.path.join(out_dir, "model.pth")):
        resume = ["--resume"] if os.path.exists(os.path.join(out_dir, "checkpoint.pt")) else []
        run(os.path.join(ROOT, "p3_dann", "train.py"), "--data-dir", data_dir, "--out-dir", out_dir, *options, *resume)
    return shlex.join(["python3", "p3_dann/train.py", "--data-dir", "hw3_data", *options])


def score(data_dir, out_dir, target):
    """(correct, total) on the target's test images."""
    prediction, split = os.path.join(out_dir, "pred.csv"), os.path.join(data_dir, "digits", target, "test")
    run(os.path.join(ROOT, "p3_dann", "inference.py"), "--img-dir", split, "--target", target, "--output", prediction,
        "--weights", os.path.join(out_dir, "model.pth"))
    return accuracy(prediction, f"{split}.csv")


def ship(out_dirs):
    """Copy seed 0's DANN models into p3_dann/weights with their sums, and their logs into report/results."""
    folder, lines = os.path.join(ROOT, "p3_dann", "weights"), []
    for (source, target, mode, seed), out_dir in out_dirs.items():
        if (mode, seed) == ("dann", 0):
            name = f"{source}_{target}"
            for model, copy in (("model.pth", os.path.join(folder, f"{name}.pth")),
                                ("log.csv", os.path.join(HERE, "results", f"p3_{name}_log.csv"))):
                write_atomic(copy, lambda part: shutil.copyfile(os.path.join(out_dir, model), part))
            lines.append(f"{sum_of(os.path.join(folder, name + '.pth'))}  {name}.pth\n")
    write_text(os.path.join(folder, "SHA256SUMS"), "".join(lines))


def print_table(path):
    """The results file as a markdown table, mean ± standard deviation over the seeds in %."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    print("| |" + "".join(f" {source} → {target} |" for target, source in SCENARIOS.items()) + "\n|---|---|---|---|")
    for mode, title in MODES.items():
        cells = []
        for target in SCENARIOS:
            values = [float(r["accuracy"]) for r in rows if (r["target"], r["mode"]) == (target, mode)]
            deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f" {statistics.mean(values):.1f}{deviation} |")
        print(f"| {title} |" + "".join(cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--runs-dir", default="runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()

    rows = [(source, target, mode, seed) for seed in args.seeds for target, source in SCENARIOS.items() for mode in MODES]
    out_dirs = {row: os.path.join(args.runs_dir, "p3_{}_{}_{}_{}".format(*row)) for row in rows}
    commands = {row: train(args.data_dir, out_dirs[row], row) for row in rows}
    results = []
    for row in rows:
        correct, total = score(args.data_dir, out_dirs[row], row[1])
        with open(os.path.join(out_dirs[row], "log.csv"), newline="") as file:
            seconds = sum(float(epoch["seconds"]) for epoch in csv.DictReader(file))
        results.append((*row, correct, total, f"{100 * correct / total:.2f}", round(seconds), commands[row]))
    header = ("source", "target", "mode", "seed", "correct", "total", "accuracy", "train_seconds", "command")
    write_csv(RESULTS, header, results)
    print_table(RESULTS)
    if args.ship:
        ship(out_dirs)


if __name__ == "__main__":
    main()
