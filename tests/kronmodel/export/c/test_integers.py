"""C code in integer arithmetic: exactly the numbers of numpy, near those of floats, for every kind of layer."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kronmodel.errors import ExportError
from kronmodel.export.c.formats import write_source
from kronmodel.export.c.integer_code import IntegerWriter
from kronmodel.export.c.integer_steps import IntegerNetwork, QuantizedBranches, QuantizedRows, quantize_network
from kronmodel.export.c.integers import pack, quantize_bias, quantize_weights
from kronmodel.export.c.model import CModel
from kronmodel.export.c.network import Convolution
from kronmodel.native.quantize import Range
from tests.kronmodel.export.c.graphs import Graph, outputs_of, random_graph
from tests.kronmodel.export.c.programs import predictions

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
Array = Any


# ---- The oracle: whole numbers in int64, whole matrices at once, real numbers only for constants ---------------------


def rescaled(sums: Array, scale: Array | int, shift: int) -> Array:
    """Multiply by scale / 2^shift, rounded to the nearest, halves up."""
    return np.floor_divide(sums * np.asarray(scale, np.int64) + (2**shift // 2), 2**shift)


def row_scales(steps: Array, unit: float) -> tuple[Array, int]:
    """Choose the largest common shift with which all scales have 16 bits."""
    real = steps.astype(np.float64) * unit
    shift = max(s for s in range(46) if real.max() * 2.0**s <= 65535)
    return np.rint(real * 2.0**shift).astype(np.int64), shift


def as_bytes(values: Array, to: Range, fraction: int) -> Array:
    real = 2.0**-fraction / to.scale
    shift = min(45, 14 - math.floor(math.log2(real)))
    return np.clip(rescaled(values, round(real * 2.0**shift), shift) + to.zero, 0, 255)


def curve(name: str, x: Array, fraction: int) -> Array:
    """Apply an activation to real numbers in units of 2^-fraction, by its table of 129 values in units of 2^-15."""
    if name == "none":
        return x
    if name == "relu":
        return np.maximum(x, 0)
    points = [i / 32 for i in range(129)]
    values = [math.tanh(p) if name == "tanh" else p * math.erfc(p / math.sqrt(2)) / 2 for p in points]
    table = np.array([round(v * 32768) for v in values], np.int64)
    size, cell = np.abs(x), 2 ** (fraction - 5)
    index = np.minimum(size // cell, 127)
    inside = table[index] + np.floor_divide((table[index + 1] - table[index]) * (size - index * cell), cell)
    y = np.where(size // cell >= 128, table[128], inside) * 2**fraction // 32768
    return np.sign(x) * y if name == "tanh" else np.maximum(x, 0) - y


def forward(network: IntegerNetwork, x: Array) -> Array:
    """Compute the last layer's outputs, in units of 2^-fraction, of the bytes of the inputs."""
    f = network.fraction
    sums: Array | None = None
    for part in network.parts:
        zero = part.ranges.given.zero
        if isinstance(part, QuantizedBranches):  # zeros behind the features of convolutions
            missing = part.layer.in_features - x.shape[1]
            x = np.pad(x, ((0, 0), (0, missing)), constant_values=zero)
        unit = part.ranges.given.scale * 2.0**f
        if isinstance(part, QuantizedRows):
            scale, shift = row_scales(part.weight.steps, unit)
            bias = part.bias.values().reshape(-1) + np.zeros(len(scale), np.int64)
            if isinstance(part.layer, Convolution):
                x = convolved(part, x, scale, shift, bias, f)
                continue
            z = rescaled((x - zero) @ part.weight.values.astype(np.int64).T, scale, shift) + bias
            last = curve(part.layer.activation, z, f)
        else:
            z = branches(part, x - zero, unit, f)
            sums = z if sums is None else sums + z
            if not part.group.is_last:
                continue
            last, sums = curve(part.layer.activation, sums, f), None
        x = as_bytes(last, part.ranges.result, f)
    return last


def branches(part: QuantizedBranches, x: Array, unit: float, f: int) -> Array:
    u, v, right = part.u.values.astype(np.int64), part.v.values.astype(np.int64), part.group.right
    (count, lines, depth), (_, outputs, width) = u.shape, v.shape
    matrices = x.reshape(-1, width, depth).transpose(0, 2, 1) if right else x.reshape(-1, depth, width)
    hidden = [part.ranges.hidden[i] for i in range(len(part.ranges.hidden))]
    hidden = hidden[:count] if part.group.is_first else hidden[-count:]
    u_scale, u_shift = row_scales(part.u.steps, unit)
    v_scale, v_shift = row_scales(part.v.steps * np.array([each.scale for each in hidden])[:, None], 2.0**f)
    total: Any = part.d.values()
    c = part.c.values() + np.zeros((count, lines, width), np.int64)
    if total.ndim == 2 and right:  # kept as the output; vectors of lines and columns are turned already
        total = total if part.d.full is None else total.T
    total = np.zeros((len(x), lines, outputs), np.int64) + total
    for k in range(count):
        z = curve(part.layer.inner, rescaled(u[k] @ matrices, u_scale[k][:, None], u_shift) + c[k], f)
        h = as_bytes(z, hidden[k], f) - hidden[k].zero
        total = total + rescaled(h @ v[k].T, v_scale[k], v_shift)
    return (total.transpose(0, 2, 1) if right else total).reshape(len(x), -1)


def convolved(part: QuantizedRows, x: Array, scale: Array, shift: int, bias: Array, f: int) -> Array:
    layer = part.layer
    assert isinstance(layer, Convolution)
    top, bottom, left, right = layer.pads
    images = np.pad(
        x.reshape(-1, *layer.shape) - part.ranges.given.zero, ((0, 0), (0, 0), (top, bottom), (left, right))
    )
    weight = part.weight.values.astype(np.int64).reshape(layer.weight.shape)
    height, width = layer.convolved
    kh, kw = layer.weight.shape[2:]
    sh, sw = layer.strides
    z = np.empty((len(x), len(weight), height, width), np.int64)
    for i in range(height):
        for j in range(width):
            window = images[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw].reshape(len(x), -1)
            z[:, :, i, j] = rescaled(window @ weight.reshape(len(weight), -1).T, scale, shift) + bias
    y = curve(layer.activation, z, f)
    filters, rows, columns = layer.out_shape
    down, across = layer.pool
    y = y[:, :, : rows * down, : columns * across].reshape(len(x), filters, rows, down, columns, across).max((3, 5))
    y = as_bytes(y, part.ranges.result, f)
    return (y.transpose(0, 2, 3, 1) if layer.channels_last else y).reshape(len(x), -1)


def probabilities(z: Array, fraction: int) -> Array:
    table = np.array([round(2 ** (-i / 32) * 65535) for i in range(33)], np.int64)
    power = (z.max(1, keepdims=True) - z) * 94548 // 2**fraction
    cell, part, whole = power // 2048 % 32, power % 2048, power // 65536
    values = np.where(
        whole >= 17, 0, (table[cell] - (table[cell] - table[cell + 1]) * part // 2048) >> np.minimum(whole, 31)
    )
    total = values.sum(1, keepdims=True)
    return ((values * 2**15 + total // 2) // total / 2**15).astype(np.float32)


# ---- Tests -----------------------------------------------------------------------------------------------------------


def quantized_inputs(model: CModel, given: Range, x: Array) -> Array:
    """Turn inputs into bytes with the float operations of the C code."""
    assert model.network is not None
    front = model.network.front
    flat, inverse = x.reshape(len(x), -1), np.float32(given.inverse * 2**16)
    if front.mean is not None and front.inverse is not None:
        scaled = (flat - front.mean) * (front.inverse * inverse).astype(np.float32)
    else:
        with np.errstate(over="ignore"):
            scaled = flat * inverse
    whole = np.trunc(np.clip(scaled, -1e9, 1e9)).astype(np.int64)
    numbers = np.clip((whole + given.zero * 2**16 + 2**15) // 2**16, 0, 255)
    width = flat.shape[1] if front.convolutions else model.network.arrays.layers[0].in_features
    return np.pad(numbers, ((0, 0), (0, width - numbers.shape[1])), constant_values=given.zero)


@pytest.mark.parametrize("seed", range(14))
def test_random_networks_give_exactly_the_numbers_of_numpy(seed: int, tmp_path: Path) -> None:
    graph, shape = random_graph(seed)
    path = graph.save(tmp_path / "net.onnx", shape)
    model = CModel.read(path)
    assert model.network is not None
    rng = np.random.default_rng(seed + 200)
    bits = [8, 4, 2][seed % 3]
    samples = rng.normal(0, 1, (50, *shape)).astype(np.float32)
    network = quantize_network(model.network, lambda: samples, bits, bias_bits=[8, 4][seed % 2])
    source = IntegerWriter(model.network, network, "net", "net", {}).write()
    assert "math.h" not in source.code
    x = rng.normal(0, 1.5, (40, *shape)).astype(np.float32)
    labels, out = predictions(tmp_path / "c", source, x, graph.shape[0])
    z = forward(network, quantized_inputs(model, network.given, x))
    if model.network.is_classifier:
        np.testing.assert_array_equal(labels, z.argmax(1))
        np.testing.assert_array_equal(out, probabilities(z, network.fraction))
    else:
        arrays = model.network.arrays
        assert arrays.scale is not None
        assert arrays.offset is not None
        scale = (arrays.scale * 2.0**-network.fraction).astype(np.float32)
        np.testing.assert_allclose(out, z.astype(np.float32) * scale + arrays.offset, rtol=1e-6, atol=1e-6)
    if bits == 8:  # near the floats
        expected = outputs_of(path, x)
        name = "probabilities" if model.network.is_classifier else "prediction"
        spread = expected[name].std()
        assert np.abs(out - expected[name]).mean() < 0.1 * spread


def test_any_input_is_within_32_bits(tmp_path: Path) -> None:
    graph = Graph(np.random.default_rng(7), 6)
    graph.kronecker((2, 3), (4, 2), [False, True], "gelu", "relu")
    graph.dense(3)
    graph.classify()
    model = CModel.read(graph.save(tmp_path / "net.onnx", (6,)))
    assert model.network is not None
    x = np.random.default_rng(8).normal(0, 1e5, (9, 6)).astype(np.float32)  # so FRACTION is below 16
    network = quantize_network(model.network, lambda: x, 8)
    assert network.fraction < 16
    source = IntegerWriter(model.network, network, "net", "net", {}).write()
    x = np.concatenate([x, [[np.inf] * 6, [-np.inf, np.inf] * 3, [3e38] * 6, [np.nan, 0, 0, 0, 0, 0]]]).astype(
        np.float32
    )
    labels, out = predictions(tmp_path / "c", source, x, 3)  # with sanitizers
    z = forward(network, quantized_inputs(model, network.given, x[:-1]))
    np.testing.assert_array_equal(labels[:-1], z.argmax(1))
    np.testing.assert_array_equal(out[:-1], probabilities(z, network.fraction))
    assert labels[-1] == -1
    with pytest.raises(ExportError, match=r"sums may reach .*: too much for integer arithmetic; export without --bits"):
        quantize_network(model.network, lambda: x[:9] * 1e6, 8)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rounded_weights(bits: int) -> None:
    values = np.random.default_rng(bits).normal(0, 1, (3, 5, 7))
    values[1, 2] = 0
    rounded = quantize_weights(values, bits)
    assert rounded.values.min() >= -(2 ** (bits - 1)) + 1
    real = rounded.values * rounded.steps[..., None]
    largest = np.abs(values).max(-1, keepdims=True)
    plain = np.rint(values / np.maximum(largest, 1e-30) * (2 ** (bits - 1) - 1)) * largest / (2 ** (bits - 1) - 1)
    assert (((real - values) ** 2).sum(-1) <= ((plain - values) ** 2).sum(-1) + 1e-12).all()
    packed = pack(rounded.values, bits)
    assert packed.nbytes == math.ceil(rounded.values.size * bits / 8)
    if bits < 8:
        numbers = [(int(byte) >> at) & (2**bits - 1) for byte in packed for at in range(0, 8, bits)]
        signed = [n - 2**bits if n >= 2 ** (bits - 1) else n for n in numbers]
        assert signed[: rounded.values.size] == rounded.values.ravel().tolist()


def test_a_bias_of_rows_and_columns_is_kept_as_these() -> None:
    rng = np.random.default_rng(0)
    row, column = rng.normal(0, 1, (2, 5)), rng.normal(0, 3, (2, 4))
    both = quantize_bias(row[..., None] + column[:, None, :], 16, 8)
    assert both.full is None
    np.testing.assert_allclose(both.values() / 2**16, row[..., None] + column[:, None, :], atol=1e-3)
    only = quantize_bias(np.repeat(row[..., None], 4, -1), 16, 8)
    assert only.full is None
    assert only.column is None
    full = rng.normal(0, 1, (2, 5, 4))
    for bits, worst in ((8, 2.0**-5), (4, 0.5)):
        kept = quantize_bias(full, 16, bits)
        assert kept.full is not None
        assert np.abs(kept.values() / 2**16 - full).max() <= worst
    assert quantize_bias(None, 16, 8).values() == 0


def test_samples_are_needed(tmp_path: Path) -> None:
    graph = Graph(np.random.default_rng(1), 4)
    graph.dense(3)
    graph.classify()
    model = CModel.read(graph.save(tmp_path / "net.onnx", (4,)))
    with pytest.raises(ExportError, match=r"--bits needs samples .*samples\.npz can't be read .* put a file there"):
        write_source(model, "net", 8)
    np.savez(tmp_path / "samples.npz", inputs=np.zeros((2, 5), np.float32))
    with pytest.raises(ExportError, match=r"got inputs \(2, 5\), expected finite numbers \('n', 4\)"):
        write_source(model, "net", 8)
