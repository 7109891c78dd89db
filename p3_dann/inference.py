"""Label a folder of digit images with a model of problem 3.

    python3 p3_dann/inference.py --img-dir hw3_data/digits/mnistm/test --target mnistm --output pred.csv

Writes `image_name,label`, one row an image, in name order.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.predict import main

if __name__ == "__main__":
    main(__doc__, Path(__file__).parent / "weights")
