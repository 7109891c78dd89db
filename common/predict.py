"""From a folder of digit images to a CSV of labels, for problems 3 and 4, which share the network."""
import argparse
import os

from common.data import SCENARIOS, list_images, load_images
from common.digit_net import DigitNet
from common.files import check_output, write_csv
from common.runtime import pick_device
from common.weights import load_weights

import torch


def load_digit_net(path, device):
    """The DigitNet of a weights file, in eval mode on `device`."""
    state, config = load_weights(path)
    try:
        net = DigitNet(config["width"])
        net.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError):
        raise SystemExit(f"not a digit model: {path}")
    return net.to(device, memory_format=torch.channels_last).eval()


@torch.inference_mode()
def forward(function, images, device, batch=500):
    """Apply `function` to uint8 images [N, 3, 28, 28] in batches, as floats on [0, 1]; the results on the CPU."""
    return torch.cat([function(x.to(device).float() / 255).cpu() for x in images.split(batch)])


def predict_folder(net, folder, output, device):
    """Write `image_name,label` for each image of `folder`, in name order."""
    names = list_images(folder)
    labels = forward(net, load_images(folder, names), device).argmax(1).tolist()
    write_csv(output, ("image_name", "label"), zip(names, labels))


def main(description, weights_dir):
    """The command line of both problems' inference.py."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img-dir", required=True)
    parser.add_argument("--target", required=True, choices=SCENARIOS)
    parser.add_argument("--output", required=True)
    parser.add_argument("--weights", help="default: the shipped model of the target")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    check_output(args.output)
    weights = args.weights or os.path.join(weights_dir, f"{SCENARIOS[args.target]}_{args.target}.pth")
    device = pick_device(args.device)
    predict_folder(load_digit_net(weights, device), args.img_dir, args.output, device)
