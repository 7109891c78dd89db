"""The look of the report's figures, and plots that several of them share.

A figure is drawn in the size in which it is printed, so that a font size here is the font size on paper.
"""
import os
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"  # no screen needed; a notebook's own setting may name a backend that is not installed
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from PIL import Image
from sklearn.manifold import TSNE
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

WIDTH = 6.6  # inches between the margins of the report
# Tol's muted scheme (nine colour-blind-safe colours) and black for the ten classes; blue and orange for two groups.
CLASS_COLOURS = ["#CC6677", "#332288", "#DDCC77", "#117733", "#88CCEE",
                 "#882255", "#44AA99", "#999933", "#AA4499", "#000000"]
TWO_COLOURS = ["#0072B2", "#E69F00"]
plt.rcParams.update({"font.size": 7.5, "axes.titlesize": 7.5, "figure.titlesize": 7.5, "legend.frameon": False,
                     "grid.alpha": 0.3, "lines.markersize": 3.5, "lines.linewidth": 1.2, "axes.linewidth": 0.6,
                     "figure.constrained_layout.h_pad": 0.08})


def save_figure(figure, path):
    """Save as PNG at 200 dots an inch, with fewer colours for fewer bytes, then free the figure's memory."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)
    picture = Image.open(path).convert("RGB")
    if any(axes.images for axes in figure.axes):  # 32 shades of each channel suffice for photographs, in print
        picture = picture.point([round(shade // 8 * 255 / 31) for shade in range(256)] * 3)
    else:
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    picture.save(path, optimize=True, dpi=(200, 200))
    plt.close(figure)


def show_picture(axes, pixels):
    """Show a picture, uint8 [H, W, 3], without frame and ticks."""
    axes.matshow(pixels)
    axes.xaxis.tick_bottom()  # else a title leaves room for ticks
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def show_rows(axes, pixels, names):
    """Show a picture that consists of rows of equal height, with a name beside each."""
    show_picture(axes, pixels)
    axes.set_yticks((np.arange(len(names)) + 0.5) * len(pixels) / len(names), names)
    axes.tick_params(length=0)


def draw_curves(log, panels):
    """A figure with one panel for each y label of `panels` {y label: {column of the log: its name in the legend}}."""
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 2.3), layout="constrained")
    for axis, (label, columns) in zip(axes, panels.items()):
        for colour, (column, name) in zip(TWO_COLOURS, columns.items()):
            axis.plot(log["epoch"], log[column], marker="." if len(log) < 50 else "", color=colour, label=name)
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set(xlabel="epoch", ylabel=label)
        axis.locator_params(axis="x", nbins=5)
        axis.grid()
    return figure


def draw_runs(logs, columns):
    """A figure with one panel for each of `columns` {column: y label}, a curve for each of `logs` {name: log}."""
    figure, axes = plt.subplots(1, len(columns), figsize=(WIDTH, 1.9), layout="constrained")
    for axis, (column, label) in zip(axes, columns.items()):
        for colour, log in zip(CLASS_COLOURS[1::2], logs.values()):
            axis.plot(log["epoch"], log[column], marker=".", color=colour)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set(xlabel="epoch", ylabel=label)
        axis.grid()
    figure.legend(axis.lines, logs, loc="outside upper center", ncols=len(logs))
    return figure


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


def draw_confusion(axis, labels, predicted):
    """A confusion matrix of digits, in % of each label's images, rounded; no 0 is written."""
    display = ConfusionMatrixDisplay(100 * confusion_matrix(labels, predicted, labels=range(10), normalize="true"))
    display.plot(ax=axis, cmap="Blues", values_format=".0f", colorbar=False, text_kw={"fontsize": 6},
                 im_kw={"vmin": 0, "vmax": 100})
    for text in display.text_.flat:
        text.set_visible(text.get_text() != "0")
    axis.set(xlabel="predicted", ylabel="")
