"""Named recipes: what network to train and how, known to work."""

from __future__ import annotations

from dataclasses import dataclass

from kronmodel.activations import Init
from kronmodel.shapes import Order, Shape
from kronmodel.train import TrainConfig

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A Kronecker network but for its first and last shape, which the data gives, and how both twins are trained.

    Attributes:
        summary: one line for ``--help``.
        hidden: shapes of the hidden layers; the dense twin has layers of the same widths.
        rank: Kronecker rank of every layer.
        order: which factor comes first, or one for each branch.
        activation: of both networks.
        init: how the weights of both are first drawn.
        kronecker: training of the Kronecker network.
        dense: training of the dense network.
    """

    summary: str
    hidden: tuple[Shape, ...]
    rank: int
    order: Order | tuple[Order, ...] = "left"
    activation: str
    init: Init = "level"
    kronecker: TrainConfig
    dense: TrainConfig


_PAPER = TrainConfig(epochs=20, batch_size=128, optimizer="sgd", learning_rate=0.1, schedule="constant")

RECIPES = {
    "default": Recipe(
        summary="GELU, AdamW, one-cycle learning rate, 10 epochs",
        hidden=((28, 28), (28, 28)),
        rank=2,
        activation="gelu",
        kronecker=TrainConfig(epochs=10, learning_rate=1e-2),
        # Dense layers of this width want a smaller step; each twin gets the rate that suits it.
        dense=TrainConfig(epochs=10, learning_rate=1e-3),
    ),
    "paper": Recipe(
        summary="the setting of Hogue, Kirby & Narayan: tanh, SGD 0.1, batch 128, 20 epochs",
        hidden=((28, 28), (28, 28)),
        rank=1,
        activation="tanh",
        init="glorot",
        kronecker=_PAPER,
        dense=_PAPER,
    ),
}
