"""Draw the report's figures from the shipped weights and the data.

    python3 report/figures.py --data-dir hw3_data [--only fig3_4_usps_mnistm_class fig4_2_usps_mnistm_class ...]

Test images enter here as pictures and points only; nothing is chosen by them.
"""
import argparse
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
TSNE = {"fig3_4": ("p3_dann", "DANN"), "fig4_2": ("p4_uda", "AdaMatch")}
SAMPLES = 1000  # test images of each domain in a t-SNE figure


def draw_tsne(data_dir, problem, source, target, paths):
    """Both figures of a problem's scenario, {"class": path, "domain": path}, from one embedding of test images of both domains."""
    folder, method = TSNE[problem]
    net = load_digit_net(os.path.join(ROOT, folder, "weights", f"{source}_{target}.pth"), torch.device("cpu"))
    features, labels = [], []
    for domain in (source, target):
        x, y = load_labelled(data_dir, domain, "test")
        subset = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:SAMPLES]
        features.append(forward(net.features, x[subset], torch.device("cpu")))
        labels.append(y[subset])
    points = embed(torch.cat(features))
    domains = [0] * len(labels[0]) + [1] * len(labels[1])
    scenario = f"{TITLES[source]} → {TITLES[target]}"
    if "class" in paths:
        scatter(paths["class"], points, torch.cat(labels), list("0123456789"), CLASS_COLOURS, f"{method}, {scenario}: class")
    if "domain" in paths:
        names = [f"{TITLES[source]} (source)", f"{TITLES[target]} (target)"]
        scatter(paths["domain"], points, domains, names, DOMAIN_COLOURS, f"{method}, {scenario}: domain")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    figures = {f"{problem}_{source}_{target}_{colour}": (problem, source, target, colour)
               for problem in TSNE for target, source in SCENARIOS.items() for colour in ("class", "domain")}
    parser.add_argument("--only", nargs="+", choices=figures, metavar="FIGURE", default=list(figures), help=", ".join(figures))
    parser.add_argument("--output-dir", default=os.path.join(HERE, "figures"))
    args = parser.parse_args()
    os.makedirs(args.output_dir, exist_ok=True)
    pairs = {}  # the two colourings of a scenario come from one embedding
    for name in args.only:
        *scenario, colour = figures[name]
        pairs.setdefault(tuple(scenario), {})[colour] = os.path.join(args.output_dir, f"{name}.png")
    for scenario, paths in pairs.items():
        draw_tsne(args.data_dir, *scenario, paths)
        print("\n".join(f"wrote {path}" for path in paths.values()), flush=True)


if __name__ == "__main__":
    main()
