"""Draw the report's figures from the shipped weights and the data.

    python3 report/figures.py --data-dir hw3_data [--only fig3_4_usps_mnistm_class fig4_2_usps_mnistm_class ...]

Test images enter here as pictures and points only; nothing is chosen by them.
"""
import argparse
import functools
import os
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, os.pardir)
sys.path.insert(0, ROOT)
from common.data import SCENARIOS, load_labelled
from common.predict import forward, load_digit_net
from common.tsne import CLASS_COLOURS, DOMAIN_COLOURS, embed, scatter

TITLES = {"usps": "USPS", "mnistm": "MNIST-M", "svhn": "SVHN"}
METHODS = {"p3_dann": "DANN", "p4_uda": "AdaMatch"}
SAMPLES = 1000  # test images of each domain in a t-SNE figure


@functools.cache
def embedded(data_dir, problem, source, target):
    """t-SNE points [N, 2], classes [N] and domains [N] (0 source, 1 target) of test images of both domains."""
    net = load_digit_net(os.path.join(ROOT, problem, "weights", f"{source}_{target}.pth"), torch.device("cpu"))
    features, labels = [], []
    for domain in (source, target):
        x, y = load_labelled(data_dir, domain, "test")
        subset = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:SAMPLES]
        features.append(forward(net.features, x[subset], torch.device("cpu")))
        labels.append(y[subset])
    return embed(torch.cat(features)), torch.cat(labels), [0] * len(labels[0]) + [1] * len(labels[1])


def draw_tsne(problem, source, target, colour, data_dir, path):
    points, classes, domains = embedded(data_dir, problem, source, target)
    title = f"{METHODS[problem]}, {TITLES[source]} → {TITLES[target]}: {colour}"
    if colour == "class":
        scatter(path, points, classes, list("0123456789"), CLASS_COLOURS, title)
    else:
        scatter(path, points, domains, [f"{TITLES[source]} (source)", f"{TITLES[target]} (target)"], DOMAIN_COLOURS, title)


FIGURES = {f"{number}_{source}_{target}_{colour}": functools.partial(draw_tsne, problem, source, target, colour)
           for number, problem in (("fig3_4", "p3_dann"), ("fig4_2", "p4_uda"))
           for target, source in SCENARIOS.items() for colour in ("class", "domain")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="FIGURE", default=list(FIGURES), help=", ".join(FIGURES))
    parser.add_argument("--output-dir", default=os.path.join(HERE, "figures"))
    args = parser.parse_args()
    os.makedirs(args.output_dir, exist_ok=True)
    for name in args.only:
        path = os.path.join(args.output_dir, f"{name}.png")
        FIGURES[name](args.data_dir, path)
        print(f"wrote {path}", flush=True)


if __name__ == "__main__":
    main()
