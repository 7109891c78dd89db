"""Train and score every row of a table of problem 3 or 4.

    python3 report/run_digits.py p3 --data-dir hw3_data            # or p4, p4_ablation; resumes where it stopped
    python3 report/run_digits.py p3 --data-dir hw3_data --ship     # and ship seed 0's DANN models (p4: AdaMatch)

All runs are trained first. Then each is scored once on the target's test images, as inference.py and common.evaluate
do; those of the ablation on the training images that they have left out. The scores go into report/results/TABLE.csv;
rows of other seeds stay.
"""
import sys
from pathlib import Path

import pandas

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data import SCENARIOS, list_images, load_labelled, read_labels
from common.evaluate import accuracy
from common.predict import load_digit_net, predict_folder
from common.run import checksum, interruptible
from p3_dann import train as p3
from p4_uda import train as p4
from report.runs import RESULTS, make_parser, ship, train, typed, write_results

HELD_OUT = 1000  # of the target's training images, in the ablation
SHORT = ["--epochs", "5", "--hold-out", str(HELD_OUT)]  # a fifth of the length
PARTS = {"align": "distribution alignment", "relative": "relative threshold", "balance": "class-balanced source"}
ABLATION = {"full": ("the method", SHORT)}
ABLATION |= {f"no_{part}": (f"without {title}", [*SHORT, "--without", part]) for part, title in PARTS.items()}
ABLATION["fixmatch"] = "without all three (FixMatch-like)", [*SHORT, "--without", *PARTS]

# table -> {row: (title, the options of train.py beside --source, --target and --seed)}
TABLES = {
    "p3": {"source": ("source only", ["--mode", "source"]), "dann": ("DANN", ["--mode", "dann"]),
           "target": ("target only", ["--mode", "target"]),
           "no_reversal": ("DANN without reversal", ["--mode", "dann", "--reversal", "0"]),
           "source_plain": ("source only, no augmentation", ["--mode", "source", "--augmentation", "none"]),
           "dann_plain": ("DANN, no augmentation", ["--mode", "dann", "--augmentation", "none"]),
           "dann_strong": ("DANN, augmentation and steps of AdaMatch", ["--mode", "dann", "--augmentation", "strong",
                                                                        "--epochs", "24", "--steps", "500"])},
    "p4": {"source": ("source only, augmented as AdaMatch", ["--mode", "source"]),
           "uda": ("AdaMatch", []),
           "target": ("target only, augmented as AdaMatch", ["--mode", "target"])},
    "p4_ablation": ABLATION,
}
TRAINERS = {"p3": p3, "p4": p4, "p4_ablation": p4}
TARGETS = {table: list(SCENARIOS) for table in TABLES} | {"p4_ablation": ["svhn"]}  # svhn: the hardest pair
SPLITS = {table: "test" for table in TABLES} | {"p4_ablation": "train"}  # scored by images that the run has left out
SHIPPED = {"p3": ("p3_dann", "dann"), "p4": ("p4_uda", "uda")}
KEYS = ["source", "target", "mode", "seed"]


def row_options(table, target, mode, seed):
    return ["--source", SCENARIOS[target], "--target", target, *TABLES[table][mode][1], "--seed", str(seed)]


def score(table, data_dir, out_dir, target):
    """(correct, total) of a run's model on the target's test images, or on the training images that it has left out."""
    folder, prediction = Path(data_dir, "digits", target, SPLITS[table]), Path(out_dir, "pred.csv")
    predict_folder(load_digit_net(Path(out_dir, "model.pth")), folder, prediction)
    if table != "p4_ablation":
        return accuracy(prediction, f"{folder}.csv")
    predicted, truth = read_labels(prediction), read_labels(f"{folder}.csv")
    names = list_images(folder)[-HELD_OUT:]
    return sum(predicted[name] == truth[name] for name in names), len(names)


def read_results(table):
    """report/results/TABLE.csv without rows that TABLES no longer has; empty where the file is not there yet."""
    path = RESULTS / f"{table}.csv"
    results = pandas.read_csv(path, dtype={"mode": str}) if path.exists() else pandas.DataFrame(columns=KEYS)
    return results[results["mode"].isin(TABLES[table]) & results["target"].isin(TARGETS[table])]


def refuse_other_commands(table, results):
    """Exit with one line if a row of the results is of another command than TABLES and SCENARIOS have for it now."""
    other = [f"{row.source} {row.target} {row.mode} {row.seed}" for row in results.itertuples()
             if row.command != typed(TRAINERS[table], row_options(table, row.target, row.mode, row.seed))]
    if other:
        raise SystemExit(f"report/results/{table}.csv has rows of other commands than run_digits.py's: "
                         f"{', '.join(other)}: remove them, or make them anew with run_digits.py {table} --seeds")


def read_table(table):
    """A table's results, one row a run; exits with one line where a row has none or one of another command."""
    results = read_results(table)
    for target in TARGETS[table]:
        for mode in TABLES[table].keys() - set(results["mode"][results["target"] == target]):
            raise SystemExit(f"report/results/{table}.csv has no row {mode} of the target {target}: "
                             f"run run_digits.py {table} --only {mode}")
    refuse_other_commands(table, results)
    return results


def table_rows(table):
    """{mode: [title, cell, ...]} of a table: mean ± standard deviation over seeds in %; of one seed the value."""
    accuracies = read_table(table).groupby(["mode", "target"])["accuracy"]
    return {mode: [title, *(mean_and_std(accuracies.get_group((mode, target))) for target in TARGETS[table])]
            for mode, (title, _) in TABLES[table].items()}


def mean_and_std(values):
    """Two decimals where one would make a deviation of 0.0."""
    mean, deviation = values.mean(), values.std()  # nan for a single seed
    digits = 2 if deviation < 0.05 else 1
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if len(values) > 1 else "")


def main():
    parser = make_parser(__doc__, TABLES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    table, modes = args.table, args.only or list(TABLES[args.table])
    if set(modes) - TABLES[table].keys():
        parser.error(f"{table} has the rows {', '.join(TABLES[table])}")
    if args.ship and (table not in SHIPPED or SHIPPED[table][1] not in modes or 0 not in args.seeds):
        parser.error("--ship needs table p3 or p4 with the row that is shipped and seed 0")

    rows = [(SCENARIOS[target], target, mode, seed)
            for seed in args.seeds for target in TARGETS[table] for mode in modes]
    # before hours of training: can what will be trained be scored, and stand beside the rows that stay?
    data = {target: checksum(*load_labelled(args.data_dir, target, SPLITS[table])) for target in TARGETS[table]}
    results = read_results(table)
    others = results[[key not in rows for key in results[KEYS].itertuples(index=False, name=None)]]
    refuse_other_commands(table, others)
    for row in others.itertuples():
        if row.scored_crc32 != data[row.target]:
            raise SystemExit(f"{args.data_dir}: other images of {row.target} stand behind seed {row.seed} in "
                             f"report/results/{table}.csv: delete that file, and the same command begins it anew")
    out_dirs = {row: Path(args.runs_dir, "_".join([table[:2], *map(str, row)])) for row in rows}
    for row in rows:
        train(TRAINERS[table], row_options(table, *row[1:]), args.data_dir, out_dirs[row])
    results = []
    for row in rows:
        log = pandas.read_csv(out_dirs[row] / "log.csv")
        correct, total = score(table, args.data_dir, out_dirs[row], row[1])
        information = log["target_information"].iloc[-1].round(3) if "target_information" in log else ""
        results.append(dict(zip(KEYS, row)) | {
            "correct": correct, "total": total, "accuracy": f"{100 * correct / total:.2f}",
            "target_information": information, "train_seconds": round(log["seconds"].sum()),
            "scored_crc32": data[row[1]], "command": typed(TRAINERS[table], row_options(table, *row[1:]))})
    write_results(table, results, KEYS)
    if args.ship:
        problem, shipped = SHIPPED[table]
        ship(problem, {f"{source}_{target}": out_dirs[source, target, mode, seed]
                       for source, target, mode, seed in rows if (mode, seed) == (shipped, 0)})


if __name__ == "__main__":
    interruptible(main, "the same command continues")
