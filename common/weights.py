"""Weights files: saved, loaded, checked by the sums in the SHA256SUMS beside them, and found on the web.

    url=$(python3 common/weights.py url FILE)                     # where to get FILE; empty if a whole FILE is there
    wget -q -O - -- "$url" | python3 common/weights.py install FILE

`install` takes FILE from standard input if its sum is right. Where the folder can't be written to, it goes to the
temporary folder, under its sum. Neither command needs a package.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.files import write_atomic

# isort: split
# after `common`, which turns even a Ctrl-C here into one line
import hashlib
import pickle
import re
import shutil
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ADVICE = "set HW3_WEIGHTS_URL to a web address that holds it"


def sum_of(path):
    """The SHA-256 of a file; "" where it can't be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


def listed_sum(path):
    """The SHA-256 that the SHA256SUMS beside the file gives for it; None where it gives none."""
    try:
        with open(os.path.join(os.path.dirname(path), "SHA256SUMS"), encoding="utf-8", errors="replace") as file:
            lines = re.findall(r"^(\w{64}) +\*?(\S+)$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return {name: digest.lower() for digest, name in lines}.get(os.path.basename(path))


def temporary_copy(path):
    """Where `install` puts the file if its folder can't be written to; None where there is no temporary folder."""
    try:
        return os.path.join(tempfile.gettempdir(), f"{listed_sum(path)}.pth")
    except FileNotFoundError:
        return None


def find_weights(path):
    """The path of a whole copy: in its place or in the temporary folder; None where there is none."""
    digest = listed_sum(path)
    if sum_of(path) == digest:
        return path
    copy = temporary_copy(path)
    return copy if copy and sum_of(copy) == digest else None


def shown(url):
    """A URL without its user information, which may hold a password or a token."""
    return re.sub(r"^(\w+://)?.*@", r"\1", url)


def git(*arguments):
    """What git says of this clone: with --git-dir it never takes a repository around it for this one."""
    command = ["git", "--git-dir", os.path.join(ROOT, ".git"), *arguments]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def weights_url(path):
    """The address of a weights file: under HW3_WEIGHTS_URL if set, else in this clone's origin at its commit."""
    name, problem, base = os.path.relpath(path, ROOT), None, os.environ.get("HW3_WEIGHTS_URL")
    if not shutil.which("wget"):
        raise SystemExit(f"error: {name} is missing or damaged, and wget, which downloads it, is not installed")
    if base:
        if not base.startswith(("http://", "https://", "ftp://")):
            problem = f"HW3_WEIGHTS_URL ('{shown(base)}') is no web address"
    elif not os.path.exists(os.path.join(ROOT, ".git")):
        problem = "this copy has no .git folder, which would tell its origin"
    elif not shutil.which("git"):
        problem = "git, which tells this clone's origin, is not installed"
    else:
        origin = git("config", "remote.origin.url").rstrip("/").removesuffix(".git")
        origin = re.sub(r"^ssh://([^/:]+)(:\d+)?/", r"\1:", origin)
        origin = re.sub(r"^([^/:]+@)?([^/:]+):(?!//)", r"https://\2/", origin)  # git@HOST:USER/REPOSITORY
        if not origin.startswith(("http://", "https://")):
            problem = f"this clone's origin ('{shown(origin)}') is no web address"
        base = f"{origin}/raw/{git('rev-parse', 'HEAD')}"
    if problem:
        raise SystemExit(f"error: {name} is missing or damaged, and {problem}: {ADVICE}")
    return f"{base.rstrip('/')}/{name}"


def install(path, content):
    """Write `content` to `path`, else to the temporary folder; exits where its sum is not the listed one."""
    if hashlib.sha256(content).hexdigest() != listed_sum(path):
        problem = "another file came" if content else "nothing came"
        raise SystemExit(f"error: {os.path.relpath(path, ROOT)} is missing or damaged, and {problem} from "
                         f"'{shown(weights_url(path))}': check the network, or {ADVICE}")
    try:
        write_atomic(path, lambda file: file.write(content))
    except SystemExit:
        copy = temporary_copy(path)
        if copy is None:
            raise
        write_atomic(copy, lambda file: file.write(content))


def save_weights(path, state, config):
    """Write {"model": half-precision tensors, "config": plain values}, the format that load_weights reads."""
    import torch
    model = {k: v.half().cpu() if v.is_floating_point() else v.cpu() for k, v in state.items()}
    write_atomic(path, lambda file: torch.save({"model": model, "config": config}, file))


def load_weights(path):
    """Read {"model": tensors, "config": plain values}; exits with one line where the file is absent or damaged."""
    import torch
    whole = find_weights(path) if listed_sum(path) else path
    if not os.path.isfile(whole or path):
        raise SystemExit(f"weights not found: {path}")
    if whole is None:
        raise SystemExit(f"weights damaged: {path} does not match SHA256SUMS")
    try:
        saved = torch.load(whole, map_location="cpu", weights_only=True)
        return {k: v.float() if v.is_floating_point() else v for k, v in saved["model"].items()}, saved["config"]
    except (OSError, EOFError, KeyError, TypeError, AttributeError, RuntimeError, pickle.UnpicklingError) as error:
        if torch.__version__ < "2.6":
            raise  # not the file's fault: common's one line names the version
        raise SystemExit(f"weights damaged or of another program: {path} ({type(error).__name__})")


def main():
    action, path = sys.argv[1:]
    if listed_sum(path) is None:
        sums = os.path.join(os.path.dirname(path), "SHA256SUMS")
        raise SystemExit(f"error: {sums} is missing, unreadable or damaged: restore it with git checkout")
    if action == "install":
        install(path, sys.stdin.buffer.read())
    elif find_weights(path) is None:
        print(weights_url(path))


if __name__ == "__main__":
    main()
