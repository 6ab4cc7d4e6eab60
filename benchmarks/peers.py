"""Networks of the same widths by other means, to compare with."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from kronmodel.models import KroneckerConfig


def low_rank(config: KroneckerConfig, weights: int) -> nn.Module:
    """Each dense layer as two of width k between them, with k such that the weights are about as many."""
    dense = config.dense()
    widths = (dense.in_features, *dense.hidden, dense.out_features)
    k = max(1, round((weights - sum(widths[1:])) / sum(n + m for n, m in pairwise(widths))))
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, k, bias=False), nn.Linear(k, m), nn.GELU()]
    return nn.Sequential(*layers[:-1])
