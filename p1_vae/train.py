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
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.augment import flip_half
from common.data import load_faces
from common.predict import run_in_batches
from common.run import Run, already_trained, interruptible, run_config
from common.training import EMA, at_least, autocast, learning_rate, optimizer_step, pick_device
from p1_vae.flow import Flow, train_flow
from p1_vae.model import VAE, kl_divergence

WEIGHT_DECAY = 1e-4
CLIP = 1.0  # the largest norm of the encoder's and of the decoder's gradient
WARM_UP = 100  # steps in which the learning rate rises
EMA_DECAY = 0.999
MIN_KL_USED = 0.05  # nats; above it a latent dimension counts as used


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="the folder that holds face/")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--epochs", type=at_least(1), default=30)
    parser.add_argument("--batch-size", type=at_least(2), default=64)
    parser.add_argument("--lr", type=at_least(0, float), default=1e-3)
    parser.add_argument("--kl-weight", type=at_least(0, float), default=3e-7,
                        help="of the KL in nats, beside the MSE on [0, 1]")
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
    """MSE + kl_weight * KL of faces x [N, 3, 64, 64] on [0, 1]; Kingma & Welling 2014, eq. 10, for a Gaussian decoder.

    The MSE is averaged over pixels, channels and the batch. The KL is in nats, summed over the latent dimensions and
    averaged over the batch. Returns the loss, what the log shows, and the KL of each dimension [latent_dim].
    """
    with autocast(x.device):
        reconstruction, mean, log_variance = vae(x)
    mse = F.mse_loss(reconstruction.float(), x)
    kl_by_dimension = kl_divergence(mean, log_variance).mean(0)
    kl = kl_by_dimension.sum()
    return mse + kl_weight * kl, {"mse": mse, "kl": kl}, kl_by_dimension.detach()


@torch.inference_mode()
def evaluate(vae, images):
    """Mean MSE of test faces, uint8 [N, 3, 64, 64], decoded from the posterior's mean; mean KL, as in `vae_loss`."""
    def errors(x):
        with autocast(x.device):
            mean, log_variance = vae.encode(x)
            reconstruction = vae.decode(mean)
        return torch.stack([(reconstruction.float() - x).square().mean((1, 2, 3)),
                            kl_divergence(mean, log_variance).sum(1)], 1)
    return dict(zip(["test_mse", "test_kl"], run_in_batches(errors, images, images.device).mean(0).tolist()))


def main(argv=None):
    args = parse_args(argv)
    torch.manual_seed(args.seed)

    images = load_faces(args.data_dir, "train", args.limit).to(args.device)
    test = None  # for a curve in the log: nothing is chosen by it
    if Path(args.data_dir, "face", "test").exists():
        test = load_faces(args.data_dir, "test", args.limit).to(args.device)
    if len(images) < args.batch_size:
        raise SystemExit(f"{len(images)} training images are less than one batch of {args.batch_size}")
    config = run_config(args, images=images)
    if already_trained(args.out_dir, config, args.resume):
        return

    flow_folder = Path(args.out_dir, "flow")
    if not args.resume:  # a second stage that is left of another run, whose own files were deleted
        (flow_folder / "checkpoint.pt").unlink(missing_ok=True)
    vae = VAE(args.width, args.latent_dim).to(args.device, memory_format=torch.channels_last)
    flow = Flow(args.latent_dim, args.width).to(args.device)
    groups = [{"params": part.parameters()} for part in (vae.encoder, vae.decoder)]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)
    ema = EMA(vae, EMA_DECAY)

    batch = args.batch_size
    steps = len(images) // batch  # an epoch
    run = Run(args.out_dir, config, args.epochs, steps, {"vae": vae, "optimizer": optimizer, "ema": ema}, args.resume)
    for epoch in run.epochs_left():
        order, kl_sum = torch.randperm(len(images), device=args.device), 0
        for i in range(steps):
            step = epoch * steps + i
            x = flip_half(images[order[i * batch:(i + 1) * batch]]).float() / 255
            loss, metrics, kl_by_dimension = vae_loss(vae, x, args.kl_weight)
            optimizer_step(loss, optimizer, learning_rate(step, args.epochs * steps, args.lr, WARM_UP), CLIP)
            ema.update(vae)
            kl_sum += kl_by_dimension
            run.end_step(metrics, batch)
        extra = {"dimensions_in_use": (kl_sum / steps > MIN_KL_USED).sum().item()}
        run.end_epoch(extra | ({} if test is None else evaluate(ema.model, test)), first={"step": (epoch + 1) * steps})

    state = ema.state
    if args.flow_epochs:
        average = train_flow(flow, ema.model, images, args.flow_epochs, args.lr, flow_folder, config, args.resume)
        state |= {f"flow.{name}": value for name, value in average.items()}
    run.save_model(state)


if __name__ == "__main__":
    interruptible(main)
