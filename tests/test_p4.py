"""Problem 4: alignment, thresholds and interpolation, beside values worked out by hand."""
from common.digit_net import DigitNet
from p4_uda import train
from p4_uda.model import PseudoLabels, align, interpolate, running_statistics_kept

import pytest
import torch


def test_alignment_is_per_class_and_rows_sum_to_one():
    p = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    aligned = align(p, source_mean=torch.tensor([0.2, 0.6, 0.2]), target_mean=torch.tensor([0.4, 0.3, 0.4]))
    # the ratios are 1/2, 2 and 1/2: (0.3, 0.6, 0.05) / 0.95 and (0.1, 0.4, 0.3) / 0.8
    expected = torch.tensor([[0.315789, 0.631579, 0.052632], [0.125, 0.5, 0.375]])
    torch.testing.assert_close(aligned, expected, rtol=1e-4, atol=1e-5)


def test_thresholds_by_hand():
    source = torch.tensor([[0.8, 0.2], [0.4, 0.6]])  # top probabilities 0.8 and 0.6, mean 0.7
    target = torch.tensor([[0.64, 0.36], [0.4, 0.6], [0.45, 0.55], [0.36, 0.64]])
    relative = PseudoLabels(2, threshold=0.9, without=("align",))
    label, threshold, kept = relative(source, target)
    assert label.tolist() == [0, 1, 1, 1] and threshold.item() == pytest.approx(0.63) and kept.tolist() == [1, 0, 0, 1]
    fixed = PseudoLabels(2, threshold=0.62, without=("align", "relative"))
    assert fixed(source, target)[1].item() == pytest.approx(0.62) and fixed(source, target)[2].tolist() == [1, 0, 0, 1]


def test_running_means_start_uniform_and_follow_the_predictions():
    pseudo_labels = PseudoLabels(2, decay=0.9)
    assert pseudo_labels.source_mean.tolist() == [0.5, 0.5]
    label, _, _ = pseudo_labels(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.45, 0.55], [0.0, 1.0]]))
    assert pseudo_labels.source_mean.tolist() == pytest.approx([0.55, 0.45])
    assert pseudo_labels.target_mean.tolist() == pytest.approx([0.4725, 0.5275])  # 0.9 * 0.5 + 0.1 * (0.225, 0.775)
    assert label.tolist() == [0, 1]  # 0.45 * 0.55 / 0.4725 > 0.55 * 0.45 / 0.5275


def test_interpolation_stays_between_and_passes_gradients():
    a, b = torch.zeros(50, 10, requires_grad=True), torch.ones(50, 10, requires_grad=True)
    z = interpolate(a, b)
    assert 0 <= z.min() and z.max() <= 1 and z.std() > 0.2  # a draw for each element
    z.sum().backward()
    torch.testing.assert_close(a.grad + b.grad, torch.ones(50, 10))


def test_second_pass_leaves_running_statistics_alone():
    net, x = DigitNet(2).train(), torch.rand(8, 3, 28, 28)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with running_statistics_kept(net):
        inside = net(x)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(net(x), inside)  # it normalised by the batch, as training does
    assert not torch.equal(net.state_dict()["layers.0.1.running_mean"], before["layers.0.1.running_mean"])


def test_target_weight_rises_over_the_first_half():
    assert [train.target_weight(step, 800) for step in (0, 200, 400, 800)] == pytest.approx([0, 0.5, 1, 1])


def test_divergence_by_hand():
    uniform = torch.tensor([0.5, 0.5])
    assert train.divergence(torch.tensor([3.0, 3.0]), uniform).item() == pytest.approx(0)
    assert train.divergence(torch.tensor([4.0, 0.0]), uniform).item() == pytest.approx(0.693147)
