"""Speed beside the plain way, as ratios measured in one run. Not a test: pytest does not collect it.

    python3 tests/bench.py --data-dir hw3_data --images 4000 --repeats 3 > report/results/bench.md

The plain way is a DataLoader that decodes PNG by PNG, float32, contiguous tensors, the same network and augmentation.
A training step is timed against three: augmentation image by image in the loader's two workers; in batches, as here,
with two workers; and in batches with the loader's default, which decodes in the loop. Each number is the median of
--repeats alternating measurements.
"""
import argparse
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from common.augment import augment_digits, flip_half, strong_digits, weak_digits
from common.data import list_images, load_images, read_labels
from common.digit_net import DigitNet, standardise
from common.predict import forward
from common.runtime import EMA, autocast, has_bf16
from p1_vae.model import VAE as FaceVAE
from p1_vae.model import kl_divergence
from p2_gan.model import LATENT, Generator, discriminator
from p2_gan.train import LAZY, gradient_penalty, relativistic
from p3_dann.model import DomainDiscriminator, GradientReversal
from p4_uda.model import PseudoLabels, interpolate, running_statistics_kept

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

CPU = torch.device("cpu")


class VAE:
    """A training step of problem 1, this repository's way or the plain one; both see the same kind of batches."""
    batch = (64,)
    views = staticmethod(lambda x: (flip_half(x).float() / 255,))

    def __init__(self, plain):
        self.net = FaceVAE()
        self.learner = Learner(plain, self.net)

    def step(self, faces):
        x = faces[0][0].contiguous(memory_format=self.learner.format)
        with self.learner.precision():
            reconstruction, mean, log_variance = self.net(x)
        kl = kl_divergence(mean, log_variance).sum(1).mean()
        self.learner.learn(F.mse_loss(reconstruction.float(), x) + 3e-7 * kl)


class GAN:
    """A training step of problem 2, likewise: both networks'."""
    batch = (32,)
    views = VAE.views

    def __init__(self, plain):
        self.generator, self.discriminator = Generator(16), discriminator(16)
        self.learners, self.steps = (Learner(plain, self.generator), Learner(plain, self.discriminator)), 0

    def score(self, x):
        with self.learners[1].precision():
            return self.discriminator(2 * x - 1).float()

    def step(self, faces):
        penalised = self.steps % LAZY == 0
        self.steps += 1
        real = faces[0][0].requires_grad_(penalised)
        with self.learners[0].precision():
            fake = self.generator(torch.randn(len(real), LATENT))
        real_score = self.score(real)
        loss = relativistic(real_score, self.score(fake.detach()))
        if penalised:
            loss = loss + LAZY * 0.25 * gradient_penalty(real_score, real)
        self.learners[1].learn(loss)
        self.discriminator.requires_grad_(False)
        self.learners[0].learn(relativistic(self.score(fake), real_score.detach()))
        self.discriminator.requires_grad_(True)


class DANN:
    """A training step of problem 3, likewise."""
    batch = (96, 96)  # of the source and of the target
    views = staticmethod(lambda x: (augment_digits(x),))

    def __init__(self, plain):
        self.net, self.discriminator = DigitNet(), DomainDiscriminator()
        self.learner = Learner(plain, self.net, self.discriminator)

    def step(self, source, target):
        (source, y), (target, _) = source, target
        is_source = (torch.arange(sum(self.batch)) < self.batch[0]).float()
        with self.learner.precision():
            features = self.learner.forward(self.net.layers, torch.cat([*source, *target]))
            logits = self.net.classifier(features[:self.batch[0]])
            domain = self.discriminator(GradientReversal.apply(features, 0.1))
        domain_loss = F.binary_cross_entropy_with_logits(domain.float(), is_source)
        self.learner.learn(F.cross_entropy(logits.float(), y) + domain_loss)


class AdaMatch:
    """A training step of problem 4, likewise."""
    batch = (32, 64)
    views = staticmethod(lambda x: (weak_digits(x), strong_digits(x)))

    def __init__(self, plain):
        self.net, self.pseudo_labels = DigitNet(), PseudoLabels()
        self.learner = Learner(plain, self.net)

    def logits(self, x):
        return self.net.classifier(self.learner.forward(self.net.layers, x)).float()

    def step(self, source, target):
        (source, y), (target, _) = source, target
        count, half, teacher = len(y), len(y) // 2, self.learner.ema.model
        with self.learner.precision():
            with torch.no_grad():
                guess = teacher.classifier(self.learner.forward(teacher.layers, target[0])).float().softmax(1)
            x = torch.cat([source[0][:half], source[1][half:], target[1]])
            logits = self.logits(x)
            with running_statistics_kept(self.net):
                source_logits = interpolate(logits[:count], self.logits(x[:count]))
        label, _, kept = self.pseudo_labels(source_logits[:half].detach().softmax(1), guess)
        target_loss = (kept * F.cross_entropy(logits[count:], label, reduction="none")).mean()
        self.learner.learn(F.cross_entropy(source_logits, y) + target_loss)


class Learner:
    """Precision, memory format and optimiser of either way."""

    def __init__(self, plain, net, *more):
        self.format = torch.contiguous_format if plain else torch.channels_last
        self.precision = (lambda: torch.autocast("cpu", enabled=False)) if plain else (lambda: autocast(CPU))
        net.to(memory_format=self.format)
        self.net, self.ema = net, EMA(net, 0.99)
        self.parameters = [p for module in (net, *more) for p in module.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, fused=not plain)

    def forward(self, layers, x):
        return layers(standardise(x).contiguous(memory_format=self.format))

    def learn(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.ema.update(self.net)


class Plain(Dataset):
    """PNG by PNG: uint8 images, or their `views` where given, and labels."""

    def __init__(self, folder, names, labels, views=None):
        self.paths, self.labels, self.views = [os.path.join(folder, name) for name in names], labels, views

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        x = pil_to_tensor(Image.open(self.paths[i]).convert("RGB"))
        return [view[0] for view in self.views(x[None])] if self.views else x, self.labels[i]


def endless(loader):
    while True:
        yield from loader


def make_steps(method, dataset, images, labels, workers):
    """Two functions, each one training step on sum(method.batch) images: this repository's and the plain one."""
    ours, plain = method(plain=False), method(plain=True)
    loaders = [endless(DataLoader(dataset, count, shuffle=True, num_workers=workers, drop_last=True,
                                  persistent_workers=workers > 0)) for count in method.batch]

    def our_step():
        picked = [torch.randint(len(images), (count,)) for count in method.batch]
        ours.step(*((method.views(images[i]), labels[i]) for i in picked))

    def plain_step():
        parts = [next(loader) for loader in loaders]
        plain.step(*((x if dataset.views else method.views(x), y) for x, y in parts))

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


def compare_steps(methods, folder, names, labels, images, repeats):
    """A row for each method and each of the three plain ways."""
    for method in methods:
        for one_by_one, workers, title in ((True, 1, "image by image, two workers"),
                                           (False, 1, "in batches, two workers"), (False, 0, "in batches, no worker")):
            dataset = Plain(folder, names, labels, method.views if one_by_one else None)
            our_step, plain_step = make_steps(method, dataset, images, labels, workers)
            compare(f"{method.__name__} training step, {title}", lambda: [our_step() for _ in range(20)],
                    lambda: [plain_step() for _ in range(20)], 20 * sum(method.batch), repeats)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(f"`python3 tests/bench.py --data-dir hw3_data --images {args.images} --repeats {args.repeats}`\n")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, bf16: {has_bf16(CPU)}\n")
    print("| images/s | this repository | the plain way | ratio |\n|---|---|---|---|")

    folder = os.path.join(args.data_dir, "face", "train")
    names = list_images(folder)[:args.images]
    compare_steps([VAE, GAN], folder, names, torch.zeros(len(names)), load_images(folder, names, size=64), args.repeats)

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
        return [net.classifier(net.layers(standardise(x.float() / 255))).argmax(1)
                for x, _ in DataLoader(dataset, 500, num_workers=2)]

    compare("loading", lambda: load_images(folder, names), load_plain, len(names), args.repeats)
    compare_steps([DANN, AdaMatch], folder, names, labels, images, args.repeats)
    compare("inference, files to labels", lambda: forward(net, load_images(folder, names), CPU).argmax(1),
            predict_plain, len(names), args.repeats)


if __name__ == "__main__":
    main()
