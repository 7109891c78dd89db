"""Train one row of problem 4: AdaMatch with pseudo-labels from the EMA weights, or a bound with its augmentation.

    python3 p4_uda/train.py --data-dir hw3_data --source usps --target mnistm --seed 0
    python3 p4_uda/train.py ... --mode source            # the lower bound with this problem's augmentation
    python3 p4_uda/train.py ... --mode target            # and the upper one
    python3 p4_uda/train.py ... --without align          # leave a part of the method out, for the ablation
    python3 p4_uda/train.py ... --resume                 # continue after an interruption
    python3 p4_uda/train.py ... --epochs 1 --limit 512   # try it out, in seconds

Writes config.json, log.csv, checkpoint.pt and, at the end, model.pth (the EMA weights) into --out-dir.
In `uda` mode the target's labels are not read; the last weights count, there is no selection.
"""
import argparse
import math
import os
import sys
import time
from collections import defaultdict

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.augment import strong_digits, weak_digits
from common.data import CLASSES, SCENARIOS, even_chances, load_labelled, load_unlabelled
from common.digit_net import DigitNet
from common.runtime import EMA, LARGEST_SEED, Run, at_least, autocast, entropy, learning_rate, pick_device
from p4_uda.model import SWITCHES, PseudoLabels, interpolate, running_statistics_kept

import torch
import torch.nn.functional as F


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="the folder that holds digits/")
    parser.add_argument("--source", required=True, choices=SCENARIOS)
    parser.add_argument("--target", required=True, choices=SCENARIOS)
    parser.add_argument("--mode", default="uda", choices=["uda", "source", "target"])
    parser.add_argument("--seed", type=at_least(0, most=LARGEST_SEED), default=0)
    parser.add_argument("--epochs", type=at_least(1), default=24,
                        help="of --steps steps each, whatever the data set's size")
    parser.add_argument("--steps", type=at_least(1), default=500)
    parser.add_argument("--batch-size", type=at_least(2), default=32,
                        help="labelled images a step; there are twice as many of the target")
    parser.add_argument("--lr", type=at_least(0, float), default=2e-3)
    parser.add_argument("--threshold", type=at_least(0, float), default=0.9,
                        help="the confidence that a pseudo-label needs, as a fraction of the source's")
    parser.add_argument("--without", nargs="+", choices=SWITCHES, default=[],
                        help="for the ablation: leave these parts out")
    parser.add_argument("--width", type=at_least(1), default=32, help="channels of the first layers")
    parser.add_argument("--limit", type=at_least(1), help="use only the first images of each domain")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out-dir", help="default: runs/p4_SOURCE_TARGET_MODE_SEED")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    args.out_dir = args.out_dir or os.path.join("runs", f"p4_{args.source}_{args.target}_{args.mode}_{args.seed}")
    return args


def target_weight(step, steps):
    """From 0 to 1 over the first half of the run, along half a cosine, as AdaMatch has it."""
    return 0.5 - 0.5 * math.cos(math.pi * min(1, 2 * step / steps))


def divergence(counts, q):
    """KL divergence, in nats, of counts [classes], as a distribution, from the distribution q [classes].

    nan where all counts are 0.
    """
    p = counts / counts.sum()
    return torch.special.xlogy(p, p / q).sum()


def main():
    args = parse_args()
    device = pick_device(args.device)
    torch.manual_seed(args.seed)

    labelled = args.target if args.mode == "target" else args.source
    images, labels = (t.to(device) for t in load_labelled(args.data_dir, labelled, "train", args.limit))
    # the domains differ in their shares of the classes: with even chances the net does not learn those of the source
    chances = torch.ones(len(labels), device=device) if "balance" in args.without else even_chances(labels)
    uda = args.mode == "uda"
    if uda:
        target_images = load_unlabelled(args.data_dir, args.target, "train", args.limit).to(device)

    net = DigitNet(args.width).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-4, fused=True)
    ema = EMA(net, decay=0.999)
    pseudo_labels = PseudoLabels(CLASSES, args.threshold, args.without).to(device)

    config = {k: v for k, v in vars(args).items() if k not in ("data_dir", "device", "out_dir", "resume")}
    run = Run(args.out_dir, config, args.resume,
              {"net": net, "optimizer": optimizer, "ema": ema, "pseudo_labels": pseudo_labels})

    count, half = args.batch_size, args.batch_size // 2
    steps = args.epochs * args.steps
    for epoch in range(len(run.rows), args.epochs):
        started, totals = time.time(), defaultdict(float)
        marginal = torch.zeros(CLASSES, device=device)  # mean prediction for the target's images
        kept_labels = torch.zeros(CLASSES, device=device)  # how many pseudo-labels of each class were kept
        for step in range(epoch * args.steps, (epoch + 1) * args.steps):
            picked = torch.multinomial(chances, count, replacement=True)
            x, y = images[picked], labels[picked]
            strong = x[half:]
            if uda:
                target = target_images[torch.randint(len(target_images), (2 * count,), device=device)]
                with torch.no_grad(), autocast(device):
                    guess = ema.model(weak_digits(target)).float().softmax(1)
                strong = torch.cat([strong, target])
            x = torch.cat([weak_digits(x[:half]), strong_digits(strong)])
            with autocast(device):
                logits = net(x)  # both domains in one batch, so that they share its statistics
                source_logits = logits[:count]
                if uda and "interpolation" not in args.without:
                    with running_statistics_kept(net):
                        source_logits = interpolate(source_logits, net(x[:count]))
            source_logits = source_logits.float()
            loss = class_loss = F.cross_entropy(source_logits, y)
            metrics = {"class_loss": class_loss, "class_accuracy": (source_logits.argmax(1) == y).float().mean()}
            if uda:
                label, threshold, kept = pseudo_labels(source_logits[:half].detach().softmax(1), guess)
                target_loss = (kept * F.cross_entropy(logits[count:].float(), label, reduction="none")).mean()
                loss = class_loss + target_weight(step, steps) * target_loss
                marginal += guess.mean(0) / args.steps
                kept_labels.index_add_(0, label, kept)
                metrics |= {"target_loss": target_loss, "threshold": threshold, "keep_rate": kept.mean(),
                            "target_entropy": entropy(guess).mean()}
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, args.lr)
            optimizer.step()
            ema.update(net)
            for name, value in metrics.items():
                totals[name] += value.detach()
        row = {name: total.item() / args.steps for name, total in totals.items()}
        if uda:  # label-free, in nats: how sure and varied the predictions are; how far kept labels are from the source
            row["target_information"] = entropy(marginal).item() - row["target_entropy"]
            row["pseudo_label_divergence"] = divergence(kept_labels, pseudo_labels.source_mean).item()
        seconds = time.time() - started
        run.end_epoch({**row, "images_per_second": args.steps * len(x) / seconds, "seconds": seconds})

    run.save_model(ema.state)


if __name__ == "__main__":
    main()
