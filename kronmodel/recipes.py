"""Named recipes: what network to train and how, known to work."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        rank: Kronecker rank of every layer, or one for each.
        order: which factor comes first, or one for each branch.
        activation: of both networks.
        init: how the weights of both are first drawn.
        features: channels of the convolutions in front of both networks; none for images as they are.
        dropout: share of these features that is left out in training.
        kronecker: training of the Kronecker network.
        dense: training of the dense network.
    """

    summary: str
    hidden: tuple[Shape, ...]
    rank: int | tuple[int, ...]
    order: Order | tuple[Order, ...] = "left"
    activation: str
    init: Init = "level"
    features: tuple[int, ...] = ()
    dropout: float = 0.2
    kronecker: TrainConfig
    dense: TrainConfig


_PAPER = TrainConfig(epochs=20, batch_size=128, optimizer="sgd", learning_rate=0.1, schedule="constant")
# The epsilon of Adam is torch's 1e-8; in Keras, as the authors used it, it is 1e-7.
_PAPER_CIFAR10 = TrainConfig(epochs=20, batch_size=128, optimizer="adam", learning_rate=1e-3, schedule="constant")
_PAPER_CIFAR10_RANK_1 = Recipe(
    summary="the authors' CIFAR-10 networks: three convolutions, relu, Adam 0.001, batch 128, 20 epochs",
    features=(16, 64, 256),
    hidden=((64, 64), (64, 64)),
    rank=1,
    activation="relu",
    init="glorot",
    kronecker=_PAPER_CIFAR10,
    dense=_PAPER_CIFAR10,
)

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
    "paper-cifar10": _PAPER_CIFAR10_RANK_1,
    "paper-cifar10-rank-4": replace(
        _PAPER_CIFAR10_RANK_1,
        summary="the same with rank 4, one of the four branches right first",
        rank=4,
        order=("left", "left", "left", "right"),
    ),
}
