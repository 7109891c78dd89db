"""Speed beside the plain way, as ratios measured in one run. Not a test: pytest does not collect it.

    python3 tests/bench.py --data-dir hw3_data --images 4000 --repeats 3 > report/results/bench.md

Both ways call the trainers' own losses. Ours: images that are decoded once, bfloat16 where the processor has it,
channels_last, a fused optimizer. The plain way: a DataLoader that decodes PNG by PNG in two workers, float32,
contiguous tensors. Each number is the median of --repeats alternating measurements.
"""
import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import training
from common.augment import flip_half
from common.data import list_images, load_images
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

BF16 = training.has_bf16(torch.device("cpu"))
STEPS = 20  # of a measurement
LABELS = torch.zeros(96, dtype=torch.long)


def prepare(nets, plain):
    """An optimizer for each of the networks, and the average of the first one's weights."""
    for net in nets:
        net.to(memory_format=torch.contiguous_format if plain else torch.channels_last)
    return *(torch.optim.AdamW(net.parameters(), fused=not plain) for net in nets), training.EMA(nets[0], 0.99)


def descending(net, plain, loss_of):
    """A training step of a network: down loss_of(network, the average of its weights, uint8 images)."""
    optimizer, ema = prepare([net], plain)

    def step(images):
        training.descend(loss_of(net, ema.model, images)[0], optimizer, 1e-3, 1.0)
        ema.update(net)
    return step


def vae_step(plain):
    return descending(VAE(), plain, lambda vae, _, x: p1.vae_loss(vae, flip_half(x).float() / 255, 3e-7))


def gan_step(plain):
    nets = Generator(16), discriminator(16)
    g_optimizer, d_optimizer, ema = prepare(nets, plain)

    def step(faces):
        r1 = 4.0 if ema.step % p2.PENALTY_INTERVAL == 0 else None
        with training.autocast(faces.device):
            fake = nets[0](torch.randn(len(faces), LATENT))
        real = flip_half(faces).float() / 255
        _, real_score, _ = p2.discriminator_step(nets[1], d_optimizer, p2.relativistic, real, fake, r1)
        p2.generator_step(nets[1], g_optimizer, p2.generator_relativistic, real_score, fake)
        ema.update(nets[0])
    return step


def dann_step(plain):
    return descending(torch.nn.ModuleList([DigitNet(), DomainDiscriminator()]), plain,
                      lambda nets, _, x: p3.dann_loss(*nets, x[:96], LABELS, x[96:], 0.3))


def adamatch_step(plain):
    pseudo_labels = PseudoLabels()
    return descending(DigitNet(), plain, lambda net, teacher, x: p4.adamatch_loss(
        net, teacher, pseudo_labels, x[:32], LABELS[:32], x[32:], 1.0))


METHODS = {"VAE": ("face", vae_step, 64), "GAN": ("face", gan_step, 32), "DANN": ("digits/mnistm", dann_step, 192),
           "AdaMatch": ("digits/mnistm", adamatch_step, 96)}


def decode(paths):
    """PNG by PNG."""
    return torch.stack([pil_to_tensor(Image.open(path).convert("RGB")) for path in paths])


def endless(loader):
    while True:
        yield from loader


def compare(name, ours, plain, images, repeats):
    """Print images/s of two functions that each handle `images` images, and the ratio."""
    rates = {ours: [], plain: []}
    for i in range(repeats + 1):
        for function, values in rates.items():
            training.has_bf16 = lambda device: BF16 and function is ours
            started = time.perf_counter()
            function()
            values += [images / (time.perf_counter() - started)] * (i > 0)  # the first is for warming up
    a, b = statistics.median(rates[ours]), statistics.median(rates[plain])
    print(f"| {name} | {a:,.0f} | {b:,.0f} | {a / b:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(f"`python3 tests/bench.py --data-dir hw3_data --images {args.images} --repeats {args.repeats}`\n\n"
          f"{torch.get_num_threads()} threads, torch {torch.__version__}, bf16: {BF16}\n")
    print("| images/s | this repository | the plain way | ratio |\n|---|---|---|---|")
    for name, (part, make_step, batch) in METHODS.items():
        folder = Path(args.data_dir, part, "train")
        names = list_images(folder)[:args.images]
        images, paths = load_images(folder, names, size=64 if part == "face" else 28), [folder / name for name in names]
        batches = endless(DataLoader(paths, batch, shuffle=True, num_workers=2, drop_last=True, collate_fn=decode))
        our_step, plain_step = make_step(plain=False), make_step(plain=True)
        compare(f"{name} training step", lambda: [our_step(images[torch.randint(len(images), (batch,))])
                                                  for _ in range(STEPS)],
                lambda: [plain_step(next(batches)) for _ in range(STEPS)], STEPS * batch, args.repeats)
    net = DigitNet().eval()
    with torch.inference_mode():
        compare("inference, files to labels", lambda: run_in_batches(net, load_images(folder, names)).argmax(1),
                lambda: [net(x.float() / 255).argmax(1)
                         for x in DataLoader(paths, 500, num_workers=2, collate_fn=decode)], len(names), args.repeats)


if __name__ == "__main__":
    main()
