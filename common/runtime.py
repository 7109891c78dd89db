"""What every training run needs: device, precision, learning rate, EMA, checkpoints and the log."""
import argparse
import copy
import ctypes
import fcntl
import json
import math
import os
import shutil
import sys
import time

import common
from common.files import make_folder, write_atomic, write_csv, write_text
from common.weights import save_weights

import torch

LARGEST_SEED = 2 ** 64 - 1  # that torch takes


def at_least(low, kind=int, most=math.inf):
    """A type for argparse: a number of this kind between `low` and `most`."""
    def parse(text):
        value = kind(text)
        if value > most:
            raise argparse.ArgumentTypeError(f"{text} is too large: {most} or less")
        if not value >= low:  # nor is nan
            raise argparse.ArgumentTypeError(f"{text} is too small: {low} or more")
        return value
    parse.__name__ = {int: "whole number", float: "number"}[kind]  # in argparse's message about what is no number
    return parse


def keep_freed_memory():
    """Tell glibc, where it is the C library, to keep freed memory: the next step's tensors then need no page faults."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for parameter, size in ((-3, 2 ** 25),  # M_MMAP_THRESHOLD, at its largest
                                (-1, 2 ** 31 - 1),  # M_TRIM_THRESHOLD
                                (-2, 2 ** 28)):  # M_TOP_PAD
            mallopt(parameter, size)


def pick_device(name):
    """The device of this name; `auto` takes CUDA, else the CPU. Exits with one line where there is no such device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise SystemExit(f"unknown device {name!r}: use auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SystemExit(f"device {name!r} asked for, but there is no such GPU here: use --device cpu")
    if device.type == "cpu":
        keep_freed_memory()
    return device


def has_bf16(device):
    """Whether the processor has bfloat16 instructions; without them bfloat16 is emulated and slow."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def autocast(device):
    """bfloat16 where the processor has it (2 to 3 times faster than float32), float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device))


def learning_rate(step, steps, peak, warmup=100):
    """Linear warm-up, then half a cosine down to zero."""
    return peak * min(1, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


def entropy(p):
    """Of distributions [..., classes], in nats."""
    return torch.special.entr(p).sum(-1)


class EMA:
    """Exponential moving average of a model's state, batch-norm buffers included, as a copy `model` in eval mode.

    e_t = d_t e_(t-1) + (1 - d_t) w_t with d_t = min(decay, t / (t + 9)): the start is soon forgotten.
    """

    def __init__(self, model, decay):
        self.decay, self.step = decay, 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.state = self.model.state_dict()

    @torch.no_grad()
    def update(self, model):
        self.step += 1
        state = model.state_dict()
        floats = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.state[k] for k in floats], [state[k] for k in floats],
                             1 - min(self.decay, self.step / (self.step + 9)))

    def state_dict(self):
        return {"step": self.step, "state": self.state}

    def load_state_dict(self, saved):
        self.step = saved["step"]
        self.model.load_state_dict(saved["state"])


def say(line):
    """Print; a run continues where nobody reads any more (a closed terminal, `| head -1`)."""
    try:
        print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UnicodeEncodeError:  # the terminal has another encoding
        print(line.encode("ascii", "replace").decode(), flush=True)


def progress(line, first, last):
    """Say a line that, on a terminal, replaces the line before unless it is the first; only the last one may wrap."""
    if sys.stdout and sys.stdout.isatty():
        width = None if last else shutil.get_terminal_size().columns - 1
        line = ("" if first else "\033[A") + line[:width] + "\033[K"
    say(line)


class Run:
    """The folder of one training run: config.json, checkpoint.pt, log.csv, model.pth, and the progress line.

    `parts` are the objects with a state_dict that a resumed run needs; the random state is kept with them. The folder
    belongs to one run: it is locked while the run lasts, and a new run does not start in the folder of another.
    """

    def __init__(self, out_dir, config, resume, parts):
        self.out_dir, self.config, self.parts, self.rows = out_dir, config, parts, []
        self.checkpoint, self.log, self.model = (os.path.join(out_dir, name)
                                                 for name in ("checkpoint.pt", "log.csv", "model.pth"))
        if resume and not os.path.exists(self.checkpoint):
            raise SystemExit(f"--resume: there is no {self.checkpoint}")
        make_folder(out_dir)
        self._lock()
        if resume:
            self._load()
        elif os.path.exists(self.checkpoint) or os.path.exists(self.model):
            raise SystemExit(f"{out_dir} holds a run already: continue it with --resume, or use another --out-dir")
        write_text(os.path.join(out_dir, "config.json"), json.dumps(config, indent=1) + "\n")
        self.started, self.first_epoch = time.time(), len(self.rows)

    def _lock(self):
        self.folder = os.open(self.out_dir, os.O_RDONLY)
        try:
            fcntl.flock(self.folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"{self.out_dir} is in use by another run: use another --out-dir")
        except OSError:
            pass  # a file system without locks

    def _load(self):
        try:
            saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            for key in sorted(self.config.keys() | saved["config"].keys()):
                was, now = saved["config"].get(key), self.config.get(key)
                if was != now:
                    raise SystemExit(f"--resume: {self.checkpoint} was made with {key} = {was}, not {now}")
            for name, part in self.parts.items():
                part.load_state_dict(saved["parts"][name])
            torch.set_rng_state(saved["random"])
            if torch.cuda.is_available() and "cuda_random" in saved:
                torch.cuda.set_rng_state(saved["cuda_random"])
            self.rows = saved["rows"]
        except Exception as error:  # a file may be anything
            raise SystemExit(f"--resume: {self.checkpoint} is damaged or of another program ({type(error).__name__}): "
                             "start again in another --out-dir")
        self._tell_how_to_continue()

    def _tell_how_to_continue(self):
        common.interrupted = f"interrupted: the same command with --resume continues after epoch {len(self.rows)}"

    def end_epoch(self, row):
        """Save the checkpoint, then the log with `row` (a dict of plain values), then print how long the rest takes.

        Exits where a loss is no finite number: checkpoint and log are then the last good epoch's.
        """
        epochs, done = self.config["epochs"], len(self.rows) + 1
        losses = {name: value for name, value in row.items() if name.endswith(("loss", "mse", "kl"))}
        if not all(map(math.isfinite, losses.values())):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
            raise SystemExit(f"epoch {done}: the training has diverged ({shown}): use a smaller --lr")
        self.rows.append({"epoch": done, **row})
        saved = {"config": self.config, "rows": self.rows, "random": torch.get_rng_state(),
                 "parts": {name: part.state_dict() for name, part in self.parts.items()}}
        if torch.cuda.is_available():
            saved["cuda_random"] = torch.cuda.get_rng_state()
        write_atomic(self.checkpoint, lambda file: torch.save(saved, file))
        write_csv(self.log, self.rows[0], [row.values() for row in self.rows])
        self._tell_how_to_continue()
        left = (time.time() - self.started) / (done - self.first_epoch) * (epochs - done)
        line = f"epoch {done}/{epochs}  left {left // 60:.0f}m{left % 60:02.0f}s  "
        line += "  ".join(f"{k} {v:{'d' if isinstance(v, int) else '.4g'}}" for k, v in row.items())
        progress(line, first=done == self.first_epoch + 1, last=done == epochs)

    def save_model(self, state):
        """Write model.pth, in half precision and with the run's settings, and unlock the folder."""
        if not all(value.half().isfinite().all() for value in state.values() if value.is_floating_point()):
            raise SystemExit("the weights are too large, the training has diverged: use a smaller --lr")
        save_weights(self.model, state, self.config)
        say(f"wrote {self.model}")
        os.close(self.folder)
