"""The look of the report's figures, how they are saved, t-SNE, and the plots that several figures share.

Every figure is drawn in the size in which it is printed, so that a font size here is the font size on paper.
"""
import matplotlib

matplotlib.use("Agg")  # no screen needed
from common.files import write_atomic

import matplotlib.pyplot as plt
import numpy as np
from sklearn.manifold import TSNE

WIDTH = 6.6  # inches between the margins of the report
# Tol's muted scheme (nine colour-blind-safe colours) and black for the ten classes; blue and orange for two groups.
CLASS_COLOURS = ["#CC6677", "#332288", "#DDCC77", "#117733", "#88CCEE",
                 "#882255", "#44AA99", "#999933", "#AA4499", "#000000"]
TWO_COLOURS = ["#0072B2", "#E69F00"]
PERPLEXITY = 30
plt.rcParams.update({"font.size": 7.5, "axes.titlesize": 7.5, "figure.titlesize": 7.5, "legend.frameon": False,
                     "grid.alpha": 0.3, "lines.markersize": 3.5, "lines.linewidth": 1.2, "axes.linewidth": 0.6,
                     "figure.constrained_layout.h_pad": 0.08})


def save_figure(figure, path):
    """Save as PNG at 300 dots an inch, then free the figure's memory."""
    write_atomic(path, lambda part: figure.savefig(part, format="png", dpi=300))
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


def needed(count, least, what):
    """Exit with one line if there is too little to draw."""
    if count < least:
        raise SystemExit(f"{count} {what} are too few: {least} needed")


def draw_text(title, lines, path):
    """Save lines of monospaced text, 6.5 pt, under a title."""
    height = 0.111 * (len(lines) + 2)  # inches
    figure = plt.figure(figsize=(WIDTH, height))
    figure.text(0, 1, title, weight="bold", va="top")
    figure.text(0, 1 - 0.2 / height, "\n".join(lines), family="monospace", fontsize=6.5, va="top")
    save_figure(figure, path)


def draw_curves(log, panels):
    """A figure with one panel for each y label of `panels` {y label: {column of the log: name beside its curve}}."""
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 2.3), layout="constrained")
    for axis, (label, columns) in zip(axes, panels.items()):
        for colour, (column, name) in zip(TWO_COLOURS, columns.items()):
            axis.plot(log["step"], log[column], marker=".", color=colour)
            axis.annotate(name, (log["step"].iloc[-1], log[column].iloc[-1]), (5, 0), textcoords="offset points",
                          va="center", color=colour)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set(xlabel="training step", ylabel=label)
        axis.locator_params(axis="x", nbins=5)
        axis.grid()
    return figure, axes


def draw_confusion(axis, shares, lowest, highest):
    """Shares [label, predicted] in %: what is correct in one scale of colours, the mistakes in another."""
    right = np.eye(len(shares), dtype=bool)
    shown = [axis.matshow(np.ma.masked_array(shares, hidden), cmap=cmap, vmin=low, vmax=high)
             for hidden, cmap, low, high in ((~right, "Blues", lowest, 100), (right, "Oranges", 0, highest))]
    for (row, column), share in np.ndenumerate(shares):
        if share > 0.5:
            colour = "white" if shown[row != column].norm(share) > 0.6 else "black"
            axis.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=6, color=colour)
    axis.set(xlabel="predicted", xticks=range(len(shares)), yticks=range(len(shares)))
    axis.xaxis.tick_bottom()
    axis.tick_params(length=0)
    return shown


def embed(features, seed=0):
    """t-SNE (van der Maaten & Hinton 2008): features [N, D] -> points [N, 2].

    The same points for one seed, on one machine with one number of threads.
    """
    needed(len(features), PERPLEXITY + 1, "points for a t-SNE")
    tsne = TSNE(init="pca", learning_rate="auto", perplexity=PERPLEXITY, random_state=seed)
    return tsne.fit_transform(np.asarray(features))


def scatter(path, points, groups, names, colours, title, width=2.15):
    """Save points [N, 2], coloured by groups [N] (indices into names and colours).

    The axes have the same place in every picture of one width, so that points of the same data line up between them.
    """
    height = width + 0.3
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0.01, 0.36 / height, 0.98, 1 - 0.53 / height))
    order = np.random.RandomState(0).permutation(len(points))  # so that no group hides another
    axes.scatter(*points[order].T, s=width, c=np.asarray(colours)[np.asarray(groups)[order]], linewidths=0)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, pad=3)
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=c, label=n) for n, c in zip(names, colours)]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.34 / height), borderpad=0, handlelength=1,
                  ncols=5 if len(names) > 2 else 2, handletextpad=0.3, columnspacing=1)
    save_figure(figure, path)
