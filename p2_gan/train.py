"""Train the GAN of problem 2.

    python3 p2_gan/train.py --data-dir hw3_data                     # hours of two CPU cores
    python3 p2_gan/train.py ... --preset wide                       # 6 minutes of a GPU; tried on a wider crop only
    python3 p2_gan/train.py ... --preset dcgan                      # the textbook's, to compare
    python3 p2_gan/train.py ... --resume                            # go on after an interruption
    python3 p2_gan/train.py ... --epochs 1 --limit 512              # try it out, in seconds

Writes config.json, log.csv, checkpoint.pt, samples_*.png of fixed latents and, at the end, model.pth (the EMA weights
of the generator) into --out-dir.
"""
import argparse
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import update_bn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.augment import flip_half
from common.data import load_faces
from common.pictures import draw_latents, grid, save_picture
from common.run import Run, already_trained, interruptible, run_config
from common.training import EMA, at_least, autocast, pick_device
from p2_gan.cuda_graph import CudaGraph
from p2_gan.model import LATENT, MODELS

# lr, lr_discriminator and r1 have their value in the first epoch and the one approached in the last. The two rates also
# rise from 0 in the first warm_up steps; r1 is the weight of the R1 penalty for images on [0, 1]. shifted is the
# fraction of the images, real and generated, that the discriminator sees shifted.
PRESETS = {
    "wide": {
        "model": "residual", "width": 32, "batch_size": 128, "epochs": 94, "betas": [0.0, 0.99], "warm_up": 1000,
        "lr": [5e-4, 2e-4], "lr_discriminator": [5e-4, 2.68e-5], "r1": [0.5, 0.05], "shifted": 0.2},
    "small": {
        "model": "residual", "width": 16, "batch_size": 32, "epochs": 40, "betas": [0.0, 0.99], "warm_up": 0,
        "lr": [5e-4, 5e-4], "lr_discriminator": [5e-4, 2.68e-5], "r1": [0.5, 0.0076], "shifted": 0.0},
    "dcgan": {
        "model": "dcgan", "width": 64, "batch_size": 128, "epochs": 25, "betas": [0.5, 0.999], "warm_up": 0,
        "lr": [2e-4, 2e-4], "lr_discriminator": [2e-4, 2e-4], "r1": [0.0, 0.0], "shifted": 0.0},
}
PENALTY_INTERVAL = 8  # steps; the penalty then has eight times its weight (Karras et al. 2020, StyleGAN2)
FURTHEST_SHIFT = 8  # pixels, an eighth of the side as in DiffAugment
EMA_DECAY = 0.9995
STATISTICS = 16  # batches of 256 latents from which the batch statistics are computed at the end


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="the folder that holds face/")
    parser.add_argument("--preset", choices=PRESETS, default="small",
                        help="a row of PRESETS in this file, which has the settings that no option changes, too")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--epochs", type=at_least(1))
    parser.add_argument("--batch-size", type=at_least(2))
    parser.add_argument("--lr", type=at_least(0, float),
                        help="of the generator in the first epoch; the preset's other rates change in proportion")
    parser.add_argument("--width", type=at_least(1), help="the number of channels in all layers is in proportion to it")
    parser.add_argument("--limit", type=at_least(1), help="use only the first images")
    parser.add_argument("--device", type=pick_device, default="auto")
    parser.add_argument("--out-dir", help="default: runs/p2_PRESET_SEED")
    parser.add_argument("--resume", action="store_true")
    preset = PRESETS[parser.parse_known_args(argv)[0].preset]
    parser.set_defaults(**preset)
    args = parser.parse_args(argv)
    if args.lr is not preset["lr"]:
        scale = args.lr / preset["lr"][0]
        args.lr, args.lr_discriminator = ([scale * rate for rate in preset[k]] for k in ("lr", "lr_discriminator"))
    args.out_dir = args.out_dir or f"runs/p2_{args.preset}_{args.seed}"
    return args


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


# each model's losses of the discriminator and of the generator, from the scores [N] of real and of generated images
LOSSES = {"residual": (relativistic, generator_relativistic), "dcgan": (cross_entropy, generator_cross_entropy)}


def gradient_penalty(scores, images):
    """Squared norm of the gradient of the scores [N] by the images [N, 3, H, H] on [0, 1], mean over the batch.

    R1 of Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?", ICML.
    """
    gradient, = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def shift(x, fraction):
    """Shift each of the images [N, C, H, H] on [0, 1], with this probability, by up to FURTHEST_SHIFT pixels.

    Rows and columns by a whole number each, with black behind. It keeps the discriminator from learning its images by
    heart; the generator's gradient passes through it. In DiffAugment (Zhao et al. 2020) it shifts every image.
    """
    if not fraction:
        return x
    n, _, size, _ = x.shape
    moved = torch.rand((n, 1), device=x.device) < fraction
    middle = FURTHEST_SHIFT + torch.arange(size, device=x.device)
    rows, columns = (middle + moved * torch.randint(-FURTHEST_SHIFT, FURTHEST_SHIFT + 1, (n, 1), device=x.device)
                     for _ in range(2))
    padded = F.pad(x, 4 * [FURTHEST_SHIFT])
    return padded.take_along_dim(rows[:, None, :, None], 2).take_along_dim(columns[:, None, None], 3)


def score(discriminator, x):
    """Scores [N] of images [N, 3, 64, 64] on [0, 1]."""
    with autocast(x.device):
        return discriminator(2 * x - 1).float()


def discriminator_step(discriminator, optimizer, loss_of, real, fake, r1):
    """One step on real and generated images [N, 3, 64, 64] on [0, 1]; r1 weighs the penalty, None leaves it out.

    Returns the loss without the penalty, and the scores [N] of either kind.
    """
    real = real.requires_grad_(r1 is not None)
    real_score, fake_score = score(discriminator, real), score(discriminator, fake.detach())
    loss = loss_of(real_score, fake_score)
    penalty = 0 if r1 is None else r1 / 2 * gradient_penalty(real_score, real)
    optimizer.zero_grad()
    (loss + penalty).backward()
    optimizer.step()
    return loss, real_score.detach(), fake_score.detach()


def generator_step(discriminator, optimizer, loss_of, real_score, fake):
    """One step on the images [N, 3, 64, 64] that the generator has just made; returns the loss.

    The scores [N] of the real images are those that the discriminator gave before its own step.
    """
    discriminator.requires_grad_(False)
    loss = loss_of(real_score, score(discriminator, fake))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    discriminator.requires_grad_(True)
    return loss


def recompute_statistics(generator, device):
    """Give the averaged weights the batch statistics that belong to them (Brock et al. 2019, BigGAN)."""
    with autocast(device):
        update_bn([torch.randn(256, LATENT, device=device) for _ in range(STATISTICS)], generator)


def exponential(first, last, fraction):
    """From first to last as fraction rises from 0 to 1, evenly on a log scale."""
    return first ** (1 - fraction) * last ** fraction


def main(argv=None):
    args = parse_args(argv)
    torch.manual_seed(args.seed)

    images = load_faces(args.data_dir, "train", args.limit).to(args.device)
    if len(images) < args.batch_size:
        raise SystemExit(f"{len(images)} training images are less than one batch of {args.batch_size}")
    config = run_config(args, images=images)
    if already_trained(args.out_dir, config, args.resume):
        return

    generator, discriminator = (net(args.width).to(args.device, memory_format=torch.channels_last)
                                for net in MODELS[args.model])
    discriminator_loss, generator_loss = LOSSES[args.model]
    g_optimizer, d_optimizer = (torch.optim.Adam(net.parameters(), betas=args.betas, fused=True)
                                for net in (generator, discriminator))
    ema = EMA(generator, EMA_DECAY)

    batch = args.batch_size
    steps = len(images) // batch  # an epoch
    run = Run(args.out_dir, config, args.epochs, steps, {"generator": generator, "discriminator": discriminator,
              "g_optimizer": g_optimizer, "d_optimizer": d_optimizer, "ema": ema}, args.resume)
    # what changes from step to step is in tensors, and Adam's numbers are on the GPU, so that a step can be replayed
    chosen = torch.zeros(batch, dtype=torch.long, device=args.device)  # the images of the batch
    r1, g_rate, d_rate = torch.zeros(3, device=args.device)
    for optimizer, rate in ((g_optimizer, g_rate), (d_optimizer, d_rate)):  # also if begun on another device
        optimizer.param_groups[0].update(lr=rate, capturable=args.device.type == "cuda")

    def step(penalised):
        real = shift(flip_half(images[chosen]).float() / 255, args.shifted)
        with autocast(args.device):
            fake = shift(generator(torch.randn(batch, LATENT, device=args.device)), args.shifted)
        d_loss, real_score, fake_score = discriminator_step(
            discriminator, d_optimizer, discriminator_loss, real, fake, PENALTY_INTERVAL * r1 if penalised else None)
        g_loss = generator_step(discriminator, g_optimizer, generator_loss, real_score, fake)
        # relativistic scores have no zero of their own
        middle = 0 if args.model == "dcgan" else (real_score.mean() + fake_score.mean()) / 2
        return {"d_loss": d_loss.detach(), "g_loss": g_loss.detach(),
                "accuracy_real": (real_score > middle).float().mean(),
                "accuracy_fake": (fake_score < middle).float().mean()}

    step_with, step_without = (CudaGraph(partial(step, penalised), args.device) for penalised in (True, False))
    fixed = draw_latents(32, LATENT).float().to(args.device)
    for epoch in run.epochs_left():
        order = torch.randperm(len(images), device=args.device)
        # a weaker penalty lets the discriminator see finer detail as the faces get better; lower rates keep it in step
        done = epoch / args.epochs
        r1.fill_(exponential(*args.r1, done))
        for i in range(steps):
            warm = min(1, (epoch * steps + i + 1) / max(1, args.warm_up))
            g_rate.fill_(warm * exponential(*args.lr, done))
            d_rate.fill_(warm * exponential(*args.lr_discriminator, done))
            chosen.copy_(order[i * batch:(i + 1) * batch])
            penalised = args.r1[0] > 0 and (epoch * steps + i) % PENALTY_INTERVAL == 0
            metrics = step_with() if penalised else step_without()
            ema.update(generator)
            run.end_step(metrics, batch)
        with torch.inference_mode():
            save_picture(Path(args.out_dir, f"samples_{epoch + 1:03d}.png"), grid(ema.model(fixed)))
        run.end_epoch(first={"step": (epoch + 1) * steps})

    recompute_statistics(ema.model, args.device)
    run.save_model(ema.state)


if __name__ == "__main__":
    interruptible(main)
