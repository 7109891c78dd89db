"""Speed beside the plain way, as ratios measured in one run. Not a test: pytest does not collect it.

    python3 tests/bench.py --data-dir hw3_data

The plain way is a DataLoader that decodes PNG by PNG, float32, contiguous tensors, the same network and augmentation. The training
step is timed against three: augmentation image by image in the loader's two workers; in batches, as here, with two workers; and
in batches with the loader's default, which decodes in the loop. Each number is the median of --repeats alternating measurements.
"""
import argparse
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.augment import augment_digits
from common.data import list_images, load_images, read_labels
from common.predict import forward
from common.runtime import EMA, autocast, has_bf16
from p3_dann.model import DigitNet, DomainDiscriminator, GradientReversal, standardise

CPU = torch.device("cpu")
BATCH = 96


class Plain(Dataset):
    def __init__(self, folder, names, labels, augmented=False):
        self.paths, self.labels, self.augmented = [os.path.join(folder, name) for name in names], labels, augmented

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        x = pil_to_tensor(Image.open(self.paths[i]).convert("RGB"))
        return augment_digits(x[None])[0] if self.augmented else x, self.labels[i]


def endless(loader):
    while True:
        yield from loader


def make_steps(dataset, images, labels, workers):
    """Two functions, each one DANN step on BATCH + BATCH images: this repository's and the plain one."""
    def build(memory_format, fused):
        net, discriminator = DigitNet().to(memory_format=memory_format), DomainDiscriminator()
        parameters = [*net.parameters(), *discriminator.parameters()]
        return net, discriminator, parameters, torch.optim.AdamW(parameters, lr=1e-3, fused=fused), EMA(net, 0.99)

    is_source = (torch.arange(2 * BATCH) < BATCH).float()

    def learn(model, features, y, bf16):
        net, discriminator, parameters, optimizer, ema = model
        with autocast(CPU) if bf16 else torch.autocast("cpu", enabled=False):
            features = features()
            logits, domain = net.classifier(features[:BATCH]), discriminator(GradientReversal.apply(features, 0.1))
        loss = F.cross_entropy(logits.float(), y) + F.binary_cross_entropy_with_logits(domain.float(), is_source)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        ema.update(net)

    ours, plain = build(torch.channels_last, True), build(torch.contiguous_format, False)
    source, target = (endless(DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, drop_last=True,
                                          persistent_workers=workers > 0))
                      for _ in range(2))

    def our_step():
        a, b = torch.randint(len(images), (2, BATCH))
        x = augment_digits(torch.cat([images[a], images[b]]))
        learn(ours, lambda: ours[0].features(x), labels[a], bf16=True)

    def plain_step():
        (xs, y), (xt, _) = next(source), next(target)
        x = torch.cat([xs, xt])
        x = (x if dataset.augmented else augment_digits(x)).contiguous()
        learn(plain, lambda: plain[0].layers(standardise(x)), y, bf16=False)

    return our_step, plain_step


def compare(name, ours, plain, images, repeats):
    """Print images/s of two functions that each handle `images` images, and the ratio."""
    rates = {ours: [], plain: []}
    for function in rates:
        function()  # warm up: file cache, workers, kernels
    for _ in range(repeats):
        for function, values in rates.items():
            started = time.perf_counter()
            function()
            values.append(images / (time.perf_counter() - started))
    a, b = statistics.median(rates[ours]), statistics.median(rates[plain])
    print(f"| {name} | {a:,.0f} | {b:,.0f} | {a / b:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    folder = os.path.join(args.data_dir, "digits", "mnistm", "train")
    names = list_images(folder)[:args.images]
    truth = read_labels(f"{folder}.csv")
    labels = torch.tensor([truth[name] for name in names])
    dataset, images = Plain(folder, names, labels), load_images(folder, names)
    net = DigitNet().eval()

    def load_plain():
        return torch.cat([x for x, _ in DataLoader(dataset, 500, num_workers=2)])

    @torch.inference_mode()
    def predict_plain():
        return [net.classifier(net.layers(standardise(x.float() / 255))).argmax(1) for x, _ in DataLoader(dataset, 500, num_workers=2)]

    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, bf16: {has_bf16(CPU)}")
    print("| images/s | this repository | the plain way | ratio |\n|---|---|---|---|")
    compare("loading", lambda: load_images(folder, names), load_plain, len(names), args.repeats)
    for augmented, workers, title in ((True, 1, "image by image, two workers"), (False, 1, "in batches, two workers"), (False, 0, "in batches, no worker")):
        our_step, plain_step = make_steps(Plain(folder, names, labels, augmented), images, labels, workers)
        compare(f"DANN training step, {title}", lambda: [our_step() for _ in range(20)], lambda: [plain_step() for _ in range(20)],
                20 * 2 * BATCH, args.repeats)
    compare("inference, files to labels", lambda: forward(net, load_images(folder, names), CPU).argmax(1), predict_plain,
            len(names), args.repeats)


if __name__ == "__main__":
    main()
