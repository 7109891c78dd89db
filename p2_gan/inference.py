"""Generate faces with the GAN of problem 2.

    python3 p2_gan/inference.py --output fig2_2.png                          # 32 faces in a grid, .png or .jpg
    python3 p2_gan/inference.py --num-images 5000 --output-dir DIR           # one PNG each, 00000.png ...

Latents are drawn from N(0, I), seed 0. The grid is made on the CPU in float64: the same pixels on every machine.
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.pictures import draw_latents, write_grid, write_samples
from common.training import at_least, pick_device
from common.weights import load_model
from p2_gan.model import LATENT, MODELS

WEIGHTS = Path(__file__).parent / "weights" / "gan.pth"


def load_generator(path=WEIGHTS):
    """The generator of a weights file, in eval mode."""
    return load_model(path, lambda config: MODELS[config["model"]][0](config["width"]))[0]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--output", help="write the grid here")
    action.add_argument("--num-images", type=at_least(1))
    parser.add_argument("--output-dir")
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--device", type=pick_device, default="cpu", help="the grid is always made on the CPU")
    args = parser.parse_args(argv)
    if (args.output is None) != (args.output_dir is not None):
        parser.error("--num-images needs --output-dir, and --output does not take it")

    generator = load_generator(args.weights)
    if args.output is not None:
        write_grid(args.output, generator, draw_latents(32, LATENT))
    else:
        write_samples(args.output_dir, generator, draw_latents(args.num_images, LATENT), args.device)


if __name__ == "__main__":
    main()
