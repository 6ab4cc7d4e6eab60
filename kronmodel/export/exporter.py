"""Export of any PyTorch module to a self-contained ONNX model whose outputs are compared with the module's."""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kronmodel.errors import ExportError
from kronmodel.export.parity import PARITY_TOLERANCE, ROUNDED_TOLERANCE, check_parity, repeat_to
from kronmodel.export.passes import simplify
from kronmodel.export.stored_weights import numbered, store_weights
from kronmodel.quantization.network import StoredValues
from kronmodel.training.evaluation import evaluation_mode

__all__ = ["on_cpu", "to_onnx"]

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


def to_onnx(
    module: nn.Module,
    example_inputs: Inputs,
    *,
    metadata: Mapping[str, str] | None = None,
    units: Mapping[str, NDArray[Any]] | None = None,
    stored: Sequence[StoredValues] = (),
    rounded: bool = False,
) -> onnx.ModelProto:
    """Export a PyTorch module to ONNX, and compare the outputs of both at several batch sizes.

    The module is exported in evaluation mode on the CPU; its own modes and device are unchanged. The model is validated
    by ``onnx.checker``.

    Args:
        module: takes tensors and returns a tensor, or nested tuples, lists and dicts of tensors.
        example_inputs: a tensor, a tuple of tensors for ``forward``'s positional arguments, or a dict of tensors by
            the names of its arguments. The first axis of each is the batch, of at least one sample and dynamic in the
            model. The comparison uses these values, so real samples are better than zeros.
        metadata: entries of the model's ``metadata_props``.
        units: for the name of an output, the magnitude that the comparison's tolerance of 1e-4 is relative to; by
            default the root mean square of the output's values, at least 1.
        stored: quantised values of all parameters of a submodule ``network``, which has no tensors beside them.
        rounded: whether the module rounds its activations to 8 bits: tiny differences before a rounding are then as
            large as a level behind it, and more of a difference is accepted.

    Returns:
        The ONNX model. A single input is named ``input``; several have the names of ``forward``'s arguments. A single
        output is named ``output``; several are named ``output_0``, ``output_1``, ..., or by the keys of a dict.

    Raises:
        ExportError: torch can't export the module, or the model is not valid ONNX, or its outputs differ.
        TypeError: an example input is not a tensor.
        ValueError: an example input has no batch axis, or the batch sizes are 0 or differ.
    """
    names, inputs = _named_inputs(module, example_inputs)
    inputs = [tensor.detach().cpu() for tensor in inputs]
    flat = _FlatModule(on_cpu(module), list(example_inputs) if isinstance(example_inputs, Mapping) else None)
    with evaluation_mode(flat):
        with torch.inference_mode():
            output_names = _output_names(flat.call(*inputs))
        with ExitStack() as stack:
            numbers = stack.enter_context(numbered(flat.module)) if stored else {}
            model = _export(flat, [repeat_to(tensor, 2) for tensor in inputs], names, output_names)
            _strip(model)
            if not _has_subgraphs(model):
                simplify(model)
        if stored:
            store_weights(model, numbers, stored, "network.")
        model.producer_name, model.producer_version = "kronmodel", importlib.metadata.version("kronmodel")
        for key, value in (metadata or {}).items():
            model.metadata_props.add(key=key, value=value)
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
            raise ExportError(f"the exported model is not valid ONNX: {error}") from error
        check_parity(model, flat, inputs, units, ROUNDED_TOLERANCE if rounded else PARITY_TOLERANCE)
    return model


def on_cpu(module: nn.Module) -> nn.Module:
    """Return a module that is on the CPU: the given one, or a copy if it is on another device."""
    tensors = (*module.parameters(), *module.buffers())
    return module if all(tensor.device.type == "cpu" for tensor in tensors) else copy.deepcopy(module).cpu()


class _FlatModule(nn.Module):
    """Wrapper of a module, with positional inputs and a flat tuple of tensors as output.

    Args:
        module: the module to wrap.
        keywords: argument names under which the inputs are passed to the module; None passes them by position.
    """

    def __init__(self, module: nn.Module, keywords: Sequence[str] | None) -> None:
        super().__init__()
        self.module = module
        self.keywords = keywords

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor for _, tensor in _flatten(self.call(*inputs)))

    def call(self, *inputs: Tensor) -> Any:
        """Call the wrapped module, and return its output without flattening it."""
        return self.module(**dict(zip(self.keywords, inputs, strict=True))) if self.keywords else self.module(*inputs)


def _named_inputs(module: nn.Module, examples: Inputs) -> tuple[list[str], list[Tensor]]:
    """Check the example inputs; return their names in the graph and their tensors."""
    if isinstance(examples, Mapping):
        names, tensors = list(examples), list(examples.values())
    else:
        tensors = [examples] if isinstance(examples, Tensor) else list(examples)
        names = ["input"] if len(tensors) == 1 else _argument_names(module, len(tensors))
    if not tensors:
        raise ValueError("example_inputs must be at least one tensor, got none")
    for name, tensor in zip(names, tensors, strict=True):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"example_inputs must be tensors, got {type(tensor).__name__} for {name!r}")
        if tensor.ndim == 0:
            raise ValueError(f"example_inputs must have a batch as their first axis, got a scalar for {name!r}")
    sizes = {name: len(tensor) for name, tensor in zip(names, tensors, strict=True)}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise ValueError(f"example_inputs must be batches of the same size, at least 1, got {sizes}")
    return names, tensors


def _argument_names(module: nn.Module, count: int) -> list[str]:
    """Return the names of the first arguments of ``forward``; ``input_0``, ``input_1``, ... for ``*args``."""
    parameters = inspect.signature(module.forward).parameters.values()
    names = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return names[:count] if len(names) >= count else [f"input_{index}" for index in range(count)]


def _output_names(output: Any) -> list[str]:
    """Name a module's outputs in the graph by their keys and indices in nested containers, in the outputs' order."""
    names = []
    for path, _ in _flatten(output):
        named = bool(path) and not path[0].isdigit()
        names.append("_".join(path if named else ("output", *path)))
    if not names:
        raise ExportError("the module must give at least one tensor, got none")
    return names


def _flatten(output: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Yield each tensor in nested tuples, lists and dicts with its path of keys and indices; skip None."""
    if isinstance(output, Tensor):
        yield path, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _flatten(value, (*path, str(key)))
    elif isinstance(output, tuple | list):
        for index, value in enumerate(output):
            yield from _flatten(value, (*path, str(index)))
    elif output is not None:
        raise ExportError(f"the module must give tensors, got {type(output).__name__} among its outputs")


def _export(
    module: _FlatModule, inputs: Sequence[Tensor], input_names: Sequence[str], output_names: Sequence[str]
) -> onnx.ModelProto:
    """Convert a module with torch's exporter, with a dynamic first axis for each input."""
    try:
        with _quiet_exporter():
            batch = torch.export.Dim("batch", min=1)
            program = torch.onnx.export(
                module,
                tuple(inputs),
                dynamo=True,
                dynamic_shapes={"inputs": tuple({0: batch} for _ in inputs)},
                input_names=list(input_names),
                output_names=list(output_names),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"torch can't export {type(module.module).__name__} to ONNX: {reason[0][:300]}") from error
    if program is None:
        raise ExportError("torch.onnx.export gave no program")
    return program.model_proto


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the progress output and the deprecation warnings of torch's exporter."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _has_subgraphs(model: onnx.ModelProto) -> bool:
    """Tell whether a node holds a subgraph, such as a branch of ``If``; the passes don't support subgraphs."""
    kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    nodes = model.graph.node
    return bool(model.functions) or any(attribute.type in kinds for node in nodes for attribute in node.attribute)


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's debug metadata, which exceeds small networks in size and contains local file paths."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    graph.name, graph.doc_string = "kronmodel", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for parts in (graph.node, graph.initializer, graph.input, graph.output):
        for part in parts:
            part.doc_string = ""
            del part.metadata_props[:]
