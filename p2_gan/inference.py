"""Generate faces from N(0, I) with the GAN of problem 2.

    python3 p2_gan/inference.py --output fig2_2.png                          # 32 faces in a grid, .png or .jpg
    python3 p2_gan/inference.py --num-images 5000 --output-dir DIR           # one PNG each, 00000.png ...

The grid is made on the CPU in float64 from latents of seed 0: the same pixels on every machine.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.pictures import check_picture, write_grid, write_samples
from common.runtime import at_least, pick_device
from common.weights import load_weights
from p2_gan.model import LATENT, MODELS

import torch

WEIGHTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "weights", "gan.pth")


def load_generator(path, device):
    """The generator of a weights file, in eval mode on `device`."""
    state, config = load_weights(path)
    try:
        net = MODELS[config["model"]][0](config["width"])
        net.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError):
        raise SystemExit(f"not a model of problem 2: {path}")
    return net.to(device, memory_format=torch.channels_last).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--output", help="write the grid here")
    action.add_argument("--num-images", type=at_least(1))
    parser.add_argument("--output-dir")
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if (args.output is None) != (args.output_dir is not None):
        parser.error("--num-images needs --output-dir, and --output does not take it")

    if args.output is not None:
        check_picture(args.output)
    device = pick_device(args.device)
    net = load_generator(args.weights, device)
    if args.output is not None:
        write_grid(args.output, net, LATENT)
    else:
        write_samples(args.output_dir, net, LATENT, args.num_images, device)


if __name__ == "__main__":
    main()
