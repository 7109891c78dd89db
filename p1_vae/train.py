"""Train the VAE of problem 1.

    python3 p1_vae/train.py --data-dir hw3_data
    python3 p1_vae/train.py ... --flow-epochs 0         # a plain VAE, without the second stage
    python3 p1_vae/train.py ... --resume                # continue after an interruption
    python3 p1_vae/train.py ... --epochs 1 --flow-epochs 1 --limit 512    # try it out, in seconds

The VAE first, then the second stage of flow.py: a flow from noise to the VAE's codes.
Writes config.json, log.csv, checkpoint.pt and, at the end, model.pth (the EMA weights of both) into --out-dir; the
second stage has its log and its checkpoint in the folder flow/ there.
"""
import argparse
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.augment import flip_half
from common.data import load_faces
from common.run import Run, already_trained, interruptible, run_config
from common.training import EMA, Replayed, at_least, autocast, descend, learning_rate, pick_device
from p1_vae import flow
from p1_vae.model import VAE, kl_divergence

WEIGHT_DECAY = 1e-4
CLIP = 1.0  # the largest norm of the encoder's and of the decoder's gradient
WARM_UP = 100  # steps in which the learning rate rises
EMA_DECAY = 0.999
IN_USE = 0.05  # nats of KL above which a latent dimension counts as used


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="the folder that holds face/")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--epochs", type=at_least(1), default=30)
    parser.add_argument("--batch-size", type=at_least(2), default=64)
    parser.add_argument("--lr", type=at_least(0, float), default=1e-3)
    parser.add_argument("--kl-weight", type=at_least(0, float), default=3e-7,
                        help="of the KL in nats, beside the MSE on [0, 1]")
    parser.add_argument("--warm-up", type=at_least(0), default=1, metavar="EPOCHS",
                        help="over which the KL's weight ramps up from 0")
    parser.add_argument("--flow-epochs", type=at_least(0), default=50, help="of the second stage; 0 for a plain VAE")
    parser.add_argument("--latent-dim", type=at_least(1), default=512)
    parser.add_argument("--width", type=at_least(1), default=32, help="channels of the first layers")
    parser.add_argument("--limit", type=at_least(1), help="use only the first images")
    parser.add_argument("--device", type=pick_device, default="auto")
    parser.add_argument("--out-dir", help="default: runs/p1_KLWEIGHT_SEED")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args(argv)
    args.out_dir = args.out_dir or f"runs/p1_{args.kl_weight:g}_{args.seed}"
    return args


def vae_loss(vae, x, kl_weight):
    """MSE + kl_weight * KL of faces x [N, 3, 64, 64] on [0, 1]: the loss, and what the log shows.

    The MSE is averaged over pixels, channels and the batch. The KL is in nats, summed over the latent dimensions and
    averaged over the batch; the log has it for each dimension. Kingma & Welling 2014, eq. 10, for a Gaussian decoder.
    """
    with autocast(x.device):
        reconstruction, mean, log_variance = vae(x)
    mse = F.mse_loss(reconstruction.float(), x)
    kl = kl_divergence(mean, log_variance).mean(0)
    return mse + kl_weight * kl.sum(), {"mse": mse, "kl": kl}


def main(argv=None):
    args = parse_args(argv)
    torch.manual_seed(args.seed)

    images = load_faces(args.data_dir, "train", args.limit).to(args.device)
    if len(images) < args.batch_size:
        raise SystemExit(f"{len(images)} training images are less than one batch of {args.batch_size}")
    config = run_config(args, images=images)
    if already_trained(args.out_dir, config, args.resume):
        return

    if not args.resume:  # a second stage that is left of another run, whose own files were deleted
        Path(args.out_dir, "flow", "checkpoint.pt").unlink(missing_ok=True)
    vae = VAE(args.width, args.latent_dim).to(args.device, memory_format=torch.channels_last)
    second_stage = flow.Flow(args.latent_dim, flow.WIDTH * args.width).to(args.device)
    groups = [{"params": part.parameters()} for part in (vae.encoder, vae.decoder)]
    on_gpu = args.device.type == "cuda"
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True, capturable=on_gpu)
    ema = EMA(vae, EMA_DECAY)

    steps = len(images) // args.batch_size  # an epoch
    run = Run(args.out_dir, config, args.epochs, steps, {"vae": vae, "optimizer": optimizer, "ema": ema}, args.resume)
    chosen = torch.zeros(args.batch_size, dtype=torch.long, device=args.device)  # the images of the batch
    kl_weight, rate = torch.zeros(2, device=args.device)

    @partial(Replayed, device=args.device)
    def train_step():
        x = flip_half(images[chosen]).float() / 255
        loss, metrics = vae_loss(vae, x, kl_weight)
        descend(loss, optimizer, rate, CLIP)
        return metrics

    for epoch in run.epochs_left():
        order = torch.randperm(len(images), device=args.device)
        for i in range(steps):
            step = epoch * steps + i
            chosen.copy_(order[i * args.batch_size:(i + 1) * args.batch_size])
            # from 0, so that the decoder learns to use the latent before the KL pulls the codes together
            kl_weight.fill_(args.kl_weight * min(1, step / max(1, args.warm_up * steps)))
            rate.fill_(learning_rate(step, args.epochs * steps, args.lr, WARM_UP))
            metrics = train_step()
            ema.update(vae)
            run.end_step(metrics, args.batch_size)
        means = run.means()
        run.end_epoch({"step": (epoch + 1) * steps, "mse": means["mse"], "kl": means["kl"].sum(),
                       "dimensions_in_use": (means["kl"] > IN_USE).sum()})

    if args.flow_epochs:
        ema.model.flow = flow.train_flow(args, config, second_stage, ema.model, images)
    run.save_model(ema.model.state_dict())


if __name__ == "__main__":
    interruptible(main)
