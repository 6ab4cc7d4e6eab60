"""Interfaces of graphs: the axis of the batch, and messages about differences."""

from typing import Any

import pytest

from app.measure.inputs.interface import GraphTensor, Interface, common_interface


def interface(inputs: dict[str, tuple[str, Any]], outputs: dict[str, tuple[str, Any]] | None = None) -> Interface:
    made = [
        tuple(GraphTensor(name, datatype, tuple(shape)) for name, (datatype, shape) in tensors.items())
        for tensors in (inputs, outputs or {})
    ]
    return Interface(made[0], made[1])


@pytest.mark.parametrize(
    ("inputs", "axes", "fixed"),
    [
        ({"x": ("FP32", ["batch", 6])}, {"x": 0}, None),
        ({"x": ("FP32", [8, 6])}, {"x": 0}, 8),
        ({"ids": ("INT64", ["b", "seq"]), "mask": ("INT64", ["b", "seq"])}, {"ids": 0, "mask": 0}, None),
        # tf2onnx gives every axis a name of its own
        ({"ids": ("INT32", ["u1", "u2"]), "mask": ("INT32", ["u3", "u4"])}, {"ids": 0, "mask": 0}, None),
        (
            {"input": ("FP32", ["b", "s"]), "state": ("FP32", [2, "b", 128]), "sr": ("INT64", [])},
            {"input": 0, "state": 1},
            None,
        ),
        (
            {"sr": ("INT64", []), "state": ("FP32", [2, None, 128]), "x": ("FP32", [None, None])},
            {"state": 1, "x": 0},
            None,
        ),
        ({"x": ("FP32", [1, 576]), "state": ("FP32", [2, 1, 128]), "sr": ("INT64", [1])}, {"x": 0, "state": 1}, 1),
        ({"x": ("FP32", [3, 5]), "lengths": ("INT32", [3]), "table": ("FP32", [7, 2])}, {"x": 0, "lengths": 0}, 3),
        ({"x": ("FP32", ["frames", 576]), "h": ("FP32", [1, 1, 128])}, {"x": 0}, None),
        ({"wave": ("FP32", ["samples"])}, {}, 1),
        ({}, {}, 1),
    ],
)
def test_the_axis_of_the_batch(inputs: dict[str, Any], axes: dict[str, int], fixed: int | None) -> None:
    made = interface(inputs)
    assert (made.batch_axes, made.fixed_batch) == (axes, fixed)


X = {"x": ("FP32", ["batch", 6])}
Y = {"y": ("FP32", ["batch", 3])}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (({"z": X["x"]}, Y), "models: got the inputs x of a and z of b, expected models with the same inputs"),
        ((X | {"mask": X["x"]}, Y), "models: got the inputs x of a and x, mask of b, expected models"),
        (
            ({"x": ("INT64", ["batch", 6])}, Y),
            "models: got the input 'x' as FP32 of a and INT64 of b, expected the same",
        ),
        (
            ({"x": ("FP32", ["n", 7])}, Y),
            "models: got the input 'x' as [batch, 6] of a and [n, 7] of b, expected the same",
        ),
        (({"x": ("FP32", [None, 1, 6])}, Y), "models: got the input 'x' as [batch, 6] of a and [?, 1, 6] of b"),
        ((X, {"y": ("FP32", [None, 4])}), "models: got the output 'y' as [batch, 3] of a and [?, 4] of b"),
        ((X, {"z": ("FP32", [None, 4])}), "models: got the output 'y' as [batch, 3] of a and [?, 4] of b"),
        ((X, {"y": ("INT64", ["batch", 3])}), "models: got the output 'y' as FP32 of a and INT64 of b"),
    ],
)
def test_a_difference_is_named(other: tuple[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^models: ") as caught:
        common_interface(["a", "b"], [interface(X, Y), interface(*other)])
    assert str(caught.value).startswith(message)


def test_fixed_sizes_and_precisions_are_compatible() -> None:
    exported = interface(
        {"x": ("FP32", ["n", 3, None]), "y": ("INT64", ["n"])}, {"a": ("FP32", ["n", 5]), "b": ("INT64", [])}
    )
    fixed = interface({"y": ("INT64", [4]), "x": ("FP16", [4, 3, 7])}, {"b": ("INT64", []), "a": ("FP16", [4, 5])})
    common = common_interface(["exported", "fixed"], [exported, fixed])
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in common.inputs] == [
        ("x", "FP32", (4, 3, 7)),
        ("y", "INT64", (4,)),
    ]
    assert (common.fixed_batch, common.batch_axes) == (4, {"x": 0, "y": 0})
