"""Train one row of problem 3: source only (the lower bound), DANN, or target only (the upper bound).

    python3 p3_dann/train.py --data-dir hw3_data --source usps --target mnistm --mode dann --seed 0
    python3 p3_dann/train.py ... --resume                # continue after an interruption
    python3 p3_dann/train.py ... --epochs 1 --limit 512  # try it out, in seconds

Writes config.json, log.csv, checkpoint.pt and, at the end, model.pth (the EMA weights) into --out-dir.
In `dann` mode the target's labels are not read; the last weights count, there is no selection.
"""
import argparse
import math
import os
import sys
import time
from collections import defaultdict

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.augment import augment_digits
from common.data import CLASSES, SCENARIOS, even_chances, load_labelled, load_unlabelled
from common.digit_net import DigitNet
from common.runtime import EMA, LARGEST_SEED, Run, at_least, autocast, entropy, learning_rate, pick_device
from p3_dann.model import DomainDiscriminator, GradientReversal

import torch
import torch.nn.functional as F


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="the folder that holds digits/")
    parser.add_argument("--source", required=True, choices=SCENARIOS)
    parser.add_argument("--target", required=True, choices=SCENARIOS)
    parser.add_argument("--mode", required=True, choices=["source", "dann", "target"])
    parser.add_argument("--seed", type=at_least(0, most=LARGEST_SEED), default=0)
    parser.add_argument("--epochs", type=at_least(1), default=12,
                        help="of --steps steps each, whatever the data set's size")
    parser.add_argument("--steps", type=at_least(1), default=250)
    parser.add_argument("--batch-size", type=at_least(2), default=96,
                        help="labelled images a step; dann adds as many of the target")
    parser.add_argument("--lr", type=at_least(0, float), default=3e-3)
    parser.add_argument("--reversal", type=at_least(0, float), default=0.3,
                        help="the final weight of the reversed gradient, lambda")
    parser.add_argument("--width", type=at_least(1), default=32, help="channels of the first layers")
    parser.add_argument("--limit", type=at_least(1), help="use only the first images of each domain")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out-dir", help="default: runs/p3_SOURCE_TARGET_MODE_SEED")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    args.out_dir = args.out_dir or os.path.join("runs", f"p3_{args.source}_{args.target}_{args.mode}_{args.seed}")
    return args


def reversal_strength(step, steps, final):
    """lambda_p = final * (2 / (1 + exp(-10 p)) - 1), p from 0 to 1 over the run; Ganin et al. 2016, section 5.2.2."""
    return final * (2 / (1 + math.exp(-10 * step / steps)) - 1)


def main():
    args = parse_args()
    device = pick_device(args.device)
    torch.manual_seed(args.seed)

    labelled = args.target if args.mode == "target" else args.source
    images, labels = (t.to(device) for t in load_labelled(args.data_dir, labelled, "train", args.limit))
    # even in all modes: DANN aligns the classes' shares too, and the target's are unknown
    chances = even_chances(labels)
    dann = args.mode == "dann"
    if dann:
        target_images = load_unlabelled(args.data_dir, args.target, "train", args.limit).to(device)

    net = DigitNet(args.width).to(device, memory_format=torch.channels_last)
    discriminator = DomainDiscriminator(args.width).to(device)
    parameters = [*net.parameters(), *discriminator.parameters()] if dann else list(net.parameters())
    optimizer = torch.optim.AdamW(parameters, weight_decay=1e-4, fused=True)
    ema = EMA(net, decay=0.99)

    config = {k: v for k, v in vars(args).items() if k not in ("data_dir", "device", "out_dir", "resume")}
    run = Run(args.out_dir, config, args.resume,
              {"net": net, "discriminator": discriminator, "optimizer": optimizer, "ema": ema})

    count = args.batch_size
    is_source = (torch.arange(2 * count, device=device) < count).float()
    steps = args.epochs * args.steps
    for epoch in range(len(run.rows), args.epochs):
        started, totals = time.time(), defaultdict(float)
        marginal = torch.zeros(CLASSES, device=device)  # mean prediction for the target's images
        for step in range(epoch * args.steps, (epoch + 1) * args.steps):
            picked = torch.multinomial(chances, count, replacement=True)
            x, y = images[picked], labels[picked]
            if dann:
                x = torch.cat([x, target_images[torch.randint(len(target_images), (count,), device=device)]])
            x = augment_digits(x)
            strength = reversal_strength(step, steps, args.reversal)
            with autocast(device):
                features = net.features(x)  # both domains in one batch, so that they share its statistics
                logits = net.classifier(features)
                if dann:
                    domain_logits = discriminator(GradientReversal.apply(features, strength))
            logits = logits.float()
            loss = class_loss = F.cross_entropy(logits[:count], y)
            metrics = {"class_loss": class_loss, "class_accuracy": (logits[:count].argmax(1) == y).float().mean()}
            if dann:
                domain_loss = F.binary_cross_entropy_with_logits(domain_logits.float(), is_source)
                loss = class_loss + domain_loss
                guess = logits[count:].detach().softmax(1)
                marginal += guess.mean(0) / args.steps
                metrics |= {"domain_loss": domain_loss,
                            "domain_accuracy": ((domain_logits > 0) == (is_source > 0)).float().mean(),
                            "target_entropy": entropy(guess).mean()}
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, args.lr)
            optimizer.step()
            ema.update(net)
            for name, value in metrics.items():
                totals[name] += value.detach()
        row = {name: total.item() / args.steps for name, total in totals.items()}
        if dann:  # label-free: how sure and how varied the predictions for the target are, in nats, at most log 10
            row["target_information"] = entropy(marginal).item() - row["target_entropy"]
        seconds = time.time() - started
        run.end_epoch({**row, "images_per_second": args.steps * len(x) / seconds, "seconds": seconds})

    run.save_model(ema.state)


if __name__ == "__main__":
    main()
