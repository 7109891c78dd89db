"""What run_digits.py and run_faces.py share: their flags, training a run, reading its log, shipping its weights."""
import argparse
import csv
import functools
import os
import shlex
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
import common
from common.files import write_atomic, write_text
from common.runtime import say
from common.weights import sum_of

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULTS = os.path.join(ROOT, "report", "results")


def make_parser(description, tables):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=tables)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--runs-dir", default="runs", help="a run whose model.pth is there is not trained again")
    parser.add_argument("--ship", action="store_true", help="make the best row's models the shipped weights")
    return parser


def run(*command):
    """Run a command of this repository; exits with its status where it fails, after its own line."""
    common.interrupted = "interrupted: the same command continues"
    say(f"$ python3 {shlex.join(command)}")
    # the command ignores Ctrl-C: this process ends it and prints the one line
    ignore = functools.partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    status = subprocess.run([sys.executable, *command], preexec_fn=ignore).returncode
    if status < 0:
        raise SystemExit(f"killed by {signal.Signals(-status).name} (too little memory?): the same command continues")
    if status:
        raise SystemExit(status)


def train(script, options, data_dir, out_dir):
    """Train a run unless its model is there; returns the command without the paths of this machine."""
    if not os.path.exists(os.path.join(out_dir, "model.pth")):
        resume = ["--resume"] if os.path.exists(os.path.join(out_dir, "checkpoint.pt")) else []
        run(os.path.join(ROOT, script), "--data-dir", data_dir, "--out-dir", out_dir, *options, *resume)
    return shlex.join(["python3", script, "--data-dir", "hw3_data", *options])


def read_log(out_dir):
    with open(os.path.join(out_dir, "log.csv"), newline="") as file:
        return list(csv.DictReader(file))


def train_seconds(log):
    return round(sum(float(epoch["seconds"]) for epoch in log))


def copy(source, target):
    with open(source, "rb") as file:
        content = file.read()
    write_atomic(target, lambda file: file.write(content))


def ship(problem, out_dirs):
    """Copy the models of the runs {name: folder} into the problem's weights/, with their sums, and their logs."""
    folder = os.path.join(ROOT, problem, "weights")
    lines = []
    for name, out_dir in out_dirs.items():
        copy(os.path.join(out_dir, "model.pth"), os.path.join(folder, f"{name}.pth"))
        copy(os.path.join(out_dir, "log.csv"), os.path.join(RESULTS, f"{problem[:2]}_{name}_log.csv"))
        lines.append(f"{sum_of(os.path.join(folder, f'{name}.pth'))}  {name}.pth\n")
    write_text(os.path.join(folder, "SHA256SUMS"), "".join(lines))
