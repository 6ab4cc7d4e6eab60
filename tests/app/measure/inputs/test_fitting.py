"""Uploaded arrays beside the interface of models: fitted, and refused with the reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.measure.inputs.arrays import InputArrays, load_labels
from app.measure.inputs.fitting import fit_arrays
from tests.app.graphs import Array
from tests.app.measure.inputs.test_interface import interface

TWO = interface({"ids": ("INT32", ["b", "seq"]), "state": ("FP16", [2, "b", 3]), "rate": ("INT64", [])})
IDS: Array = np.arange(20).reshape(5, 4)
STATE: Array = np.arange(30, dtype=np.float32).reshape(2, 5, 3)
RATE: Array = np.array(16000)
FITTING = {"ids": IDS, "state": STATE, "rate": RATE}


def test_rows_are_taken_from_the_axis_of_the_batch_and_start_again_after_the_last(tmp_path: Path) -> None:
    fitted = fit_arrays(TWO, FITTING)
    fitted.save(tmp_path / "inputs", np.array(["a", "b", "a", "b", "a"]))
    loaded = InputArrays.load(tmp_path / "inputs")
    assert (loaded.rows, loaded.arrays["ids"].dtype.name) == (5, "int32")
    batch = loaded.batch(7, start=3)
    np.testing.assert_array_equal(batch["ids"], IDS[[3, 4, 0, 1, 2, 3, 4]])
    np.testing.assert_array_equal(batch["state"], STATE[:, [3, 4, 0, 1, 2, 3, 4]])
    np.testing.assert_array_equal(batch["rate"], RATE)
    labels = load_labels(tmp_path / "inputs")
    assert labels is not None
    assert labels.tolist() == ["a", "b", "a", "b", "a"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"ids": IDS, "state": STATE},
            "inputs: got the arrays ids, state without 'rate', expected an array for each input:",
        ),
        (
            {"inputs": IDS},
            "inputs: got the array inputs without 'ids', expected an array for each input: ids, state, rate",
        ),
        (FITTING | {"mask": IDS}, "inputs: got the unknown array 'mask', expected an array for each input: ids, state"),
        (FITTING | {"ids": IDS.astype(np.float32)}, "ids: got float32, expected INT32"),
        (FITTING | {"ids": IDS.astype(str)}, "ids: got <U21, expected INT32"),
        (FITTING | {"state": STATE.astype(str)}, "state: got <U32, expected FP16"),
        (FITTING | {"ids": IDS * 2**30}, "ids: got 2.04011e+10, expected -2147483648 to 2147483647 for INT32"),
        (FITTING | {"ids": IDS[0]}, "ids: got the shape (4,), expected (n, any)"),
        (FITTING | {"state": STATE[:, :, :2]}, "state: got the shape (2, 5, 2), expected (2, n, 3)"),
        (FITTING | {"rate": RATE[None]}, "rate: got the shape (1,), expected ()"),
        (
            FITTING | {"state": STATE[:, :4]},
            "inputs: got rows in different numbers: 5 of ids, 4 of state; expected as many of each",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, Array], message: str) -> None:
    with pytest.raises(ValueError, match=r"^\w+: ") as caught:
        fit_arrays(TWO, arrays)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("graph", "rows", "fitted"),
    [
        (("FP32", ["b", 2, 3]), np.ones((4, 6)), ("float32", (4, 2, 3))),  # flat rows
        (("FP64", ["b", 6]), np.ones((4, 2, 3), np.uint8), ("float32", (4, 6))),
        (("INT64", [1, 6]), np.full((4, 6), 7.0, np.float32), ("int64", (4, 6))),  # whole numbers of a .csv file
        (("BOOL", ["b", 2]), np.array([[0.0, 1.0]]), ("bool", (1, 2))),
        (("FP32", ["b", 3, None, None]), np.ones((2, 3, 8, 9), np.float32), ("float32", (2, 3, 8, 9))),
        (("BYTES", [None, 1]), np.array([["a"], ["bc"]]), ("str64", (2, 1))),
        (("FP32", []), np.ones((4, 6), np.float32), ("float32", (4, 6))),  # a tensor of unknown rank
    ],
)
def test_rows_fit_the_only_input_by_any_name(graph: Any, rows: Array, fitted: tuple[str, tuple[int, ...]]) -> None:
    found = fit_arrays(interface({"x": graph}), {"inputs": rows, "ignored": rows})
    array = found.arrays["x"]
    assert (array.dtype.name, array.shape) == fitted
    assert found.rows == len(rows)


def test_rows_of_another_kind_are_refused() -> None:
    for graph, rows, message in (
        (("INT8", ["b", 6]), np.full((4, 6), 0.5), "inputs: got float64, expected INT8"),
        (("UINT8", ["b", 6]), np.full((4, 6), -1), "inputs: got -1, expected 0 to 255 for UINT8"),
        (("FP32", ["b", 2, 3]), np.ones((4, 7)), "inputs: got rows of 7 values, expected 2 × 3"),
        (("FP32", ["b", 3, None]), np.ones((4, 2, 5)), "inputs: got the shape (4, 2, 5), expected (n, 3, any)"),
    ):
        with pytest.raises(ValueError, match=r"^inputs: ") as caught:
            fit_arrays(interface({"x": graph}), {"inputs": rows})
        assert str(caught.value) == message
