"""The sample data, and labels of 30 of its digits by the shipped models, which must not change.

golden/labels.csv has what each digit was drawn as, and what each model called it.
"""
import pandas
import pytest
from conftest import ROOT

from common import predict, sample_data
from common.data import load_faces, load_labelled
from common.prepare_data import ATTRIBUTES

LABELS = pandas.read_csv(ROOT / "tests" / "golden" / "labels.csv", index_col=0)


def test_the_sample_data_is_whole(tmp_path):
    sample_data.main([str(tmp_path)])
    for split, first, digits, faces in (("train", 0, 1400, 1000), ("test", 1000, 397, 200)):
        for domain in ("usps", "mnistm", "svhn"):
            images, labels = load_labelled(tmp_path, domain, split)
            assert images.shape == (digits, 3, 28, 28) and labels.bincount(minlength=10).min() > digits / 14
        table = pandas.read_csv(tmp_path / "face" / f"{split}.csv")
        assert list(table) == ["image_name", *ATTRIBUTES] and table[ATTRIBUTES].isin([0.0, 1.0]).all(axis=None)
        assert list(table["image_name"]) == [f"{first + i:05d}.png" for i in range(faces)]
        assert load_faces(tmp_path, split).shape == (faces, 3, 64, 64)


@pytest.mark.parametrize("model", LABELS.columns[1:])
def test_golden_labels(model, tmp_path, monkeypatch):
    (problem, pair), output = model.split("/"), tmp_path / "o.csv"
    arguments = ["--img-dir", ROOT / "tests" / "golden", "--target", pair.split("_")[1], "--output", output]
    monkeypatch.setattr("sys.argv", ["inference.py", *map(str, arguments)])
    predict.main("", ROOT / problem / "weights")
    assert dict(pandas.read_csv(output, index_col=0)["label"]) == dict(LABELS[model])
