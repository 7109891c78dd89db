"""What the tables of problems 1 to 4 share: flags, training a run, results and their numbers, shipping a model."""
import argparse
import shlex
from pathlib import Path

import pandas

from common.files import replace_file, sha256

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "report" / "results"


def make_parser(description, tables):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=tables)
    parser.add_argument("--only", nargs="+", metavar="ROW",
                        help="; ".join(f"{table}: {', '.join(rows)}" for table, rows in tables.items()))
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--runs-dir", default="runs", help="where the runs are; what is trained there already is taken")
    parser.add_argument("--ship", action="store_true",
                        help="copy seed 0's DANN or AdaMatch models, or that of the row `shipped`, into weights/")
    return parser


def typed(trainer, options):
    """A training's command, to type by hand."""
    return shlex.join(["python3", f"{trainer.__name__.replace('.', '/')}.py", "--data-dir", "hw3_data", *options])


def latex_number(value):
    """A number for LaTeX: 3e-05 as a power of ten, what is no smaller than 0.01 as it is."""
    if value >= 0.01:
        return f"{value:,g}"
    digits, exponent = f"{value:.2e}".split("e")
    factor = "" if float(digits) == 1 else rf"{float(digits):g} \cdot "
    return f"${factor}10^{{{int(exponent)}}}$"


def train(trainer, options, data_dir, out_dir):
    """Call a trainer's main(), which goes on with a run that was stopped."""
    print(f"$ {typed(trainer, options)}", flush=True)
    resume = ["--resume"] if Path(out_dir, "checkpoint.pt").exists() else []
    trainer.main(["--data-dir", data_dir, "--out-dir", str(out_dir), *options, *resume])


def write_results(table, rows, keys):
    """Put rows (dicts) into report/results/TABLE.csv: in place of those with the same `keys`, else below the others."""
    path = RESULTS / f"{table}.csv"
    rows = pandas.DataFrame(rows, dtype=object).map(lambda value: "" if pandas.isna(value) else str(value))
    if path.exists():
        rows = pandas.concat([pandas.read_csv(path, dtype=str, keep_default_na=False), rows]).fillna("")
    merged = {tuple(row[key] for key in keys): row for row in rows.to_dict("records")}  # a key keeps its first place
    replace_file(path, lambda file: pandas.DataFrame(merged.values()).to_csv(file, index=False))
    print(f"wrote {path}")


def copy_file(source, target):
    replace_file(target, lambda file: file.write(Path(source).read_bytes()))


def ship(problem, out_dirs):
    """Copy the models of the runs {name: folder} into the problem's weights/, with their sums, and their logs."""
    folder = ROOT / problem / "weights"
    for name, out_dir in out_dirs.items():
        copy_file(Path(out_dir, "model.pth"), folder / f"{name}.pth")
        copy_file(Path(out_dir, "log.csv"), RESULTS / f"{problem[:2]}_{name}_log.csv")
    sums = "".join(f"{sha256(path)}  {path.name}\n" for path in sorted(folder.glob("*.pth")))
    replace_file(folder / "SHA256SUMS", lambda file: file.write(sums.encode()))
