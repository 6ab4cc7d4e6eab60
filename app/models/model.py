"""A served model: its file, its engine, and the decoding of its output."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from app.errors import BadRequest, ModelError
from app.inference.datatypes import BYTES
from app.inference.engine import Engine
from app.inference.joining import Joining
from app.inference.session import CUDA
from app.models.column_inputs import ColumnInputs
from app.models.novelty import FILE_NAME as NOVELTY_NAME
from app.models.novelty import Novelty
from app.models.output_head import OutputHead
from app.models.row_input import RowInput
from app.models.samples import ColumnSamples, Samples, SamplesError, read_column_samples, read_samples
from app.models.scan import Artifact
from app.models.statistics import Statistics
from app.models.triton_config import FILE_NAME as CONFIG_NAME
from app.oip.signature import Signature

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A served version of a model.

    Args:
        artifact: the verified file.
        engine: the loaded model.
        samples: test inputs and labels; None if there are none.
        unusable: why `/api` cannot use it, which needs one input of rows of floats and an output row for each; or None.
        statistics: counts and times of its requests.
        signature: the inputs and outputs that `/v2` requests have to fit.
        columns: the columns that rows with names have; None if the card names none.
        novelty: marks images that are unlike the training images; None if there is no such file.
    """

    artifact: Artifact
    engine: Engine
    samples: Samples | ColumnSamples | None = None
    unusable: str | None = None
    statistics: Statistics
    signature: Signature
    columns: ColumnInputs | None = None
    novelty: Novelty | None = None
    _row_input: RowInput | None = None
    _output_head: OutputHead | None = None

    @classmethod
    def load(cls, artifact: Artifact, statistics: Statistics, *, device: str, threads: int, max_batch: int) -> "Model":
        """Load and warm up a model; blocking.

        Args:
            artifact: the verified file.
            statistics: of this version.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            threads: intra-op threads.
            max_batch: most rows of a batch.

        Raises:
            ModelError: it cannot be loaded or run.
        """
        engine = Engine(
            artifact.path,
            device=device,
            threads=threads,
            any_rank=artifact.verification.any_rank,
            batch_axis=artifact.config.batch_axis,
            rows_apart=artifact.verification.independent,
        )
        max_batch = min(max_batch, artifact.config.max_batch_size or max_batch)
        alone = artifact.config.why_alone() or "its inputs and outputs have no batch axis"
        joining = joining_of(artifact, max_batch) if engine.has_batch_axis else Joining(0, alone)
        outputs = engine.warm_up(max_batch, joining)
        alone = f"run alone: {engine.joining.reason}"
        log.log(
            logging.INFO if outputs and artifact.config.error is None else logging.WARNING,
            "%s version %s: requests %s",
            artifact.name,
            artifact.version,
            f"share runs of up to {engine.joining.max_rows} rows: {engine.joining.reason}"
            if engine.batchable
            else alone,
        )
        signature = Signature(
            inputs={tensor.name: tensor for tensor in engine.inputs},
            outputs={tensor.name: tensor for tensor in engine.outputs},
            batchable=engine.has_batch_axis,
            max_batch=max_batch,
            unserved=engine.unserved,
            limited=engine.batchable or artifact.verification.independent or bool(artifact.config.batch_axis),
        )
        for name, kind in engine.unserved.items():
            log.warning("%s: output %r is not served: got %s, expected a tensor", artifact.name, name, kind)
        fields: dict[str, Any] = {
            "artifact": artifact, "engine": engine, "signature": signature, "statistics": statistics,
        }  # fmt: skip
        try:
            columns = ColumnInputs.of(engine, outputs, artifact.card)
            row_input = None if columns is not None else RowInput.of(engine, outputs)
            output_head = OutputHead.of(outputs, artifact.card, engine.class_labels)
        except ModelError as error:
            return cls(**fields, unusable=str(error))
        if row_input is None:
            return cls(**fields, columns=columns, samples=_read_samples(artifact, engine), _output_head=output_head)
        return cls(
            **fields,
            columns=ColumnInputs.of_rows(row_input.n_features, artifact.card),
            samples=_read_samples(artifact, row_input.shape),
            novelty=_read_novelty(artifact, row_input.n_features),
            _row_input=row_input,
            _output_head=output_head,
        )

    @cached_property
    def name(self) -> str:
        """The name of the model's folder."""
        return self.artifact.name

    @cached_property
    def version(self) -> str:
        """The name of the version's folder."""
        return self.artifact.version

    @property
    def memory_bytes(self) -> int:
        """Memory on its device: on the CPU as measured by the smoke test, on a GPU the size of its weights."""
        measured = None if self.engine.provider == CUDA else self.artifact.memory_bytes
        return self.artifact.initializer_bytes if measured is None else measured

    @cached_property
    def labels(self) -> Sequence[str] | None:
        """The names of the classes by the card, else by the graph."""
        card = self.artifact.card
        if card is not None and card.labels is not None:
            return card.labels
        return next(iter(self.engine.class_labels.values()), None)

    @property
    def takes_columns(self) -> bool:
        """Whether each column of a table is an input of the graph, so that rows need names."""
        return self.columns is not None and self.columns.separate

    @property
    def row_input(self) -> RowInput:
        """The graph input that the rows of `/api` requests are fed to.

        Raises:
            BadRequest: the model cannot be used at `/api`.
        """
        if self.takes_columns:
            raise BadRequest(f"models: {self.name} takes the columns of a table, expected `rows` with their names")
        if self._row_input is None:
            raise BadRequest(f"models: {self.name} cannot be used here, only at /v2: {self.unusable}")
        return self._row_input

    @property
    def output_head(self) -> OutputHead:
        """The graph output that answers `/api` requests, and its decoding.

        Raises:
            BadRequest: the model cannot be used at `/api`.
        """
        if self._output_head is None:
            raise BadRequest(f"models: {self.name} cannot be used here, only at /v2: {self.unusable}")
        return self._output_head

    @cached_property
    def row_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes that a row of a request may have: flat, that of the graph's input, and that of the card."""
        n_features = self.row_input.n_features
        shapes = [(n_features,), self.row_input.shape]
        card = self.artifact.card
        if card is not None and card.input is not None and card.input.shape is not None:
            shapes.append(tuple(card.input.shape))
        return tuple(dict.fromkeys(shape for shape in shapes if math.prod(shape) == n_features))

    def label_of(self, label: Any) -> str | float | list[float]:
        """The name of a sample's class by the card, or its number; regression targets unchanged."""
        if isinstance(label, np.ndarray):  # several targets
            return [float(each) for each in label]
        labels = self.output_head.labels
        if labels is None:
            return float(label)
        index = int(label)
        return labels[index] if 0 <= index < len(labels) else str(index)


def joining_of(artifact: Artifact, max_batch: int) -> Joining | None:
    """Decide whether requests may share a run: by the configuration, then the graph, then the runs of the smoke test.

    Args:
        artifact: the verified file.
        max_batch: most rows of a run.

    Returns:
        The decision; None to decide by runs, where the graph keeps rows apart and the smoke test could not run it.
    """
    config, found = artifact.config, artifact.verification
    if (alone := config.why_alone()) is not None:
        return Joining(0, alone)
    if not found.independent and (found.certain or not config.dynamic_batching):
        return Joining(0, found.graph_reason)
    if not found.ran:
        return None
    if not found.trial_rows:
        return Joining(0, found.trial_reason)
    reason = found.graph_reason if found.independent else f"dynamic_batching in {CONFIG_NAME}; {found.graph_reason}"
    limit = f"; {found.trial_reason}" if found.trial_rows < max_batch else ""
    return Joining(min(found.trial_rows, max_batch), reason + limit)


def _read_samples(artifact: Artifact, rows: tuple[int, ...] | Engine) -> Samples | ColumnSamples | None:
    """Read the samples beside a model whose rows have a shape, or whose engine takes the columns of a table."""
    path = artifact.samples_path
    if not path.exists():
        return None
    try:
        if isinstance(rows, tuple):
            return read_samples(path, rows)
        return read_column_samples(path, {tensor.name: tensor.datatype == BYTES for tensor in rows.inputs})
    except SamplesError as error:
        log.warning("%s: %s ignored: %s", artifact.name, path.name, error)
        return None


def _read_novelty(artifact: Artifact, n_features: int) -> Novelty | None:
    """Read the detector beside a model of images."""
    path = artifact.path.with_name(NOVELTY_NAME)
    card = artifact.card
    if not path.exists() or card is None or card.input is None or card.input.kind != "image":
        return None
    shape = tuple(card.input.shape or ())
    try:
        if len(shape) not in (2, 3) or math.prod(shape) != n_features:
            raise SamplesError(f"the card has images of {shape}, the model takes {n_features} numbers")
        return Novelty.read(path, shape)
    except SamplesError as error:
        log.warning("%s: %s ignored: %s", artifact.name, path.name, error)
        return None
