"""The synthetic networks of the sweep and the self-test against numpy."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from app.measure import synthetic
from tests.app.graphs import Array


def run(content: bytes, rows: Array) -> Array:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": rows.astype(np.float32)})[0])


def tensors(content: bytes) -> list[Array]:
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    return [numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer]


def gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_kronecker_is_the_sum_of_its_branches(rank: int) -> None:
    side, layers = 5, 2
    content = synthetic.kronecker(side * side, rank, layers=layers, seed=4)
    rows = np.random.default_rng(0).standard_normal((7, side * side))
    weights = iter([tensor for tensor in tensors(content) if tensor.ndim != 1 or len(tensor) == side * side])
    y = rows
    for _ in range(layers):
        left, inner, right, outer = (next(weights) for _ in range(4))
        a = left.reshape(side, rank, side).transpose(1, 0, 2)  # (r, m1, n1)
        c = inner.reshape(side, rank, side).transpose(1, 0, 2)  # (r, m1, n2)
        b = right.reshape(rank, side, side)  # (r, n2, m2)
        x = y.reshape(-1, side, side)
        total = sum(gelu(a[k] @ x + c[k]) @ b[k] for k in range(rank))
        y = gelu(np.asarray(total).reshape(-1, side * side) + outer)
    np.testing.assert_allclose(run(content, rows), y, atol=1e-5)


def test_dense_and_its_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, padded = (synthetic.dense(6, layers=3, seed=2, padding_bytes=size) for size in (0, 4000))
    rows = np.random.default_rng(1).standard_normal((4, 6))
    y, weights = rows, iter(tensors(plain))
    for _ in range(3):
        y = gelu(y @ next(weights) + next(weights))
    np.testing.assert_allclose(run(plain, rows), y, atol=1e-5)
    np.testing.assert_array_equal(run(plain, rows), run(padded, rows))
    assert sum(tensor.size for tensor in tensors(padded)) - sum(tensor.size for tensor in tensors(plain)) == 1001


def test_multiply_adds_are_those_of_the_products() -> None:
    assert synthetic.dense_macs(49, layers=3) == 3 * 49 * 49
    assert synthetic.kronecker_macs(49, 2, layers=3) == 3 * 2 * (7 * 7 * 7 + 7 * 7 * 7)
    with pytest.raises(ValueError, match="width: got 50, expected a square number"):
        synthetic.kronecker(50, 1, layers=1, seed=0)
