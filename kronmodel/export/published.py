"""Publication of a twin's trained networks in the model repository, with model cards and test samples."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from kronmodel.data.dataset import Dataset, prepared
from kronmodel.errors import KronmodelError
from kronmodel.export.card import make_card, read_card
from kronmodel.export.encoding_graph import feeds
from kronmodel.export.exporter import on_cpu
from kronmodel.export.novelty import FILE_NAME as NOVELTY_NAME
from kronmodel.export.novelty import Novelty
from kronmodel.export.repository import Publication, publish, version_folders
from kronmodel.export.saved import saved_files
from kronmodel.export.served_network import export_network
from kronmodel.nn.networks import Network
from kronmodel.training.checkpoint import RunIdentity
from kronmodel.training.loop import TrainResult
from kronmodel.training.members import Member
from kronmodel.training.tasks import task_of

__all__ = ["Published", "card_of", "publish_members"]

SAMPLES = 100  # test inputs published with a model, for example requests and for measurements on real values


@dataclass(frozen=True, kw_only=True)
class Published:
    """Published model in the repository.

    Attributes:
        card: model card.
        path: path of the ``model.onnx``.
    """

    card: dict[str, Any]
    path: Path

    def summary(self) -> dict[str, Any]:
        """Summary of the model for ``kronmodel train --json``."""
        metric = self.card["test_metric"]
        return {
            "name": self.card["name"],
            "version": self.path.parent.name,
            "path": str(self.path),
            "parameters": self.card["parameters"],
            "parameters_with_branch_biases": self.card["parameters_with_branch_biases"],
            # A card of an earlier version, whose training is resumed, has no bytes: all weights were float32.
            "weight_bytes": self.card.get("weight_bytes", 4 * self.card["parameters"]),
            **({"c": self.card["c"]} if "c" in self.card else {}),
            "macs_per_sample": self.card["macs_per_sample"],
            **({"test_accuracy": metric["value"]} if metric["name"] == "accuracy" else {}),
            "test_metric": metric,
            "train_seconds": self.card["training"]["seconds"],
            "ms_per_step": self.card["training"]["ms_per_step"],
        }


def publish_members(
    members: Sequence[tuple[Member, Network, TrainResult]],
    data: Dataset,
    repository: Path,
    run: RunIdentity | None = None,
) -> list[Published]:
    """Export the trained networks of a twin, check the models, and publish either all of them or none.

    Args:
        members: configurations, trained networks and results.
        data: data set that they were trained on.
        repository: model repository.
        run: identity of the training. What a resumed training has published already, before its process was killed,
            is not published again.

    Raises:
        ExportError: a check failed or the repository can't be written to.
    """
    chosen = _samples(data)
    detector, about_detector = _novelty(data)
    published: dict[str, Published] = {}
    cards, publications = [], []
    for member, network, result in members:
        already = _find(repository / member.name, run.id) if run is not None and run.resumed else None
        if already is not None:
            published[member.name] = already
            continue
        card = card_of(member, network, result, data, None if run is None else run.id) | about_detector
        # The graph takes images if the network has convolutions, else the data's own features without padding.
        inputs = data.x_test[chosen]
        if network.features is not None:
            inputs = inputs.reshape(-1, *network.input_shape)
        rows = None if data.test_rows is None else {name: values[chosen] for name, values in data.test_rows.items()}
        model = export_network(
            network, card, inputs, data.scaling, data.target_scaling, encoding=data.encoding, rows=rows
        )
        files = saved_files(network, member.config, data) | detector
        cards.append(read_card(model) or card)  # with what the export adds
        labels = _column(data.y_test[chosen])
        columns = inputs if data.encoding is None or rows is None else list(feeds(data.encoding, rows).values())
        publications.append(Publication(name=member.name, model=model, inputs=columns, labels=labels, files=files))
    for card, path in zip(cards, publish(publications, repository), strict=True):
        published[card["name"]] = Published(card=card, path=path)
    return [published[member.name] for member, _, _ in members]


def _novelty(data: Dataset) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Fit a detector of images unlike the training images; return its file and its entry in the card, or nothing."""
    novelty = Novelty.fit(data)
    if novelty is None:
        return {}, {}
    marked = round(novelty.marked(data, data.x_test), 4)
    return {NOVELTY_NAME: novelty.to_bytes()}, {"novelty": {"test_fraction": marked}}


def _find(model: Path, run: str) -> Published | None:
    """Find the version of a model that was published by a training."""
    for version in version_folders(model):
        path = version / "model.onnx"
        with suppress(OSError, DecodeError, KronmodelError):  # not a version that was published by this package
            card = read_card(onnx.load(path, load_external_data=False))
            training = None if card is None else card.get("training")
            if card is not None and isinstance(training, dict) and training.get("run") == run:
                return Published(card=card, path=path)
    return None


def card_of(
    member: Member, network: Network, result: TrainResult, data: Dataset, run: str | None = None
) -> dict[str, Any]:
    """Build the model card of a trained network of a twin; `run` identifies its training."""
    return make_card(
        twin=member.twin,
        role=member.role,
        network=network,
        data=data,
        config=member.training,
        result=result,
        recipe=member.recipe,
        threads=torch.get_num_threads(),
        metrics=_metrics(network, data),
        run=run,
        start=None if member.start is None else member.start.source,
    )


def _metrics(network: Network, data: Dataset) -> dict[str, float]:
    """Compute all test metrics of a network for its task, on the CPU."""
    ready = prepared(data, network.in_features)
    return task_of(data).metrics(on_cpu(network), torch.from_numpy(ready.x_test), torch.from_numpy(ready.y_test))


def _column(y: NDArray[np.int64] | NDArray[np.float32]) -> NDArray[np.int64] | NDArray[np.float32]:
    """Reshape targets ``(n, 1)`` to ``(n,)``, like class indices; return ``(n, k)`` unchanged."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _samples(data: Dataset) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Choose the indices of test samples to publish: the first ones for regression, alternating classes otherwise.

    Because the classes alternate, the first few samples include all of them.
    """
    if data.task == "regression":
        return np.arange(min(SAMPLES, len(data.x_test)))
    classes = len(data.labels)
    each = -(-SAMPLES // classes)
    rows = [np.flatnonzero(data.y_test == label)[:each] for label in range(classes)]
    turns = [row[turn] for turn in range(each) for row in rows if turn < len(row)]
    return np.array(turns[:SAMPLES])
