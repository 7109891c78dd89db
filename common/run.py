"""The folder of a training run: what is in it, and when a run may start there."""
import json
import math
import time
import zlib
from pathlib import Path

import pandas
import torch

from common.files import Progress, replace_file
from common.weights import save_weights


def checksum(*tensors):
    """The CRC-32 of the tensors' numbers, which tells data of the same size apart."""
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.cpu().contiguous().numpy(), crc)
    return crc


def run_config(args, **data):
    """What makes a run: its options, and of the tensors {name: [N, ...]} that it reads their lengths and a checksum."""
    options = {k: v for k, v in vars(args).items() if k not in ("data_dir", "device", "out_dir", "resume")}
    return options | {name: len(tensor) for name, tensor in data.items()} | {"data_crc32": checksum(*data.values())}


def already_trained(out_dir, config, resume):
    """Whether the folder holds the finished run of these settings and data; makes the folder where it is not there.

    Exits with one line where it holds another run, or where `resume` does not fit to what it holds.
    """
    folder = Path(out_dir)
    model, checkpoint, file = folder / "model.pth", folder / "checkpoint.pt", folder / "config.json"
    if model.exists() or checkpoint.exists() or file.exists():  # from a run's first file on
        held = json.loads(file.read_text())
        for key in held | config:
            if held.get(key) != config.get(key):
                raise SystemExit(f"{folder} holds a run with {key} = {held.get(key)}, not {config.get(key)}: "
                                 "use another --out-dir")
    if model.exists():
        print(f"{model}: trained already; to train again, e.g. after a change of the code, use another --out-dir")
        return True
    if checkpoint.exists() != resume:
        raise SystemExit(f"--resume: there is no {checkpoint}" if resume else
                         f"{folder} holds an unfinished run: continue it with --resume, or use another --out-dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"cannot make the folder {folder}: {error.strerror}")
    return False


class Run:
    """The files of a training run: config.json, log.csv, checkpoint.pt, at the end model.pth; and its progress line.

    `steps` are those of an epoch. `parts` {name: object with a state_dict} is what a resumed run needs, beside the
    random state.
    """

    def __init__(self, out_dir, config, epochs, steps, parts, resume):
        self.folder, self.config, self.epochs, self.steps, self.parts = Path(out_dir), config, epochs, steps, parts
        self.rows = []
        if resume:
            saved = torch.load(self.folder / "checkpoint.pt", map_location="cpu", weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(saved["parts"][name])
            torch.set_rng_state(saved["random"])
            if torch.cuda.is_initialized() and "cuda_random" in saved:
                torch.cuda.set_rng_state(saved["cuda_random"])
            self.rows = saved["rows"]
        else:
            (self.folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        self.progress = Progress("step", epochs * steps, done=len(self.rows) * steps)

    def epochs_left(self):
        """The numbers of the epochs that are still to be trained, from 0; each one's means and time start anew."""
        for epoch in range(len(self.rows), self.epochs):
            self.totals, self.done, self.images, self.started = {}, 0, 0, time.time()
            yield epoch

    def end_step(self, metrics, images):
        """Add metrics {name: tensor []} of a step on so many images to the epoch's means; refresh the progress line."""
        for name, value in metrics.items():
            self.totals[name] = self.totals.get(name, 0) + value.detach()
        self.done += 1
        self.images += images
        if self.progress.due():
            numbers = self.means() | {"images/s": self.images / (time.time() - self.started)}
            self.progress.refresh(len(self.rows) * self.steps + self.done, format_numbers(numbers))

    def means(self):
        """{name: number}, the means of the epoch's metrics."""
        return {name: (total / self.done).item() for name, total in self.totals.items()}

    def end_epoch(self, extra={}, first={}):
        """Save the checkpoint, then the log; print its row: the metrics' means between other numbers {name: number}.

        Exits where a metric is no finite number: checkpoint and log are then those of the last good epoch.
        """
        seconds, epoch, means = time.time() - self.started, len(self.rows) + 1, self.means()
        self.progress.clear()
        for name, value in means.items():
            if not math.isfinite(value):
                raise SystemExit(f"epoch {epoch}: the training has diverged, {name} is not finite: use a smaller --lr")
        numbers = first | means | extra | {"images_per_second": self.images / seconds, "seconds": seconds}
        self.rows.append({"epoch": epoch, **numbers})
        saved = {"rows": self.rows, "random": torch.get_rng_state(),
                 "parts": {name: part.state_dict() for name, part in self.parts.items()}}
        if torch.cuda.is_initialized():
            saved["cuda_random"] = torch.cuda.get_rng_state()
        replace_file(self.folder / "checkpoint.pt", lambda file: torch.save(saved, file))
        replace_file(self.folder / "log.csv", lambda file: pandas.DataFrame(self.rows).to_csv(file, index=False))
        print(f"epoch {epoch}/{self.epochs}  {format_numbers(numbers)}", flush=True)

    def save_model(self, state):
        """Write model.pth, in half precision and with the run's settings."""
        save_weights(self.folder / "model.pth", state, self.config)
        print(f"wrote {self.folder / 'model.pth'}", flush=True)


def format_numbers(numbers):
    return "  ".join(f"{k} {v if isinstance(v, int) else format(v, '.4g')}" for k, v in numbers.items())


def interruptible(main, advice="the same command with --resume continues after the last finished epoch; if none is "
                               "finished, it starts again without --resume"):
    """Call a command's main(); Ctrl-C ends it with one line."""
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(f"interrupted: {advice}")
