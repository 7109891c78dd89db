"""Train and score every row of a table of problem 3 or 4.

    python3 report/table.py p3 --data-dir hw3_data            # 27 runs into runs/, goes on where it stopped
    python3 report/table.py p4 --data-dir hw3_data            # 18 runs; the printed table begins with problem 3's rows
    python3 report/table.py p4_ablation --data-dir hw3_data --seeds 0
    python3 report/table.py p3 --data-dir hw3_data --ship     # and make seed 0's DANN (p4: AdaMatch) runs the shipped weights

All runs are trained first; then each is scored once on the target's test images with the commands that anyone else
would use, and the scores go into report/results/TABLE.csv. A run whose model.pth is there is not trained again.
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

RESULTS = os.path.join(HERE, "results")
SHORT = ["--epochs", "5"]  # a third of the length
PARTS = {"align": "distribution alignment", "relative": "relative threshold", "interpolation": "random logit interpolation", "balance": "class-balanced source"}
ABLATION = {"full": ("the method", SHORT)}
ABLATION |= {f"no_{part}": (f"− {title}", [*SHORT, "--without", part]) for part, title in PARTS.items()}
ABLATION["fixmatch"] = "− all four (FixMatch)", [*SHORT, "--without", *PARTS]

# table -> {row: (title, the options of train.py beside --source, --target and --seed)}
TABLES = {
    "p3": {"source": ("source only", ["--mode", "source"]), "dann": ("DANN", ["--mode", "dann"]),
           "target": ("target only", ["--mode", "target"])},
    "p4": {"source": ("source only, problem 4's augmentation", ["--mode", "source"]), "uda": ("AdaMatch", [])},
    "p4_ablation": ABLATION,
}
FOLDERS = {"p3": "p3_dann", "p4": "p4_uda", "p4_ablation": "p4_uda"}
TARGETS = {"p3": list(SCENARIOS), "p4": list(SCENARIOS), "p4_ablation": ["svhn"]}  # the hardest pair
SHIPPED = {"p3": "dann", "p4": "uda"}


def run(*command):
    print("$ python3", shlex.join(command), flush=True)
    subprocess.run([sys.executable, *command], check=True)


def train(script, options, data_dir, out_dir):
    """Train a run unless its model is there; returns the command without the paths of this machine."""
    if not os.path.exists(os.path.join(out_dir, "model.pth")):
        resume = ["--resume"] if os.path.exists(os.path.join(out_dir, "checkpoint.pt")) else []
        run(os.path.join(ROOT, script), "--data-dir", data_dir, "--out-dir", out_dir, *options, *resume)
    return shlex.join(["python3", script, "--data-dir", "hw3_data", *options])


def read_log(out_dir):
    with open(os.path.join(out_dir, "log.csv"), newline="") as file:
        return list(csv.DictReader(file))


def score(table, data_dir, out_dir, target):
    """(correct, total) on the target's test images."""
    prediction, split = os.path.join(out_dir, "pred.csv"), os.path.join(data_dir, "digits", target, "test")
    run(os.path.join(ROOT, FOLDERS[table], "inference.py"), "--img-dir", split, "--target", target, "--output", prediction,
        "--weights", os.path.join(out_dir, "model.pth"))
    return accuracy(prediction, f"{split}.csv")


def ship(problem, out_dirs):
    """Copy the models of the runs {name: folder} into the problem's weights folder with their sums, and their logs into report/results."""
    folder = os.path.join(ROOT, problem, "weights")
    os.makedirs(folder, exist_ok=True)
    lines = []
    for name, out_dir in out_dirs.items():
        model = os.path.join(folder, f"{name}.pth")
        for source, copy in (("model.pth", model), ("log.csv", os.path.join(RESULTS, f"{problem[:2]}_{name}_log.csv"))):
            write_atomic(copy, lambda part: shutil.copyfile(os.path.join(out_dir, source), part))
        lines.append(f"{sum_of(model)}  {name}.pth\n")
    write_text(os.path.join(folder, "SHA256SUMS"), "".join(lines))


def table_rows(table):
    """[title, cell, ...] for each row of a table, from its results file: mean ± standard deviation over the seeds in %."""
    with open(os.path.join(RESULTS, f"{table}.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    for mode, (title, _) in TABLES[table].items():
        cells = [title]
        for target in SCENARIOS:
            values = [float(r["accuracy"]) for r in rows if (r["target"], r["mode"]) == (target, mode)]
            deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{deviation}" if values else "")
        yield cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--runs-dir", default="runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    if args.ship and (args.table not in SHIPPED or 0 not in args.seeds):
        parser.error("--ship needs table p3 or p4 with seed 0")

    table = args.table
    rows = [(SCENARIOS[target], target, mode, seed) for seed in args.seeds for target in TARGETS[table] for mode in TABLES[table]]
    out_dirs = {row: os.path.join(args.runs_dir, "_".join([table[:2], *map(str, row)])) for row in rows}
    commands = {}
    for source, target, mode, seed in rows:
        options = ["--source", source, "--target", target, *TABLES[table][mode][1], "--seed", str(seed)]
        row = source, target, mode, seed
        commands[row] = train(os.path.join(FOLDERS[table], "train.py"), options, args.data_dir, out_dirs[row])
    results = []
    for row in rows:
        correct, total = score(table, args.data_dir, out_dirs[row], row[1])
        log = read_log(out_dirs[row])
        seconds, information = sum(float(epoch["seconds"]) for epoch in log), log[-1].get("target_information", "")
        results.append((*row, correct, total, f"{100 * correct / total:.2f}", information[:5], round(seconds), commands[row]))
    header = ("source", "target", "mode", "seed", "correct", "total", "accuracy", "target_information", "train_seconds", "command")
    write_csv(os.path.join(RESULTS, f"{table}.csv"), header, results)
    print("| |" + "".join(f" {source} → {target} |" for target, source in SCENARIOS.items()) + "\n|---|---|---|---|")
    for shown in {"p4": ["p3", "p4"]}.get(table, [table]):
        for cells in table_rows(shown):
            print("|", " | ".join(cells), "|")
    if args.ship:
        ship(FOLDERS[table], {f"{source}_{target}": out_dirs[source, target, mode, seed]
                              for source, target, mode, seed in rows if (mode, seed) == (SHIPPED[table], 0)})


if __name__ == "__main__":
    main()
