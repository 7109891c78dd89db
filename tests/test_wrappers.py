"""The TA's commands, as the TA runs them, and the rules that the assignment sets for them."""
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import PATH, ROOT, error_line, run
from PIL import Image

from common.files import sha256

BANNED = r"\b(rm|sudo|CUDA_VISIBLE_DEVICES|cp|mv|mkdir|cd|pip|pip3|curl|python|chmod|export|apt|apt-get|conda)\b"
WEIGHTS = "p3_dann/weights/usps_mnistm.pth"
every_wrapper = pytest.mark.parametrize("wrapper", sorted(ROOT.glob("hw3_p*.sh")), ids=lambda path: path.name)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "tëst images"
    folder.mkdir()
    for i in range(5):
        Image.new("RGB", (28, 28), (50 * i, 100, 20)).save(folder / f"{i}.png")
    return folder


@every_wrapper
def test_rules_of_the_assignment(wrapper):
    for line in wrapper.read_text().splitlines():
        if not line.startswith("#"):
            assert not re.search(BANNED, line), line
            assert not re.search(r"(?<![\w}$.:\"/])/(home|tmp|work|root|data|usr|mnt)\b", line), f"a fixed path: {line}"


def test_no_window_is_shown():
    for path in ROOT.glob("[!t]*/*.py"):
        assert not re.search(r"\b(imshow|plt\.show)\(", path.read_text()), path


@pytest.mark.parametrize("problem, figure", [("p1", "fig1_4"), ("p2", "fig2_2")])
def test_the_grids_are_the_reports_figures(problem, figure, clone, tmp_path):
    """With two threads and one, from another folder, by relative paths."""
    for threads in "21":
        process = run("bash", os.path.relpath(clone / f"hw3_{problem}.sh", tmp_path), "new/-é.png", cwd=tmp_path,
                      env={"OMP_NUM_THREADS": threads})
        assert process.returncode == 0, process.stderr
        with Image.open(tmp_path / "new" / "-é.png") as drawn, \
                Image.open(ROOT / "report" / "figures" / f"{figure}.png") as shown:
            np.testing.assert_array_equal(np.asarray(drawn), np.asarray(shown))


@pytest.mark.parametrize("problem, target", [("p3", "mnistm"), ("p4", "svhn")])
def test_labels_of_a_folder(problem, target, images, clone, tmp_path):
    process = run("bash", clone / f"hw3_{problem}.sh", images.name, target, "new/-prédiction.csv", cwd=tmp_path)
    assert process.returncode == 0 and process.stderr == ""
    rows = (tmp_path / "new" / "-prédiction.csv").read_text().splitlines()
    assert rows[0] == "image_name,label" and [row[:6] for row in rows[1:]] == [f"{i}.png," for i in range(5)]


@every_wrapper
def test_wrong_arguments(wrapper, tmp_path):
    faces = wrapper.name in ("hw3_p1.sh", "hw3_p2.sh")
    for arguments in ([], ["1.png", "2"]) if faces else (["images", "usps"], ["images", "usps", "o.csv", "more"]):
        process = run("bash", wrapper, *arguments, cwd=tmp_path)
        assert process.returncode == 2 and f"usage: bash {wrapper.name}" in error_line(process)
    if not faces:
        process = run("bash", wrapper, "images", "mnist", "o.csv")
        assert process.returncode == 2 and "unknown target 'mnist'" in error_line(process)


@pytest.mark.parametrize("arguments, message", [
    (["hw3_p1.sh", ""], "must end in .png or .jpg"), (["hw3_p2.sh", "o.gif"], "must end in .png or .jpg"),
    (["hw3_p3.sh", "absent", "usps", "o.csv"], "cannot read the image folder absent"),
])
def test_bad_paths(arguments, message, tmp_path):
    wrapper, *arguments = arguments
    assert message in error_line(run("bash", ROOT / wrapper, *arguments, cwd=tmp_path))
    assert not list(tmp_path.iterdir())


def git_init(folder, origin):
    """Make the folder a git clone of this origin; returns its commit."""
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["commit", "-qm", "a", "--allow-empty"], ["config", "remote.origin.url", origin]):
        assert run(*git, *command).returncode == 0
    return run(*git, "rev-parse", "HEAD").stdout.strip()


def test_missing_weights_are_downloaded_from_the_clones_own_origin(images, clone, server, tmp_path):
    folder, address, asked = server
    commit = git_init(clone, f"{address}/user/repository.git/")
    served = folder / "user" / "repository" / "raw" / commit / WEIGHTS
    served.parent.mkdir(parents=True)
    shutil.move(clone / WEIGHTS, served)
    for _ in range(2):  # the second time it is there
        process = run("bash", clone / "hw3_p3.sh", images, "mnistm", tmp_path / "o.csv")
        assert process.returncode == 0, process.stderr
    assert len(asked) == 1 and sha256(clone / WEIGHTS) == sha256(served)


@pytest.mark.parametrize("content, reason", [(None, "ERROR 404"), (b"<html>a login page</html>", "another file came")])
def test_a_server_without_the_weights(content, reason, images, clone, server, tmp_path):
    """One line with wget's own words and no address, no output, and nothing that looks like weights."""
    folder, address, _ = server
    (clone / WEIGHTS).write_bytes(b"")  # empty is as good as absent
    if content:
        (folder / WEIGHTS).parent.mkdir(parents=True)
        (folder / WEIGHTS).write_bytes(content)
    process = run("bash", clone / "hw3_p3.sh", images, "mnistm", tmp_path / "o.csv", env={"HW3_WEIGHTS_URL": address})
    line = error_line(process)
    assert WEIGHTS in line and reason in line and "HW3_WEIGHTS_URL" in line and "127.0.0.1" not in line
    assert (clone / WEIGHTS).read_bytes() == b"" and not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize("origin", ["https://alice:secret@127.0.0.1:9/a/b", "git@127.0.0.1:a/b.git", "/a/folder"])
def test_no_weights_and_no_network(origin, images, clone, tmp_path):
    git_init(clone, origin)
    (clone / WEIGHTS).unlink()
    line = error_line(run("bash", clone / "hw3_p3.sh", images, "mnistm", tmp_path / "o.csv"))
    assert f"{WEIGHTS} is missing" in line and "secret" not in line


def test_no_wget(images, clone, tmp_path):
    (clone / WEIGHTS).unlink()
    (tmp_path / "bin").mkdir()
    for name in ("bash", "readlink", "dirname", "git", "sed", "sha256sum", "python3"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name, path=PATH))
    process = run("bash", clone / "hw3_p3.sh", images, "mnistm", "o.csv", env={"PATH": str(tmp_path / "bin")})
    assert "wget: command not found" in error_line(process)


def test_a_model_that_is_there_is_used_and_never_replaced(images, clone, tmp_path):
    """The student's own; one that is damaged is named, with the way out."""
    (clone / WEIGHTS).write_bytes((clone / "p4_uda/weights/usps_mnistm.pth").read_bytes())
    predictions = []
    for wrapper in ("hw3_p3.sh", "hw3_p4.sh"):
        assert run("bash", clone / wrapper, images, "mnistm", tmp_path / "o.csv").returncode == 0
        predictions.append((tmp_path / "o.csv").read_text())
    assert predictions[0] == predictions[1]
    (clone / WEIGHTS).write_bytes(b"damaged")
    line = error_line(run("bash", clone / "hw3_p3.sh", images, "mnistm", tmp_path / "new.csv"))
    assert "usps_mnistm.pth is damaged" in line and "delete it" in line
    assert (clone / WEIGHTS).read_bytes() == b"damaged" and not (tmp_path / "new.csv").exists()


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/weights/*.pth")), ids=lambda path: str(path.relative_to(ROOT)))
def test_shipped_weights_match_their_sums(path):
    assert f"{sha256(path)}  {path.name}\n" in (path.parent / "SHA256SUMS").read_text()


def test_a_clone_with_the_line_ends_of_windows(clone, tmp_path):
    git_init(clone, "")
    for command in (["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"]):
        assert run("git", "-C", clone, "-c", "core.autocrlf=true", *command).returncode == 0
    subprocess.run(["git", "clone", "-q", "-c", "core.autocrlf=true", clone, tmp_path / "windows"], check=True)
    for name in ("hw3_p3.sh", "p3_dann/weights/SHA256SUMS", WEIGHTS):
        assert (tmp_path / "windows" / name).read_bytes() == (clone / name).read_bytes()
