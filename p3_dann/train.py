"""Train one row of problem 3: source only (the lower bound), DANN, or target only (the upper bound).

    python3 p3_dann/train.py --data-dir hw3_data --source usps --target mnistm --mode dann --seed 0
    python3 p3_dann/train.py ... --resume                # continue after an interruption
    python3 p3_dann/train.py ... --epochs 1 --steps 20 --limit 512    # try it out, in seconds

Writes config.json, log.csv, checkpoint.pt and, at the end, model.pth (the EMA weights) into --out-dir.
In `dann` mode the target's labels are not read; the last weights count, there is no selection.
"""
import argparse
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.augment import augment_digits, half_strong_digits
from common.data import SCENARIOS, class_balanced_weights, load_labelled, load_unlabelled
from common.digit_net import DigitNet
from common.run import Run, already_trained, interruptible, run_config
from common.training import EMA, at_least, autocast, entropy, learning_rate, optimizer_step, pick_device
from p3_dann.model import DomainDiscriminator, GradientReversal

WEIGHT_DECAY = 1e-4
CLIP = 1.0  # the largest norm of the gradient
WARM_UP = 100  # steps in which the learning rate rises
EMA_DECAY = 0.99
# how the network sees uint8 images [N, 3, 28, 28]
AUGMENTATIONS = {"none": lambda images: images.float() / 255, "usual": augment_digits, "strong": half_strong_digits}


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="the folder that holds digits/")
    parser.add_argument("--source", required=True, choices=sorted({*SCENARIOS, *SCENARIOS.values()}))
    parser.add_argument("--target", required=True, choices=SCENARIOS)
    parser.add_argument("--mode", required=True, choices=["source", "dann", "target"])
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--epochs", type=at_least(1), default=12, help="of --steps steps each, on any data")
    parser.add_argument("--steps", type=at_least(1), default=250)
    parser.add_argument("--batch-size", type=at_least(2), default=96, help="labelled; dann adds as many of the target")
    parser.add_argument("--lr", type=at_least(0, float), default=3e-3)
    parser.add_argument("--reversal", type=at_least(0, float), default=0.3, help="lambda, the gradient's final weight")
    parser.add_argument("--augmentation", default="usual", choices=AUGMENTATIONS,
                        help="strong: every other image weakly, the rest strongly, as problem 4's source")
    parser.add_argument("--width", type=at_least(1), default=32, help="channels of the first layers")
    parser.add_argument("--limit", type=at_least(1), help="use only the first images of each domain")
    parser.add_argument("--device", type=pick_device, default="auto")
    parser.add_argument("--out-dir", help="default: runs/p3_SOURCE_TARGET_MODE_SEED")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args(argv)
    args.out_dir = args.out_dir or f"runs/p3_{args.source}_{args.target}_{args.mode}_{args.seed}"
    return args


def reversal_strength(step, steps, final):
    """lambda_p = final * (2 / (1 + exp(-10 p)) - 1), p from 0 to 1 over the run; Ganin et al. 2016, section 5.2.2."""
    return final * (2 / (1 + math.exp(-10 * step / steps)) - 1)


def supervised_loss(net, augment, x, y):
    """Cross-entropy of uint8 images [N, 3, 28, 28] with their labels [N]: the loss, and what the log shows."""
    views = augment(x)
    with autocast(x.device):
        logits = net(views)
    loss = F.cross_entropy(logits.float(), y)
    return loss, {"class_loss": loss, "class_accuracy": (logits.argmax(1) == y).float().mean()}


def dann_loss(net, discriminator, augment, x, y, target, strength):
    """Ganin et al. 2016, eq. 18: the source's class loss plus the domain loss behind the gradient reversal.

    uint8 images [N, 3, 28, 28] of the source with labels [N], uint8 images [M, 3, 28, 28] of the target. Returns the
    loss, what the log shows, and the mean prediction [classes] for the target.
    """
    count = len(x)
    views = augment(torch.cat([x, target]))
    with autocast(x.device):
        features = net.features(views)  # one batch: the domains share its statistics
        logits = net.classifier(features)
        domain_logits = discriminator(GradientReversal.apply(features, strength))
    logits, domain_logits = logits.float(), domain_logits.float()
    is_source = torch.arange(len(features), device=x.device) < count
    class_loss = F.cross_entropy(logits[:count], y)
    domain_loss = F.binary_cross_entropy_with_logits(domain_logits, is_source.float())
    target_probs = logits[count:].detach().softmax(1)
    return class_loss + domain_loss, {
        "class_loss": class_loss, "class_accuracy": (logits[:count].argmax(1) == y).float().mean(),
        "domain_loss": domain_loss, "domain_accuracy": ((domain_logits > 0) == is_source).float().mean(),
        "target_entropy": entropy(target_probs).mean()}, target_probs.mean(0)


def main(argv=None):
    args = parse_args(argv)
    torch.manual_seed(args.seed)

    labelled = args.target if args.mode == "target" else args.source
    images, labels = (t.to(args.device) for t in load_labelled(args.data_dir, labelled, "train", args.limit))
    target_images = torch.empty(0)
    if args.mode == "dann":
        target_images = load_unlabelled(args.data_dir, args.target, "train", args.limit).to(args.device)
    config = run_config(args, images=images, labels=labels, target_images=target_images)
    if already_trained(args.out_dir, config, args.resume):
        return

    augment = AUGMENTATIONS[args.augmentation]
    net = DigitNet(args.width).to(args.device, memory_format=torch.channels_last)
    discriminator = DomainDiscriminator(net.classifier.in_features).to(args.device)
    parameters = [*net.parameters(), *(discriminator.parameters() if args.mode == "dann" else ())]
    optimizer = torch.optim.AdamW(parameters, weight_decay=WEIGHT_DECAY, fused=True)
    ema = EMA(net, EMA_DECAY)
    # in all modes each class is drawn equally often: DANN aligns the classes' shares too, and the target's are unknown
    weights = class_balanced_weights(labels)

    run = Run(args.out_dir, config, args.epochs, args.steps,
              {"net": net, "discriminator": discriminator, "optimizer": optimizer, "ema": ema}, args.resume)
    steps = args.epochs * args.steps
    for epoch in run.epochs_left():
        shares = torch.zeros(10, device=args.device)  # of the classes in the predictions for the target, over the steps
        for step in range(epoch * args.steps, (epoch + 1) * args.steps):
            picked = torch.multinomial(weights, args.batch_size, replacement=True)
            x, y = images[picked], labels[picked]
            if args.mode == "dann":
                target = target_images[torch.randint(len(target_images), (args.batch_size,), device=args.device)]
                strength = reversal_strength(step, steps, args.reversal)
                loss, metrics, target_shares = dann_loss(net, discriminator, augment, x, y, target, strength)
                shares += target_shares
            else:
                loss, metrics = supervised_loss(net, augment, x, y)
            optimizer_step(loss, optimizer, learning_rate(step, steps, args.lr, WARM_UP), CLIP)
            ema.update(net)
            run.end_step(metrics, args.batch_size * (1 + (args.mode == "dann")))
        # label-free: how sure and how varied the predictions are, in nats, at most log 10
        information = entropy(shares / args.steps).item() - run.means().get("target_entropy", 0)
        run.end_epoch({"target_information": information} if args.mode == "dann" else {})

    run.save_model(ema.state)


if __name__ == "__main__":
    interruptible(main)
