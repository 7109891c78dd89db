"""AdaMatch's pseudo-labels; the network is that of problem 3, so that the gain is the method's.

Berthelot et al. 2022, "AdaMatch: A Unified Approach to Semi-Supervised Learning and Domain Adaptation", ICLR: FixMatch
(a weak view's label teaches a strong view) with distribution alignment and a relative threshold. Here an average of the
weights predicts for both domains, not the network that is trained; a source image has one view, weak or strong, not
both; and there is no logit interpolation: it costs a quarter more time, and no run showed a clear gain.
"""
import torch
from torch import nn


def align(p, source_mean, target_mean, eps=1e-6):
    """Distribution alignment of AdaMatch: p [N, classes] * source_mean / target_mean [classes], rows summing to 1."""
    p = p * (source_mean + eps) / (target_mean + eps)
    return p / p.sum(1, keepdim=True)


class PseudoLabels(nn.Module):
    """The teacher's aligned predictions as labels, and which are sure enough; keeps running means, uniform at first."""

    def __init__(self, classes=10, threshold=0.9, without=(), decay=0.99):
        super().__init__()
        self.threshold, self.without, self.decay = threshold, without, decay
        self.register_buffer("source_mean", torch.full((classes,), 1 / classes))
        self.register_buffer("target_mean", torch.full((classes,), 1 / classes))

    @torch.no_grad()
    def forward(self, source, target):
        """Probabilities of weakly augmented source [M, classes] and target images [N, classes]
        -> labels [N], the threshold [], kept [N] (0 or 1)."""
        self.source_mean.lerp_(source.mean(0), 1 - self.decay)
        self.target_mean.lerp_(target.mean(0), 1 - self.decay)
        if "align" not in self.without:
            target = align(target, self.source_mean, self.target_mean)
        confidence, label = target.max(1)
        threshold = target.new_tensor(self.threshold)
        if "relative" not in self.without:  # nearly as sure as on the source's images
            threshold = threshold * source.amax(1).mean()
        return label, threshold, (confidence >= threshold).float()
