"""Weights files and their SHA-256 sums, listed in the SHA256SUMS beside them.

    python3 common/weights.py check FILE                 # exit status 0 if FILE is whole
    wget -qO- URL | python3 common/weights.py install FILE   # take FILE from standard input, if it is whole

Both print the path to load. `install` renames a whole file into place; where the folder can't be written to
it goes to the temporary folder instead, under its sum. The wrappers call this; it needs no package.
"""
import hashlib
import os
import sys
import tempfile


def listed_sum(path):
    """The SHA-256 that SHA256SUMS gives for the file, None where it is not listed."""
    try:
        with open(os.path.join(os.path.dirname(path), "SHA256SUMS"), encoding="utf-8") as file:
            return {name: digest for digest, name in map(str.split, file)}.get(os.path.basename(path))
    except OSError:
        return None


def sum_of(path):
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


def temporary_copy(path):
    return os.path.join(tempfile.gettempdir(), f"{listed_sum(path)}.pth")


def find(path):
    """The whole file's path, be it in its place or in the temporary folder; None where there is none."""
    return next((p for p in (path, temporary_copy(path)) if sum_of(p) == listed_sum(path)), None)


def install(path, content):
    """Write `content` to `path` if its sum is the listed one; return the path written, None if it is not."""
    if hashlib.sha256(content).hexdigest() != listed_sum(path):
        return None
    for place in (path, temporary_copy(path)):
        part = f"{place}.{os.getpid()}.part"
        try:
            with open(part, "wb") as file:
                file.write(content)
            os.replace(part, place)
            return place
        except OSError:
            continue
        finally:
            if os.path.exists(part):
                os.remove(part)
    return None


def load_weights(path):
    """Read {"model": tensors, "config": plain values}; exits with one line where the file is absent or damaged."""
    import torch

    if not os.path.isfile(path):
        raise SystemExit(f"weights not found: {path}")
    if listed_sum(path) not in (None, sum_of(path)):
        raise SystemExit(f"weights damaged: {path} does not match SHA256SUMS")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return {k: v.float() if v.is_floating_point() else v for k, v in saved["model"].items()}, saved["config"]
    except Exception as error:
        raise SystemExit(f"weights damaged: {path} ({type(error).__name__})")


def main():
    action, path = sys.argv[1:]
    found = find(path) if action == "check" else install(path, sys.stdin.buffer.read())
    if found is None:
        return 1
    print(found)


if __name__ == "__main__":
    sys.exit(main())
