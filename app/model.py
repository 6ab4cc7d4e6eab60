"""A model as it is served: the file, the engine that runs it, and how its output is read."""

import logging
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.artifacts import Artifact
from app.engine import Engine, Tensor
from app.head import Head
from app.samples import Samples, SamplesError, read_samples
from app.schemas import ModelInfo, TensorInfo

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Model:
    """One served model."""

    artifact: Artifact
    engine: Engine
    head: Head
    samples: Samples | None

    @classmethod
    def load(cls, artifact: Artifact, *, device: str, threads: int, max_batch: int) -> "Model":
        """Load, verify and warm up; blocking.

        Raises:
            ModelError: it cannot be served.
            StartupError: the device cannot be had.
        """
        engine = Engine(artifact.path, device=device, threads=threads)
        head = Head.of(engine.warm_up(max_batch), artifact.card)
        return cls(artifact=artifact, engine=engine, head=head, samples=_samples(artifact, engine))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.artifact.name

    @cached_property
    def row_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes in which a request may give one row: flat, as the graph takes it, as the card says."""
        shapes = [(self.engine.features,), self.engine.row_shape]
        card = self.artifact.card
        if card is not None and card.input is not None and card.input.shape is not None:
            shapes.append(tuple(card.input.shape))
        return tuple(dict.fromkeys(shape for shape in shapes if math.prod(shape) == self.engine.features))

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
            samples=len(self.samples) if self.samples else 0,
            card=self.artifact.card,
        )

    def label_of(self, label: Any) -> str | float:
        """A sample's label as the card names it; a regression target as it is."""
        if self.head.labels is None:
            return float(label)
        index = int(label)
        return self.head.labels[index] if 0 <= index < len(self.head.labels) else str(index)


def _info(tensor: Tensor) -> TensorInfo:
    return TensorInfo(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))


def _samples(artifact: Artifact, engine: Engine) -> Samples | None:
    path = artifact.samples_path
    if not path.exists():
        return None
    try:
        return read_samples(path, engine.row_shape)
    except SamplesError as error:
        log.warning("%s: %s ignored: %s", artifact.name, path.name, error)
        return None
