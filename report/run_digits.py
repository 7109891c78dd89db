"""Train and score every row of a table of problem 3 or 4.

    python3 report/run_digits.py p3 --data-dir hw3_data            # 27 runs into runs/; resumes where it stopped
    python3 report/run_digits.py p4 --data-dir hw3_data            # 27 runs; prints problem 3's rows above its own
    python3 report/run_digits.py p4_ablation --data-dir hw3_data --seeds 0
    python3 report/run_digits.py p3 --data-dir hw3_data --ship     # and ship seed 0's DANN models (p4: AdaMatch)

All runs are trained first. Then each is scored once on the target's test images, with the commands that anyone else
would use. The scores go into report/results/TABLE.csv.
"""
import csv
import os
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.data import SCENARIOS
from common.evaluate import accuracy
from common.files import write_csv
from common.runtime import LARGEST_SEED, at_least, say
from report.runs import RESULTS, ROOT, make_parser, read_log, run, ship, train, train_seconds

SHORT = ["--epochs", "5"]  # a fifth of the length
PARTS = {"align": "distribution alignment", "relative": "relative threshold",
         "interpolation": "random logit interpolation", "balance": "class-balanced source"}
ABLATION = {"full": ("the method", SHORT)}
ABLATION |= {f"no_{part}": (f"− {title}", [*SHORT, "--without", part]) for part, title in PARTS.items()}
ABLATION["fixmatch"] = "− all four (FixMatch)", [*SHORT, "--without", *PARTS]

# table -> {row: (title, the options of train.py beside --source, --target and --seed)}
TABLES = {
    "p3": {"source": ("source only", ["--mode", "source"]), "dann": ("DANN", ["--mode", "dann"]),
           "target": ("target only", ["--mode", "target"])},
    "p4": {"source": ("source only, augmented as AdaMatch", ["--mode", "source"]),
           "uda": ("AdaMatch", []),
           "target": ("target only, augmented as AdaMatch", ["--mode", "target"])},
    "p4_ablation": ABLATION,
}
FOLDERS = {"p3": "p3_dann", "p4": "p4_uda", "p4_ablation": "p4_uda"}
TARGETS = {"p3": list(SCENARIOS), "p4": list(SCENARIOS), "p4_ablation": ["svhn"]}  # svhn: the hardest pair
SHIPPED = {"p3": "dann", "p4": "uda"}


def score(table, data_dir, out_dir, target):
    """(correct, total) on the target's test images."""
    prediction, split = os.path.join(out_dir, "pred.csv"), os.path.join(data_dir, "digits", target, "test")
    run(os.path.join(ROOT, FOLDERS[table], "inference.py"), "--img-dir", split, "--target", target,
        "--output", prediction, "--weights", os.path.join(out_dir, "model.pth"))
    return accuracy(prediction, f"{split}.csv")


def table_rows(table):
    """[title, cell, ...] for each row of a table, from its results file: mean ± standard deviation over seeds in %."""
    with open(os.path.join(RESULTS, f"{table}.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    for mode, (title, _) in TABLES[table].items():
        cells = [title]
        for target in SCENARIOS:
            values = [float(r["accuracy"]) for r in rows if (r["target"], r["mode"]) == (target, mode)]
            deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{deviation}" if values else "")
        yield cells


def print_table(table):
    header = "| |" + "".join(f" {source} → {target} |" for target, source in SCENARIOS.items())
    lines = [header, "|---" * (len(SCENARIOS) + 1) + "|"]
    for shown in {"p4": ["p3", "p4"]}.get(table, [table]):
        lines += [f"| {' | '.join(cells)} |" for cells in table_rows(shown)]
    say("\n".join(lines))


def main():
    parser = make_parser(__doc__, TABLES)
    parser.add_argument("--seeds", type=at_least(0, most=LARGEST_SEED), nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    if args.ship and (args.table not in SHIPPED or 0 not in args.seeds):
        parser.error("--ship needs table p3 or p4 with seed 0")

    table = args.table
    rows = [(SCENARIOS[target], target, mode, seed)
            for seed in args.seeds for target in TARGETS[table] for mode in TABLES[table]]
    for target in TARGETS[table]:  # before hours of training
        truth = os.path.join(args.data_dir, "digits", target, "test.csv")
        if not os.path.exists(truth):
            raise SystemExit(f"no {truth}, which the scores need")
    out_dirs = {row: os.path.join(args.runs_dir, "_".join([table[:2], *map(str, row)])) for row in rows}
    commands = {}
    for row in rows:
        source, target, mode, seed = row
        options = ["--source", source, "--target", target, *TABLES[table][mode][1], "--seed", str(seed)]
        commands[row] = train(os.path.join(FOLDERS[table], "train.py"), options, args.data_dir, out_dirs[row])
    results = []
    for row in rows:
        correct, total = score(table, args.data_dir, out_dirs[row], row[1])
        log = read_log(out_dirs[row])
        information = log[-1].get("target_information", "")[:5]
        results.append((*row, correct, total, f"{100 * correct / total:.2f}", information, train_seconds(log),
                        commands[row]))
    header = ("source", "target", "mode", "seed", "correct", "total", "accuracy", "target_information",
              "train_seconds", "command")
    write_csv(os.path.join(RESULTS, f"{table}.csv"), header, results)
    if args.ship:
        ship(FOLDERS[table], {f"{source}_{target}": out_dirs[source, target, mode, seed]
                              for source, target, mode, seed in rows if (mode, seed) == (SHIPPED[table], 0)})
    print_table(table)


if __name__ == "__main__":
    main()
