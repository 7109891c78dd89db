"""Speed of a training step beside the plain way, as ratios measured in one run. Not a test: pytest does not collect it.

    python3 tests/bench.py hw3_data > report/results/bench.md

Both ways call the trainers' own losses. Ours: images that are decoded once, bfloat16 where the processor has it,
channels_last, a fused optimizer. The plain way: a DataLoader that decodes PNG by PNG in two workers, float32,
contiguous tensors. Each number is the median of alternating measurements.
"""
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader, RandomSampler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import training
from common.augment import augment_digits, flip_half
from common.data import list_images, load_images
from common.digit_net import DigitNet
from p1_vae import train as p1
from p1_vae.model import VAE
from p2_gan import train as p2
from p2_gan.model import LATENT, Generator, discriminator
from p3_dann import train as p3
from p3_dann.model import DomainDiscriminator
from p4_uda import train as p4
from p4_uda.model import PseudoLabels

BF16 = training.has_bf16(torch.device("cpu"))
IMAGES, STEPS, REPEATS = 2000, 4, 3  # drawn from; of a measurement; measurements
LABELS, PSEUDO_LABELS = torch.zeros(96, dtype=torch.long), PseudoLabels()
# the images, their side, a step's number of them; the network and its loss
METHODS = {
    "VAE": ("face", 64, 64, VAE, lambda vae, _, x: p1.vae_loss(vae, flip_half(x).float() / 255, 3e-7)),
    "GAN": ("face", 64, 32, lambda: torch.nn.ModuleList([Generator(16), discriminator(16)]), None),
    "DANN": ("digits/mnistm", 28, 192, lambda: torch.nn.ModuleList([DigitNet(), DomainDiscriminator()]),
             lambda nets, _, x: p3.dann_loss(*nets, augment_digits, x[:96], LABELS, x[96:], 0.3)),
    "AdaMatch": ("digits/mnistm", 28, 96, DigitNet, lambda net, teacher, x: p4.adamatch_loss(
        net, teacher, PSEUDO_LABELS, x[:32], LABELS[:32], x[32:], 1.0)),
}


def prepare(net, plain):
    """The network's optimizer, and the average of its weights."""
    net.to(memory_format=torch.contiguous_format if plain else torch.channels_last)
    return torch.optim.AdamW(net.parameters(), fused=not plain), training.EMA(net, 0.99)


def make_step(net, loss_of, plain):
    """A step of a network on uint8 images, down loss_of(network, the average of its weights, images)."""
    optimizer, ema = prepare(net, plain)

    def step(x):
        training.optimizer_step(loss_of(net, ema.model, x)[0], optimizer, 1e-3, 1.0)
        ema.update(net)
    return step


def make_gan_step(nets, plain):
    (g_optimizer, ema), (d_optimizer, _) = (prepare(net, plain) for net in nets)

    def step(x):
        with training.autocast(x.device):
            fake = nets[0](torch.randn(len(x), LATENT))
        real, r1 = flip_half(x).float() / 255, None if ema.step % p2.PENALTY_INTERVAL else 4.0
        _, real_score, _ = p2.discriminator_step(nets[1], d_optimizer, p2.relativistic, real, fake, r1)
        p2.generator_step(nets[1], g_optimizer, p2.generator_relativistic, real_score, fake)
        ema.update(nets[0])
    return step


def main(data_dir):
    print("`python3 tests/bench.py hw3_data`: "
          f"torch {torch.__version__}, {torch.get_num_threads()} threads, bf16 {BF16}\n\n"
          "| images/s | this repository | the plain way | ratio |\n|---|---|---|---|")
    for name, (part, size, batch, make_net, loss_of) in METHODS.items():
        decode = partial(load_images, Path(data_dir, part, "train"), size=size)
        names = list_images(Path(data_dir, part, "train"))[:IMAGES]
        images, rates = decode(names), ([], [])
        loader = iter(DataLoader(names, batch, sampler=RandomSampler(names, True, 10 ** 6), num_workers=2,
                                 collate_fn=decode))
        steps = [make_step(make_net(), loss_of, plain) if loss_of else make_gan_step(make_net(), plain)
                 for plain in (False, True)]
        for i in range(2 * REPEATS + 2):
            plain = i % 2
            training.has_bf16 = lambda device: BF16 and not plain
            started = time.perf_counter()
            for _ in range(STEPS):
                steps[plain](next(loader) if plain else images[torch.randint(len(images), (batch,))])
            rates[plain].append(STEPS * batch / (time.perf_counter() - started))
        ours, theirs = (statistics.median(values[1:]) for values in rates)  # the first is for warming up
        print(f"| {name} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.1f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
