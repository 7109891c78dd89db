"""Train and score every row of a table of problem 3 or 4.

    python3 report/run_digits.py p3 --data-dir hw3_data            # 27 runs into runs/; resumes where it stopped
    python3 report/run_digits.py p4 --data-dir hw3_data            # 27 runs
    python3 report/run_digits.py p4_ablation --data-dir hw3_data   # 18 short runs
    python3 report/run_digits.py p3 --data-dir hw3_data --ship     # and ship seed 0's DANN models (p4: AdaMatch)

All runs are trained first. Then each is scored once on the target's test images, as inference.py and common.evaluate
do. The scores go into report/results/TABLE.csv; rows of other seeds stay.
"""
import sys
from pathlib import Path

import pandas

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data import SCENARIOS, read_labels
from common.evaluate import accuracy
from common.predict import load_digit_net, predict_folder
from common.training import at_least
from p3_dann import train as p3
from p4_uda import train as p4
from report.runs import RESULTS, make_parser, read_log, ship, train, write_results

SHORT = ["--epochs", "5"]  # a fifth of the length
PARTS = {"align": "distribution alignment", "relative": "relative threshold",
         "balance": "class-balanced source", "alone": "target alone at the end"}
ABLATION = {"full": ("the method", SHORT)}
ABLATION |= {f"no_{part}": (f"− {title}", [*SHORT, "--without", part]) for part, title in PARTS.items()}
ABLATION["fixmatch"] = "− all four (FixMatch-like)", [*SHORT, "--without", *PARTS]

# table -> {row: (title, the options of train.py beside --source, --target and --seed)}
TABLES = {
    "p3": {"source": ("source only", ["--mode", "source"]), "dann": ("DANN", ["--mode", "dann"]),
           "target": ("target only", ["--mode", "target"])},
    "p4": {"source": ("source only, augmented as AdaMatch", ["--mode", "source"]),
           "uda": ("AdaMatch", []),
           "target": ("target only, augmented as AdaMatch", ["--mode", "target"])},
    "p4_ablation": ABLATION,
}
TRAINERS = {"p3": p3, "p4": p4, "p4_ablation": p4}
TARGETS = {"p3": list(SCENARIOS), "p4": list(SCENARIOS), "p4_ablation": ["svhn"]}  # svhn: the hardest pair
SHIPPED = {"p3": ("p3_dann", "dann"), "p4": ("p4_uda", "uda")}


def score(data_dir, out_dir, target):
    """(correct, total) of a run's model on the target's test images."""
    folder, prediction = Path(data_dir, "digits", target, "test"), Path(out_dir, "pred.csv")
    predict_folder(load_digit_net(Path(out_dir, "model.pth")), folder, prediction)
    return accuracy(prediction, f"{folder}.csv")


def read_table(table):
    """A table's results, one row a run; exits with one line where a row of the table has none."""
    results = pandas.read_csv(RESULTS / f"{table}.csv")
    for target in TARGETS[table]:
        for mode in TABLES[table].keys() - set(results["mode"][results["target"] == target]):
            raise SystemExit(f"report/results/{table}.csv has no row {mode} of the target {target}")
    return results


def stay(table, rows):
    """The rows of a table's results that are not among the (source, target, mode, seed) of `rows`."""
    path = RESULTS / f"{table}.csv"
    held = pandas.read_csv(path).itertuples() if path.exists() else []
    return [row for row in held if (row.source, row.target, row.mode, row.seed) not in rows]


def table_rows(table):
    """{mode: [title, cell, ...]} of a table: mean ± standard deviation over seeds in %."""
    accuracies = read_table(table).groupby(["mode", "target"])["accuracy"]
    means, deviations = accuracies.mean(), accuracies.std()  # nan for a single seed
    return {mode: [title, *(shown(means[mode, target], deviations[mode, target]) for target in TARGETS[table])]
            for mode, (title, _) in TABLES[table].items()}


def shown(mean, deviation):
    """Two decimals where one would make a deviation of 0.0."""
    digits = 2 if deviation < 0.05 else 1
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if deviation >= 0 else "")


def print_table(table):
    header = "| |" + "".join(f" {SCENARIOS[target]} → {target} |" for target in TARGETS[table])
    lines = [header, "|---" * (len(TARGETS[table]) + 1) + "|"]
    print("\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in table_rows(table).values())]))


def main():
    parser = make_parser(__doc__, TABLES)
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    if args.ship and (args.table not in SHIPPED or 0 not in args.seeds):
        parser.error("--ship needs table p3 or p4 with seed 0")

    table = args.table
    rows = [(SCENARIOS[target], target, mode, seed)
            for seed in args.seeds for target in TARGETS[table] for mode in TABLES[table]]
    for target in TARGETS[table]:  # before hours of training
        truth = Path(args.data_dir, "digits", target, "test.csv")
        if not truth.exists():
            raise SystemExit(f"no {truth}, which the scores need")
    out_dirs = {row: Path(args.runs_dir, "_".join([table[:2], *map(str, row)])) for row in rows}
    commands = {}
    for source, target, mode, seed in rows:
        options = ["--source", source, "--target", target, *TABLES[table][mode][1], "--seed", str(seed)]
        commands[source, target, mode, seed] = train(TRAINERS[table], options, args.data_dir,
                                                     out_dirs[source, target, mode, seed])
    for row in stay(table, rows):
        truth = Path(args.data_dir, "digits", row.target, "test.csv")
        if row.total != (count := len(read_labels(truth))):
            raise SystemExit(f"{truth} has {count} rows, but {row.total} images stand behind seed {row.seed} in "
                             f"report/results/{table}.csv: delete that file, and the same command begins it anew")
    results = []
    for row in rows:
        correct, total = score(args.data_dir, out_dirs[row], row[1])
        log = read_log(out_dirs[row])
        information = log["target_information"].iloc[-1].round(3) if "target_information" in log else ""
        results.append(dict(zip(("source", "target", "mode", "seed"), row)) | {
            "correct": correct, "total": total, "accuracy": f"{100 * correct / total:.2f}",
            "target_information": information, "train_seconds": round(log["seconds"].sum()), "command": commands[row]})
    write_results(table, results, ("source", "target", "mode", "seed"))
    if args.ship:
        problem, shipped = SHIPPED[table]
        ship(problem, {f"{source}_{target}": out_dirs[source, target, mode, seed]
                       for source, target, mode, seed in rows if (mode, seed) == (shipped, 0)})
    print_table(table)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("interrupted: the same command continues")
