"""What the shipped digit models say: labels that must not change, and how often they are right on the sample data.

golden/ has digits of the sample data; labels.csv has what each was drawn as, and what each model called it. The two
shipped grids of faces are compared in test_wrappers.py.
"""
import pandas
import pytest
from conftest import ROOT

from common import predict
from common.data import SCENARIOS
from common.evaluate import accuracy

GOLDEN = ROOT / "tests" / "golden"
FLOORS = {"p3_dann": {"mnistm": 0.6, "svhn": 0.84, "usps": 0.77},  # a twentieth below what they are
          "p4_uda": {"mnistm": 0.77, "svhn": 0.92, "usps": 0.85}}
every_model = pytest.mark.parametrize("problem, target", [(p, t) for p in FLOORS for t in SCENARIOS])


def label(problem, target, folder, output, monkeypatch):
    """The command line of the problem's inference.py."""
    monkeypatch.setattr("sys.argv", ["inference.py", "--img-dir", str(folder), "--target", target,
                                     "--output", str(output)])
    predict.main("", ROOT / problem / "weights")


@every_model
def test_golden_labels(problem, target, tmp_path, monkeypatch):
    label(problem, target, GOLDEN, tmp_path / "o.csv", monkeypatch)
    expected = pandas.read_csv(GOLDEN / "labels.csv").sort_values("image_name")
    labels = pandas.read_csv(tmp_path / "o.csv")
    assert list(labels["image_name"]) == list(expected["image_name"])
    assert list(labels["label"]) == list(expected[f"{problem}/{SCENARIOS[target]}_{target}"])


@every_model
def test_accuracy_on_the_sample_data(problem, target, sample_data, tmp_path, monkeypatch):
    folder = sample_data / "digits" / target / "test"
    label(problem, target, folder, tmp_path / "o.csv", monkeypatch)
    correct, total = accuracy(tmp_path / "o.csv", f"{folder}.csv")
    assert correct / total > FLOORS[problem][target]
