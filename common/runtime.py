"""What every training run needs: device and precision, EMA, atomic files, resumable checkpoints, the log."""
import argparse
import copy
import csv
import ctypes
import io
import json
import math
import os
import shutil
import sys
import time

import torch


def at_least(low):
    """A type for argparse: a whole number, `low` or more."""
    def parse(text):
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{value} is too small: {low} or more")
        return value
    parse.__name__ = "whole number"  # in argparse's message about what is no number
    return parse


def keep_freed_memory():
    """Tell glibc, where it is the C library, to keep what is freed: the next step's tensors then come without page faults."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for parameter, size in ((-3, 2 ** 25), (-1, 2 ** 31 - 1), (-2, 2 ** 28)):  # M_MMAP_THRESHOLD at its largest, M_TRIM_THRESHOLD, M_TOP_PAD
            mallopt(parameter, size)


def pick_device(name):
    """`auto` takes CUDA where there is one, else the CPU, whose memory is then kept; exits where the device asked for is not there."""
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


def write_atomic(path, write):
    """Call write(temporary path), then rename: `path` is whole or as it was. Exits with one line if it can't be written."""
    part = f"{path}.{os.getpid()}.part"
    try:
        write(part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError for a folder it can't write to
        raise SystemExit(f"cannot write {path}: {error}")
    finally:
        if os.path.exists(part):
            os.remove(part)


def write_text(path, text):
    def write(part):
        with open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:  # file names may be any bytes
            file.write(text)
    write_atomic(path, write)


def write_csv(path, header, rows):
    """Atomically write rows (sequences of plain values) under a header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


def save_weights(path, state, config):
    """Write {"model": half-precision tensors, "config": plain values}, the format that load_weights reads."""
    model = {k: v.half().cpu() if v.is_floating_point() else v.cpu() for k, v in state.items()}
    write_atomic(path, lambda part: torch.save({"model": model, "config": config}, part))


class Run:
    """The folder of one training run: config.json, checkpoint.pt, log.csv, and the progress line.

    `parts` are the objects with a state_dict that a resumed run needs; the random state is kept with them.
    """

    def __init__(self, out_dir, config, resume, parts):
        self.config, self.parts, self.rows = config, parts, []
        self.checkpoint, self.log = os.path.join(out_dir, "checkpoint.pt"), os.path.join(out_dir, "log.csv")
        if resume:
            self._load()
        try:
            os.makedirs(out_dir, exist_ok=True)
        except OSError as error:
            raise SystemExit(f"cannot make the folder {out_dir}: {error}")
        write_text(os.path.join(out_dir, "config.json"), json.dumps(config, indent=1) + "\n")
        self.started, self.first_epoch = time.time(), len(self.rows)

    def _load(self):
        if not os.path.exists(self.checkpoint):
            raise SystemExit(f"--resume: there is no {self.checkpoint}")
        try:
            saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:
            raise SystemExit(f"--resume: {self.checkpoint} is damaged ({type(error).__name__}): start again without --resume")
        for key in self.config.keys() | saved["config"].keys():
            was, now = saved["config"].get(key), self.config.get(key)
            if was != now:
                raise SystemExit(f"--resume: {self.checkpoint} was made with {key} = {was}, not {now}")
        for name, part in self.parts.items():
            part.load_state_dict(saved["parts"][name])
        torch.set_rng_state(saved["random"])
        if torch.cuda.is_available() and "cuda_random" in saved:
            torch.cuda.set_rng_state(saved["cuda_random"])
        self.rows = saved["rows"]

    def end_epoch(self, row):
        """Save the checkpoint, then the log with `row` (a dict of plain values) added, then say how long the rest takes."""
        epochs, done = self.config["epochs"], len(self.rows) + 1
        self.rows.append({"epoch": done, **row})
        saved = {"config": self.config, "rows": self.rows, "random": torch.get_rng_state(),
                 "parts": {name: part.state_dict() for name, part in self.parts.items()}}
        if torch.cuda.is_available():
            saved["cuda_random"] = torch.cuda.get_rng_state()
        write_atomic(self.checkpoint, lambda part: torch.save(saved, part))
        write_csv(self.log, self.rows[0], [row.values() for row in self.rows])
        left = (time.time() - self.started) / (done - self.first_epoch) * (epochs - done)
        line = f"epoch {done}/{epochs}  left {left // 60:.0f}m{left % 60:02.0f}s  "
        line += "  ".join(f"{k} {v:{'d' if isinstance(v, int) else '.4g'}}" for k, v in row.items())
        if sys.stdout.isatty() and done < epochs:  # refreshed in place; a wrapped line could not be
            print(line[:shutil.get_terminal_size().columns - 1], end="\033[K\r", flush=True)
        else:
            print(line, flush=True)
