"""The TA's commands, as the TA runs them, and the rules that the assignment sets for them."""
import glob
import os
import re
import shutil
import subprocess

import pytest
from PIL import Image

from common.data import SCENARIOS
from common.weights import listed_sum, sum_of
from conftest import ROOT, bash, one_line_error

BANNED = r"\b(rm|sudo|CUDA_VISIBLE_DEVICES|cp|mv|mkdir|cd|pip|pip3|curl|python|chmod|export|apt|apt-get|conda)\b"
WEIGHTS = "p3_dann/weights/usps_mnistm.pth"
PROBLEMS = ["p3_dann", "p4_uda"]  # the digits
FACES = {"p1_vae": "p1_vae/weights/vae.pth", "p2_gan": "p2_gan/weights/gan.pth"}
SHIPPED = {**FACES, **{problem: f"{problem}/weights/usps_mnistm.pth" for problem in PROBLEMS}}

def arguments_for(problem, test_images, folder):
    """Of the problem's wrapper, for the model of SHIPPED."""
    return [folder / "o.png"] if problem in FACES else [test_images, "mnistm", folder / "o.csv"]


def shell_files():
    return glob.glob(os.path.join(ROOT, "hw3_p*.sh")) + glob.glob(os.path.join(ROOT, "common", "*.sh"))


@pytest.mark.parametrize("path", shell_files(), ids=os.path.basename)
def test_rules_of_the_assignment(path):
    with open(path) as file:
        lines = [line for line in file if not line.lstrip().startswith("#")]
    for line in lines:
        assert not re.search(BANNED, line), line
        assert not re.search(r"(?<![\w}$.:\"/])/(home|tmp|work|root|data|usr|mnt)\b", line), f"a fixed path: {line}"
    assert subprocess.run(["bash", "-n", path]).returncode == 0


def test_python_code_of_the_wrappers_shows_no_window():
    for path in glob.glob(os.path.join(ROOT, "*", "*.py")):
        if "tests" not in path:
            with open(path) as file:
                assert not re.search(r"\b(imshow|plt\.show)\(", file.read()), path


@pytest.mark.parametrize("target", SCENARIOS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_as_the_ta_runs_it(problem, target, test_images, tmp_path):
    out = tmp_path / "not there yet" / "prédiction.csv"
    process = bash(os.path.join(ROOT, f"hw3_{problem[:2]}.sh"), test_images, target, out, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    rows = out.read_text().splitlines()
    assert rows[0] == "image_name,label" and [row.split(",")[0] for row in rows[1:]] == [f"{i}.png" for i in range(5)]
    assert all(re.fullmatch(r"\d\.png,\d", row) for row in rows[1:])


def test_relative_paths_from_another_folder(test_images, tmp_path, clone):
    process = bash(os.path.join(os.path.relpath(clone(), tmp_path), "hw3_p3.sh"), test_images.name, "usps", "out.csv", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize("problem, name", [("p1_vae", "a picture.png"), ("p1_vae", "new folder/é.jpg"), ("p2_gan", "b.JPEG")])
def test_generated_picture(problem, name, tmp_path, clone):
    process = bash(os.path.join(os.path.relpath(clone(), tmp_path), f"hw3_{problem[:2]}.sh"), name, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    with Image.open(tmp_path / name) as picture:
        assert picture.size == (530, 266) and picture.format == ("PNG" if name.endswith("png") else "JPEG")


@pytest.mark.parametrize("name, message", [("a.gif", "must end in .png or .jpg"), (".", "must end in"), ("a file/o.png", "cannot make the folder")])
def test_bad_picture_path(name, message, tmp_path):
    (tmp_path / "a file").write_text("kept")
    assert message in one_line_error(bash(os.path.join(ROOT, "hw3_p1.sh"), name, cwd=tmp_path))
    assert os.listdir(tmp_path) == ["a file"] and (tmp_path / "a file").read_text() == "kept"


@pytest.mark.parametrize("problem, damage", list(zip(SHIPPED, ["deleted", "cut short"] * 2)))
def test_weights_are_downloaded_where_missing_or_damaged(problem, damage, test_images, tmp_path, clone, server):
    folder, address, asked = server
    repository = clone()
    wrapper, name, arguments = repository / f"hw3_{problem[:2]}.sh", SHIPPED[problem], arguments_for(problem, test_images, tmp_path)
    weights = repository / name
    (folder / name).parent.mkdir(parents=True)
    shutil.copy(weights, folder / name)
    content = weights.read_bytes()
    weights.unlink() if damage == "deleted" else weights.write_bytes(content[:1000])
    process = bash(wrapper, *arguments, env={"HW3_WEIGHTS_URL": address})
    assert process.returncode == 0, process.stderr
    assert weights.read_bytes() == content and asked == [f"/{name}"]
    assert bash(wrapper, *arguments).returncode == 0
    assert len(asked) == 1  # the second run needs no download
    assert not glob.glob(str(repository / "**" / "*.part"), recursive=True)


def test_the_clones_own_origin_is_the_default_address(test_images, tmp_path, clone, server):
    folder, address, asked = server
    repository = clone()
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "README.md"], ["commit", "-qm", "a"],
                    ["remote", "add", "origin", f"{address}/user/repository.git"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    served = folder / "user" / "repository" / "raw" / commit / WEIGHTS
    served.parent.mkdir(parents=True)
    shutil.move(repository / WEIGHTS, served)
    process = bash(repository / "hw3_p3.sh", test_images, "mnistm", tmp_path / "o.csv")
    assert process.returncode == 0, process.stderr
    assert len(asked) == 1 and (repository / WEIGHTS).exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", ""])
def test_no_weights_and_no_network(url, test_images, tmp_path, clone):
    repository = clone()  # without .git: no origin either
    (repository / WEIGHTS).unlink()
    process = bash(repository / "hw3_p3.sh", test_images, "mnistm", tmp_path / "o.csv", env={"HW3_WEIGHTS_URL": url})
    assert WEIGHTS in one_line_error(process) and "HW3_WEIGHTS_URL" in process.stderr
    assert not (tmp_path / "o.csv").exists() and not (repository / WEIGHTS).exists()


def test_a_server_that_gives_something_else(test_images, tmp_path, clone, server):
    folder, address, _ = server
    repository = clone()
    (folder / WEIGHTS).parent.mkdir(parents=True)
    (folder / WEIGHTS).write_text("<html>a login page</html>")
    (repository / WEIGHTS).write_bytes(b"damaged")
    process = bash(repository / "hw3_p3.sh", test_images, "mnistm", tmp_path / "o.csv", env={"HW3_WEIGHTS_URL": address})
    assert "missing or damaged" in one_line_error(process)
    assert (repository / WEIGHTS).read_bytes() == b"damaged" and not (tmp_path / "o.csv").exists()


WRONG_NUMBER = [(wrapper, ["images", "usps", "out.csv", "more"][:count]) for wrapper in ("hw3_p3.sh", "hw3_p4.sh") for count in (0, 1, 2, 4)]


@pytest.mark.parametrize("wrapper, arguments", [*WRONG_NUMBER, ("hw3_p1.sh", []), ("hw3_p2.sh", ["out.png", "more"])])
def test_wrong_number_of_arguments(wrapper, arguments):
    assert f"usage: bash {wrapper}" in one_line_error(bash(os.path.join(ROOT, wrapper), *arguments))


def add_file(folder, name, content=b"no image"):
    (folder / name).write_bytes(content)


def cut_png(folder):
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:60])


BAD_FOLDERS = {
    "text.png": lambda folder: add_file(folder, "text.png"),
    "cut.png": cut_png,
    "empty.png": lambda folder: add_file(folder, "empty.png", b""),
    "notes.txt": lambda folder: add_file(folder, "notes.txt"),
    "not found": shutil.rmtree,
    "no images": lambda folder: [path.rename(path.with_name("." + path.name)) for path in list(folder.iterdir())],
}


@pytest.mark.parametrize("message", BAD_FOLDERS)
def test_bad_image_folders(message, test_images, tmp_path):
    BAD_FOLDERS[message](test_images)
    process = bash(os.path.join(ROOT, "hw3_p3.sh"), test_images, "usps", tmp_path / "new" / "o.csv")
    assert message in one_line_error(process)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("target, output, message", [
    ("mnist", "o.csv", "unknown target 'mnist'"),
    ("usps", ".", "the output path is a folder"),
    ("usps", "a file/o.csv", "cannot write"),
])
def test_bad_target_and_output(target, output, message, test_images, tmp_path):
    (tmp_path / "a file").write_text("kept")
    process = bash(os.path.join(ROOT, "hw3_p3.sh"), test_images, target, output, cwd=tmp_path)
    assert message in one_line_error(process)
    assert not (tmp_path / "o.csv").exists() and (tmp_path / "a file").read_text() == "kept"


def test_skipped_files_are_skipped_in_silence(test_images, tmp_path):
    add_file(test_images, ".DS_Store")
    add_file(test_images, "test.csv")
    process = bash(os.path.join(ROOT, "hw3_p3.sh"), test_images, "svhn", tmp_path / "o.csv")
    assert process.returncode == 0 and process.stderr == ""
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize("path", glob.glob(os.path.join(ROOT, "*", "weights", "*.pth")), ids=lambda path: os.path.relpath(path, ROOT))
def test_shipped_weights_match_their_sums(path):
    assert listed_sum(path) == sum_of(path)
    assert os.path.getsize(path) < (60e6 if "p1_vae" in path else 40e6 if "p2_gan" in path else 2e6)
