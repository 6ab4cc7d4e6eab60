"""Native inference with 8 bits: against exact integer arithmetic, and against float32 on trained networks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import kronmodel.native
from kronmodel.data.dataset import Dataset
from kronmodel.native import build
from kronmodel.native.network import Activation, NetworkArrays
from kronmodel.native.predictor import Predictor
from kronmodel.native.quantize import quantize
from tests.conftest import Twin
from tests.kronmodel.native.arrays import Array, activated, classifier, networks, random_kronecker
from tests.kronmodel.native.int8_oracle import Values, expected_int8, polynomial

pytestmark = pytest.mark.skipif(build.library() is None, reason=f"no native library: {build.status().reason}")


def outputs_and_expected(network: NetworkArrays) -> tuple[Array, Values]:
    """Compute 64 random samples with 8 bits by the library and by the oracle."""
    library = build.library()
    assert library is not None
    x = np.random.default_rng(3).normal(size=(64, network.n_features)).astype(np.float32)
    given_range, quantized = quantize(network, x, library.kron_int8_offset())
    outputs = Predictor(network, library, x)(x)["logits"].astype(np.float64)
    return outputs, expected_int8(network, given_range, quantized, x, x)


@settings(max_examples=80, deadline=None)
@given(network=networks())
def test_any_network_has_the_outputs_of_exact_integer_arithmetic(network: NetworkArrays) -> None:
    outputs, want = outputs_and_expected(network)
    assert (np.abs(outputs - want.values) <= want.slack).all()


@pytest.mark.parametrize("right", [[False, False], [True, True], [False, True, True]], ids=["left", "right", "mixed"])
def test_nearly_all_outputs_are_equal_up_to_rounding_and_give_the_same_labels(right: list[bool]) -> None:
    """Hardly a value lies next to a boundary of two steps, so that the slack above is not what hides an error."""
    rng = np.random.default_rng(6)
    layers = random_kronecker(rng, (13, 28), (7, 9), right), random_kronecker(rng, (7, 9), (2, 5), right)
    outputs, want = outputs_and_expected(classifier(*layers))
    equal = want.slack <= 1e-5 * np.abs(want.values).max()
    assert equal.mean() >= 0.8
    assert (np.abs(outputs - want.values) <= want.slack).all()
    clear = equal.all(1)
    np.testing.assert_array_equal(outputs.argmax(1)[clear], want.values.argmax(1)[clear])


@pytest.mark.parametrize(("name", "error"), [("gelu", 1.2e-3), ("tanh", 3.5e-3), ("relu", 0.0)])
def test_the_polynomials_are_close_to_the_activations(name: Activation, error: float) -> None:
    x = np.linspace(-12, 12, 20_001)
    assert np.abs(polynomial(name, x) - activated(name, x)).max() <= error


@pytest.mark.parametrize("member", ["kronecker", "dense"])
def test_a_trained_network_has_nearly_the_outputs_of_float32(member: str, trained_twin: Twin, digits: Dataset) -> None:
    path = trained_twin.repository / f"mnist-{member}" / "1" / "model.onnx"
    x = digits.x_test.reshape(len(digits.x_test), -1)
    logits, quantized = (kronmodel.native.load(path, each)(x)["logits"] for each in ("float32", "int8"))
    assert np.sqrt(np.mean((quantized - logits) ** 2)) <= 0.05 * np.sqrt(np.mean(logits**2))
    assert (quantized.argmax(1) == logits.argmax(1)).mean() >= 0.99
