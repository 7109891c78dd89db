"""Generate faces from N(0, I), or reconstruct a folder of them, with the VAE of problem 1.

    python3 p1_vae/inference.py --output fig1_4.png                          # 32 faces in a grid, .png or .jpg
    python3 p1_vae/inference.py --num-images 5000 --output-dir DIR           # one PNG each, 00000.png ...
    python3 p1_vae/inference.py ... --without-flow                           # the noise itself is decoded
    python3 p1_vae/inference.py --reconstruct IMG_DIR --output-dir DIR       # same names, and DIR/mse.csv, on [0, 1]

The grid is made on the CPU in float64 from latents of seed 0: the same pixels on every machine.
"""
import argparse
import io
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.data import list_images, load_images
from common.files import write_csv
from common.pictures import check_picture, save_pictures, to_pixels, write_grid, write_samples
from common.runtime import at_least, pick_device, say
from common.weights import load_weights
from p1_vae.model import VAE

import torch
from PIL import Image

WEIGHTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "weights", "vae.pth")


def load_vae(path, device):
    """The VAE of a weights file, in eval mode on `device`, and its number of latent dimensions."""
    state, config = load_weights(path)
    try:
        net = VAE(config["width"], config["latent_dim"])
        net.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError):
        raise SystemExit(f"not a model of problem 1: {path}")
    return net.to(device, memory_format=torch.channels_last).eval(), config["latent_dim"]


def check_extensions(names):
    """Exit with one line where Pillow cannot write a picture under one of these names."""
    for extension, name in {os.path.splitext(name)[1]: name for name in names}.items():
        try:
            Image.new("RGB", (64, 64)).save(io.BytesIO(), Image.registered_extensions()[extension.lower()])
        except (KeyError, OSError, ValueError):
            raise SystemExit(f"no picture can be written under the name {name}: rename the image, with .png at the end")


@torch.inference_mode()
def reconstruct(net, img_dir, output_dir, device):
    """Reconstruct every image of a folder from its posterior's mean; write the pictures and their MSE."""
    if os.path.realpath(output_dir) == os.path.realpath(img_dir):
        raise SystemExit(f"the reconstructions would replace the images in {img_dir}: use another --output-dir")
    names = list_images(img_dir)
    check_extensions(names)
    rows = []
    for part in range(0, len(names), 250):
        x = load_images(img_dir, names[part:part + 250], size=64).to(device).float() / 255
        y = net.decode(net.encode(x)[0])
        rows += zip(names[part:part + 250], (y - x).square().mean((1, 2, 3)).tolist())
        save_pictures(output_dir, names[part:part + 250], to_pixels(y))
    write_csv(os.path.join(output_dir, "mse.csv"), ("image_name", "mse"), rows)
    say(f"MSE {sum(mse for _, mse in rows) / len(rows):.5f} on [0, 1], mean of {len(rows)} images")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--output", help="write the grid here")
    action.add_argument("--num-images", type=at_least(1))
    action.add_argument("--reconstruct", metavar="IMG_DIR")
    parser.add_argument("--output-dir")
    parser.add_argument("--without-flow", action="store_true", help="decode N(0, I) itself, which the codes are not")
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if (args.output is None) != (args.output_dir is not None):
        parser.error("--num-images and --reconstruct need --output-dir, and --output does not take it")

    if args.output is not None:
        check_picture(args.output)
    device = pick_device(args.device)
    net, latent_dim = load_vae(args.weights, device)
    generate = net.decoder if args.without_flow else net.sampler()
    if args.output is not None:
        write_grid(args.output, generate, latent_dim)
    elif args.num_images:
        write_samples(args.output_dir, generate, latent_dim, args.num_images, device)
    else:
        reconstruct(net, args.reconstruct, args.output_dir, device)


if __name__ == "__main__":
    main()
