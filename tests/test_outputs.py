"""Output paths that are no ordinary file: links are followed, devices and pipes written to, all else is refused."""
import os
import subprocess
import sys

import pytest
from conftest import ROOT, bash, one_line_error

WRITE = "import sys; from common.files import write_csv; write_csv(sys.argv[1], ['a'], [[1]])"
NEW = "a\n1\n"  # what it writes
# root may do anything; without capabilities it has the rights of a user
AS_A_USER = [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def write(path, *prefix, **options):
    options = {"stdout": subprocess.PIPE, **options}
    return subprocess.run([*prefix, sys.executable, "-c", WRITE, str(path)], stderr=subprocess.PIPE, text=True,
                          timeout=60, env={**os.environ, "PYTHONPATH": ROOT}, **options)


def state(folder):
    """What is in a folder: kind and rights of each file, where a link leads, what a file holds."""
    return {path: (path.lstat().st_mode, path.is_symlink() and os.readlink(path), path.is_file() and path.read_text())
            for path in folder.rglob("*")}


@pytest.fixture
def device(tmp_path):
    """A function that makes a device like /dev/null (3) or /dev/full (7)."""
    def make(minor):
        path = tmp_path / "device"
        if subprocess.run(["mknod", path, "c", "1", str(minor)], capture_output=True).returncode:
            pytest.skip("no right to make a device")
        try:
            path.open("wb").close()
        except OSError:
            pytest.skip("no devices on this disk")
        return path
    return make


@pytest.mark.parametrize("name, message", [
    ("", "the output path is empty"),
    ("folder", "is a folder"),
    ("new/", "is a folder"),
    ("file/o.csv", "cannot make the folder"),
    ("read-only", "it is read-only"),
    ("link to read-only", "it is read-only"),
    ("loop", "a link to itself"),
    ("pipe", "cannot write"),  # nobody reads it: to wait would be for ever
])
def test_refused_and_left_as_it_was(name, message, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    (tmp_path / "read-only").write_text("old")
    (tmp_path / "read-only").chmod(0o444)
    (tmp_path / "link to read-only").symlink_to("read-only")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    before = state(tmp_path)
    assert message in one_line_error(write(name and os.path.join(tmp_path, name)))
    assert state(tmp_path) == before


@pytest.mark.parametrize("target", ["real.csv", "not there yet/real.csv"])
def test_a_link_is_followed(target, tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(target)
    assert write(tmp_path / "link.csv").returncode == 0
    assert os.readlink(tmp_path / "link.csv") == target and (tmp_path / target).read_text() == NEW


def test_a_pipe_with_a_reader(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert write(tmp_path / "pipe").returncode == 0
    assert (tmp_path / "pipe").is_fifo() and os.read(reader, 100).decode() == NEW
    os.close(reader)


def test_a_device_stays_one(device):
    path = device(3)
    assert write(path).returncode == 0 and path.is_char_device()


def test_a_full_device(device):
    path = device(7)
    assert "No space left" in one_line_error(write(path)) and path.is_char_device()


def test_a_file_that_is_mounted_by_itself(tmp_path):
    inside, outside = tmp_path / "inside.csv", tmp_path / "outside.csv"
    inside.write_text("")
    outside.write_text("an old file, longer than the new one")
    if subprocess.run(["mount", "--bind", outside, inside], capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        assert write(inside).returncode == 0 and outside.read_text() == NEW
    finally:
        subprocess.run(["umount", inside], check=True)
    assert inside.read_text() == "" and sorted(os.listdir(tmp_path)) == ["inside.csv", "outside.csv"]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old.csv").write_text("an old file, longer than the new one")
    folder.chmod(0o555)
    assert "Permission denied" in one_line_error(write(folder / "new.csv", *AS_A_USER))
    assert write(folder / "old.csv", *AS_A_USER).returncode == 0
    assert os.listdir(folder) == ["old.csv"] and (folder / "old.csv").read_text() == NEW


@pytest.fixture
def stdout(tmp_path):
    """What /dev/stdout is; that itself would be lost to a fault if root ran the tests."""
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    return tmp_path / "stdout"


def test_standard_output_piped_and_redirected(stdout, tmp_path):
    assert write(stdout).stdout == NEW
    with open(tmp_path / "all.txt", "w") as file:
        for _ in range(2):  # the second run's lines come after the first's
            assert write(stdout, stdout=file).returncode == 0
    assert (tmp_path / "all.txt").read_text() == 2 * NEW


def test_a_wrapper_with_a_link_and_names_that_begin_with_a_dash(test_images, tmp_path):
    test_images.rename(tmp_path / "-images")
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "-o.csv").symlink_to("real.csv")
    process = bash(os.path.join(ROOT, "hw3_p4.sh"), "-images", "usps", "-o.csv", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "-o.csv").is_symlink() and len((tmp_path / "real.csv").read_text().splitlines()) == 6


def test_a_wrapper_to_standard_output(test_images, stdout):
    process = bash(os.path.join(ROOT, "hw3_p3.sh"), test_images, "usps", stdout)
    assert process.returncode == 0 and process.stderr == "" and len(process.stdout.splitlines()) == 6


@pytest.mark.parametrize("wrapper", ["hw3_p1.sh", "hw3_p2.sh"])
def test_a_wrapper_with_an_empty_picture_path(wrapper):
    assert "the output path is empty" in one_line_error(bash(os.path.join(ROOT, wrapper), ""))
