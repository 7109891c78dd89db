"""t-SNE of features, its scatter plots, and how figures are saved, for the report."""
import matplotlib

matplotlib.use("Agg")  # no screen needed
import matplotlib.pyplot as plt
import numpy as np
from sklearn.manifold import TSNE

from common.runtime import write_atomic

# Tol's muted scheme (nine colour-blind-safe colours) and black for the ten classes; blue and orange for the domains.
CLASS_COLOURS = ["#CC6677", "#332288", "#DDCC77", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#000000"]
DOMAIN_COLOURS = ["#0072B2", "#E69F00"]


def save_figure(figure, path):
    """As a PNG of 200 dots an inch; then the figure is let go."""
    write_atomic(path, lambda part: figure.savefig(part, format="png", dpi=200))
    plt.close(figure)


def embed(features, seed=0):
    """Features [N, D] -> points [N, 2] (van der Maaten & Hinton 2008), the same for the same features and seed."""
    return TSNE(init="pca", learning_rate="auto", perplexity=30, random_state=seed).fit_transform(np.asarray(features))


def scatter(path, points, groups, names, colours, title):
    """Save points [N, 2], coloured by groups [N] (indices into names and colours), as a PNG that stays legible at half a page."""
    figure, axes = plt.subplots(figsize=(5, 5.2), layout="constrained")
    order = np.random.RandomState(0).permutation(len(points))  # so that no group hides another
    axes.scatter(*points[order].T, s=7, c=np.asarray(colours)[np.asarray(groups)[order]], linewidths=0)
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=c, label=n, markersize=7) for n, c in zip(names, colours)]
    figure.legend(handles=handles, loc="outside lower center", ncols=5 if len(names) > 2 else 2, frameon=False, fontsize=11,
                  handletextpad=0.1, columnspacing=1.2)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=12)
    save_figure(figure, path)
