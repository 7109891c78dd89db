"""Train the VAE of problem 1.

    python3 p1_vae/train.py --data-dir hw3_data
    python3 p1_vae/train.py ... --resume                # continue after an interruption
    python3 p1_vae/train.py ... --epochs 1 --limit 512  # try it out, in seconds

loss = MSE + weight * KL. The MSE is averaged over pixels, channels and the batch, with images on [0, 1]. The KL is in
nats, summed over the latent dimensions and averaged over the batch. A dimension is in use if its mean KL is above 0.05.
Then the second stage: a flow from noise to the codes of all faces and of their mirror images.
Writes config.json, log.csv, checkpoint.pt and, at the end, model.pth (the EMA weights of both) into --out-dir; the
second stage has its log and its checkpoint in the folder flow/ there.
"""
import argparse
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.augment import flip_half
from common.data import load_faces
from common.runtime import EMA, LARGEST_SEED, Run, at_least, autocast, learning_rate, pick_device, say
from p1_vae.model import VAE, draw, kl_divergence

import torch
import torch.nn.functional as F

FLOW_BATCH = 256  # codes


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="the folder that holds face/")
    parser.add_argument("--seed", type=at_least(0, most=LARGEST_SEED), default=0)
    parser.add_argument("--epochs", type=at_least(1), default=30)
    parser.add_argument("--batch-size", type=at_least(2), default=64)
    parser.add_argument("--lr", type=at_least(0, float), default=1e-3)
    parser.add_argument("--kl-weight", type=at_least(0, float), default=3e-7,
                        help="of the KL in nats, beside the MSE on [0, 1]")
    parser.add_argument("--warm-up", type=at_least(0), default=1, metavar="EPOCHS",
                        help="over which the KL's weight ramps up from 0")
    parser.add_argument("--flow-epochs", type=at_least(1), default=50, help="of the second stage")
    parser.add_argument("--latent-dim", type=at_least(1), default=512)
    parser.add_argument("--width", type=at_least(1), default=32, help="channels of the first layers")
    parser.add_argument("--limit", type=at_least(1), help="use only the first images")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out-dir", help="default: runs/p1_KLWEIGHT_SEED")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    args.out_dir = args.out_dir or os.path.join("runs", f"p1_{args.kl_weight:g}_{args.seed}")
    return args


@torch.no_grad()
def encode_all(net, images):
    """The posteriors of uint8 images [N, 3, 64, 64] and of their mirror images: means and log variances [2N, dim]."""
    with autocast(images.device):
        parts = [net.encode(torch.cat([part, part.flip(3)]).float() / 255) for part in images.split(250)]
    return map(torch.cat, zip(*parts))


def train_flow(args, config, vae, flow, images, device):
    """Train `flow` to the codes of `vae` and return its average; resumes where its folder has a checkpoint."""
    say("second stage: encoding all faces")
    mean, log_variance = encode_all(vae, images)
    flow.fit_gaussian(mean, log_variance)
    optimizer = torch.optim.AdamW(flow.parameters(), weight_decay=1e-4, fused=True)
    ema = EMA(flow, decay=0.999)

    out_dir = os.path.join(args.out_dir, "flow")
    run = Run(out_dir, {**config, "epochs": args.flow_epochs}, os.path.exists(os.path.join(out_dir, "checkpoint.pt")),
              {"flow": flow, "optimizer": optimizer, "ema": ema})

    count = min(FLOW_BATCH, len(mean))
    per_epoch = len(mean) // count
    steps = args.flow_epochs * per_epoch
    for epoch in range(len(run.rows), args.flow_epochs):
        started, total = time.time(), torch.zeros((), device=device)
        order = torch.randperm(len(mean), device=device)
        for i in range(per_epoch):
            batch = order[i * count:(i + 1) * count]
            loss = flow.loss(draw(mean[batch], log_variance[batch]))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(epoch * per_epoch + i, steps, args.lr)
            optimizer.step()
            ema.update(flow)
            total += loss.detach()
        seconds = time.time() - started
        run.end_epoch({"step": (epoch + 1) * per_epoch, "flow_loss": total.item() / per_epoch,
                       "codes_per_second": per_epoch * count / seconds, "seconds": seconds})
    return ema.model


def main():
    args = parse_args()
    device = pick_device(args.device)
    torch.manual_seed(args.seed)

    images = load_faces(args.data_dir, "train", args.limit).to(device)
    if len(images) < args.batch_size:
        raise SystemExit(f"{len(images)} training images are less than one batch of {args.batch_size}")

    net = VAE(args.width, args.latent_dim).to(device, memory_format=torch.channels_last)
    flow, net.flow = net.flow, None  # the second stage has its own optimizer, average and checkpoint
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-4, fused=True)
    ema = EMA(net, decay=0.999)

    config = {k: v for k, v in vars(args).items() if k not in ("data_dir", "device", "out_dir", "resume")}
    run = Run(args.out_dir, config, args.resume, {"net": net, "optimizer": optimizer, "ema": ema})

    per_epoch = len(images) // args.batch_size
    steps = args.epochs * per_epoch
    for epoch in range(len(run.rows), args.epochs):
        started, totals = time.time(), torch.zeros(2, device=device)
        kl_by_dimension = torch.zeros(args.latent_dim, device=device)
        order = torch.randperm(len(images), device=device)
        for i in range(per_epoch):
            step = epoch * per_epoch + i
            x = flip_half(images[order[i * args.batch_size:(i + 1) * args.batch_size]]).float() / 255
            with autocast(device):
                reconstruction, mean, log_variance = net(x)
            mse = F.mse_loss(reconstruction.float(), x)
            kl = kl_divergence(mean, log_variance).mean(0)
            # from 0, so that the decoder learns to use the latent before the KL pulls the codes together
            kl_weight = args.kl_weight * min(1, step / max(1, args.warm_up * per_epoch))
            loss = mse + kl_weight * kl.sum()
            optimizer.zero_grad()
            loss.backward()
            for part in (net.encoder, net.decoder):
                torch.nn.utils.clip_grad_norm_(part.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, args.lr)
            optimizer.step()
            ema.update(net)
            totals += torch.stack([mse, kl.sum()]).detach()
            kl_by_dimension += kl.detach() / per_epoch
        mse, kl = (totals / per_epoch).tolist()
        seconds = time.time() - started
        run.end_epoch({"step": (epoch + 1) * per_epoch, "mse": mse, "kl": kl,
                       "dimensions_in_use": int((kl_by_dimension > 0.05).sum()),
                       "images_per_second": per_epoch * args.batch_size / seconds, "seconds": seconds})

    ema.model.flow = train_flow(args, config, ema.model, flow, images, device)
    run.save_model(ema.model.state_dict())


if __name__ == "__main__":
    main()
