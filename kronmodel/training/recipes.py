"""Named recipes: tested combinations of network and training configuration.

Our own recipes were selected on a tenth of the training set (for tables: by cross-validation), not on the test set. The
exception is the learning rate 0.001 of dense layers, which was chosen before this rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kronmodel.data.dataset import Dataset
from kronmodel.errors import Argument, Message
from kronmodel.shapes import Layer, Order, Shape
from kronmodel.training.config import TrainConfig

if TYPE_CHECKING:  # torch takes seconds to import
    from kronmodel.nn.init import Init

__all__ = ["RECIPES", "Recipe", "recommended"]

NETWORK = ("hidden", "rank", "layer", "order", "activation", "features", "dropout")
SMALL_TABLE = 5_000  # rows; in smaller tables, ten epochs have too few optimizer steps


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Recipe of a twin: hidden layers of its networks, and the training of each; the data gives the outer shapes.

    Attributes:
        summary: one line for ``--help``.
        hidden: factor sizes of the Kronecker network's hidden layers.
        dense_hidden: widths of the dense network's hidden layers; None for the Kronecker network's. Recipes with wide
            Kronecker layers, which have few weights, set it to limit the dense network's size.
        rank: Kronecker rank of every layer, or one for each.
        layer: ``"dual"``, with biases and activations between the factors of a layer, or ``"linear"``, without.
        order: factor that is applied first, ``"left"`` or ``"right"``; one for all branches or one for each.
        activation: activation of both networks.
        init: weight initialisation of both networks.
        features: channels of the convolutions in front of both networks; empty for no convolutions.
        dropout: fraction of the convolutional features that is zeroed in training.
        kronecker: training of the Kronecker network; its augmentation applies only to images of at least 16 pixels a
            side.
        dense: training of the dense network; its augmentation is limited in the same way.
    """

    summary: str
    hidden: tuple[Shape, ...]
    dense_hidden: tuple[int, ...] | None = None
    rank: int | tuple[int, ...]
    layer: Layer = "dual"
    order: Order | tuple[Order, ...] = "left"
    activation: str
    init: Init = "level"
    features: tuple[int, ...] = ()
    dropout: float = 0.2
    kronecker: TrainConfig
    dense: TrainConfig

    def with_network(self, changes: Mapping[str, Any]) -> Recipe:
        """Return a copy of the recipe with changes to the network; new hidden shapes apply to the dense network too.

        Args:
            changes: values for some of the fields ``hidden``, ``rank``, ``layer``, ``order``, ``activation``,
                ``features`` and ``dropout``.

        Raises:
            ValueError: a field is not one of these, or ``dropout`` is set without convolutional features.
        """
        unknown = [field for field in changes if field not in NETWORK]
        if unknown:
            raise ValueError(f"network has no field {unknown[0]!r}; expected some of {', '.join(NETWORK)}")
        dense_hidden = None if "hidden" in changes else self.dense_hidden
        changed = replace(self, dense_hidden=dense_hidden, **changes)
        if "dropout" in changes and not changed.features:
            raise ValueError(
                Message(
                    Argument("dropout"),
                    " leaves out convolutional features; expected ",
                    Argument("features"),
                    " beside it, got none",
                )
            )
        return changed


_PAPER = TrainConfig(epochs=20, batch_size=128, optimizer="sgd", learning_rate=0.1, schedule="constant")
# Adam's epsilon is torch's 1e-8; the paper's authors used Keras, where it is 1e-7.
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

# Dense layers of this width need a smaller learning rate, so each network of the twin has its own.
_KRONECKER = TrainConfig(epochs=10, learning_rate=1e-2, shift=1, rotate=10, zoom=0.1)
_DENSE = replace(_KRONECKER, learning_rate=1e-3)
_FASHION = replace(_KRONECKER, epochs=20, learning_rate=1.5e-2, rotate=0, zoom=0, flip=True)
_TINY = replace(_KRONECKER, epochs=16, bits=4, bias_form="row-column")
_TINY_TWIN = Recipe(
    summary="4 bits a weight, three convolutions and relu: 99.3 % on MNIST in 5.4 kB of weights",
    features=(8, 16, 32),
    dropout=0.0,
    hidden=((16, 16),),
    rank=(4, 8),
    activation="relu",
    kronecker=_TINY,
    dense=replace(_TINY, learning_rate=1e-3),
)
_TINY_FASHION = replace(_FASHION, epochs=40, learning_rate=1e-2, bits=4, bias_form="row-column")
_SMALL_TABLE = TrainConfig(epochs=100, batch_size=32, learning_rate=1e-2, weight_decay=0.3)

RECIPES = {
    "default": Recipe(
        summary="GELU, AdamW, one-cycle learning rate, 10 epochs; images are shifted, rotated and stretched a little",
        hidden=((28, 28), (28, 28)),
        rank=2,
        activation="gelu",
        kronecker=_KRONECKER,
        dense=_DENSE,
    ),
    "accurate": Recipe(
        summary="the same, wider: the best found on MNIST within 25,000 weights",
        hidden=((40, 40), (40, 40)),
        dense_hidden=(784, 784),
        rank=(2, 2, 8),
        activation="gelu",
        kronecker=replace(_KRONECKER, epochs=12),
        dense=replace(_DENSE, epochs=12),
    ),
    "fashion-mnist": Recipe(
        summary="wider still, images shifted and mirrored: the best found on Fashion-MNIST within 25,000 weights",
        hidden=((56, 56), (56, 56)),
        dense_hidden=(784, 784),
        rank=(1, 1, 4),
        activation="gelu",
        kronecker=_FASHION,
        dense=replace(_FASHION, learning_rate=1e-3),
    ),
    "tiny": _TINY_TWIN,
    "tiny-8k": replace(
        _TINY_TWIN,
        summary="the same with fewer channels, 12 epochs: 99.1 % in 3.9 kB",
        features=(4, 16, 32),
        rank=(2, 4),
        kronecker=replace(_TINY_TWIN.kronecker, epochs=12),
        dense=replace(_TINY_TWIN.dense, epochs=12),
    ),
    "tiny-fashion-mnist": replace(
        _TINY_TWIN,
        summary="the same with more channels, 40 epochs: 91 % on Fashion-MNIST in 13.4 kB",
        features=(8, 22, 72),
        hidden=((24, 24),),
        rank=(4, 16),
        kronecker=_TINY_FASHION,
        dense=replace(_TINY_FASHION, learning_rate=1e-3),
    ),
    "small-table": Recipe(
        summary="tanh, weight decay, 100 epochs: for a few hundred rows of a table",
        hidden=((8, 8),),
        rank=1,
        activation="tanh",
        kronecker=_SMALL_TABLE,
        dense=replace(_SMALL_TABLE, learning_rate=3e-3),
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


def recommended(data: Dataset) -> str:
    """Return the name of the default recipe for a data set; small tables have a recipe of their own."""
    return "small-table" if data.image_shape is None and len(data.x_train) < SMALL_TABLE else "default"
