"""Train and score every row of the table of problem 1 or 2, into report/results/p1.csv or p2.csv.

    python3 report/run_faces.py p1 --data-dir hw3_data          # trains what is not in runs/ yet; resumes
    python3 report/run_faces.py p1 --data-dir hw3_data --only shipped --ship     # and ship the row `shipped`

`fd_efflite`, `precision` and `recall` compare 5,000 generated faces (in the row `real faces` the next 5,000 training
faces) with the first 5,000 training faces, as fd_efflite.py does. `fd_people` is 1,000 times the distance of the first
3,000 of each on the features of a network that tells people apart; nothing was chosen by it. `fd_test` is the distance
to the test faces; these are fewer, which makes it larger, so it compares only within its column.

A VAE's `fd_normal` is the distance of 5,000 faces that are decoded from N(0, I) without the flow. `fd_reconstructed` is
that of the test faces' reconstructions from the posterior's mean; 2,621 faces make it some points larger. `test_mse` is
the mean squared error of these reconstructions per value, with images on [0, 1]. `kl`, in nats per image, is that of
the log's last epoch. `train_seconds` is the time of the VAE alone, `flow_seconds` that of the second stage.
"""
import sys
from pathlib import Path

import pandas

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data import list_images, load_faces
from common.run import checksum, interruptible
from p1_vae import inference as p1_inference
from p1_vae import train as p1
from p2_gan import inference as p2_inference
from p2_gan import train as p2
from report.fd_efflite import face_features, features, frechet, precision_and_recall
from report.runs import RESULTS, latex_number, make_parser, ship, train, typed, write_results

COUNT, PEOPLE = 5000, 3000  # faces of either kind, by EfficientNet-Lite and by the network that tells people apart
REAL = "real faces"  # the row of other training faces, measured anew with every table
SHORT = ["--epochs", "3", "--flow-epochs", "5", "--width", "16"]
VAES = {f"lambda_{weight}": (rf"short, $\lambda_{{KL}} =$ {latex_number(float(weight))}",
                             ["--kl-weight", weight, *SHORT]) for weight in ("3e-7", "1e-6", "3e-6", "1e-5")}
TABLES = {"p1": {**VAES, "shipped": ("VAE", [])}, "p2": {"shipped": ("GAN", [])}}  # {row: (title, train.py's options)}
PROBLEMS = {"p1": (p1, p1_inference), "p2": (p2, p2_inference)}


def row_command(table, row):
    return typed(PROBLEMS[table][0], TABLES[table][row][1])


def read_results(table):
    """report/results/TABLE.csv by row, without rows that TABLES no longer has; empty if the file is not there yet."""
    path = RESULTS / f"{table}.csv"
    results = pandas.read_csv(path) if path.exists() else pandas.DataFrame(columns=["row", "scored_crc32", "command"])
    return results[results["row"].isin([REAL, *TABLES[table]])].set_index("row")


def refuse_other_commands(table, results):
    """Exit with one line if a row of the results is of another command than TABLES has for it now."""
    other = [row for row, command in results["command"].items() if row != REAL and command != row_command(table, row)]
    if other:
        raise SystemExit(f"report/results/{table}.csv has rows of other commands than run_faces.py's: "
                         f"{', '.join(other)}: remove them, or make them anew with run_faces.py {table}")


def read_faces(table):
    """A table's results by row; exits with one line where a row has none, or one of another command."""
    results = read_results(table)
    missing = [row for row in TABLES[table] if row not in results.index]
    if missing:
        raise SystemExit(f"report/results/{table}.csv has no row {', '.join(missing)}: run run_faces.py {table} --only "
                         f"{' '.join(missing)}")
    refuse_other_commands(table, results)
    titles = {REAL: "other real faces", **{row: title for row, (title, _) in TABLES[table].items()}}
    return results.assign(title=results.index.map(titles))


def generate(inference, folder, *options):
    """Let a model draw the faces into a folder; returns it and their names."""
    inference.main(["--num-images", str(COUNT), "--output-dir", str(folder), *options])
    return folder, list_images(folder)


def vae_columns(data_dir, out_dir, weights, last, real):
    """A VAE's own columns, from the test faces, the log's last row and the features [N, D] of training faces."""
    reconstructed, test = out_dir / "reconstructed", Path(data_dir, "face", "test")
    p1_inference.main([*weights, "--reconstruct", str(test), "--output-dir", str(reconstructed)])
    mse = pandas.read_csv(reconstructed / "mse.csv")["mse"].mean()
    normal = features(*generate(p1_inference, out_dir / "normal", *weights, "--without-flow"))
    return {"test_mse": f"{mse:.5f}", "kl": f"{last['kl']:.0f}", "fd_normal": f"{frechet(real, normal):.1f}",
            "fd_reconstructed": f"{frechet(real, features(reconstructed, list_images(test))):.1f}",
            "flow_seconds": round(pandas.read_csv(out_dir / "flow" / "log.csv")["seconds"].sum())}


def measures(folder, names, real, people, test):
    """The columns of all rows, from the images `names` in a folder and what `score` is given."""
    generated = features(folder, names)
    precision, recall = precision_and_recall(real, generated)
    return {"fd_efflite": f"{frechet(real, generated):.1f}", "fd_test": f"{frechet(test, generated):.1f}",
            "fd_people": f"{1000 * frechet(people, face_features(folder, names[:PEOPLE])):.1f}",
            "precision": f"{precision:.3f}", "recall": f"{recall:.3f}"}


def score(table, data_dir, out_dir, real, people, test):
    """The columns of a run, from features [N, D]: `real` and `people` of training faces, `test` of test faces."""
    log, weights = pandas.read_csv(out_dir / "log.csv"), ["--weights", str(out_dir / "model.pth")]
    own = vae_columns(data_dir, out_dir, weights, log.iloc[-1], real) if table == "p1" else {}
    return {**own, **measures(*generate(PROBLEMS[table][1], out_dir / "generated", *weights), real, people, test),
            "train_seconds": round(log["seconds"].sum())}


def main():
    parser = make_parser(__doc__, TABLES)
    args = parser.parse_args()
    table, rows, names = args.table, TABLES[args.table], args.only or list(TABLES[args.table])
    if set(names) - rows.keys():
        parser.error(f"{table} has the rows {', '.join(rows)}")
    if args.ship and "shipped" not in names:
        parser.error("--ship needs the row `shipped`")

    # before hours of training: can what will be trained be scored, and stand beside the rows that stay?
    faces, tests = Path(args.data_dir, "face", "train"), Path(args.data_dir, "face", "test")
    images = list_images(faces)
    if len(images) < 2 * COUNT:
        raise SystemExit(f"{faces} has {len(images)} images; the distance needs {2 * COUNT}")
    data = checksum(load_faces(args.data_dir, "train", 2 * COUNT), load_faces(args.data_dir, "test"))
    others = read_results(table).drop([REAL, *names], errors="ignore")
    refuse_other_commands(table, others)
    if set(others["scored_crc32"]) - {data}:
        raise SystemExit(f"{args.data_dir}: other faces stand behind {', '.join(others.index)} in report/results/"
                         f"{table}.csv: delete that file, and the same command begins it anew")
    real, people = features(faces, images[:COUNT]), face_features(faces, images[:PEOPLE])
    test = features(tests, list_images(tests))
    out_dirs = {name: Path(args.runs_dir, f"{table}_{name}") for name in names}
    trainer = PROBLEMS[table][0]
    for name in names:
        train(trainer, rows[name][1], args.data_dir, out_dirs[name])
    results = {REAL: measures(faces, images[COUNT:2 * COUNT], real, people, test)}
    results |= {name: score(table, args.data_dir, out_dirs[name], real, people, test) for name in names}
    write_results(table, [{"row": row, **columns, "scored_crc32": data,
                           "command": "" if row == REAL else row_command(table, row)}
                          for row, columns in results.items()], ["row"])
    if args.ship:
        problem = Path(trainer.__file__).parent.name
        ship(problem, {problem[3:]: out_dirs["shipped"]})


if __name__ == "__main__":
    interruptible(main, "the same command continues")
