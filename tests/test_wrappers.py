"""The TA's commands, as the TA runs them, and the rules that the assignment sets for them."""
import glob
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from common import predict
from common.data import SCENARIOS
from common.weights import listed_sum, sum_of

import pytest
from conftest import PATH, ROOT, bash, one_line_error, one_line_exit
from PIL import Image

BANNED = r"\b(rm|sudo|CUDA_VISIBLE_DEVICES|cp|mv|mkdir|cd|pip|pip3|curl|python|chmod|export|apt|apt-get|conda)\b"
WEIGHTS = "p3_dann/weights/usps_mnistm.pth"
PROBLEMS = ["p3_dann", "p4_uda"]  # the digits
FACES = {"p1_vae": "p1_vae/weights/vae.pth", "p2_gan": "p2_gan/weights/gan.pth"}
SHIPPED = {**FACES, **{problem: f"{problem}/weights/usps_mnistm.pth" for problem in PROBLEMS}}
PROGRAMS = {"bash", "readlink", "dirname", "python3", "wget", "git"}  # all that a wrapper uses


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
    wrapper = os.path.join(os.path.relpath(clone(), tmp_path), "hw3_p3.sh")
    process = bash(wrapper, test_images.name, "usps", "out.csv", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize("problem, name", [
    ("p1_vae", "-a picture.png"), ("p1_vae", "new folder/é.jpg"), ("p2_gan", "-b.JPEG"),
])
def test_generated_picture(problem, name, tmp_path, clone):
    process = bash(os.path.join(os.path.relpath(clone(), tmp_path), f"hw3_{problem[:2]}.sh"), name, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    with Image.open(tmp_path / name) as picture:
        assert picture.size == (530, 266) and picture.format == ("PNG" if name.endswith("png") else "JPEG")


@pytest.mark.parametrize("name, message", [
    ("a.gif", "must end in .png or .jpg"), (".", "must end in"), ("a file/o.png", "cannot make the folder"),
])
def test_bad_picture_path(name, message, tmp_path):
    (tmp_path / "a file").write_text("kept")
    assert message in one_line_error(bash(os.path.join(ROOT, "hw3_p1.sh"), name, cwd=tmp_path))
    assert os.listdir(tmp_path) == ["a file"] and (tmp_path / "a file").read_text() == "kept"


@pytest.mark.parametrize("problem, damage", list(zip(SHIPPED, ["deleted", "cut short"] * 2)))
def test_weights_are_downloaded_where_missing_or_damaged(problem, damage, test_images, tmp_path, clone, server):
    folder, address, asked = server
    repository = clone()
    wrapper, arguments = repository / f"hw3_{problem[:2]}.sh", arguments_for(problem, test_images, tmp_path)
    name = SHIPPED[problem]
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


def git_init(folder, origin):
    """Make the folder a git clone of this origin; returns its commit."""
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["commit", "-qm", "a", "--allow-empty"], ["config", "remote.origin.url", origin]):
        subprocess.run([*git, *command], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()


def test_the_clones_own_origin_is_the_default_address(test_images, tmp_path, clone, server):
    folder, address, asked = server
    repository = clone()
    commit = git_init(repository, f"{address}/user/repository.git")
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
    wrapper, output = repository / "hw3_p3.sh", tmp_path / "o.csv"
    process = bash(wrapper, test_images, "mnistm", output, env={"HW3_WEIGHTS_URL": address})
    assert f"another file came from '{address}/{WEIGHTS}'" in one_line_error(process)
    assert (repository / WEIGHTS).read_bytes() == b"damaged" and not output.exists()


@pytest.fixture(scope="module")
def without_weights(clone):
    repository = clone()
    (repository / WEIGHTS).unlink()
    git_init(repository, "")
    return repository


def no_answer(repository, **environment):
    """The one line of a wrapper that gets no weights."""
    process = bash(repository / "hw3_p3.sh", "images", "mnistm", "o.csv", env=environment)
    assert "secret" not in process.stderr
    return one_line_error(process)


@pytest.mark.parametrize("origin, message", [
    ("ssh://git@127.0.0.1:2222/user/repository.git", "nothing came from 'https://127.0.0.1/user/repository/raw/"),
    ("git@127.0.0.1:group/user/repository.git", "nothing came from 'https://127.0.0.1/group/user/repository/raw/"),
    ("https://127.0.0.1:9/user/repository.git/", "nothing came from 'https://127.0.0.1:9/user/repository/raw/"),
    ("https://alice:secret@127.0.0.1:9/user/repository", "nothing came from 'https://127.0.0.1:9/user/repository/raw/"),
    ("https://a@b:more@secret@127.0.0.1:9/a/b", "nothing came from 'https://127.0.0.1:9/a/b/raw/"),
    ("/a/folder", "this clone's origin ('/a/folder') is no web address"),
    ("", "this clone's origin ('') is no web address"),
])
def test_origins(origin, message, without_weights):
    subprocess.run(["git", "-C", without_weights, "config", "remote.origin.url", origin], check=True)
    assert message in no_answer(without_weights)


@pytest.mark.parametrize("url, message", [
    ("--output-document=stolen", "('--output-document=stolen') is no web address"),
    ("alice:secret@127.0.0.1/weights", "('127.0.0.1/weights') is no web address"),
    ("http://alice:secret@127.0.0.1:9/weights/", f"nothing came from 'http://127.0.0.1:9/weights/{WEIGHTS}'"),
])
def test_addresses_in_the_environment(url, message, without_weights):
    assert message in no_answer(without_weights, HW3_WEIGHTS_URL=url)


def test_the_origin_of_a_repository_around_this_copy_is_not_used(tmp_path, without_weights):
    git_init(tmp_path, "https://alice:secret@127.0.0.1:9/outer/repository")
    shutil.copytree(without_weights, tmp_path / "copy", ignore=shutil.ignore_patterns(".git"))
    message = no_answer(tmp_path / "copy")
    assert "this copy has no .git folder" in message and "outer" not in message


def test_a_clone_of_another_user(without_weights):
    if os.geteuid():
        pytest.skip("only root can give a clone to another user")
    git_init(without_weights, "https://127.0.0.1:9/user/repository")
    os.chown(without_weights / ".git", 65534, 65534)
    try:
        assert "nothing came from 'https://127.0.0.1:9/user/repository/raw/" in no_answer(without_weights)
    finally:
        os.chown(without_weights / ".git", 0, 0)


@pytest.mark.parametrize("program, message", [
    ("python3", "this needs Python 3.10 or newer under the name python3"),
    ("wget", f"{WEIGHTS} is missing or damaged, and wget, which downloads it, is not installed"),
    ("git", f"{WEIGHTS} is missing or damaged, and git, which tells this clone's origin, is not installed"),
])
def test_a_program_that_is_not_installed(program, message, without_weights, tools):
    assert message in no_answer(without_weights, PATH=tools(*PROGRAMS - {program}))


def test_a_python_that_is_too_old(tmp_path, without_weights):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.version_info = (3, 9, 18)")
    assert "this needs Python 3.10 or newer" in no_answer(without_weights, PYTHONPATH=str(tmp_path))


def test_a_python_without_the_packages(tmp_path):
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    message = no_answer(Path(ROOT), PATH=f"{tmp_path}:{PATH}")
    assert "is not installed: python3 -m pip install -r requirements.txt" in message


@pytest.mark.parametrize("content", [None, b"", b"\xff\x00garbage\n", b"0123  usps_mnistm.pth\n"])
def test_a_list_of_sums_that_is_missing_or_damaged(content, without_weights):
    sums = without_weights / "p4_uda" / "weights" / "SHA256SUMS"  # the weights beside it are whole
    sums.write_bytes(content) if content is not None else sums.unlink()
    process = bash(without_weights / "hw3_p4.sh", "images", "mnistm", "o.csv")
    assert "p4_uda/weights/SHA256SUMS is missing, unreadable or damaged" in one_line_error(process)


@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\n\n"), lambda text: text.replace("\n", "\r\n"),
    lambda text: "\n".join(line[:64].upper() + line[64:].replace("  ", " *") for line in text.splitlines()),
], ids=["blank lines", "CRLF", "upper case"])
def test_lists_of_sums_of_other_programs(change, tmp_path):
    with open(os.path.join(ROOT, os.path.dirname(WEIGHTS), "SHA256SUMS")) as file:
        (tmp_path / "SHA256SUMS").write_bytes(change(file.read()).encode())
    assert listed_sum(tmp_path / "usps_mnistm.pth") == sum_of(os.path.join(ROOT, WEIGHTS))


def test_a_clone_with_the_line_ends_of_windows(tmp_path):
    (tmp_path / "here").mkdir()
    for path in (".gitattributes", "hw3_p3.sh", "common/weights.py", WEIGHTS, "p3_dann/weights/SHA256SUMS"):
        (tmp_path / "here" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.join(ROOT, path), tmp_path / "here" / path)
    git_init(tmp_path / "here", "")
    git = ["git", "-C", tmp_path / "here", "-c", "core.autocrlf=true", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "add", "."], check=True, capture_output=True)
    subprocess.run([*git, "commit", "-qm", "all"], check=True)
    subprocess.run([*git, "clone", "-q", tmp_path / "here", tmp_path / "there"], check=True)
    assert "usage: bash hw3_p3.sh" in one_line_error(bash(tmp_path / "there" / "hw3_p3.sh"))
    assert listed_sum(tmp_path / "there" / WEIGHTS) == sum_of(tmp_path / "there" / WEIGHTS)


WRONG_NUMBER = [(wrapper, ["images", "usps", "out.csv", "more"][:count])
                for wrapper in ("hw3_p3.sh", "hw3_p4.sh") for count in (0, 1, 2, 4)]


@pytest.mark.parametrize("wrapper, arguments", [*WRONG_NUMBER, ("hw3_p1.sh", []), ("hw3_p2.sh", ["out.png", "more"])])
def test_wrong_number_of_arguments(wrapper, arguments):
    assert f"usage: bash {wrapper}" in one_line_error(bash(os.path.join(ROOT, wrapper), *arguments))


def add_file(folder, name, content=b"no image"):
    (folder / name).write_bytes(content)


def cut_png(folder):
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:60])


def only_a_readme(folder):
    for path in list(folder.iterdir()):
        path.unlink()
    add_file(folder, "README")


BAD_FOLDERS = {
    "text.png": lambda folder: add_file(folder, "text.png"),
    "cut.png": cut_png,
    "empty.png": lambda folder: add_file(folder, "empty.png", b""),
    "link.png": lambda folder: (folder / "link.png").symlink_to("absent.png"),
    "broken": lambda folder: (folder / "broken").symlink_to("broken"),  # a link to itself, without an extension
    "line break": lambda folder: (folder / "0.png").rename(folder / "0\r.png"),
    "not found": shutil.rmtree,
    "no images": lambda folder: [path.rename(path.with_name("." + path.name)) for path in list(folder.iterdir())],
    "no images in folder": only_a_readme,
}


@pytest.mark.parametrize("message", BAD_FOLDERS)
def test_bad_image_folders(message, test_images, tmp_path, monkeypatch, capsys):
    """The command that ends the wrappers of problems 3 and 4."""
    BAD_FOLDERS[message](test_images)
    arguments = f"--img-dir={test_images}", "--target=usps", f"--output={tmp_path / 'new' / 'o.csv'}"
    monkeypatch.setattr("sys.argv", ["inference.py", *arguments])
    assert message in one_line_exit(predict.main, capsys, "", os.path.join(ROOT, "p3_dann", "weights"))
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


@pytest.mark.parametrize("names, message", [
    ([".DS_Store", "test.csv"], ""),
    (["Thumbs.db", "desktop.ini", "notes.txt"], "skipped, not an image: 'Thumbs.db', 'desktop.ini', 'notes.txt'\n"),
])
def test_skipped_files(names, message, test_images, tmp_path):
    for name in names:
        add_file(test_images, name)
    process = bash(os.path.join(ROOT, "hw3_p3.sh"), test_images, "svhn", tmp_path / "o.csv")
    assert process.returncode == 0 and process.stderr == message
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize("path", glob.glob(os.path.join(ROOT, "*", "weights", "*.pth")),
                         ids=lambda path: os.path.relpath(path, ROOT))
def test_shipped_weights_match_their_sums(path):
    assert listed_sum(path) == sum_of(path)
    assert os.path.getsize(path) < (60e6 if "p1_vae" in path else 40e6 if "p2_gan" in path else 2e6)
