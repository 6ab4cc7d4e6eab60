"""Whether the rows of a batch are independent of each other, decided by the graph of a model."""

from dataclasses import dataclass

import onnx
import onnx.inliner

from app.models.row_independence.graph import GraphAnalysis, Scope
from app.models.row_independence.sizes import BATCH, Size, named
from app.models.row_independence.values import Rows, RowsInteract, Value

MAX_INFERENCE_BYTES = 256 * 2**20  # of the nodes and small tensors that shape inference copies
SMALL_TENSOR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether each row of every output depends on the same row of the inputs only.

    Args:
        independent: it does.
        reason: a sentence, in the plain terms of the graph.
        certain: where it does not: rows are known to influence each other, not just not known to be independent.
    """

    independent: bool
    reason: str
    certain: bool = True


def judge(model: onnx.ModelProto) -> Verdict:
    """Follow the first axis of every input through the graph.

    Args:
        model: the model; tensors in other files need not be there.
    """
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        return _judge(model)
    except RowsInteract as error:
        return Verdict(False, f"the graph {error.reason}", error.certain)
    except MemoryError:
        raise
    except Exception as error:  # of onnx, for a graph that only onnxruntime accepts: requests run alone
        return Verdict(False, f"the graph cannot be analysed ({type(error).__name__})", False)


def _judge(model: onnx.ModelProto) -> Verdict:
    graph = model.graph
    versions = {("" if each.domain == "ai.onnx" else each.domain): each.version for each in model.opset_import}
    constants = {tensor.name for tensor in graph.initializer}
    inputs: Scope = {}
    for each in graph.input:
        if each.name not in constants:
            inputs[each.name] = _input(each)
    outputs = GraphAnalysis(versions, _inferred_shapes(model)).run(graph, inputs, {})
    for info, value in zip(graph.output, outputs, strict=True):
        name = info.name[:100]
        if value.mixed is not None:
            return Verdict(False, value.mixed.reason, value.mixed.certain)
        if value.rows is None:
            how = "depends on the number of rows only" if value.sized else "does not depend on the rows"
            return Verdict(False, f"output {name!r} {how}")
        if value.rows != Rows(0):
            return Verdict(False, f"output {name!r} does not have the rows on its first axis")
    return Verdict(True, "each row of every output depends on the same row of the inputs only")


def _input(info: onnx.ValueInfoProto) -> Value:
    """A graph's input, with the rows on its first axis."""
    name = info.name[:100]
    kind = info.type.tensor_type
    if not info.type.HasField("tensor_type") or not kind.HasField("shape") or not kind.shape.dim:
        raise RowsInteract(f"has the input {name!r}, which has no first axis")
    first, *rest = kind.shape.dim
    if first.HasField("dim_value") and first.dim_value >= 0:
        raise RowsInteract(f"has the input {name!r}, whose first axis has the fixed size {first.dim_value}")
    sizes = [BATCH]
    for axis, dim in enumerate(rest, 1):
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            sizes.append(Size(dim.dim_value))
        elif dim.dim_param and dim.dim_param == first.dim_param:
            raise RowsInteract(f"has the input {name!r}, of which two axes have the number of rows", certain=True)
        else:
            sizes.append(named(f"dim {dim.dim_param}" if dim.dim_param else f"input {info.name}/{axis}"))
    return Value(shape=tuple(sizes), rows=Rows(0))


def _inferred_shapes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """The shapes of the main graph's values by onnx's shape inference; None for sizes that are not numbers.

    Shapes that the file states itself are not used, since exporters leave sizes of their example input there.
    """
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = "graph"
    constants = {tensor.name for tensor in model.graph.initializer}
    graph.input.extend(each for each in model.graph.input if each.name not in constants)
    total = 0
    for tensor in model.graph.initializer:
        size = tensor.ByteSize()
        if size <= SMALL_TENSOR_BYTES and tensor.data_location != onnx.TensorProto.EXTERNAL:
            total += size
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for node in model.graph.node:
        total += node.ByteSize()
        if total > MAX_INFERENCE_BYTES:
            return {}
        graph.node.append(node)
    for each in model.graph.output:
        graph.output.add(name=each.name)
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except Exception:  # the inference has no error class of its own; onnxruntime judges the model
        return {}
    return {
        info.name: shape for info in (*inferred.graph.value_info, *inferred.graph.output) if (shape := _shape(info))
    }


def _shape(info: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    kind = info.type.tensor_type
    if not info.type.HasField("tensor_type") or not kind.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in kind.shape.dim)


def describe(model: onnx.ModelProto) -> dict[str, object]:
    """The verdict, and the inputs and outputs of unknown rank, as fields of a `VerificationResult`."""
    verdict = judge(model)
    return {
        "independent": verdict.independent,
        "certain": verdict.certain,
        "graph_reason": verdict.reason,
        "any_rank": [
            info.name
            for info in (*model.graph.input, *model.graph.output)
            if info.type.HasField("tensor_type") and not info.type.tensor_type.HasField("shape")
        ],
    }
