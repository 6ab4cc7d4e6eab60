"""Named recipes: a network and how to train it, known to work."""

from __future__ import annotations

from dataclasses import dataclass

from kronmodel.models import KroneckerConfig
from kronmodel.train import TrainConfig

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A Kronecker network for 28×28 images in ten classes, and the training that it and its dense twin get."""

    summary: str
    network: KroneckerConfig
    training: TrainConfig
    dense_training: TrainConfig


_PAPER = TrainConfig(epochs=20, batch_size=128, optimizer="sgd", learning_rate=0.1, schedule="constant")
_DEFAULT = TrainConfig(epochs=10, batch_size=128, optimizer="adamw", learning_rate=3e-3, schedule="one-cycle")

RECIPES = {
    "default": Recipe(
        summary="GELU, AdamW, one-cycle learning rate, 10 epochs",
        network=KroneckerConfig(
            in_shape=(28, 28), hidden=((28, 28), (28, 28)), out_shape=(2, 5), rank=4, activation="gelu"
        ),
        training=_DEFAULT,
        dense_training=_DEFAULT,
    ),
    "paper": Recipe(
        summary="Hogue, Kirby & Narayan: tanh, SGD 0.1, batch 128, 20 epochs",
        network=KroneckerConfig(
            in_shape=(28, 28), hidden=((28, 28), (28, 28)), out_shape=(2, 5), rank=1, activation="tanh"
        ),
        training=_PAPER,
        dense_training=_PAPER,
    ),
}
