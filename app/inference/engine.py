"""A loaded model: its onnxruntime session, the shapes of its tensors, and its execution provider."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import RunOptions

from app.errors import InputsRefused, ModelError, OutOfMemory
from app.inference import bfloat16, trial
from app.inference.datatypes import BF16, BYTES, DTYPES, NAME_BY_ONNX_TYPE, Array, Tensor
from app.inference.io_binding import Bindings
from app.inference.joining import NOT_TRIED, Joining
from app.inference.made_up import MadeUp
from app.inference.session import (
    CUDA,
    INVALID_ARGUMENT,
    ORT_ERRORS,
    DeviceUnavailable,
    Session,
    error_summary,
    is_out_of_memory,
    load_refusal,
    open_session,
    tensor_device,
)

_QUIET = RunOptions()
_QUIET.log_severity_level = 4  # fatal errors only
MAX_CHECK_SECONDS = 60.0  # of the runs that compare rows together and alone, where no smoke test did


class Engine:
    """A loaded model that can run in any thread.

    Attributes:
        has_batch_axis: the first axis of every input and output is the batch: it has any size, and an input has other
            axes, too. Rows may depend on each other nonetheless.
        batchable: rows of several requests may run as one batch; decided by the warm-up.
        max_run_rows: most rows of such a batch.
        unserved: the type of each output that is no tensor, such as a sequence or a map, by name.

    Args:
        path: the ONNX file.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: intra-op threads.
        any_rank: names of the inputs and outputs whose rank the file leaves open.
        batch_axis: whether there is one, where that is configured; None to go by the shapes.
        rows_apart: the graph has a row of each output for each row of the inputs, whatever sizes the file states for
            the outputs: LightGBM's converter writes 1.

    Raises:
        ModelError: the device is not available, onnxruntime cannot load the file, an input's type has no datatype in
            the protocol, or no output's type has one.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str,
        threads: int,
        any_rank: Collection[str] = (),
        batch_axis: bool | None = None,
        rows_apart: bool = False,
    ) -> None:
        try:
            self._session = open_session(str(path), device=device, threads=threads)
        except DeviceUnavailable as error:
            raise ModelError(f"device {device}: {error}: use auto or cpu (KRON_DEVICE, KRON_MODEL_DEVICES)") from None
        except ORT_ERRORS as error:
            error_class = OutOfMemory if is_out_of_memory(error) else ModelError
            raise error_class(load_refusal(error)) from None
        self.threads = threads
        self.provider: str = self._session.get_providers()[0]
        nodes = self._session.get_inputs()
        for node in nodes:
            if node.type not in NAME_BY_ONNX_TYPE:
                raise ModelError(
                    f"input {node.name!r}: got {node.type}, expected one of: {', '.join(NAME_BY_ONNX_TYPE)}: "
                    "export the model with such an input"
                )
        self.inputs: Sequence[Tensor] = [_tensor(node, any_rank) for node in nodes]
        results = self._session.get_outputs()
        self.outputs = [_tensor(node, any_rank) for node in results if node.type in NAME_BY_ONNX_TYPE]
        if rows_apart:
            self.outputs = [replace(tensor, shape=(-1, *tensor.shape[1:])) for tensor in self.outputs]
        self.unserved = {node.name: node.type for node in results if node.type not in NAME_BY_ONNX_TYPE}
        if not self.outputs:
            unserved = "".join(f"; output {name!r} is {kind}" for name, kind in self.unserved.items())
            raise ModelError(f"got no output that is a tensor, expected at least one{unserved}")
        has_bfloat16 = any(tensor.datatype == BF16 for tensor in (*self.inputs, *self.outputs))
        if has_bfloat16 and any(tensor.datatype == BYTES for tensor in self.inputs):
            raise ModelError(
                "inputs: got strings beside bfloat16, and onnxruntime's Python API does not take both: export the "
                "model with float32"
            )
        self._run = partial(bfloat16.run, self._session) if has_bfloat16 else self._session.run
        self._output_names = [output.name for output in self.outputs]
        tensors = [*self.inputs, *self.outputs]
        self.has_batch_axis = _has_batch_axis(nodes, tensors) if batch_axis is not False else False
        # A single axis is more often one of samples or characters than a batch of scalars.
        if batch_axis is None and all(len(tensor.shape) == 1 for tensor in self.inputs):
            self.has_batch_axis = False
        self.joining = NOT_TRIED
        self._working: MadeUp | None = None  # inputs that the model has run on
        # Buffers can be bound where all tensors are numbers and the input shapes determine the output shapes.
        # onnxruntime writes nothing to the buffer of an output that is an input.
        bindable = not any(tensor.datatype in {BYTES, BF16} or -1 in tensor.shape[1:] for tensor in tensors)
        bindable = bindable and len({tensor.name for tensor in tensors}) == len(tensors)
        self._bindings = Bindings(self._session, *tensor_device(self._session)) if bindable else None

    @property
    def joining(self) -> Joining:
        """Whether rows of several requests may run as one batch, and why."""
        return self._joining

    @joining.setter
    def joining(self, joining: Joining) -> None:
        self._joining = joining
        # Read for each request, so these are plain attributes.
        self.batchable = joining.max_rows > 0
        self.max_run_rows = max(1, joining.max_rows)

    @property
    def session(self) -> Session:
        """The onnxruntime session, which owns the model's memory; a running request keeps a reference to it."""
        return self._session

    @property
    def class_labels(self) -> Mapping[str, Sequence[str]]:
        """The names of the classes by the name of each output of probabilities that the graph keeps them for."""
        return self._session.class_labels

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the model, in bound buffers if the session has some for these shapes.

        Args:
            feeds: arrays of all inputs by name.
            outputs: names of the requested outputs; None for all.

        Raises:
            InputsRefused: onnxruntime refuses the arrays, or fails on them but not on those of the warm-up.
            ModelError: onnxruntime failed.
        """
        names = self._output_names if outputs is None else outputs
        try:
            if self._bindings is None or not self.batchable:
                return self._run_unbound(feeds, names)
            try:
                values = self._bindings.run(feeds, names)
            except ORT_ERRORS:
                values = None  # the unbound run raises the error with its reason
            if values is None:
                values = self._run_unbound(feeds, names)
                self._bindings.add(feeds, values)
        except ModelError as error:
            refusal = self._refusal(feeds) if type(error) is ModelError else None
            if refusal is None:
                raise
            raise InputsRefused(f"inputs: {refusal}: {error}") from None
        return values

    def _refusal(self, feeds: Mapping[str, Array]) -> str | None:
        """Why a failed run is due to its inputs: the model still runs on those of the warm-up; None if it does not."""
        if self._working is None:
            return None
        working = self._working.inputs(self.inputs, [0], has_batch_axis=self.has_batch_axis)
        try:
            self.try_run(working)
        except ModelError:
            return None
        differing = [name for name, array in feeds.items() if array.shape != working[name].shape]
        if not differing:
            return "the model fails on these values, and runs on others of the same shapes"
        got = ", ".join(f"{name[:100]!r} of shape {list(feeds[name].shape)}" for name in differing[:4])
        expected = ", ".join(str(list(working[name].shape)) for name in differing[:4])
        return (
            f"the model fails on {got}, and runs on {expected}: send inputs of such shapes, in several requests, or "
            "export the model without fixed sizes"
        )

    def try_run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model on inputs that it may refuse, all outputs, without an error in onnxruntime's own log."""
        return self._run_unbound(feeds, self._output_names, _QUIET)

    def _run_unbound(
        self, feeds: Mapping[str, Array], names: Sequence[str], options: RunOptions | None = None
    ) -> dict[str, Array]:
        try:
            values = self._run(names, feeds, options)
        except INVALID_ARGUMENT as error:
            raise InputsRefused(f"inputs: onnxruntime refuses them: {error_summary(error)}") from None
        except ORT_ERRORS as error:
            sizes = [array.shape[0] for array in feeds.values() if array.ndim]
            if self.has_batch_axis and len(set(sizes)) > 1:
                got = f"got batches of {', '.join(map(str, sizes))} rows, expected equal ones"
                raise InputsRefused(f"inputs: {got}: {error_summary(error)}") from None
            error_class = OutOfMemory if is_out_of_memory(error) else ModelError
            raise error_class(f"onnxruntime failed: {error_summary(error)}") from None
        return dict(zip(names, values, strict=True))

    def warm_up(self, max_batch: int, joining: Joining | None = None) -> Mapping[str, Array]:
        """Run made-up inputs of one row and of a batch, so that no request pays for a first run; set `joining`.

        A failure says little about the model, since the inputs are made up: it is served, and requests run alone.

        Args:
            max_batch: most rows of a batch.
            joining: as decided by the smoke test, on the CPU; None to decide by runs alone.

        Returns:
            The outputs of the largest batch; empty if made-up inputs failed.

        Raises:
            OutOfMemory: one row takes too much memory.
        """
        first = trial.run_one_row(self)
        self._working = None if first.failure is not None else first.way
        if first.failure is not None:
            self.joining = Joining(0, f"its run on made-up inputs failed: {first.failure}")
            return {}
        if joining is None:
            joining = self.decide_by_runs(first, max_batch)
        elif joining.max_rows and self.provider == CUDA:  # the smoke test ran on the CPU
            reason = trial.find_disagreement(self, first, joining.max_rows, lambda: MAX_CHECK_SECONDS)
            joining = joining if reason is None else Joining(0, f"on this device, {reason}")
        try:
            outputs = trial.warm_up_batch(self, first, joining.max_rows)
        except ModelError as error:
            outputs, joining = first.outputs, Joining(0, f"a batch of made-up rows failed: {error}")
        self.joining = joining
        return outputs

    def decide_by_runs(
        self, first: trial.Trial, max_batch: int, seconds_left: Callable[[], float] = lambda: MAX_CHECK_SECONDS
    ) -> Joining:
        """Decide whether rows of several requests may run as one batch, by runs of made-up rows.

        Args:
            first: the trial of one row.
            max_batch: most rows of a batch.
            seconds_left: time left for the runs.
        """
        if first.failure is not None:
            return Joining(0, f"its run on made-up inputs failed: {first.failure}")
        if not self.has_batch_axis:
            return Joining(0, "its inputs and outputs have no batch axis")
        rows, reason = trial.largest_batch(self, first, max_batch, seconds_left)
        if rows < min(2, max_batch):
            return Joining(0, reason)
        try:
            disagreement = trial.find_disagreement(self, first, rows, seconds_left)
        except OutOfMemory as error:
            disagreement = str(error)
        if disagreement is not None:
            return Joining(0, disagreement)
        return (
            Joining(rows, reason)
            if reason
            else Joining(max_batch, "made-up rows have the same outputs together and alone")
        )


def zeros(tensor: Tensor, shape: Sequence[int]) -> Array:
    """An array of zeros, or of empty strings, for an input."""
    return np.full(shape, "", object) if tensor.datatype == BYTES else np.zeros(shape, DTYPES[tensor.datatype])


def _has_batch_axis(nodes: Sequence[Any], tensors: Sequence[Tensor]) -> bool:
    """Whether the first axis of all tensors has any size, and that of no two inputs has different names."""
    names = {node.shape[0] for node in nodes if node.shape and node.shape[0] is not None}
    free = all(tensor.shape[:1] == (-1,) and not tensor.any_rank for tensor in tensors)
    return bool(nodes) and free and len(names) <= 1


def _tensor(node: Any, any_rank: Collection[str]) -> Tensor:  # onnxruntime's NodeArg has no type hints
    if node.name in any_rank and not node.shape:
        return Tensor(node.name, NAME_BY_ONNX_TYPE[node.type], (-1,), any_rank=True)
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return Tensor(node.name, NAME_BY_ONNX_TYPE[node.type], shape)
