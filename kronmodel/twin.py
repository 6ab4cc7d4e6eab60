"""A twin: a Kronecker network and its dense counterpart, trained on the same data and published together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kronmodel.data.dataset import Dataset, prepared
from kronmodel.errors import TrainingError
from kronmodel.export.card import Role, make_card
from kronmodel.export.exporter import on_cpu
from kronmodel.export.repository import Publication, check_name, publish
from kronmodel.export.saved import saved_files
from kronmodel.export.served_network import export_network
from kronmodel.nn.conv import ConvConfig
from kronmodel.nn.networks import DenseConfig, KroneckerConfig, Network, build
from kronmodel.shapes import balanced_shape, image_of, input_shape, output_shape
from kronmodel.training.checkpoint import Checkpoint
from kronmodel.training.config import TrainConfig
from kronmodel.training.device import seeded
from kronmodel.training.distributed import ALONE, Group
from kronmodel.training.history import Epoch
from kronmodel.training.loop import Progress, TrainResult, train
from kronmodel.training.recipes import Recipe
from kronmodel.training.tasks import task_of

__all__ = ["Member", "Published", "plan", "publish_members", "setting", "train_member"]

SMALLEST_CHANGED = 16  # pixels a side of images that a recipe may shift: of a smaller one a pixel is too much
SAMPLES = 100  # test inputs published beside a model, for trying it out and for measuring on real values


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network of a twin: what it is called, what it is, and how it is trained."""

    twin: str
    role: Role
    config: KroneckerConfig | DenseConfig
    training: TrainConfig
    recipe: str

    @property
    def name(self) -> str:
        """The name under which it is published."""
        return f"{self.twin}-{self.role}"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A member with its trained network and the path of its published file."""

    card: dict[str, Any]
    path: Path

    def summary(self) -> dict[str, Any]:
        """What ``kronmodel train --json`` prints of one model."""
        metric = self.card["test_metric"]
        return {
            "name": self.card["name"],
            "version": self.path.parent.name,
            "path": str(self.path),
            "parameters": self.card["parameters"],
            "parameters_with_branch_biases": self.card["parameters_with_branch_biases"],
            "macs_per_sample": self.card["macs_per_sample"],
            **({"test_accuracy": metric["value"]} if metric["name"] == "accuracy" else {}),
            "test_metric": metric,
            "train_seconds": self.card["training"]["seconds"],
            "ms_per_step": self.card["training"]["ms_per_step"],
        }


def plan(
    twin: str, data: Dataset, recipe_name: str, recipe: Recipe, overrides: dict[str, Any], *, pad: bool = False
) -> dict[Role, Member]:
    """The two members that a recipe makes of a data set.

    Args:
        twin: the name of the twin; its members are called ``twin-kronecker`` and ``twin-dense``.
        data: gives the first and the last shape.
        recipe_name: for the card.
        recipe: hidden shapes, rank, activation, training.
        overrides: fields of :class:`TrainConfig` to use instead of the recipe's, for both members.
        pad: fill the features up with zeros to a width that has balanced factors; the dense member needs no filling.

    Raises:
        ValueError: a name, shape, rank or setting is not possible, or images are to be changed and the data are none.
    """
    features = None
    if recipe.features:
        image = image_of(data.image_shape)
        features = ConvConfig(image_shape=image, channels=recipe.features, dropout=recipe.dropout)
    config = KroneckerConfig(
        in_shape=(
            input_shape(data.features, data.image_shape, pad=pad)
            if features is None
            else balanced_shape(features.out_features)
        ),
        hidden=recipe.hidden,
        out_shape=output_shape(data.outputs),
        rank=recipe.rank,
        order=recipe.order,
        activation=recipe.activation,
        init=recipe.init,
        features=features,
    )
    dense = config.dense()
    if features is None:
        dense = replace(dense, in_features=data.features)
    if recipe.dense_hidden is not None:
        dense = replace(dense, hidden=recipe.dense_hidden)
    check_name(f"{twin}-kronecker")

    def member(role: Role, network: KroneckerConfig | DenseConfig, training: TrainConfig) -> Member:
        if data.image_shape is None or min(data.image_shape[-2:]) < SMALLEST_CHANGED:
            training = replace(training, shift=0.0, rotate=0.0, zoom=0.0, flip=False)
        training = replace(training, **overrides)
        return Member(twin=twin, role=role, config=network, training=training, recipe=recipe_name)

    return {
        "kronecker": member("kronecker", config, recipe.kronecker),
        "dense": member("dense", dense, recipe.dense),
    }


def setting(member: Member, data: Dataset) -> dict[str, Any]:
    """What decides the course of a training: a checkpoint is only for the setting that it was made with.

    Not among it: where it is computed, and the learning rate, which may be lowered after a divergence.
    """
    training = asdict(member.training)
    for name in ("device", "compile", "learning_rate"):
        del training[name]
    return {
        "role": member.role,
        "network": asdict(member.config),
        "training": training,
        "data": {"name": data.name, "sha256": data.sha256},
    }


def train_member(
    member: Member,
    data: Dataset,
    report: Callable[[Progress], None] = lambda progress: None,
    *,
    log: Callable[[Epoch], None] = lambda epoch: None,
    checkpoint: Checkpoint | None = None,
    group: Group = ALONE,
) -> tuple[Network, TrainResult]:
    """Build and train one member; the seed decides its initial weights. Torch's random state is unchanged afterwards.

    Raises:
        TrainingError: the loss is no longer finite, or another process of the run is gone; with a checkpoint, the
            message says where one can go on from.
        CheckpointError: the checkpoint can't be read or written.
    """
    try:
        with seeded(member.training.seed, member.training.device), group.connected():
            network = build(member.config)
            ready = prepared(data, network.in_features)
            return network, train(network, ready, member.training, report, log=log, checkpoint=checkpoint, group=group)
    except TrainingError as error:
        if checkpoint is None or not checkpoint.hint:
            raise
        raise TrainingError(f"{error}; {checkpoint.hint}") from error


def publish_members(
    members: Sequence[tuple[Member, Network, TrainResult]], data: Dataset, repository: Path
) -> list[Published]:
    """Export each trained member, check it, and publish all of them or none.

    Raises:
        ExportError: a check failed or the repository can't be written to.
    """
    chosen = _samples(data)
    cards, publications = [], []
    for member, network, result in members:
        card = make_card(
            twin=member.twin,
            role=member.role,
            network=network,
            data=data,
            config=member.training,
            result=result,
            recipe=member.recipe,
            threads=torch.get_num_threads(),
            metrics=_metrics(network, data),
        )
        # With convolutions the graph takes images, else the data's own features, before any filling up.
        inputs = data.x_test[chosen]
        if network.features is not None:
            inputs = inputs.reshape(-1, *network.input_shape)
        model = export_network(network, card, inputs, data.scaling, data.target_scaling)
        files = saved_files(network, member.config, data)
        cards.append(card)
        labels = _column(data.y_test[chosen])
        publications.append(Publication(name=member.name, model=model, inputs=inputs, labels=labels, files=files))
    paths = publish(publications, repository)
    return [Published(card=card, path=path) for card, path in zip(cards, paths, strict=True)]


def _metrics(network: Network, data: Dataset) -> dict[str, float]:
    """Compute the test metric and whatever else the task reports of a network, on the CPU."""
    ready = prepared(data, network.in_features)
    return task_of(data).metrics(on_cpu(network), torch.from_numpy(ready.x_test), torch.from_numpy(ready.y_test))


def _column(y: NDArray[np.int64] | NDArray[np.float32]) -> NDArray[np.int64] | NDArray[np.float32]:
    """One target as ``(n,)``, as class indices are; several as they are, ``(n, k)``."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _samples(data: Dataset) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Indices of test samples, the classes in turn: 0, 1, 2, ..., so that the first few already show all of them.

    Of a regression the first ones, in the order of the file.
    """
    if data.task == "regression":
        return np.arange(min(SAMPLES, len(data.x_test)))
    classes = len(data.labels)
    each = -(-SAMPLES // classes)
    rows = [np.flatnonzero(data.y_test == label)[:each] for label in range(classes)]
    turns = [row[turn] for turn in range(each) for row in rows if turn < len(row)]
    return np.array(turns[:SAMPLES])
