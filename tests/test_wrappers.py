"""The TA's commands, as the TA runs them, and the rules that the assignment sets for them."""
import os
import re
import shutil

import numpy as np
import pandas
from conftest import ROOT, error_line, run, two_at_a_time
from PIL import Image

from common.data import list_images
from common.digit_net import DigitNet
from common.files import sha256
from common.weights import save_weights

BANNED = r"\b(rm|sudo|CUDA_VISIBLE_DEVICES|cp|mv|mkdir|cd|pip|pip3|curl|python|chmod|export|apt|apt-get|conda)\b"
GOLDEN = ROOT / "tests" / "golden"
WEIGHTS = "p3_dann/weights/usps_mnistm.pth"
WRAPPERS = sorted(ROOT.glob("hw3_p*.sh"))


def test_rules_of_the_assignment():
    for script in [*WRAPPERS, ROOT / "common" / "fetch_weights.sh"]:
        for line in script.read_text().splitlines():
            if not line.startswith("#"):
                assert not re.search(BANNED, line), line
                assert not re.search(r"(?<![\w}$.:\"/])/(home|tmp|work|root|data|usr|mnt)\b", line), line
    for path in (path for folder in ("common", "report", "p?_*") for path in ROOT.glob(f"{folder}/*.py")):
        assert not re.search(r"\b(im)?show\(", path.read_text(encoding="utf-8")), path


def test_wrong_arguments():
    for wrapper in WRAPPERS:
        process = run("bash", wrapper, "a", "b", "c", "d")
        assert process.returncode == 2 and f"usage: bash {wrapper.name}" in error_line(process)
    for wrapper in WRAPPERS[2:]:
        process = run("bash", wrapper, "images", "mnist", "o.csv")
        assert process.returncode == 2 and "unknown target 'mnist'" in error_line(process)


def test_the_grids_are_the_reports_figures(clone, tmp_path):
    """From another folder, by relative paths, with any number of threads."""
    def draw(arguments):
        problem, figure, threads = arguments
        process = run("bash", os.path.relpath(clone / f"hw3_{problem}.sh", tmp_path), f"new/-é{problem}.png",
                      cwd=tmp_path, env={"OMP_NUM_THREADS": threads})
        assert process.returncode == 0, process.stderr
        drawn, shown = (np.asarray(Image.open(path)) for path in (tmp_path / "new" / f"-é{problem}.png",
                                                                  ROOT / "report" / "figures" / f"{figure}.png"))
        np.testing.assert_array_equal(drawn, shown)
    two_at_a_time(draw, [("p1", "fig1_4", "1"), ("p2", "fig2_2", "2")])


def git_init(folder, origin):
    """Make the folder a git clone of this origin; returns its commit."""
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["commit", "-qm", "a", "--allow-empty"], ["config", "remote.origin.url", origin]):
        assert run(*git, *command).returncode == 0
    return run(*git, "rev-parse", "HEAD").stdout.strip()


def test_labels_by_downloaded_weights_and_by_a_model_that_is_there(clone, server, tmp_path):
    """Missing weights come from the clone's own origin; the student's own are used and never replaced.

    Standard output is closed, as under some daemons.
    """
    folder, address = server
    images = shutil.copytree(GOLDEN, tmp_path / "tëst images")
    commit = git_init(clone, f"{address}/user/repository.git/")
    served = folder / "user" / "repository" / "raw" / commit / WEIGHTS
    served.parent.mkdir(parents=True)
    shutil.move(clone / WEIGHTS, served)
    net = DigitNet(2)
    net.classifier.bias.data[0] = 100  # it calls everything a zero
    mine = clone / "p4_uda" / "weights" / "mnistm_svhn.pth"
    save_weights(mine, net.state_dict(), {"width": 2})
    before = sha256(mine)

    def label(arguments):
        problem, target = arguments
        process = run("bash", "-c", 'bash "$@" >&-', "", clone / f"hw3_{problem}.sh", images.name, target,
                      f"new/-é{problem}.csv", cwd=tmp_path)
        assert process.returncode == 0 and process.stderr == ""
        return pandas.read_csv(tmp_path / "new" / f"-é{problem}.csv")
    downloaded, own = two_at_a_time(label, [("p3", "mnistm"), ("p4", "svhn")])
    assert sha256(clone / WEIGHTS) == sha256(served) and sha256(mine) == before and (own["label"] == 0).all()
    assert list(downloaded["image_name"]) == list(own["image_name"]) == list_images(images)


def test_weights_that_cannot_be_had(clone, server, tmp_path):
    """One line with wget's own words and no address of ours, no output, and nothing that looks like weights."""
    folder, address = server
    (folder / WEIGHTS).parent.mkdir(parents=True)
    (folder / WEIGHTS).write_text("<html>a login page</html>")
    for origin, environment, reason in (
            ("", {"HW3_WEIGHTS_URL": address}, "(another file came)"), (f"{address}/absent", {}, "ERROR 404"),
            ("https://alice:secret@127.0.0.1:9/a/b", {}, "refused"), ("git@127.0.0.1:a/b.git", {}, "refused"),
            ("/a/folder", {}, "")):
        git_init(clone, origin)
        (clone / WEIGHTS).write_bytes(b"")  # empty is as good as absent
        line = error_line(run("bash", clone / "hw3_p3.sh", GOLDEN, "mnistm", tmp_path / "o.csv", env=environment))
        assert f"{WEIGHTS} is missing" in line and reason in line and "http" not in line and "secret" not in line
        assert (clone / WEIGHTS).read_bytes() == b"" and not (tmp_path / "o.csv").exists()


def test_shipped_weights_match_their_sums():
    for path in ROOT.glob("*/weights/*.pth"):
        assert f"{sha256(path)}  {path.name}\n" in (path.parent / "SHA256SUMS").read_text()
