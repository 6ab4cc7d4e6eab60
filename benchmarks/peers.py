"""Networks by other means, to compare with: with the same widths, or with as many weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from torch import Tensor, nn

from kronmodel.nn.activations import activation_moments, get_activation
from kronmodel.nn.networks import DenseConfig, KroneckerConfig
from kronmodel.shapes import Shape


def low_rank(config: KroneckerConfig, weights: int) -> nn.Module:
    """Each dense layer as two of width k between them, with k such that the weights are about as many."""
    dense = config.dense()
    widths = (dense.in_features, *dense.hidden, dense.out_features)
    k = max(1, round((weights - sum(widths[1:])) / sum(n + m for n, m in pairwise(widths))))
    gain = _gain(config)
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [_linear(n, k, gain, bias=False), _linear(k, m, 1.0), _Activation(config.activation)]
    return nn.Sequential(*layers[:-1])


def narrow(config: KroneckerConfig, weights: int) -> DenseConfig:
    """A dense network of as many layers, so narrow that its weights are about as many."""
    n, m, depth = math.prod(config.in_shape), math.prod(config.out_shape), len(config.hidden)

    def count(width: int) -> int:
        widths = (n, *(width,) * depth, m)
        return sum((a + 1) * b for a, b in pairwise(widths))

    width = min(range(1, n), key=lambda width: abs(count(width) - weights))
    return DenseConfig(
        in_features=n, hidden=(width,) * depth, out_features=m, activation=config.activation, init=config.init
    )


def tensor_train(config: KroneckerConfig, weights: int) -> nn.Module:
    """Layers of the same widths by tltorch, each weight a tensor train of four cores, with about as many weights.

    The weight is formed in every step, which takes tltorch half the time that contracting core by core does.

    Raises:
        ModuleNotFoundError: tltorch (tensorly-torch) is not installed.
    """
    from tltorch import FactorizedLinear  # type: ignore[import-not-found]  # it has an environment of its own

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
        for core in layer.weight.factors:  # its own draw makes the signal vanish at these ranks
            nn.init.normal_(core, std=variance ** (1 / (2 * len(ins))))
        nn.init.zeros_(layer.bias)
        layers += [layer, _Activation(config.activation)]
    return nn.Sequential(*layers[:-1])


def macs(network: nn.Module) -> int:
    """Multiply-adds a sample of a network made here."""
    total = 0
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            total += layer.in_features * layer.out_features
        elif isinstance(cores := getattr(getattr(layer, "weight", None), "factors", None), nn.Module):
            shapes = [core.shape for core in cores.parameters()]
            done, rest = 1, math.prod(n for _, _, n, _ in shapes)  # a tensor train: core by core, from the first on
            for r, m, n, next_r in shapes:
                rest //= n
                total += done * rest * r * m * n * next_r
                done *= m
    return total


def _modes(shape: Shape) -> tuple[int, ...]:
    """Four factors of a width, from the two of its shape: (28, 28) to (4, 7, 7, 4)."""
    (a, b), (c, d) = (_pair(size) for size in shape)
    return (a, b, d, c)


def _pair(size: int) -> tuple[int, int]:
    """The most balanced factors, the smaller one first."""
    small = max(each for each in range(1, math.isqrt(size) + 1) if size % each == 0)
    return small, size // small


def _cores(ins: Sequence[int], outs: Sequence[int], rank: int) -> list[tuple[int, int, int, int]]:
    """Shapes ``(r, m, n, r')`` of the cores; a rank above what its neighbours can use is lowered to that."""
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
    """A linear layer drawn like the dense ones of our own: with variance ``gain² / n``, bias zero."""
    linear = nn.Linear(n, m, bias=bias)
    nn.init.normal_(linear.weight, std=gain / math.sqrt(n))
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def _gain(config: KroneckerConfig) -> float:
    return 1 / math.hypot(*activation_moments(config.activation))
