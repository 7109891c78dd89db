"""Output files: each is whole or as it was, and only ordinary files are ever replaced."""
import csv
import errno
import io
import os


def check_output(path):
    """Exit with one line where `path` is empty, a folder, a loop of links or a read-only file."""
    if not path:
        raise SystemExit("the output path is empty")
    if os.path.isdir(path) or not os.path.basename(path):
        raise SystemExit(f"the output path is a folder: {path}")
    if os.path.islink(os.path.realpath(path)):
        raise SystemExit(f"the output path is a link to itself: {path}")
    # root may write to any file, so the mode is looked at, too
    if os.path.exists(path) and not (os.access(path, os.W_OK) and os.stat(path).st_mode & 0o222):
        raise SystemExit(f"cannot write {path}: it is read-only")


def make_folder(path):
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"cannot write into {path}: cannot make the folder ({error.strerror})")


def is_stdout(path):
    return os.path.realpath(path) == os.path.realpath("/dev/stdout")


def write_in_place(path, content):
    """For what can't be renamed over: a device, a pipe, standard output, a file that is mounted by itself."""
    # standard output, opened anew, would be written from its start; a pipe without a reader would block for ever
    with open(os.dup(1) if is_stdout(path) else os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK), "wb") as file:
        os.set_blocking(file.fileno(), True)
        file.write(content)


def write_atomic(path, write):
    """Put what write(file), with a binary file, writes to `path`; makes the folder. Exits with one line if it can't.

    A symbolic link is followed. An ordinary or new file is written beside its place and renamed; anything else is
    written in place.
    """
    check_output(path)
    buffer = io.BytesIO()
    write(buffer)
    content, target = buffer.getbuffer(), os.path.realpath(path)
    part = f"{target}.{os.getpid()}.part"
    try:
        if is_stdout(path) or os.path.exists(path) and not os.path.isfile(path):
            return write_in_place(path, content)
        make_folder(os.path.dirname(target))
        try:
            with open(part, "wb") as file:
                file.write(content)
            os.replace(part, target)
        except OSError as error:  # not to be renamed over, or in a folder that can't be written to
            if error.errno not in (errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS) or not os.path.isfile(target):
                raise
            write_in_place(target, content)
    except OSError as error:
        raise SystemExit(f"cannot write {path}: {error.strerror}")
    finally:
        if os.path.exists(part):
            os.remove(part)


def write_text(path, text):
    write_atomic(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))  # file names may be any bytes


def write_csv(path, header, rows):
    """Write rows (sequences of plain values) under a header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())
