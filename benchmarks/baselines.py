"""Baselines for Kronecker networks: low-rank, narrow dense and tensor-train networks with about as many weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from torch import Tensor, nn

from kronmodel.nn.activations import activation_moments, get_activation
from kronmodel.nn.networks import DenseConfig, KroneckerConfig
from kronmodel.shapes import Shape


def low_rank(config: KroneckerConfig, weights: int) -> nn.Module:
    """Low-rank network: each dense layer split into two with k features between them, the same k in all layers.

    Args:
        config: gives the widths, the activation and the initialisation.
        weights: number of weights to come as close to as k allows.
    """
    dense = config.dense()
    widths = (dense.in_features, *dense.hidden, dense.out_features)
    k = max(1, round((weights - sum(widths[1:])) / sum(n + m for n, m in pairwise(widths))))
    gain = _gain(config)
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [_linear(n, k, gain, bias=False), _linear(k, m, 1.0), _Activation(config.activation)]
    return nn.Sequential(*layers[:-1])


def narrow(config: KroneckerConfig, weights: int) -> DenseConfig:
    """Configuration of a dense network with as many layers, all hidden ones equally narrow.

    Args:
        config: gives the numbers of inputs, outputs and layers.
        weights: number of weights to come as close to as the hidden width allows.
    """
    n, m, depth = math.prod(config.in_shape), math.prod(config.out_shape), len(config.hidden)

    def count(width: int) -> int:
        widths = (n, *(width,) * depth, m)
        return sum((a + 1) * b for a, b in pairwise(widths))

    width = min(range(1, n), key=lambda width: abs(count(width) - weights))
    return DenseConfig(
        in_features=n, hidden=(width,) * depth, out_features=m, activation=config.activation, init=config.init
    )


def tensor_train(config: KroneckerConfig, weights: int) -> nn.Module:
    """Tensor-train network by tltorch, with layers of the same widths; each weight is a tensor train of four cores.

    Every step forms the dense weights: in tltorch that takes half the time of contracting the input core by core.

    Args:
        config: gives the widths, the activation and the initialisation.
        weights: number of weights to come as close to as the rank allows.

    Raises:
        ModuleNotFoundError: tltorch (tensorly-torch) is not installed.
    """
    from tltorch import FactorizedLinear  # type: ignore[import-not-found]  # installed in a separate environment only

    modes = [_modes(shape) for shape in (config.in_shape, *config.hidden, config.out_shape)]
    biases = sum(math.prod(each) for each in modes[1:])

    def count(rank: int) -> int:
        return biases + sum(map(math.prod, (core for ins, outs in pairwise(modes) for core in _cores(ins, outs, rank))))

    rank = min(range(1, 65), key=lambda rank: abs(count(rank) - weights))
    layers: list[nn.Module] = []
    for ins, outs in pairwise(modes):
        cores = _cores(ins, outs, rank)
        ranks = (1, *(core[3] for core in cores))
        layer = FactorizedLinear(ins, outs, factorization="blocktt", rank=ranks, implementation="reconstructed")
        variance = _gain(config) ** 2 / math.prod(ins) / math.prod(ranks)
        for core in layer.weight.factors:  # tltorch's initialisation makes the signal vanish at these ranks
            nn.init.normal_(core, std=variance ** (1 / (2 * len(ins))))
        nn.init.zeros_(layer.bias)
        layers += [layer, _Activation(config.activation)]
    return nn.Sequential(*layers[:-1])


def count_macs(network: nn.Module) -> int:
    """Multiply-adds per sample of a network of this module, with tensor trains contracted core by core."""
    total = 0
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            total += layer.in_features * layer.out_features
        elif isinstance(cores := getattr(getattr(layer, "weight", None), "factors", None), nn.Module):
            shapes = [core.shape for core in cores.parameters()]
            outputs, inputs = 1, math.prod(n for _, _, n, _ in shapes)  # modes already and not yet contracted
            for r, m, n, next_r in shapes:
                inputs //= n
                total += outputs * inputs * r * m * n * next_r
                outputs *= m
    return total


def _modes(shape: Shape) -> tuple[int, ...]:
    """Split the two factors of a layer's shape into four: (28, 28) becomes (4, 7, 7, 4)."""
    (a, b), (c, d) = (_pair(size) for size in shape)
    return (a, b, d, c)


def _pair(size: int) -> tuple[int, int]:
    """Split a size into its two most balanced factors, the smaller one first."""
    small = max(each for each in range(1, math.isqrt(size) + 1) if size % each == 0)
    return small, size // small


def _cores(ins: Sequence[int], outs: Sequence[int], rank: int) -> list[tuple[int, int, int, int]]:
    """Shapes ``(r, m, n, r')`` of the cores of a tensor train; larger ranks than can add anything are reduced."""
    sizes = [n * m for n, m in zip(ins, outs, strict=True)]
    left = accumulate(sizes[:-1], lambda a, b: a * b)
    right = [math.prod(sizes[index:]) for index in range(1, len(sizes))]
    ranks = [1, *(min(rank, a, b) for a, b in zip(left, right, strict=True)), 1]
    return list(zip(ranks, outs, ins, ranks[1:], strict=False))


class _Activation(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._activation = get_activation(name)

    def forward(self, x: Tensor) -> Tensor:
        return self._activation(x)


def _linear(n: int, m: int, gain: float, *, bias: bool = True) -> nn.Linear:
    """Linear layer initialised as in kronmodel's dense networks: weights of variance ``gain² / n``, bias zero."""
    linear = nn.Linear(n, m, bias=bias)
    nn.init.normal_(linear.weight, std=gain / math.sqrt(n))
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def _gain(config: KroneckerConfig) -> float:
    return 1 / math.hypot(*activation_moments(config.activation))
