"""Problem 4: AdaMatch. Broken at any line of its loss, a test here fails."""
import pytest
import torch
from torch import nn

from p4_uda import train
from p4_uda.model import PseudoLabels, align

SURE, UNSURE = 8.0, 0.1  # logits of one class above the others


class Fixed(nn.Module):
    """A network that gives these logits [N, 10], whatever it sees, and keeps what it has seen."""

    def __init__(self, classes, logit):
        super().__init__()
        self.logits = nn.Parameter(logit * nn.functional.one_hot(torch.tensor(classes), 10).float())

    def forward(self, x):
        self.seen = x
        return self.logits[:len(x)]


@pytest.fixture
def batch():
    """Four source images, their labels and eight target images; image i has the grey i everywhere."""
    greys = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(12, 3, 28, 28)
    return greys[:4], torch.tensor([0, 1, 2, 3]), greys[4:]


def teacher_of(target, logit=SURE):
    """A teacher that is sure of the two weak source images, and gives the eight target images these classes."""
    teacher = Fixed([0, 1, *target], logit)
    with torch.no_grad():
        teacher.logits[:2] *= SURE / logit
    return teacher


def adamatch(batch, teacher, weight=1.0):
    net, pseudo_labels = Fixed([0, 1, 2, 3] + [9] * 8, SURE), PseudoLabels()
    loss, metrics, shares = train.adamatch_loss(net, teacher, pseudo_labels, *batch, weight)
    loss.backward()
    assert not pseudo_labels.source_mean.requires_grad  # else each step would hold the graphs of all before it
    return net, loss, metrics, shares


def test_the_teachers_labels_teach_the_net_about_the_target(batch):
    """The net believes in nines, the teacher in fives: fives rise and nines fall, for the target's rows alone."""
    teacher = teacher_of([5] * 8)
    net, loss, metrics, _ = adamatch(batch, teacher)
    gradient = net.logits.grad
    assert (gradient[4:, 5] < -0.1).all() and (gradient[4:, 9] > 0.1).all()
    right, wrong = (nn.functional.cross_entropy(net.logits[rows], labels).item() for rows, labels in (
        (slice(4), batch[1]), (slice(4, 12), torch.full((8,), 5))))  # all eight pseudo-labels are kept
    assert metrics["class_loss"].item() == pytest.approx(right) and metrics["class_accuracy"] == 1
    assert metrics["target_loss"].item() == pytest.approx(wrong)
    for weight, weighted in ((1, loss), (0.5, adamatch(batch, teacher, 0.5)[1]), (0, adamatch(batch, teacher, 0)[1])):
        assert weighted.item() == pytest.approx((metrics["class_loss"] + weight * metrics["target_loss"]).item())
    for row, label in enumerate(batch[1]):
        assert gradient[row, label] < 0 and (gradient[row].sum() - gradient[row, label]) > 0
    assert metrics["keep_rate"] == 1


def test_labels_that_are_not_sure_enough_do_not_teach(batch):
    """The threshold follows the teacher's confidence on the weak source images."""
    teacher = teacher_of([5] * 8)
    with torch.no_grad():
        teacher.logits[2:5] *= UNSURE / SURE
    net, _, metrics, _ = adamatch(batch, teacher)
    assert (net.logits.grad[4:7] == 0).all() and (net.logits.grad[7:] != 0).any(1).all()
    assert metrics["threshold"].item() == pytest.approx(0.9 * teacher.logits[0].softmax(0)[0].item())
    assert metrics["keep_rate"].item() == pytest.approx(5 / 8)
    assert metrics["target_loss"].item() == pytest.approx(5 / 8 * SURE, rel=0.01)  # what is left out counts as 0


def test_target_information_is_of_the_teacher(batch):
    teacher = teacher_of(range(8), 1.0)
    probs = teacher.logits.detach()[2:].softmax(1)
    _, _, metrics, shares = adamatch(batch, teacher)
    torch.testing.assert_close(shares.detach(), probs.mean(0))
    torch.testing.assert_close(metrics["target_entropy"].detach(), -(probs * probs.log()).sum(1).mean())


def test_views_and_the_loss_of_the_bounds(batch, monkeypatch):
    """Weak ones for the teacher, of half of the source and of the target; for the net the same of the source, the rest
    and the target strong."""
    monkeypatch.setattr(train, "weak_digits", lambda images: images.float())
    monkeypatch.setattr(train, "strong_digits", lambda images: images.float() + 100)
    teacher = teacher_of([5] * 8)
    net, *_ = adamatch(batch, teacher)
    assert teacher.seen[:, 0, 0, 0].tolist() == [0, 1, *range(4, 12)]
    assert net.seen[:, 0, 0, 0].tolist() == [0, 1, 102, 103, *range(104, 112)]
    net = Fixed([0, 1, 2, 5], SURE)  # one of four is wrong
    loss, metrics = train.supervised_loss(net, *batch[:2])
    assert loss.item() == pytest.approx(SURE / 4, rel=0.01) and metrics["class_accuracy"] == 0.75
    assert net.seen[:, 0, 0, 0].tolist() == [0, 1, 102, 103]


def test_pseudo_labels_by_hand():
    """Running means start even and follow the predictions; labels are aligned by them before they are taken."""
    pseudo_labels = PseudoLabels(2, decay=0.9)
    source, target = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.45, 0.55], [0.0, 1.0]])
    label, threshold, kept = pseudo_labels(source, target)
    assert pseudo_labels.source_mean.tolist() == pytest.approx([0.55, 0.45])  # 0.9 * 0.5 + 0.1 * (1, 0)
    assert pseudo_labels.target_mean.tolist() == pytest.approx([0.4725, 0.5275])  # ... + 0.1 * (0.225, 0.775)
    assert label.tolist() == [0, 1]  # 0.45 * 0.55 / 0.4725 = 0.5238 > 0.55 * 0.45 / 0.5275 = 0.4692
    torch.testing.assert_close(align(target, pseudo_labels.source_mean, pseudo_labels.target_mean),
                               torch.tensor([[0.5275, 0.4725], [0.0, 1.0]]), rtol=0, atol=1e-4)  # of sum 1
    assert threshold.item() == pytest.approx(0.9) and kept.tolist() == [0, 1]
    # 0.55 before it is aligned, 0.5275 after it
    assert PseudoLabels(2, threshold=0.54, without=("relative",), decay=0.9)(source, target)[2].tolist() == [0, 1]
    assert PseudoLabels(2, without=("align",))(source, target)[0].tolist() == [1, 1]
    sure_of_either = torch.tensor([[1.0, 0.0], [0.0, 0.8]])  # the mean of the confidences is not the largest share
    assert PseudoLabels(2)(sure_of_either, target)[1].item() == pytest.approx(0.9 * (1 + 0.8) / 2)


def test_the_weight_rises_over_the_first_half():
    assert [train.target_weight(step, 800) for step in (0, 200, 400, 800)] == pytest.approx([0, 0.5, 1, 1])
    assert train.target_weight(100, 800) == pytest.approx(0.5 - 0.5 ** 1.5)  # half a cosine
