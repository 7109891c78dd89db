"""Train one row of problem 4: AdaMatch with pseudo-labels from the EMA weights, or a bound with its augmentation.

    python3 p4_uda/train.py --data-dir hw3_data --source usps --target mnistm --seed 0
    python3 p4_uda/train.py ... --mode source            # the lower bound with this problem's augmentation; or target
    python3 p4_uda/train.py ... --without align          # leave a part of the method out, for the ablation
    python3 p4_uda/train.py ... --resume                 # continue after an interruption
    python3 p4_uda/train.py ... --epochs 1 --steps 20 --limit 512    # try it out, in seconds

Writes config.json, log.csv, checkpoint.pt and, at the end, model.pth (the EMA weights) into --out-dir.
In `uda` mode the target's labels are not read; the last weights count, there is no selection.
"""
import argparse
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.augment import strong_digits, weak_digits
from common.data import SCENARIOS, class_balanced_weights, load_labelled, load_unlabelled
from common.digit_net import DigitNet
from common.run import Run, already_trained, interruptible, run_config
from common.training import EMA, at_least, autocast, entropy, learning_rate, optimizer_step, pick_device
from p4_uda.model import PseudoLabels

WEIGHT_DECAY = 1e-4
CLIP = 1.0  # the largest norm of the gradient
WARM_UP = 100  # steps in which the learning rate rises
EMA_DECAY = 0.999  # of the teacher


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="the folder that holds digits/")
    parser.add_argument("--source", required=True, choices=sorted({*SCENARIOS, *SCENARIOS.values()}))
    parser.add_argument("--target", required=True, choices=SCENARIOS)
    parser.add_argument("--mode", default="uda", choices=["uda", "source", "target"])
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--epochs", type=at_least(1), default=24, help="of --steps steps each, on any data")
    parser.add_argument("--steps", type=at_least(1), default=500)
    parser.add_argument("--batch-size", type=at_least(2), default=32, help="labelled; AdaMatch adds 2x as many targets")
    parser.add_argument("--lr", type=at_least(0, float), default=2e-3)
    parser.add_argument("--threshold", type=at_least(0, float), default=0.9,
                        help="the confidence that a pseudo-label needs, times the mean one on source images")
    parser.add_argument("--without", nargs="+", choices=["align", "relative", "balance"], default=[])
    parser.add_argument("--width", type=at_least(1), default=32, help="channels of the first layers")
    parser.add_argument("--limit", type=at_least(1), help="use only the first images of each domain")
    parser.add_argument("--hold-out", type=at_least(0), default=0, help="target images that AdaMatch leaves out")
    parser.add_argument("--device", type=pick_device, default="auto")
    parser.add_argument("--out-dir", help="default: runs/p4_SOURCE_TARGET_MODE_SEED")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args(argv)
    args.out_dir = args.out_dir or f"runs/p4_{args.source}_{args.target}_{args.mode}_{args.seed}"
    return args


def target_weight(step, steps):
    """From 0 to 1 over the first half of the run, along half a cosine, as in AdaMatch."""
    return 0.5 - 0.5 * math.cos(math.pi * min(1, 2 * step / steps))


def float_logits(net, views):
    """Logits [N, classes] in float32 of augmented images [N, 3, 28, 28]."""
    with autocast(views.device):
        return net(views).float()


def supervised_loss(net, x, y):
    """Cross-entropy of uint8 images [N, 3, 28, 28], half weak, half strong, with labels [N]; what the log shows."""
    half = len(x) // 2
    logits = float_logits(net, torch.cat([weak_digits(x[:half]), strong_digits(x[half:])]))
    loss = F.cross_entropy(logits, y)
    return loss, {"class_loss": loss, "class_accuracy": (logits.argmax(1) == y).float().mean()}


def adamatch_loss(net, teacher, pseudo_labels, x, y, target, weight):
    """The source's class loss plus `weight` times that of the target's pseudo-labels (AdaMatch, section 3).

    uint8 images [N, 3, 28, 28] of the source, half of them weak and half strong, with labels [N]; uint8 images
    [M, 3, 28, 28] of the target, which `teacher` (in eval mode, without gradients) sees weak, and `net` strong.
    Returns the loss, what the log shows, and the teacher's mean prediction [classes] for the target.
    """
    count, half = len(x), len(x) // 2
    weak = weak_digits(x[:half])
    teacher_probs = float_logits(teacher, torch.cat([weak, weak_digits(target)])).softmax(1)
    source_probs, target_probs = teacher_probs[:half], teacher_probs[half:]
    label, threshold, kept = pseudo_labels(source_probs, target_probs)
    views = torch.cat([weak, strong_digits(torch.cat([x[half:], target]))])
    logits = float_logits(net, views)  # both domains in one batch, so that they share its statistics
    class_loss = F.cross_entropy(logits[:count], y)
    target_loss = (kept * F.cross_entropy(logits[count:], label, reduction="none")).mean()  # over all M, kept or not
    return class_loss + weight * target_loss, {
        "class_loss": class_loss, "class_accuracy": (logits[:count].argmax(1) == y).float().mean(),
        "threshold": threshold, "target_loss": target_loss, "keep_rate": kept.mean(),
        "target_entropy": entropy(target_probs).mean()}, target_probs.mean(0)


def main(argv=None):
    args = parse_args(argv)
    torch.manual_seed(args.seed)

    labelled = args.target if args.mode == "target" else args.source
    images, labels = (t.to(args.device) for t in load_labelled(args.data_dir, labelled, "train", args.limit))
    target_images = torch.empty(0)
    if args.mode == "uda":
        target_images = load_unlabelled(args.data_dir, args.target, "train", args.limit).to(args.device)
        if args.hold_out >= len(target_images):
            raise SystemExit(f"--hold-out {args.hold_out}: there are {len(target_images)} target images")
        target_images = target_images[:len(target_images) - args.hold_out]
    config = run_config(args, images=images, labels=labels, target_images=target_images)
    if already_trained(args.out_dir, config, args.resume):
        return

    net = DigitNet(args.width).to(args.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    ema = EMA(net, EMA_DECAY)
    pseudo_labels = PseudoLabels(threshold=args.threshold, without=args.without).to(args.device)
    balance = "balance" not in args.without  # the domains differ in their shares of the classes
    weights = class_balanced_weights(labels) if balance else torch.ones_like(labels, dtype=torch.float)

    run = Run(args.out_dir, config, args.epochs, args.steps,
              {"net": net, "optimizer": optimizer, "ema": ema, "pseudo_labels": pseudo_labels}, args.resume)
    steps = args.epochs * args.steps
    for epoch in run.epochs_left():
        shares = torch.zeros(10, device=args.device)  # of the classes in the predictions for the target, over the steps
        for step in range(epoch * args.steps, (epoch + 1) * args.steps):
            picked = torch.multinomial(weights, args.batch_size, replacement=True)
            x, y = images[picked], labels[picked]
            if args.mode == "uda":
                target = target_images[torch.randint(len(target_images), (2 * args.batch_size,), device=args.device)]
                weight = target_weight(step, steps)
                loss, metrics, target_shares = adamatch_loss(net, ema.model, pseudo_labels, x, y, target, weight)
                shares += target_shares
            else:
                loss, metrics = supervised_loss(net, x, y)
            optimizer_step(loss, optimizer, learning_rate(step, steps, args.lr, WARM_UP), CLIP)
            ema.update(net)
            run.end_step(metrics, args.batch_size * (3 if args.mode == "uda" else 1))
        # label-free: how sure and how varied the predictions are, in nats, at most log 10
        information = entropy(shares / args.steps).item() - run.means().get("target_entropy", 0)
        run.end_epoch({"target_information": information} if args.mode == "uda" else {})

    run.save_model(ema.state)


if __name__ == "__main__":
    interruptible(main)
