"""Train the GAN of problem 2.

    python3 p2_gan/train.py --data-dir hw3_data
    python3 p2_gan/train.py ... --model dcgan           # the textbook DCGAN, for comparison
    python3 p2_gan/train.py ... --resume                # continue after an interruption
    python3 p2_gan/train.py ... --epochs 1 --limit 512  # try it out, in seconds

Writes config.json, log.csv, checkpoint.pt, samples_*.png of fixed latents and, at the end, model.pth (the EMA weights
of the generator) into --out-dir.
"""
import argparse
import os
import sys
import time
from collections import defaultdict

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.augment import diff_augment, flip_half
from common.data import load_faces
from common.pictures import draw_latents, grid, save_picture, to_pixels
from common.runtime import EMA, LARGEST_SEED, Run, at_least, autocast, pick_device
from p2_gan.model import LATENT, MODELS

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import update_bn

# each model's defaults; lr* are Adam's learning rates, r1* weigh the R1 penalty for images on [0, 1]
SETTINGS = {
    "residual": {"epochs": 40, "batch_size": 32, "width": 16, "betas": (0.0, 0.99), "lr": 5e-4,
                 "lr_discriminator": 5e-4, "lr_discriminator_end": 2.68e-5, "r1": 0.5, "r1_end": 0.0076},
    "dcgan": {"epochs": 16, "batch_size": 64, "width": 32, "betas": (0.5, 0.999), "lr": 2e-4,
              "lr_discriminator": 2e-4, "lr_discriminator_end": 2e-4, "r1": 0.0, "r1_end": 0.0},
}
LAZY = 8  # the penalty is computed in every eighth step, with eight times the weight (Karras et al. 2020, StyleGAN2)


def relativistic(higher, lower):
    """Small where each score of `higher` [N] is above its partner in `lower` [N] (Jolicoeur-Martineau 2019, RpGAN)."""
    return F.softplus(lower - higher).mean()


def generator_relativistic(real, fake):
    return relativistic(fake, real)


def cross_entropy(real, fake):
    """The discriminator's loss of Goodfellow et al. 2014, from logits [N]."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_cross_entropy(real, fake):
    """The non-saturating loss, -log D(G(z)); it does not use the logits of real images."""
    return F.softplus(-fake).mean()


# each model's losses of the discriminator and of the generator, from the scores of real and of generated images
LOSSES = {"residual": (relativistic, generator_relativistic), "dcgan": (cross_entropy, generator_cross_entropy)}


def gradient_penalty(scores, images):
    """Squared norm of the gradient of the scores [N] by the images [N, 3, H, H] on [0, 1], mean over the batch.

    R1 of Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?", ICML.
    """
    gradient, = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def between(start, end, fraction):
    """From start to end as fraction rises from 0 to 1, evenly on a log scale."""
    return start ** (1 - fraction) * end ** fraction


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(f"--model {k} sets {v}" for k, v in SETTINGS.items()))
    parser.add_argument("--data-dir", required=True, help="the folder that holds face/")
    parser.add_argument("--seed", type=at_least(0, most=LARGEST_SEED), default=0)
    parser.add_argument("--epochs", type=at_least(1))
    parser.add_argument("--batch-size", type=at_least(2))
    parser.add_argument("--lr", type=at_least(0, float), help="of the generator")
    parser.add_argument("--lr-discriminator", type=at_least(0, float), help="in the first epoch")
    parser.add_argument("--lr-discriminator-end", type=at_least(0, float), help="approached in the last epoch")
    parser.add_argument("--r1", type=at_least(0, float), help="the penalty's weight in the first epoch; 0 for none")
    parser.add_argument("--r1-end", type=at_least(0, float), help="approached in the last epoch")
    parser.add_argument("--model", choices=MODELS, default="residual")
    parser.add_argument("--width", type=at_least(1), help="the number of channels in all layers is in proportion to it")
    parser.add_argument("--augment", action="store_true",
                        help="shift and cut out what the discriminator sees: for fewer faces than 40,000")
    parser.add_argument("--limit", type=at_least(1), help="use only the first images")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out-dir", help="default: runs/p2_MODEL_SEED")
    parser.add_argument("--resume", action="store_true")
    parser.set_defaults(**SETTINGS[parser.parse_known_args()[0].model])
    args = parser.parse_args()
    args.out_dir = args.out_dir or os.path.join("runs", f"p2_{args.model}_{args.seed}")
    return args


def main():
    args = parse_args()
    device = pick_device(args.device)
    torch.manual_seed(args.seed)

    images = load_faces(args.data_dir, "train", args.limit).to(device)
    if len(images) < args.batch_size:
        raise SystemExit(f"{len(images)} training images are less than one batch of {args.batch_size}")

    generator, discriminator = (net(args.width).to(device, memory_format=torch.channels_last)
                                for net in MODELS[args.model])
    discriminator_loss, generator_loss = LOSSES[args.model]
    g_optimizer = torch.optim.Adam(generator.parameters(), args.lr, betas=args.betas, fused=True)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), args.lr_discriminator, betas=args.betas, fused=True)
    ema = EMA(generator, decay=0.9995)

    config = {k: v for k, v in vars(args).items() if k not in ("data_dir", "device", "out_dir", "resume")}
    run = Run(args.out_dir, config, args.resume, {"generator": generator, "discriminator": discriminator,
                                                  "g_optimizer": g_optimizer, "d_optimizer": d_optimizer, "ema": ema})

    def score(x):
        x = 2 * x - 1
        with autocast(device):
            return discriminator(diff_augment(x) if args.augment else x).float()

    fixed = draw_latents(32, LATENT).float().to(device)
    count, per_epoch = args.batch_size, len(images) // args.batch_size
    for epoch in range(len(run.rows), args.epochs):
        started, totals = time.time(), defaultdict(float)
        order = torch.randperm(len(images), device=device)
        # penalty and rate fall: the discriminator sees finer detail as the faces get better, and the generator keeps up
        r1 = between(args.r1, args.r1_end, epoch / args.epochs)
        d_optimizer.param_groups[0]["lr"] = between(args.lr_discriminator, args.lr_discriminator_end,
                                                    epoch / args.epochs)
        for i in range(per_epoch):
            penalised = r1 > 0 and (epoch * per_epoch + i) % LAZY == 0
            real = (flip_half(images[order[i * count:(i + 1) * count]]).float() / 255).requires_grad_(penalised)
            with autocast(device):
                fake = generator(torch.randn(count, LATENT, device=device))

            real_score, fake_score = score(real), score(fake.detach())
            d_loss = loss = discriminator_loss(real_score, fake_score)
            if penalised:
                loss = loss + LAZY * r1 / 2 * gradient_penalty(real_score, real)
            d_optimizer.zero_grad()
            loss.backward()
            d_optimizer.step()

            discriminator.requires_grad_(False)
            real_score = real_score.detach()
            g_loss = generator_loss(real_score, score(fake))
            g_optimizer.zero_grad()
            g_loss.backward()
            g_optimizer.step()
            discriminator.requires_grad_(True)
            ema.update(generator)
            middle = (real_score.mean() + fake_score.mean()) / 2  # relativistic scores have no zero of their own
            metrics = {"d_loss": d_loss, "g_loss": g_loss, "accuracy_real": (real_score > middle).float().mean(),
                       "accuracy_fake": (fake_score < middle).float().mean()}
            for name, value in metrics.items():
                totals[name] += value.detach()
        row = {name: total.item() / per_epoch for name, total in totals.items()}
        seconds = time.time() - started
        with torch.inference_mode():
            save_picture(os.path.join(args.out_dir, f"samples_{epoch + 1:03d}.png"), grid(to_pixels(ema.model(fixed))))
        run.end_epoch({"step": (epoch + 1) * per_epoch, **row, "images_per_second": per_epoch * count / seconds,
                       "seconds": seconds})

    with autocast(device):  # batch statistics recomputed for the averaged weights (Brock et al. 2019, BigGAN)
        update_bn([torch.randn(256, LATENT, device=device) for _ in range(16)], ema.model)
    run.save_model(ema.state)


if __name__ == "__main__":
    main()
