"""Writing files, and the progress line of long work."""
import hashlib
import shutil
import sys
import time
from pathlib import Path


def write_output(path, content):
    """Write bytes to a path that the user gave; makes the folder. Exits with one line where it can't."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise SystemExit(f"cannot write '{path}': {error.strerror}")


def replace_file(path, write):
    """Let write(file) fill a file beside `path`, then rename it: if this is cut off, the old file is still whole."""
    part = Path(f"{path}.part")
    try:
        with open(part, "wb") as file:
            write(file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Progress:
    """On a terminal, a line that is refreshed twice a second: what is done, and the time left. Elsewhere, nothing."""

    def __init__(self, name, total, done=0):
        self.name, self.total, self.first = name, total, done
        self.started, self.shown = time.time(), 0

    def due(self):
        return sys.stdout is not None and sys.stdout.isatty() and time.time() - self.shown > 0.5

    def refresh(self, done, details=""):
        if self.due():
            self.shown = time.time()
            left = (self.shown - self.started) / (done - self.first) * (self.total - done)
            line = f"{self.name} {done}/{self.total}  left {left // 60:.0f}m{left % 60:02.0f}s  {details}"
            print(f"\r{line[:shutil.get_terminal_size().columns - 1]}\033[K", end="", flush=True)

    def clear(self):
        if self.shown:
            print("\r\033[K", end="", flush=True)
