"""Checks of ONNX models before and after compression, and inputs that they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kronmodel.compress.graphs.samples import InputSpec, Samples, input_specs
from kronmodel.compress.graphs.session import open_session, run
from kronmodel.errors import ExportError, KronmodelError

__all__ = ["check_format", "check_model", "examples"]

OLDEST_OPSET = 7  # in older ones, Gemm and Add broadcast by an attribute
MADE_UP_SIZES = (1, 16, 32, 64, 224)  # of dynamic axes other than the batch, tried in turn
MANY = 32
INVALID = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError)


def check_format(model: onnx.ModelProto, path: Path) -> None:
    """Check that a model's operators are of versions that can be rewritten.

    Raises:
        KronmodelError: they are too old.
    """
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise KronmodelError(f"{path} imports none of ONNX's own operators, so there is nothing to compress")
    if min(versions) < OLDEST_OPSET:
        raise KronmodelError(
            f"{path} has opset {min(versions)}, expected at least {OLDEST_OPSET}: "
            "onnx.version_converter.convert_version makes it newer"
        )


def check_model(path: Path, original: Path, before: onnx.ModelProto, *, moved_opset: bool = False) -> None:
    """Check a result: valid ONNX, with the original's inputs, outputs and opset, and accepted by onnxruntime.

    Args:
        path: the result.
        original: the original; the result is checked as strictly as the original passes.
        before: the original's model.
        moved_opset: whether the opset may have changed, as onnxruntime's quantisation tools do.

    Raises:
        ExportError: the result fails a check; nothing was published.
    """
    for strict in (True, False):
        if strict and not _is_valid(original):
            continue
        try:
            onnx.checker.check_model(path, full_check=strict)
            break
        except INVALID as error:
            raise ExportError(f"the result is not valid ONNX: {' '.join(str(error).split())[:300]}") from error
    after = onnx.load(path, load_external_data=False)
    for side in ("input", "output"):
        one, other = (_interface(each, side) for each in (before, after))
        if list(one) != list(other) or not all(_fits(one[name], other[name]) for name in one):
            raise ExportError(f"the result has the {side}s {_text(other)}, expected {_text(one)}")
    opsets = [{entry.domain: entry.version for entry in each.opset_import} for each in (before, after)]
    if opsets[0] != opsets[1] and not moved_opset:
        raise ExportError(f"the result has the opsets {opsets[1]}, expected {opsets[0]}")
    try:
        open_session(path)
    except KronmodelError as error:
        raise ExportError(str(error)) from error


def _is_valid(path: Path) -> bool:
    try:
        onnx.checker.check_model(path, full_check=True)
    except INVALID:
        return False
    return True


Type = tuple[str, tuple[str, ...]]
"""Element type, and sizes."""


def _interface(model: onnx.ModelProto, side: str) -> dict[str, Type]:
    """Describe the inputs or the outputs of a model by name."""
    given = {each.name for each in model.graph.initializer}
    return {
        value.name: (_kind(value.type), _sizes(value.type))
        for value in getattr(model.graph, side)
        if value.name not in given
    }


def _kind(kind: onnx.TypeProto) -> str:
    if kind.HasField("tensor_type"):
        return str(onnx.TensorProto.DataType.Name(kind.tensor_type.elem_type))
    return str(kind.WhichOneof("value"))


def _sizes(kind: onnx.TypeProto) -> tuple[str, ...]:
    dims = kind.tensor_type.shape.dim if kind.HasField("tensor_type") else ()
    return tuple(str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)


def _fits(one: Type, other: Type) -> bool:
    """Tell whether a type is another one, whose unnamed sizes may be known now."""
    sizes = zip(one[1], other[1], strict=False)
    return one[0] == other[0] and len(one[1]) == len(other[1]) and all(a in ("?", b) for a, b in sizes)


def _text(interface: Mapping[str, Type]) -> str:
    return ", ".join(f"{name} {kind} [{', '.join(sizes)}]" for name, (kind, sizes) in interface.items())


def examples(model: onnx.ModelProto, path: Path, samples: Samples | None) -> dict[int, Mapping[str, NDArray[Any]]]:
    """Find inputs of a run with one sample, and of a run with several if the model takes them.

    Args:
        model: the model.
        path: its file.
        samples: real samples; without, made-up values are tried until the model runs.

    Returns:
        Inputs by the number of samples in the run.

    Raises:
        KronmodelError: onnxruntime refuses the model, or no made-up inputs make it run.
    """
    session = open_session(path)
    if samples is not None:
        if samples.by_call or samples.fixed:
            return {1 if samples.by_call else samples.batch: next(samples.batches())}
        several = min(MANY, len(samples))
        runs = {count: replace(samples.take(np.arange(count)), batch=count) for count in dict.fromkeys((1, several))}
        found: dict[int, Mapping[str, NDArray[Any]]] = {count: next(each.batches()) for count, each in runs.items()}
        for feeds in found.values():
            run(session, feeds, "the model")
        return found
    specs = input_specs(model)
    failure: KronmodelError | None = None
    for size in MADE_UP_SIZES:
        feeds = {spec.name: _made_up(spec, size) for spec in specs}
        try:
            run(session, feeds, "the model")
        except KronmodelError as error:
            failure = failure or error
        else:
            return {1: feeds}
    raise KronmodelError(
        f"no made-up inputs make the model run, so the result can't be checked: give --data; {failure}"
    )


def _made_up(spec: InputSpec, size: int) -> NDArray[Any]:
    """Make up values of an input: a batch of one, and other dynamic axes of a size."""
    shape = [sizes if sizes is not None else 1 if axis == 0 else size for axis, sizes in enumerate(spec.shape)]
    rng = np.random.default_rng(0)
    if spec.dtype.kind in "iu":
        return np.ones(shape, spec.dtype)
    if spec.dtype.kind == "b":
        return np.ones(shape, bool)
    return rng.standard_normal(shape).astype(spec.dtype)
