"""Biases that a file stores as integers: the C code keeps them, with their steps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from kronmodel.export.c.formats import write_source
from kronmodel.export.c.integer_steps import QuantizedBranches, quantize_network
from kronmodel.export.c.integers import stored_bias
from kronmodel.export.c.model import CModel
from kronmodel.export.served_network import export_network
from tests.kronmodel.export.c.programs import predictions
from tests.kronmodel.export.c.test_integers import forward, probabilities, quantized_inputs
from tests.kronmodel.export.test_stored_weights import CASES, quantized


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("case", ["kronecker", "convolutions"])
def test_the_c_code_has_the_integers_of_the_file(case: str, tmp_path: Path) -> None:
    aware, rows = quantized(*CASES[case])
    network = aware.quantized().eval()
    samples = rows.numpy().reshape(len(rows), *network.input_shape)
    path = tmp_path / "net.onnx"
    onnx.save(export_network(network, {}, samples), path)
    np.savez(tmp_path / "samples.npz", inputs=samples)
    model = CModel.read(path)
    assert model.network is not None, model.reason
    integers = quantize_network(model.network, model.samples, 8)
    vectors = []
    for part in integers.parts:
        biases = (part.c, part.d) if isinstance(part, QuantizedBranches) else (part.bias,)
        vectors += [each for bias in biases for each in (bias.full, bias.line, bias.column) if each is not None]
    kept = {tuple(sorted(each.values.ravel().tolist())) for each in vectors if each.scale is not None}
    steps = np.concatenate(
        [each.scale / 2.0**each.shift for each in vectors if each.scale is not None] or [np.zeros(0)]
    )
    wanted, real = set(), []
    for each in network.stored:
        if each.tensor.is_bias:
            wanted.add(tuple(sorted(each.levels.flatten().tolist())))
            real += each.steps.flatten().tolist()
    assert wanted
    assert wanted <= kept
    found = np.isclose(np.array(real)[:, None] * 2.0**integers.fraction, steps, rtol=2e-5).any(1)
    assert len(found) >= 4
    assert found.all()
    z = forward(integers, quantized_inputs(model, integers.given, samples))
    source = write_source(model, "net", None)
    assert source.weight_bytes <= network.weight_bytes  # as in the file, whose ranges of activations are code here
    labels, out = predictions(tmp_path / "c", source, samples, z.shape[1])
    np.testing.assert_array_equal(labels, z.argmax(1))
    np.testing.assert_array_equal(out, probabilities(z, integers.fraction))


def parts_of(rng: np.random.Generator, shape: tuple[int, int, int]) -> list[tuple[Any, Any]]:
    """Draw integers a line and a column, with a step for each branch, both as large as the bias."""
    count, lines, columns = shape
    drawn = rng.integers(-127, 128, (count, lines, 1)), rng.integers(-127, 128, (count, 1, columns))
    return [
        (
            each + np.zeros(shape, np.float32),
            rng.uniform(1e-4, 0.02, (count, 1, 1)).astype(np.float16) + np.zeros(shape),
        )
        for each in drawn
    ]


def test_lines_and_columns_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    parts = parts_of(rng, (3, 4, 5))
    given = sum(levels * steps for levels, steps in parts).astype(np.float32)
    for order in (parts, parts[::-1]):
        found = stored_bias(given, order, 16)
        assert found is not None
        assert found.line is not None
        assert found.column is not None
        np.testing.assert_array_equal(found.line.values, parts[0][0][..., 0])
        np.testing.assert_array_equal(found.column.values, parts[1][0][..., 0, :])
        np.testing.assert_allclose(found.values() / 2.0**16, given, atol=2.0**-15)
    only = stored_bias(parts[0][0] * parts[0][1], [parts[0], (parts[1][0] * 0, parts[1][1] * 0)], 16)
    assert only is not None
    assert only.column is None
    line = stored_bias(parts[0][0][0, :, 0] * 0.5, [(parts[0][0][0, :, 0], np.full(4, 0.5))], 16)
    assert line is not None
    assert line.values().shape == (4, 1)


def test_a_number_for_each_value_is_kept() -> None:
    rng = np.random.default_rng(5)
    full = rng.integers(-128, 128, (2, 4, 5)).astype(np.float32)
    full[0, 0, :2] = -128, 127
    steps = np.array([0.01, 0.003], np.float16).astype(np.float32)[:, None, None] + np.zeros((2, 4, 5), np.float32)
    found = stored_bias(full * steps, [(full, steps)], 16)
    assert found is not None
    assert found.full is not None
    assert (found.line, found.column) == (None, None)
    np.testing.assert_array_equal(found.full.values, full)
    np.testing.assert_allclose(found.values() / 2.0**16, full * steps, atol=2.0**-15)
    both = [(full, steps), parts_of(rng, (2, 4, 5))[0]]
    sums = stored_bias(sum(levels * step for levels, step in both).astype(np.float32), both, 16)
    assert sums is not None
    np.testing.assert_allclose(sums.values() / 2.0**16, sum(levels * step for levels, step in both), atol=2.0**-14)


def test_other_biases_are_rounded() -> None:
    rng = np.random.default_rng(4)
    parts = parts_of(rng, (2, 4, 5))
    given = sum(levels * steps for levels, steps in parts).astype(np.float32)
    assert stored_bias(given + 0.1, parts, 16) is None  # a further bias in floats
    assert stored_bias(given, [], 16) is None
    assert stored_bias(None, parts, 16) is None
    full = (rng.integers(-127, 128, (2, 4, 5)).astype(np.float32), np.full((2, 4, 5), 0.5))
    assert stored_bias(full[0], [full, full], 16) is None  # two numbers for each value
    wide = np.full((1, 2, 2), 300.0)
    assert stored_bias(wide * 0.5, [(wide, np.full((1, 2, 2), 0.5))], 16) is None
    ones = np.ones((1, 2, 2))
    assert stored_bias(ones * 2.0, [(ones, np.full((1, 2, 2), 2.0))], 16) is None  # a step beyond 16 bits
