"""The sample data is whole and in the course's layout."""
import pandas
import pytest
from PIL import Image

from common.data import load_faces, load_labelled
from common.prepare_data import ATTRIBUTES


@pytest.mark.parametrize("domain, mode", [("usps", "L"), ("mnistm", "RGB"), ("svhn", "RGB")])
def test_digits(sample_data, domain, mode):
    for split, count in (("train", 1400), ("test", 397)):
        images, labels = load_labelled(sample_data, domain, split)
        assert images.shape == (count, 3, 28, 28) and labels.bincount(minlength=10).min() > count / 14
        assert len(list((sample_data / "digits" / domain / split).iterdir())) == count
        assert Image.open(sample_data / "digits" / domain / split / "00000.png").mode == mode


def test_faces(sample_data):
    for split, first, count in (("train", 0, 1000), ("test", 1000, 200)):
        table = pandas.read_csv(sample_data / "face" / f"{split}.csv")
        assert list(table) == ["image_name", *ATTRIBUTES] and table[ATTRIBUTES].isin([0.0, 1.0]).all(axis=None)
        assert list(table["image_name"]) == [f"{first + i:05d}.png" for i in range(count)]
        assert load_faces(sample_data, split).shape == (count, 3, 64, 64)
