"""Graph optimization passes: fewer nodes, whose overhead dominates a small network's latency at batch size 1."""

from __future__ import annotations

import math

import numpy as np
import onnx

from kronmodel.export.graph import Array, Graph

__all__ = ["flatten_last", "level_products", "merge_reshapes", "shift_relus", "simplify"]

_ELEMENTWISE = frozenset({"DequantizeLinear", "Gelu", "QuantizeLinear", "Relu", "Tanh"})  # quantised by one scale
_LARGEST_SHIFT = 4.0  # largest |bias| that is moved past a relu: rounding errors grow in proportion to it
_LARGEST_FLAT = 4096  # largest size of a mostly zero matrix whose product is still cheaper than the nodes it replaces


def simplify(model: onnx.ModelProto) -> None:
    """Apply all passes to a model in place; its outputs change by rounding errors only."""
    merge_reshapes(model)
    shift_relus(model)
    flatten_last(model)
    level_products(model)


def merge_reshapes(model: onnx.ModelProto) -> int:
    """Remove pairs of reshapes that cancel around a bias and an activation, in place.

    Between two Kronecker layers the features are flattened to add the bias, then folded to a matrix for the next
    factor. If the shapes before the first and after the second reshape are equal, both reshapes are removed, and the
    bias is reshaped instead.

    Returns:
        Number of removed reshapes.
    """
    graph, dropped = Graph(model), 0
    for add in graph.nodes("Add"):
        flat, bias = graph.split(add)
        flatten = graph.producer(flat)
        if flatten is None or flatten.op_type != "Reshape" or graph.consumer(flat) is not add:
            continue
        last, after = add, graph.consumer(add.output[0])
        while after is not None and after.op_type in _ELEMENTWISE:
            last, after = after, graph.consumer(after.output[0])
        if after is None or after.op_type != "Reshape":
            continue
        source, wanted, values = flatten.input[0], graph.constant(after.input[1]), graph.constant(bias)
        there = graph.shape(source)
        if wanted is None or values is None or not there or there[1:] != tuple(wanted.tolist()[1:]):
            continue
        if values.shape != (math.prod(there[1:]),):
            continue
        graph.set_constant(add, bias, values.reshape(there[1:]))
        add.input[:] = [source if name == flat else name for name in add.input]
        last.output[0] = after.output[0]
        graph.remove(flatten, after)
        dropped += 2
    return dropped


def shift_relus(model: onnx.ModelProto) -> int:
    """Fuse a bias and a relu into one ``Max`` node, in place, by moving the bias past the relu into the next bias.

    ``relu(x + c)`` equals ``max(x, -c) + c``. The linear nodes up to the next bias are applied to ``c``, and the result
    is added to that bias. Moved biases accumulate from layer to layer, and with them rounding errors: a bias above
    ``_LARGEST_SHIFT`` is not moved.

    Returns:
        Number of removed nodes.
    """
    graph, dropped = Graph(model), 0
    for add in graph.nodes("Add"):
        _, bias = graph.split(add)
        values, relu = graph.constant(bias), graph.consumer(add.output[0])
        if values is None or relu is None or relu.op_type != "Relu" or not (np.abs(values) <= _LARGEST_SHIFT).all():
            continue
        sample = graph.shape(add.output[0])[1:]
        if not sample or 0 in sample:
            continue
        shift: Array | None = np.broadcast_to(values.astype(np.float64), (1, *sample))
        after = graph.consumer(relu.output[0])
        while shift is not None and after is not None and (after.op_type != "Add" or not graph.split(after)[1]):
            shift = _through(graph, after, shift)
            after = graph.consumer(after.output[0])
        if shift is None or after is None:
            continue
        _, next_bias = graph.split(after)
        graph.set_constant(after, next_bias, (graph.constant(next_bias) + shift[0]).astype(values.dtype))
        graph.set_constant(add, bias, -values)
        add.op_type = "Max"
        add.output[0] = relu.output[0]
        graph.remove(relu)
        dropped += 1
    return dropped


def flatten_last(model: onnx.ModelProto) -> int:
    """Fuse a small last factor, the reshape to features and the bias into one ``Gemm`` node, in place.

    The matrix of the ``Gemm`` is the Kronecker product of the factor with an identity. The file holds only the factor
    and nodes that compute the matrix, which onnxruntime folds into a constant when it loads the model.

    Returns:
        Number of fused products.
    """
    graph, changed = Graph(model), 0
    for add in graph.nodes("Add"):
        flat, bias = graph.split(add)
        reshape = graph.producer(flat)
        product = None if reshape is None else graph.producer(reshape.input[0])
        if reshape is None or reshape.op_type != "Reshape" or product is None or product.op_type != "MatMul":
            continue
        h, name = graph.split(product)
        factor, shape, values = graph.constant(name), graph.shape(h), graph.constant(bias)
        if factor is None or factor.ndim != 2 or len(shape) != 3 or values is None or values.ndim != 1:
            continue
        if graph.consumer(product.output[0]) is not reshape or graph.consumer(flat) is not add:
            continue
        # y[i, j] = sum over k of h[i, k] factor[k, j] (factor on the right), or of factor[i, k] h[k, j] (on the left).
        # The index of h that is not summed over is unchanged, hence the identity matrix.
        right = product.input[0] == h
        same = np.eye(shape[1] if right else shape[2], dtype=factor.dtype)
        width, length = math.prod(shape[1:]), values.size
        if width * length != same.size * factor.size or width * length > _LARGEST_FLAT:
            continue
        graph.set_constant(product, name, factor[None, :, None, :] if right else factor.T[:, None, :, None])
        of, y = product.input[1 if right else 0], add.output[0]
        diagonal = graph.add_constant(f"{y}.same", same[:, None, :, None] if right else same[None, :, None, :])
        wide = graph.insert(product, "Mul", [diagonal, of], f"{y}.wide")  # (i, k, i, j) or (k, j, i, j)
        matrix = graph.insert(product, "Flatten", [wide], f"{y}.matrix", axis=2)
        fold = graph.producer(h)
        folded = fold is not None and fold.op_type == "Reshape" and graph.constant(fold.input[1]) is not None
        if fold is not None and folded and graph.consumer(h) is product:
            graph.set_constant(fold, fold.input[1], np.array([-1, width]))
        else:
            h = graph.insert(product, "Reshape", [h, graph.add_constant(f"{y}.h", np.array([-1, width]))], f"{y}.flat")
        product.op_type = "Gemm"
        product.input[:] = [h, matrix, bias]
        product.output[0] = y
        graph.remove(reshape, add)
        changed += 1
    return changed


def level_products(model: onnx.ModelProto) -> int:
    """Give constant left factors of matrix products as many axes as their right operand, in place.

    onnxruntime broadcasts operands with equal numbers of axes faster.

    Returns:
        Number of changed products.
    """
    graph, changed = Graph(model), 0
    for product in graph.nodes("MatMul"):
        left, right = product.input
        factor, axes = graph.constant(left), len(graph.shape(right))
        if factor is not None and 2 <= factor.ndim < axes:
            graph.set_constant(product, left, factor.reshape((1,) * (axes - factor.ndim) + factor.shape))
            changed += 1
    return changed


def _through(graph: Graph, node: onnx.NodeProto, shift: Array) -> Array | None:
    """Apply a linear node of the graph to one sample; return None if the node is not of a supported linear type."""
    _, name = graph.split(node)
    constant = graph.constant(name)
    if node.op_type == "Reshape" and constant is not None:
        return shift.reshape(constant)
    if node.op_type == "MatMul" and constant is not None:
        return constant @ shift if node.input[0] == name else shift @ constant
    if node.op_type == "Transpose":
        return shift.transpose(onnx.helper.get_node_attr_value(node, "perm"))
    if node.op_type == "Add" and len({graph.shape(each) for each in node.input}) == 1:
        return shift  # sum of the branches in both orders: a shift of one summand shifts the sum as much
    return None
