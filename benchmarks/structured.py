"""Quantised low-rank and Monarch networks, and rivals with the convolutions of the recipe `tiny-8k`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from kronmodel.compress.modules.layers import LowRankLinear, MonarchLinear
from kronmodel.data.dataset import prepared
from kronmodel.data.registry import load
from kronmodel.nn.activations import activation_moments
from kronmodel.nn.conv import ConvConfig
from kronmodel.nn.networks import DenseConfig, Network, build
from kronmodel.quantization.aware import QuantizationAwareNetwork
from kronmodel.quantization.config import QuantizationConfig
from kronmodel.quantization.storage import stored_tensors
from kronmodel.training.config import TrainConfig
from kronmodel.training.device import keep_freed_memory, seeded
from kronmodel.training.loop import train
from kronmodel.training.recipes import RECIPES

LEARNING_RATE = 5e-3
BLOCKS = 7  # of a Monarch factor
AnyLinear = LowRankLinear | MonarchLinear | nn.Linear
TINY = RECIPES["tiny-8k"]


def low_rank(widths: Sequence[int], rank: int) -> list[AnyLinear]:
    """Layers of a low-rank network; the last one, to a few classes, is dense."""
    return [
        *(LowRankLinear(n, m, rank) for n, m in pairwise(widths[:-1])),
        nn.Linear(widths[-2], widths[-1]),
    ]


def monarch(widths: Sequence[int], blocks: int, rank: int = 1) -> list[AnyLinear]:
    """Layers of a Monarch network, whose widths are multiples of the number of blocks; the last one is dense."""
    return [
        *(MonarchLinear((blocks, n // blocks), (m // blocks, blocks), rank) for n, m in pairwise(widths[:-1])),
        nn.Linear(widths[-2], widths[-1]),
    ]


def network(layers: Sequence[AnyLinear], activation: str, features: ConvConfig | None = None) -> Network:
    """Network of layers of any kind, initialised so that features keep their variance."""
    widths = [layers[0].in_features, *(each.out_features for each in layers)]
    config = DenseConfig(
        in_features=widths[0], hidden=tuple(widths[1:-1]), out_features=widths[-1], activation=activation,
        features=features,
    )  # fmt: skip
    built = build(config)
    gain = 1 / math.hypot(*activation_moments(activation))
    for index, layer in enumerate(layers):
        if not isinstance(layer, nn.Linear):
            with torch.no_grad():
                layer.right.mul_(gain)
            built.layers[index] = layer
    return built


def _tiny(layers: Callable[[], list[AnyLinear]], channels: tuple[int, ...] = TINY.features) -> tuple[Any, TrainConfig]:
    """Layers behind convolutions, trained as the recipe's Kronecker network is."""
    features = ConvConfig(image_shape=(1, 28, 28), channels=channels, dropout=TINY.dropout)
    return lambda: network(layers(), TINY.activation, features), TINY.kronecker


def _plain(layers: Callable[[], list[AnyLinear]]) -> tuple[Any, TrainConfig]:
    training = replace(RECIPES["accurate"].kronecker, epochs=20, bits=4, learning_rate=LEARNING_RATE)
    return lambda: network(layers(), "gelu"), training


NETWORKS: dict[str, tuple[Callable[[], Network], TrainConfig]] = {
    "low-rank 784-256-256-10": _plain(lambda: low_rank((784, 256, 256, 10), 11)),
    "Monarch 784-476-476-10": _plain(lambda: monarch((784, 476, 476, 10), BLOCKS)),
    "tiny-8k's convolutions, 288-10": _tiny(lambda: [nn.Linear(288, 10)]),
    "4, 16, 29 channels, 261-10": _tiny(lambda: [nn.Linear(261, 10)], (4, 16, 29)),
    "tiny-8k's convolutions, low-rank": _tiny(lambda: low_rank((288, 32, 10), 5)),
}


def describe(name: str) -> dict[str, Any]:
    """Role, numbers of weights and multiply-adds, and bytes of a network of this module."""
    built, training = NETWORKS[name][0](), NETWORKS[name][1]
    assert isinstance(training.quantization, QuantizationConfig)
    stored = stored_tensors(built, training.quantization)
    convolutions = 0 if built.features is None else built.features.macs_per_sample
    return {
        "role": "low-rank" if "low-rank" in name else "monarch" if "Monarch" in name else "dense",
        "parameters": sum(each.size for each in stored),
        "weight_bytes": sum(each.bytes for each in stored),
        # each weight of a matrix, factored or not, is multiplied once
        "macs_per_sample": convolutions
        + sum(each.numel() for name, each in built.layers.named_parameters() if "bias" not in name),
    }


def train_and_describe(name: str, seed: int) -> dict[str, Any]:
    """Train a network on MNIST with one thread; return what `describe` does, and its test accuracy."""
    build_network, training = NETWORKS[name]
    torch.set_num_threads(1)
    keep_freed_memory()
    training = replace(training, seed=seed)
    assert isinstance(training.quantization, QuantizationConfig)
    with seeded(seed, training.device):
        built = build_network()
        data = prepared(load("mnist", lambda line: None), built.in_features)
        result = train(QuantizationAwareNetwork(built, training.quantization), data, training)
    return {**describe(name), "test_accuracy": result.test_score}
