"""The look of the report's figures, and plots that several of them share.

A figure is drawn in the size in which it is printed, so that a font size here is the font size on paper.
"""
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from common.tsne import plt

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
    """A figure with one panel for each y label of `panels` {y label: {column of the log: name beside its curve}}."""
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 2.3), layout="constrained")
    for axis, (label, columns) in zip(axes, panels.items()):
        for colour, (column, name) in zip(TWO_COLOURS, columns.items()):
            axis.plot(log["epoch"], log[column], marker="." if len(log) < 50 else "", color=colour)
            axis.annotate(name, (log["epoch"].iloc[-1], log[column].iloc[-1]), (5, 0), textcoords="offset points",
                          va="center", color=colour)
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


def draw_confusion(axis, labels, predicted):
    """A confusion matrix of digits, in % of each label's images, rounded; no 0 is written."""
    display = ConfusionMatrixDisplay(100 * confusion_matrix(labels, predicted, labels=range(10), normalize="true"))
    display.plot(ax=axis, cmap="Blues", values_format=".0f", colorbar=False, text_kw={"fontsize": 6},
                 im_kw={"vmin": 0, "vmax": 100})
    for text in display.text_.flat:
        text.set_visible(text.get_text() != "0")
    axis.set(xlabel="predicted", ylabel="")
