"""Train the GAN of problem 2.

    python3 p2_gan/train.py --data-dir hw3_data
    python3 p2_gan/train.py ... --model dcgan --r1 0    # the textbook one, for comparison
    python3 p2_gan/train.py ... --resume                # go on after an interruption
    python3 p2_gan/train.py ... --epochs 1 --limit 512  # try it out, in seconds

Writes config.json, log.csv, checkpoint.pt, samples_*.png of one fixed latent and, at the end, model.pth (the EMA
weights of the generator) into --out-dir.
"""
import argparse
import os
import sys
import time

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import update_bn

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.augment import diff_augment, flip_half
from common.data import load_faces
from common.pictures import draw_latents, grid, save_picture, to_pixels
from common.runtime import EMA, Run, at_least, autocast, pick_device, save_weights
from p2_gan.model import LATENT, MODELS


def relativistic(higher, lower):
    """The loss of scores [N] that are to be higher than others [N], pair by pair (Jolicoeur-Martineau 2019, RpGAN)."""
    return F.softplus(lower - higher).mean()


def cross_entropy(real, fake):
    """The discriminator's loss of Goodfellow et al. 2014, from logits [N]."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def gradient_penalty(scores, images):
    """Squared norm of the scores' [N] gradient by the images [N, 3, H, H] on [0, 1], mean over the batch (Mescheder et al. 2018, R1)."""
    gradient, = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


# discriminator's and generator's loss of scores for real and generated images, Adam's betas, what is left of the discriminator's learning rate at the end
RECIPES = {"residual": (relativistic, lambda real, fake: relativistic(fake, real), (0.0, 0.99), 0.0536),
           "dcgan": (cross_entropy, lambda real, fake: F.softplus(-fake).mean(), (0.5, 0.999), 1.0)}
PENALTY_LEFT = 0.0152  # at the end, of the penalty's weight: the better the faces, the finer what tells them apart
LAZY = 8  # the penalty is taken in every eighth step, with eight times the weight (Karras et al. 2020, StyleGAN2)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="the folder that holds face/")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=at_least(1), default=40)
    parser.add_argument("--batch-size", type=at_least(2), default=32)
    parser.add_argument("--lr", type=float, default=5e-4, help="of the generator")
    parser.add_argument("--lr-discriminator", type=float, default=5e-4, help=f"at first; falls to {RECIPES['residual'][-1]} of it (dcgan: constant)")
    parser.add_argument("--r1", type=float, default=0.5, help=f"weight of the discriminator's gradient penalty at first; falls to {PENALTY_LEFT} of it; 0 for none")
    parser.add_argument("--model", choices=MODELS, default="residual")
    parser.add_argument("--width", type=at_least(1), default=16, help="the deepest layers have 32 times as many channels in the generator, 16 in the discriminator (dcgan: 8)")
    parser.add_argument("--augment", action="store_true", help="shift and cut out what the discriminator sees: for fewer faces than 40,000")
    parser.add_argument("--limit", type=at_least(1), help="use only the first images")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out-dir", help="default: runs/p2_MODEL_SEED")
    parser.add_argument("--resume", action="store_true")
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

    generator, discriminator = (net(args.width).to(device, memory_format=torch.channels_last) for net in MODELS[args.model])
    discriminator_loss, generator_loss, betas, left = RECIPES[args.model]
    g_optimizer = torch.optim.Adam(generator.parameters(), args.lr, betas=betas, fused=True)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), args.lr_discriminator, betas=betas, fused=True)
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
        started, totals = time.time(), torch.zeros(4, device=device)
        order = torch.randperm(len(images), device=device)
        r1 = args.r1 * PENALTY_LEFT ** (epoch / args.epochs)
        d_optimizer.param_groups[0]["lr"] = args.lr_discriminator * left ** (epoch / args.epochs)
        for i in range(per_epoch):
            penalised = args.r1 > 0 and (epoch * per_epoch + i) % LAZY == 0
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
            totals += torch.stack([d_loss, g_loss, (real_score > middle).float().mean(), (fake_score < middle).float().mean()]).detach()
        row = dict(zip(("d_loss", "g_loss", "accuracy_real", "accuracy_fake"), (totals / per_epoch).tolist()))
        seconds = time.time() - started
        with torch.inference_mode():
            save_picture(os.path.join(args.out_dir, f"samples_{epoch + 1:03d}.png"), grid(to_pixels(ema.model(fixed))))
        run.end_epoch({"step": (epoch + 1) * per_epoch, **row, "images_per_second": per_epoch * count / seconds, "seconds": seconds})

    with autocast(device):  # the averaged weights' own batch statistics, not the average of the others' (Brock et al. 2019, BigGAN)
        update_bn([torch.randn(256, LATENT, device=device) for _ in range(16)], ema.model)
    save_weights(os.path.join(args.out_dir, "model.pth"), ema.state, config)
    print(f"wrote {os.path.join(args.out_dir, 'model.pth')}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\ninterrupted: the same command with --resume goes on from the last whole epoch")
