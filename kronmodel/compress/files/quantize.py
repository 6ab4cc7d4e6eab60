"""Quantised variants of an ONNX model, made by onnxruntime's own tools: int8, float16 and int4 weights."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.scopes import is_standard
from kronmodel.compress.graphs.workspace import graphs_of
from kronmodel.errors import KronmodelError

__all__ = ["PRECISIONS", "Precision", "quantize"]

Precision = Literal["int8", "int8-static", "float16", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
CALIBRATION_BATCHES = 16


def quantize(model: Path, precision: Precision, target: Path, samples: Samples | None) -> str:
    """Write a quantised variant of a model beside it.

    Args:
        model: path of the ONNX file.
        precision: ``int8`` with scales of the activations that each run computes, ``int8-static`` with scales from
            samples as QuantizeLinear and DequantizeLinear nodes, ``float16`` with float32 inputs and outputs, or
            ``int4`` weights of MatMul nodes in blocks of 32.
        target: path of the new file.
        samples: samples for the scales of ``int8-static``.

    Returns:
        What the tool changed besides the weights, for the report; empty if nothing.

    Raises:
        KronmodelError: the tool fails, or leaves the model as it was.
    """
    if precision == "int8-static" and samples is None:
        raise KronmodelError("int8-static needs samples for the scales of the activations: give --data")
    before = onnx.load(model, load_external_data=False)
    plain = target.with_name(f"plain-{target.name}")  # in the folder of the files that the model may refer to
    try:
        if _stored(before):
            onnx.save(before, plain)
        with _quiet():
            _TOOLS[precision](plain if plain.exists() else model, target, samples)
            after = onnx.load(target, load_external_data=False)
    except Exception as error:  # the tools raise whatever fails inside them
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise KronmodelError(f"onnxruntime's tool for {precision} fails: {reason}") from error
    finally:
        plain.unlink(missing_ok=True)
    counts = [sorted(node.op_type for node in each.graph.node) for each in (before, after)]
    if counts[0] == counts[1]:
        raise KronmodelError(f"onnxruntime's tool for {precision} finds nothing to change in this model")
    moved = [_opset(each) for each in (before, after)]
    return "" if moved[0] == moved[1] else f"opset {moved[0]} became {moved[1]}"


def _stored(model: onnx.ModelProto) -> bool:
    """Turn the Constant nodes of a model into initializers, as the tools need weights; tell whether there were any."""
    found = False
    for graph in graphs_of(model.graph):
        nodes = []
        for node in graph.node:
            value = next((each.t for each in node.attribute if each.name == "value" and each.HasField("t")), None)
            if node.op_type == "Constant" and is_standard(node) and value is not None:
                value.name = node.output[0]
                graph.initializer.append(value)
                found = True
            else:
                nodes.append(node)
        if len(nodes) < len(graph.node):
            kept = onnx.GraphProto()
            kept.node.extend(nodes)
            del graph.node[:]
            graph.node.extend(kept.node)
    return found


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _dynamic(model: Path, target: Path, samples: Samples | None) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(model, target, weight_type=_weight_type(model, QuantType))


def _static(model: Path, target: Path, samples: Samples | None) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self, batches: Iterator[dict[str, NDArray[Any]]]) -> None:
            self._batches = batches
            self._left = CALIBRATION_BATCHES

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            self._left -= 1
            return next(self._batches, None) if self._left >= 0 else None

    assert samples is not None
    quantize_static(
        model,
        target,
        Reader(samples.batches()),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"WeightSymmetric": True},
    )


def _weight_type(model: Path, types: Any) -> Any:
    """Return the type of int8 weights that onnxruntime runs: ConvInteger takes no signed ones on the CPU."""
    graph = onnx.load(model, load_external_data=False).graph
    return types.QUInt8 if any(node.op_type == "Conv" for node in graph.node) else types.QInt8


def _float16(model: Path, target: Path, samples: Samples | None) -> None:
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted = ONNXModel(convert_float_to_float16(onnx.load(model), keep_io_types=True))
    converted.topological_sort()  # the tool appends the casts of the inputs behind the nodes that use them
    onnx.save(converted.model, target)


def _int4(model: Path, target: Path, samples: Samples | None) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(model), bits=4, block_size=32, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), False)


_TOOLS: dict[Precision, Callable[[Path, Path, Samples | None], None]] = {
    "int8": _dynamic,
    "int8-static": _static,
    "float16": _float16,
    "int4": _int4,
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice and the warnings that the tools print."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
