"""The classification extension compared with sorting in Python."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.oip.classification import classify
from tests.app.graphs import Array


@settings(max_examples=100)
@given(
    arrays.arrays(
        st.sampled_from(["f4", "f8", "i8", "u1", "f2"]),
        arrays.array_shapes(min_dims=2, max_dims=3, max_side=5),
        elements=st.integers(0, 5),  # few different values, so that some are equal
    ),
    st.integers(1, 40),
)
def test_classification_agrees_with_sorting_in_python(values: Array, count: int) -> None:
    rows = values.reshape(len(values), -1)
    labels = [f"l{index}" for index in range(rows.shape[1])]
    expected = []
    for row in rows:
        best = sorted(range(len(row)), key=lambda index: (-float(row[index]), index))[:count]
        expected.append([f"{row[index]!s}:{index}:l{index}" for index in best])
    assert classify(values, count, labels, batched=True).tolist() == expected
    flat = values.ravel()
    best = sorted(range(flat.size), key=lambda index: (-float(flat[index]), index))[:count]
    assert classify(values, count, None, batched=False).tolist() == [f"{flat[index]!s}:{index}" for index in best]


def test_classification_of_nan_infinity_and_an_empty_batch() -> None:
    values = np.array([[np.nan, -np.inf, 0.1], [np.inf, 1e-9, -2]], np.float32)
    expected = [["0.1:2", "nan:0", "-inf:1"], ["inf:0", "1e-09:1", "-2.0:2"]]
    assert classify(values, 9, ["too", "few"], batched=True).tolist() == expected
    assert classify(np.empty((0, 3), np.float32), 2, None, batched=True).shape == (0, 2)
