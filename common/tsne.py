"""t-SNE and its scatter plot."""
import os

os.environ["MPLBACKEND"] = "Agg"  # no screen needed; a notebook's own setting may name a backend that is not installed
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from sklearn.manifold import TSNE


def embed(features):
    """t-SNE: features [N, D] -> points [N, 2], the same ones on one machine with one number of threads."""
    return TSNE(init="pca", learning_rate="auto", perplexity=30, random_state=0).fit_transform(np.asarray(features))


def scatter(points, groups, names, colours, title, width=2.15, written=()):
    """A figure of points [N, 2], coloured by groups [N] (indices into names and colours), and of texts [(point, text)].

    The axes have the same place in every picture of one width, so that points of the same data line up between them.
    """
    height = width + 0.3
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0.01, 0.36 / height, 0.98, 1 - 0.53 / height))
    order = np.random.RandomState(0).permutation(len(points))  # so that no group hides another
    axes.scatter(*points[order].T, s=width, c=np.asarray(colours)[np.asarray(groups)[order]], linewidths=0)
    for point, text in written:
        axes.text(*point, text, ha="center", va="center", weight="bold",
                  path_effects=[patheffects.withStroke(linewidth=2, foreground="white")])
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, pad=3)
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=c, label=n) for n, c in zip(names, colours)]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.34 / height), borderpad=0, handlelength=1,
                  ncols=5 if len(names) > 2 else 2, handletextpad=0.3, columnspacing=1)
    return figure
