"""From a folder of digit images to a CSV of labels, for problems 3 and 4, which share the network."""
import argparse
from pathlib import Path

import pandas
import torch

from common.data import SCENARIOS, list_images, load_images
from common.digit_net import DigitNet
from common.files import write_output
from common.training import pick_device
from common.weights import load_model


def load_digit_net(path):
    """The DigitNet of a weights file, in eval mode."""
    return load_model(path, lambda config: DigitNet(config["width"]))[0]


@torch.inference_mode()
def run_in_batches(function, images, device="cpu", batch=500):
    """Apply `function` to uint8 images [N, 3, H, W] in batches, as floats on [0, 1]; the results on the CPU."""
    return torch.cat([function(x.to(device).float() / 255).cpu() for x in images.split(batch)])


def predict_folder(net, folder, output, device="cpu"):
    """Write `image_name,label` for each image of `folder`, in name order: the class with the largest logit."""
    names = list_images(folder)
    labels = run_in_batches(net.to(device), load_images(folder, names), device).argmax(1)
    table = pandas.DataFrame({"image_name": names, "label": labels.numpy()}, dtype=object)
    write_output(output, table.to_csv(index=False).encode(errors="surrogateescape"))  # a name that is not UTF-8 stays


def main(description, weights_dir):
    """The command line of both problems' inference.py."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img-dir", required=True)
    parser.add_argument("--target", required=True, choices=SCENARIOS)
    parser.add_argument("--output", required=True)
    parser.add_argument("--weights", help="default: the shipped model of the target")
    parser.add_argument("--device", type=pick_device, default="cpu")
    args = parser.parse_args()
    weights = args.weights or Path(weights_dir, f"{SCENARIOS[args.target]}_{args.target}.pth")
    predict_folder(load_digit_net(weights), args.img_dir, args.output, args.device)
