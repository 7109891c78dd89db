"""The shared parts: images, labels, EMA, files, evaluation, sample data."""
import argparse
import os

import numpy as np
import pytest
import torch
from PIL import Image

from common.data import list_images, load_images, load_labelled, load_unlabelled, read_labels
from common.evaluate import accuracy
from common.runtime import EMA, at_least, entropy, has_bf16, learning_rate, pick_device, save_weights, write_atomic, write_csv
from common.weights import install, load_weights, sum_of
from conftest import ROOT, one_line_error


def test_images_of_every_kind(tmp_path):
    grey = np.linspace(0, 255, 28 * 28).reshape(28, 28).astype(np.uint8)
    colour = np.stack([grey, 255 - grey, grey // 2], 2)
    palette = Image.fromarray(colour).quantize(16)
    pictures = {
        "a.png": (Image.fromarray(grey), np.stack([grey] * 3, 2)),
        "b.png": (Image.fromarray(colour), colour),
        "c.png": (Image.fromarray(np.dstack([colour, grey])), colour),
        "d.png": (palette, np.asarray(palette.convert("RGB"))),
        "e.png": (Image.fromarray(grey.astype(np.uint16) * 257), np.stack([grey] * 3, 2)),
        "f.png": (Image.fromarray(grey > 127), np.stack([(grey > 127) * np.uint8(255)] * 3, 2)),
        "g.bmp": (Image.fromarray(colour), colour),
    }
    for name, (picture, _) in pictures.items():
        picture.save(tmp_path / name)
    images = load_images(str(tmp_path), list(pictures))
    assert images.dtype == torch.uint8 and images.shape == (7, 3, 28, 28)
    for image, (name, (_, expected)) in zip(images, pictures.items()):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected, err_msg=name)


def test_other_sizes_are_resized(tmp_path):
    Image.new("RGB", (100, 40), (10, 200, 30)).save(tmp_path / "wide.png")
    image = load_images(str(tmp_path), ["wide.png"])[0]
    assert image.shape == (3, 28, 28) and image[:, 5, 5].tolist() == [10, 200, 30]


def test_listing_skips_hidden_files_csvs_and_folders(tmp_path):
    for name in ("b.png", "a.png", ".hidden.png", "labels.csv", "LABELS.CSV"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder").mkdir()
    assert list_images(str(tmp_path)) == ["a.png", "b.png"]


def test_loading_labelled_and_unlabelled(data_dir):
    images, labels = load_labelled(data_dir, "usps", "train", limit=13)
    assert images.shape == (13, 3, 28, 28) and labels.tolist() == [i % 10 for i in range(13)]
    assert torch.equal(load_unlabelled(data_dir, "usps", "train", limit=13), images)
    assert len(load_unlabelled(data_dir, "usps", "train")) == 40


def test_learning_rate_warms_up_and_ends_at_zero():
    assert learning_rate(0, 1000, 1) == pytest.approx(0.01)
    assert learning_rate(500, 1000, 1) == pytest.approx(0.5)
    assert learning_rate(1000, 1000, 1) == pytest.approx(0)


def test_entropy():
    assert entropy(torch.tensor([[0.25] * 4, [1.0, 0, 0, 0]])).tolist() == pytest.approx([1.386294, 0])


def test_ema_equals_its_closed_form():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    ema = EMA(net, decay=0.8)
    expected = {k: v.clone() for k, v in net.state_dict().items()}
    for step in range(1, 60):
        torch.manual_seed(step)
        net(torch.randn(8, 2))  # moves the batch-norm buffers
        with torch.no_grad():
            net[0].weight.normal_()
        ema.update(net)
        decay = min(0.8, step / (step + 9))
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                expected[key] = decay * expected[key] + (1 - decay) * value
    for key, value in expected.items():
        torch.testing.assert_close(ema.state[key], value)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.csv"
    write_csv(path, ("a", "b"), [(1, 2)])

    def fail(part):
        with open(part, "w") as file:
            file.write("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(SystemExit, match="No space left"):
        write_atomic(path, fail)
    assert path.read_text() == "a,b\n1,2\n" and os.listdir(tmp_path) == ["file.csv"]


def test_odd_image_names_survive_the_csv(tmp_path):
    names = ["a, b.png", 'quo"te.png', "é.png"]
    write_csv(tmp_path / "t.csv", ("image_name", "label"), [(name, 1) for name in names])
    assert list(read_labels(tmp_path / "t.csv")) == names


def test_weights_round_trip_in_half_precision(tmp_path):
    path = tmp_path / "model.pth"
    state = {"w": torch.randn(3), "n": torch.tensor(7)}
    save_weights(path, state, {"width": 3})
    loaded, config = load_weights(path)
    assert config == {"width": 3} and loaded["n"] == 7
    assert torch.equal(loaded["w"], state["w"].half().float())


def test_weights_install_takes_only_the_listed_content(tmp_path):
    path = tmp_path / "model.pth"
    (tmp_path / "whole").write_bytes(b"whole")
    (tmp_path / "SHA256SUMS").write_text(f"{sum_of(tmp_path / 'whole')}  model.pth\n")
    assert install(str(path), b"who") is None and not path.exists()
    assert install(str(path), b"whole") == str(path) and path.read_bytes() == b"whole"
    path.write_bytes(b"whoLe")
    with pytest.raises(SystemExit, match="does not match SHA256SUMS"):
        load_weights(str(path))


def test_pickles_are_not_loaded(tmp_path):
    torch.save({"model": {}, "config": os.system}, tmp_path / "model.pth")
    with pytest.raises(SystemExit, match="weights damaged"):
        load_weights(tmp_path / "model.pth")


def test_accuracy(tmp_path):
    truth, prediction = str(tmp_path / "truth.csv"), str(tmp_path / "pred.csv")
    write_csv(truth, ("image_name", "label"), [("a", 1), ("b", 2), ("c", 3)])
    write_csv(prediction, ("image_name", "label"), [("c", 3), ("a", 1), ("b", 0)])
    assert accuracy(prediction, truth) == (2, 3)
    write_csv(prediction, ("image_name", "label"), [("a", 1), ("b", 0)])
    with pytest.raises(SystemExit, match="pred.csv has no row for c"):
        accuracy(prediction, truth)
    write_csv(prediction, ("image_name", "label"), [("a", 1), ("b", 0), ("c", 1), ("x", 1), ("y", 1)])
    with pytest.raises(SystemExit, match="truth.csv has no row for x and 1 more"):
        accuracy(prediction, truth)


def test_evaluate_prints_what_the_course_prints(tmp_path, python):
    write_csv(tmp_path / "t.csv", ("image_name", "label"), [("a", 1), ("b", 2), ("c", 3)])
    write_csv(tmp_path / "p.csv", ("image_name", "label"), [("a", 1), ("b", 2), ("c", 0)])
    assert python("-m", "common.evaluate", tmp_path / "p.csv", tmp_path / "t.csv", cwd=ROOT).stdout == "Accuracy: 2/3 (66.67%)\n"
    assert "usage" in one_line_error(python("-m", "common.evaluate", tmp_path / "p.csv", cwd=ROOT))
    assert "cannot read" in one_line_error(python("-m", "common.evaluate", tmp_path / "p.csv", "absent.csv", cwd=ROOT))


def test_at_least():
    assert at_least(2)("2") == 2
    with pytest.raises(argparse.ArgumentTypeError, match="1 is too small: 2 or more"):
        at_least(2)("1")


def test_device_and_precision():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda")
    assert has_bf16(torch.device("cpu")) in (True, False)


def test_freed_memory_is_kept(python):
    process = python("-c", """
import resource, torch
from common.runtime import pick_device
def fill():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(2 ** 21) for _ in range(8)]  # 64 MiB
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2 ** 20
pick_device("cpu")
[fill() for _ in range(3)]
print(fill())
""", cwd=ROOT)
    assert float(process.stdout) < 16, process.stderr


def test_sample_data(tmp_path, python):
    process = python("-m", "common.sample_data", tmp_path / "s", cwd=ROOT)
    assert process.returncode == 0, process.stderr
    for domain, mode in (("usps", "L"), ("mnistm", "RGB"), ("svhn", "RGB")):
        images, labels = load_labelled(str(tmp_path / "s"), domain, "train")
        assert images.shape == (1400, 3, 28, 28) and labels.bincount(minlength=10).min() > 100
        assert len(load_unlabelled(str(tmp_path / "s"), domain, "test")) == 397
        assert Image.open(tmp_path / "s" / "digits" / domain / "test" / "00000.png").mode == mode
