"""Label a folder of digit images with a model of problem 3.

    python3 p3_dann/inference.py --img-dir hw3_data/digits/mnistm/test --target mnistm --output pred.csv
    python3 p3_dann/inference.py ... --weights runs/p3_usps_mnistm_source_0/model.pth

Writes `image_name,label`, one row an image, in name order.
"""
import argparse
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir))
from common.data import SCENARIOS
from common.predict import load_digit_net, predict_folder
from common.runtime import pick_device


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img-dir", required=True)
    parser.add_argument("--target", required=True, choices=SCENARIOS)
    parser.add_argument("--output", required=True)
    parser.add_argument("--weights", help="default: the shipped model of the target")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    weights = args.weights or os.path.join(HERE, "weights", f"{SCENARIOS[args.target]}_{args.target}.pth")
    device = pick_device(args.device)
    predict_folder(load_digit_net(weights, device), args.img_dir, args.output, device)


if __name__ == "__main__":
    main()
