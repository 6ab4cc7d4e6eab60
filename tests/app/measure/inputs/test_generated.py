"""Inputs that are made up: sizes and values with which real sessions run."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from app.measure.inputs.arrays import InputArrays
from app.measure.inputs.generated import Failed, NoInputs, find_inputs
from app.measure.inputs.interface import Interface
from tests.app.graphs import Array
from tests.app.oip_models import graph


def searched(made: onnx.ModelProto) -> tuple[Any, onnxruntime.InferenceSession]:
    """The inputs found for a model, and its session."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(made.SerializeToString(), options)

    def run(inputs: InputArrays, size: int) -> None:
        try:
            session.run(None, dict(inputs.batch(size)))
        except Exception as error:
            raise Failed(str(error)) from None

    return find_inputs(Interface.of(session), run), session


def embedding() -> onnx.ModelProto:
    """Word and type embeddings of 300 and 2 entries, and a mask: the largest index differs by input."""
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["w"]),
        helper.make_node("Gather", ["types", "token_type_ids"], ["t"]),
        helper.make_node("Add", ["w", "t"], ["s"]),
        helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["u"]),
        helper.make_node("Mul", ["s", "u"], ["hidden"]),
    ]
    axes: list[str | int | None] = ["batch", "sequence"]
    names = ("input_ids", "token_type_ids", "attention_mask")
    return graph(
        nodes,
        [(name, TensorProto.INT64, axes) for name in names],
        [("hidden", TensorProto.FLOAT, [*axes, 3])],
        {"words": np.ones((300, 3), np.float32), "types": np.ones((2, 3), np.float32), "last": np.array([2])},
    )


def test_integers_are_as_large_as_each_input_takes_and_masks_are_ones() -> None:
    found, session = searched(embedding())
    arrays: dict[str, Array] = found.arrays(6).batch(6)
    assert {name: values.shape for name, values in arrays.items()} == dict.fromkeys(arrays, (6, 128))
    assert 200 < arrays["input_ids"].max() < 256
    assert set(np.unique(arrays["token_type_ids"]).tolist()) == {0, 1}
    assert (arrays["attention_mask"] == 1).all()
    assert session.run(None, arrays)[0].shape == (6, 128, 3)
    assert [found.describe(tensor) for tensor in found.interface.inputs] == [
        "input_ids INT64 [batch, 128] random integers from 0 to 255 (seed 0)",
        "token_type_ids INT64 [batch, 128] random integers from 0 to 1 (seed 0)",
        "attention_mask INT64 [batch, 128] ones",
    ]


def line_reader() -> onnx.ModelProto:
    """Takes images [n, 3, ?, ?] of 48 rows only, as recognisers of text do."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    return graph(
        nodes,
        [("x", TensorProto.FLOAT, ["n", 3, None, "width"])],
        [("y", TensorProto.FLOAT, None)],  # type: ignore[list-item]
        {"shape": np.array([-1, 3 * 48 * 320])},
    )


def test_sizes_are_tried_until_the_model_runs() -> None:
    found, _ = searched(line_reader())
    assert found.arrays(2).arrays["x"].shape == (2, 3, 48, 320)


def test_the_first_reason_is_kept_where_nothing_runs() -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    made = graph(nodes, [("x", TensorProto.FLOAT, ["n", None])], [("y", TensorProto.FLOAT, [7919])],
                 {"shape": np.array([7919])})  # fmt: skip
    with pytest.raises(NoInputs, match=r"Reshape.*\{1,512\}"):
        searched(made)
