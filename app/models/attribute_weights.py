"""Weights in the attributes of a model's nodes: constants, and the trees and coefficients of scikit-learn's models."""

from collections.abc import Iterable

import onnx

ML_DOMAIN = "ai.onnx.ml"
FLOAT_BYTES, INT_BYTES = 4, 8  # of an element of a list in an attribute


def attribute_weights(nodes: Iterable[onnx.NodeProto]) -> tuple[list[onnx.TensorProto], int, int]:
    """Find the numbers that nodes keep in attributes instead of initializers.

    Args:
        nodes: all nodes of a model, including those of subgraphs and functions.

    Returns:
        Tensors, and the elements and bytes of lists of numbers. Attributes of other operators than constants and those
        of `ai.onnx.ml`, such as the strides of a convolution, are no weights.
    """
    tensors: list[onnx.TensorProto] = []
    floats = integers = 0
    for node in nodes:
        if node.domain != ML_DOMAIN and node.op_type != "Constant":
            continue
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                tensors.append(attribute.t)
            elif attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                tensors.append(attribute.sparse_tensor.values)
            floats += len(attribute.floats)
            integers += len(attribute.ints)
    return tensors, floats + integers, FLOAT_BYTES * floats + INT_BYTES * integers
