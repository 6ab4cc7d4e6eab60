"""A model as it is served: the file, the engine that runs it, and how its output is read."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.errors import BadRequest, ModelError
from app.inference.datatypes import Tensor
from app.inference.engine import Engine
from app.inference.session import CUDA
from app.models.output_head import OutputHead
from app.models.row_input import RowInput
from app.models.samples import Samples, SamplesError, read_samples
from app.models.scan import Artifact
from app.models.schemas import ModelInfo
from app.models.statistics import Statistics
from app.oip.schemas import TensorInfo
from app.oip.signature import Signature

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Model:
    """One served version of a model.

    Not every model takes rows of floats and gives an answer for each: where `/api` cannot use it, `unusable` says why.
    """

    artifact: Artifact
    engine: Engine
    samples: Samples | None = None
    unusable: str | None = None
    statistics: Statistics
    signature: Signature
    _rows: RowInput | None = None
    _head: OutputHead | None = None

    @classmethod
    def load(cls, artifact: Artifact, statistics: Statistics, *, device: str, threads: int, max_batch: int) -> "Model":
        """Load, verify and warm up; blocking.

        Raises:
            ModelError: it cannot be served.
        """
        engine = Engine(artifact.path, device=device, threads=threads)
        outputs = engine.warm_up(max_batch)
        signature = Signature(
            inputs={tensor.name: tensor for tensor in engine.inputs},
            outputs={tensor.name: tensor for tensor in engine.outputs},
            batchable=engine.batchable,
            max_batch=max_batch,
        )
        made: dict[str, Any] = {
            "artifact": artifact, "engine": engine, "signature": signature, "statistics": statistics,
        }  # fmt: skip
        try:
            rows = RowInput.of(engine, outputs)
            head = OutputHead.of(outputs, artifact.card)
        except ModelError as error:
            return cls(**made, unusable=str(error))
        return cls(**made, samples=_samples(artifact, rows), _rows=rows, _head=head)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.artifact.name

    @property
    def version(self) -> str:
        """The version folder's name."""
        return self.artifact.version

    @property
    def memory_bytes(self) -> int:
        """What it takes on its device: measured on trial by the CPU; on a GPU, at least its weights."""
        measured = None if self.engine.provider == CUDA else self.artifact.memory_bytes
        return self.artifact.initializer_bytes if measured is None else measured

    @property
    def labels(self) -> Sequence[str] | None:
        """What the card calls the classes."""
        card = self.artifact.card
        return None if card is None else card.labels

    @property
    def rows(self) -> RowInput:
        """The input that takes rows of floats.

        Raises:
            BadRequest: it has none.
        """
        if self._rows is None:
            raise BadRequest(f"models: {self.name} cannot be used here, only at /v2: {self.unusable}")
        return self._rows

    @property
    def head(self) -> OutputHead:
        """How the answers of rows are read.

        Raises:
            BadRequest: it does not take rows.
        """
        if self._head is None:
            raise BadRequest(f"models: {self.name} cannot be used here, only at /v2: {self.unusable}")
        return self._head

    @cached_property
    def row_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes in which a request may give one row: flat, as the graph takes it, as the card says."""
        features = self.rows.features
        shapes = [(features,), self.rows.shape]
        card = self.artifact.card
        if card is not None and card.input is not None and card.input.shape is not None:
            shapes.append(tuple(card.input.shape))
        return tuple(dict.fromkeys(shape for shape in shapes if math.prod(shape) == features))

    def info(self) -> ModelInfo:
        """What the API says about it."""
        return ModelInfo(
            name=self.name,
            version=self.artifact.version,
            provider=self.engine.provider,
            threads=self.engine.threads,
            inputs=[_info(tensor) for tensor in self.engine.inputs],
            outputs=[_info(tensor) for tensor in self.engine.outputs],
            file_bytes=self.artifact.file_bytes,
            initializer_bytes=self.artifact.initializer_bytes,
            parameters=self.artifact.parameters,
            unusable=self.unusable,
            samples=len(self.samples) if self.samples else 0,
            card=self.artifact.card,
        )

    def label_of(self, label: Any) -> str | float:
        """A sample's label as the card names it; a regression target as it is."""
        labels = self.head.labels
        if labels is None:
            return float(label)
        index = int(label)
        return labels[index] if 0 <= index < len(labels) else str(index)


def _info(tensor: Tensor) -> TensorInfo:
    return TensorInfo(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))


def _samples(artifact: Artifact, rows: RowInput) -> Samples | None:
    path = artifact.samples_path
    if not path.exists():
        return None
    try:
        return read_samples(path, rows.shape)
    except SamplesError as error:
        log.warning("%s: %s ignored: %s", artifact.name, path.name, error)
        return None
