"""Accuracy of a prediction file, as the course's hw3_eval.py prints it.

    python3 -m common.evaluate pred.csv test.csv

Both are CSVs with the columns image_name and label; they must name the same images.
"""
import sys

from common.data import read_labels


def accuracy(prediction_path, truth_path):
    """Return (correct, total); exits with one line where the two files do not name the same images."""
    predicted, truth = read_labels(prediction_path), read_labels(truth_path)
    odd = sorted(predicted.keys() ^ truth.keys())
    if odd:
        raise SystemExit(f"{prediction_path} and {truth_path} do not name the same images: only one has {odd[0]}")
    return sum(predicted[name] == label for name, label in truth.items()), len(truth)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python3 -m common.evaluate pred.csv test.csv")
    correct, total = accuracy(*sys.argv[1:])
    print(f"Accuracy: {correct}/{total} ({100 * correct / total:.2f}%)")
