"""Generate faces, or reconstruct a folder of them, with the VAE of problem 1.

    python3 p1_vae/inference.py --output fig1_4.png                          # 32 faces in a grid, .png or .jpg
    python3 p1_vae/inference.py --num-images 5000 --output-dir DIR           # one PNG each, 00000.png ...
    python3 p1_vae/inference.py ... --without-flow                           # the noise itself is decoded
    python3 p1_vae/inference.py ... --guidance 0                             # codes from their Gaussian; 1: the flow
    python3 p1_vae/inference.py --reconstruct IMG_DIR --output-dir DIR       # same names, and DIR/mse.csv, on [0, 1]

Faces are drawn from N(0, I), seed 0. The grid is made on the CPU in float64: the same pixels on every machine.
"""
import argparse
import sys
from pathlib import Path

import pandas
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data import list_images, load_images
from common.files import Progress, write_output
from common.pictures import draw_latents, save_picture, to_pixels, write_grid, write_samples
from common.training import at_least, pick_device
from common.weights import load_model
from p1_vae.flow import GUIDANCE, Flow
from p1_vae.model import VAE

WEIGHTS = Path(__file__).parent / "weights" / "vae.pth"


def load_vae(path=WEIGHTS, guidance=GUIDANCE):
    """The VAE of a weights file, in eval mode, and its number of latent dimensions."""
    def build(config):
        width, latent_dim = config["width"], config["latent_dim"]
        return VAE(width, latent_dim, Flow(latent_dim, width, guidance) if config["flow_epochs"] else None)
    vae, config = load_model(path, build)
    return vae, config["latent_dim"]


def sampler(vae, without_flow=False):
    """The network from noise u ~ N(0, I) [N, latent_dim] to images on [0, 1]."""
    return vae.decoder if without_flow or vae.flow is None else nn.Sequential(vae.flow, vae.decoder)


@torch.inference_mode()
def reconstruct(vae, img_dir, output_dir, device):
    """Reconstruct every image of a folder from its posterior's mean; write the pictures and their MSE on [0, 1]."""
    if Path(output_dir).resolve() == Path(img_dir).resolve():
        raise SystemExit(f"the reconstructions would replace the images in {img_dir}: use another --output-dir")
    names, errors = list_images(img_dir), []
    progress = Progress("faces", len(names))
    for start in range(0, len(names), 250):
        batch = names[start:start + 250]
        x = load_images(img_dir, batch, size=64).to(device).float() / 255
        y = vae.decode(vae.encode(x)[0])
        errors += (y - x).square().mean((1, 2, 3)).tolist()
        for name, picture in zip(batch, to_pixels(y)):
            save_picture(Path(output_dir, name), picture, compress_level=1)
        progress.refresh(len(errors))
    progress.clear()
    table = pandas.DataFrame({"image_name": names, "mse": errors})
    write_output(Path(output_dir, "mse.csv"), table.to_csv(index=False).encode())
    print(f"MSE {table['mse'].mean():.5f} on [0, 1], mean of {len(names)} images")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--output", help="write the grid here")
    action.add_argument("--num-images", type=at_least(1))
    action.add_argument("--reconstruct", metavar="IMG_DIR")
    parser.add_argument("--output-dir")
    parser.add_argument("--without-flow", action="store_true", help="decode N(0, I) itself, which the codes are not")
    parser.add_argument("--guidance", type=at_least(0, float), default=GUIDANCE, help="of the flow")
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--device", type=pick_device, default="cpu", help="the grid is always made on the CPU")
    args = parser.parse_args(argv)
    if (args.output is None) != (args.output_dir is not None):
        parser.error("--num-images and --reconstruct need --output-dir, and --output does not take it")

    vae, latent_dim = load_vae(args.weights, args.guidance)
    generate = sampler(vae, args.without_flow)
    if args.output is not None:
        write_grid(args.output, generate, draw_latents(32, latent_dim))
    elif args.num_images:
        write_samples(args.output_dir, generate, draw_latents(args.num_images, latent_dim), args.device)
    else:
        reconstruct(vae.to(args.device), args.reconstruct, args.output_dir, args.device)


if __name__ == "__main__":
    main()
