"""The figures: what can be drawn is drawn, and shows what its caption says."""
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from conftest import ROOT, make_data, run
from matplotlib.figure import Figure
from matplotlib.text import Text

from common import tsne
from common.data import load_faces
from report import figures, plots
from report.figures import FIGURES, read_attribute
from report.plots import WIDTH


@pytest.fixture
def kept(monkeypatch):
    """The figures that are drawn from now on, as matplotlib has them."""
    drawn, close = [], tsne.plt.close
    monkeypatch.setattr(tsne.plt, "close", lambda figure: drawn.append(figure) or close(figure))
    return drawn


def test_what_can_be_drawn_is_drawn(tmp_path):
    """In a notebook's environment; the rest is named, each in one line."""
    process = run(sys.executable, ROOT / "report" / "figures.py", "--data-dir", make_data(tmp_path / "data", count=2),
                  "--output-dir", tmp_path, "--only", "fig1_7", "fig1_5_male", "fig3_4_usps_mnistm_class", "fig2_5",
                  "fig4_3", "fig1_2", env={"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    assert process.returncode == 1 and {path.name for path in tmp_path.glob("*.png")} == {"fig4_3.png", "fig1_2.png"}
    assert process.stderr.splitlines() == [
        "fig1_7: 2 test faces are too few: 10 needed",
        "fig1_5_male: 2 points are too few for a t-SNE: more than 30 needed",
        "fig3_4_usps_mnistm_class: 4 points are too few for a t-SNE: more than 30 needed",
        "fig2_5: 2 training faces are too few: 3 needed",
        "4 of 6 not drawn"]


def test_attributes_of_the_faces(data_dir, tmp_path):
    """Rows belong to images by their names, and -1 means the same as 0; what is missing is named in one line."""
    def male(changed):
        changed.to_csv(tmp_path / "face" / "test.csv", index=False)
        return read_attribute(tmp_path, "test", "Male").tolist()
    (tmp_path / "face").mkdir()
    (tmp_path / "face" / "test").symlink_to(data_dir / "face" / "test")
    table = pandas.read_csv(data_dir / "face" / "test.csv")
    assert male(table) == male(table[::-1]) == male(table.assign(Male=2 * table["Male"] - 1)) == [0, 1] * 20
    for changed, message in ((table[:-1], "no Male for 00039.png"), (table.drop(columns="Male"), "no column .* Male")):
        with pytest.raises(SystemExit, match=message):
            male(changed)


def test_figures_are_legible_on_paper(data_dir, tmp_path, kept, monkeypatch):
    """Drawn in the printed size, no wider than the text, no letter below 6 pt; exponents have 70 % of the size."""
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: savefig(figure, file, dpi=30))  # faster
    for name in FIGURES.keys() - {"fig1_4", "fig2_2", "tables"}:  # these are not made by matplotlib
        if not re.search("_(mnistm_svhn|svhn_usps)_|fig4|fig1_7|encoder", name):  # one of those that are alike
            FIGURES[name](data_dir, tmp_path / f"{name}.png")
            assert kept[-1].get_figwidth() <= WIDTH <= (21 - 2 * 2.1) / 2.54, name
            for text in kept[-1].findobj(Text):
                assert text.get_fontsize() * (0.7 if "^" in text.get_text() else 1) >= 6, (name, text.get_text())


def test_each_point_of_a_scatter_plot_has_its_groups_colour(tmp_path, kept):
    groups = np.arange(40) % 2
    tsne.scatter(tmp_path / "s.png", np.stack([groups, groups], 1), groups, ["a", "b"], ["#000000", "#ffffff"], "")
    dots = kept[0].axes[0].collections[0]
    assert (dots.get_facecolors()[:, 0] == dots.get_offsets()[:, 0]).all()


def test_the_points_of_the_digits(monkeypatch):
    """Features, not logits, of test images; 0 is the source."""
    asked = []

    def load(folder, domain, split):
        asked.append((domain, split))
        return torch.full((5, 3, 28, 28), domain == "svhn", dtype=torch.uint8), torch.arange(5)
    monkeypatch.setattr(figures, "load_labelled", load)
    monkeypatch.setattr(figures, "load_pair", lambda *names: SimpleNamespace(features=lambda x: 255 * x[:, 0, 0, :1]))
    monkeypatch.setattr(figures, "embed", lambda features: features)
    points, classes, domains = figures.embedded.__wrapped__("", "p3_dann", "mnistm", "svhn")
    assert asked == [("mnistm", "test"), ("svhn", "test")] and domains == [0] * 5 + [1] * 5
    assert points[:, 0].tolist() == pytest.approx(domains) and sorted(classes[:5].tolist()) == list(range(5))


def test_the_confusion_of_labels_and_the_worst_mistakes(tmp_path, kept, monkeypatch):
    """One of four 2s is called a 5, with less confidence than one of two 7s a 9. A row is a label."""
    labels, logits = torch.tensor([2, 2, 2, 2, 7, 7]), torch.zeros(6, 10)
    for i, (predicted, logit) in enumerate(((2, 9), (2, 9), (2, 9), (5, 3), (7, 9), (9, 5))):
        logits[i, predicted] = logit
    monkeypatch.setattr(figures, "load_labelled", lambda *names: (torch.zeros(6, 3, 28, 28).byte(), labels))
    monkeypatch.setattr(figures, "load_pair", lambda *names: None)
    monkeypatch.setattr(figures, "run_in_batches", lambda net, images: logits)
    shares, draw = [], plots.draw_confusion
    monkeypatch.setattr(plots, "draw_confusion", lambda axis, s, *rest: shares.append(s) or draw(axis, s, *rest))
    figures.draw_mistakes("p3_dann", "", tmp_path / "f.png")
    assert (shares[0][2, 2], shares[0][2, 5], shares[0][7, 9]) == (75, 25, 50)
    titles = [axis.get_title() for axis in kept[0].axes]
    assert [title for title in titles if " → " in title[1:]][:5][-2:] == ["7 → 9", "2 → 5"]
    texts = {text.get_position(): text.get_text() for text in kept[0].axes[0].texts}
    assert texts[5, 2] == "25" and (2, 5) not in texts


def test_which_faces_are_shown_and_coloured(data_dir, tmp_path, monkeypatch):
    assert figures.worst_ten(torch.arange(20.0)).tolist() == list(range(19, 9, -1))
    splits, coloured = [], []
    monkeypatch.setattr(figures, "load_faces", lambda *names: splits.append(names[1]) or load_faces(*names))
    figures.reconstructed.__wrapped__(data_dir)
    assert splits == ["test"]
    monkeypatch.setattr(figures, "vae_points", lambda data_dir: np.zeros((40, 2)))
    monkeypatch.setattr(figures, "scatter",
                        lambda path, points, groups, names, *_, **__: coloured.append((groups, names)))
    figures.draw_vae_latents("Blond_Hair", data_dir, tmp_path / "f.png")
    (groups, names), = coloured
    blond = pandas.read_csv(data_dir / "face" / "test.csv")["Blond_Hair"] > 0
    assert list(groups) == list(blond.astype(int)) and names == ["not blond hair", "blond hair"]


def test_the_nearest_training_face_may_be_mirrored(data_dir, tmp_path, monkeypatch):
    faces, shown = load_faces(data_dir, "train"), []
    fakes = faces[4:12].float() / 255
    fakes[::2] = fakes[::2].flip(3)
    monkeypatch.setattr(figures, "gan_faces", lambda count: fakes)
    monkeypatch.setattr(figures, "grid", lambda images: shown.append(images) or figures.to_pixels(images[0]))
    figures.draw_neighbours(data_dir, tmp_path / "f.png")
    assert torch.equal((255 * shown[0][8:16]).round().byte(), faces[4:12])


def test_lines_lead_from_face_to_face_and_towards_their_attribute(data_dir, tmp_path, monkeypatch):
    """Faces and codes are greys: males have 150, the others 50."""
    net, shown = SimpleNamespace(encode=lambda x: [x.mean((2, 3))[:, :1]], decode=lambda codes: codes), []
    greys = (100 * (torch.arange(40) % 2) + 50).view(40, 1, 1, 1).expand(40, 3, 4, 4).byte()
    monkeypatch.setattr(figures, "load_vae", lambda: (net, 1))
    monkeypatch.setattr(figures, "load_faces", lambda folder, split, count: greys[:count])
    monkeypatch.setattr(figures, "grid",
                        lambda codes: shown.append(255 * codes.view(5, 8)) or np.zeros((5, 8, 3), np.uint8))
    figures.draw_walks(data_dir, tmp_path / "f.png")
    assert shown[0][0, [0, -1]].tolist() == pytest.approx([50, 150])
    assert shown[0][3, [0, -1]].tolist() == pytest.approx([-100, 200])
