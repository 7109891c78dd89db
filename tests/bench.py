"""Speed beside the plain way, as ratios measured in one run. Not a test: pytest does not collect it.

    python3 tests/bench.py --data-dir hw3_data --images 4000 --repeats 3 > report/results/bench.md

Both ways call the trainers' own loss functions. The plain way is float32, contiguous tensors, an unfused optimizer and
a DataLoader that decodes PNG by PNG in two workers; ours is bfloat16 where the processor has it, channels_last and
images that are decoded once. Each number is the median of --repeats alternating measurements.
"""
import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import training
from common.augment import flip_half
from common.data import list_images, load_images, read_labels
from common.digit_net import DigitNet
from common.predict import run_in_batches
from p1_vae import train as p1
from p1_vae.model import VAE
from p2_gan import train as p2
from p2_gan.model import LATENT, Generator, discriminator
from p3_dann import train as p3
from p3_dann.model import DomainDiscriminator
from p4_uda import train as p4
from p4_uda.model import PseudoLabels

CPU = torch.device("cpu")


def descender(nets, plain):
    """A function that steps down a loss of these networks, and averages the first one's weights; and the average."""
    for net in nets:
        net.to(memory_format=torch.contiguous_format if plain else torch.channels_last)
    optimizer = torch.optim.AdamW([p for net in nets for p in net.parameters()], fused=not plain)
    ema = training.EMA(nets[0], 0.99)

    def descend(loss):
        training.descend(loss, optimizer, 1e-3, 1.0)
        ema.update(nets[0])
    return descend, ema.model


def vae(plain):
    net = VAE()
    descend, _ = descender([net], plain)
    return lambda faces: descend(p1.vae_loss(net, flip_half(faces[0]).float() / 255, 3e-7)[0])


def gan(plain):
    nets = Generator(16), discriminator(16)
    optimizers = [torch.optim.Adam(net.parameters(), 5e-4, fused=not plain) for net in nets]
    for net in nets:
        net.to(memory_format=torch.contiguous_format if plain else torch.channels_last)
    ema, (d_loss, g_loss), count = training.EMA(nets[0], 0.9995), p2.LOSSES["residual"], iter(range(10 ** 9))

    def step(faces):
        real, r1 = flip_half(faces[0]).float() / 255, 4.0 if next(count) % p2.PENALTY_INTERVAL == 0 else 0
        with training.autocast(CPU):
            fake = nets[0](torch.randn(len(real), LATENT))
        _, real_score, _ = p2.discriminator_step(nets[1], optimizers[1], d_loss, real, fake, r1)
        p2.generator_step(nets[1], optimizers[0], g_loss, real_score, fake)
        ema.update(nets[0])
    return step


def dann(plain):
    nets = DigitNet(), DomainDiscriminator()
    descend, _ = descender(nets, plain)
    return lambda source, target: descend(p3.dann_loss(*nets, *source, target[0], 0.3)[0])


def adamatch(plain):
    net, pseudo_labels = DigitNet(), PseudoLabels()
    descend, teacher = descender([net], plain)
    return lambda source, target: descend(p4.adamatch_loss(net, teacher, pseudo_labels, *source, target[0], 1.0)[0])


METHODS = {"VAE": (vae, [64]), "GAN": (gan, [32]), "DANN": (dann, [96, 96]), "AdaMatch": (adamatch, [32, 64])}


class Files(Dataset):
    """PNG by PNG: uint8 images and their labels."""

    def __init__(self, folder, names, labels):
        self.paths, self.labels = [Path(folder, name) for name in names], labels

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return pil_to_tensor(Image.open(self.paths[i]).convert("RGB")), self.labels[i]


def endless(loader):
    while True:
        yield from loader


def as_plain(function):
    """Call it in float32 throughout."""
    has_bf16, training.has_bf16 = training.has_bf16, lambda device: False
    try:
        return function()
    finally:
        training.has_bf16 = has_bf16


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


def compare_steps(name, files, images, labels, repeats, steps=20):
    method, counts = METHODS[name]
    our_step, plain_step = method(plain=False), method(plain=True)
    loaders = [endless(DataLoader(files, count, shuffle=True, num_workers=1, drop_last=True, persistent_workers=True))
               for count in counts]

    def ours():
        for _ in range(steps):
            picked = [torch.randint(len(images), (count,)) for count in counts]
            our_step(*((images[i], labels[i]) for i in picked))

    def plain():
        for _ in range(steps):
            plain_step(*(next(loader) for loader in loaders))
    compare(f"{name} training step", ours, lambda: as_plain(plain), steps * sum(counts), repeats)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(f"`python3 tests/bench.py --data-dir hw3_data --images {args.images} --repeats {args.repeats}`\n")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, bf16: {training.has_bf16(CPU)}\n")
    print("| images/s | this repository | the plain way | ratio |\n|---|---|---|---|")

    folder = Path(args.data_dir, "face", "train")
    names = list_images(folder)[:args.images]
    images, labels = load_images(folder, names, size=64), torch.zeros(len(names))
    for name in ("VAE", "GAN"):
        compare_steps(name, Files(folder, names, labels), images, labels, args.repeats)

    folder = Path(args.data_dir, "digits", "mnistm", "train")
    names, truth = list_images(folder)[:args.images], read_labels(f"{folder}.csv")
    images, labels = load_images(folder, names), torch.tensor([truth[name] for name in names])
    files, net = Files(folder, names, labels), DigitNet().eval().to(memory_format=torch.channels_last)
    for name in ("DANN", "AdaMatch"):
        compare_steps(name, files, images, labels, args.repeats)
    plain_net = DigitNet().eval()

    @torch.inference_mode()
    def predict_plain():
        return [plain_net(x.float() / 255).argmax(1) for x, _ in DataLoader(files, 500, num_workers=2)]
    compare("loading", lambda: load_images(folder, names), lambda: list(DataLoader(files, 500, num_workers=2)),
            len(names), args.repeats)
    compare("inference, files to labels", lambda: run_in_batches(net, load_images(folder, names)).argmax(1),
            predict_plain, len(names), args.repeats)


if __name__ == "__main__":
    main()
