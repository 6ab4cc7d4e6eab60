"""Steps of a network in integer arithmetic: weights of a few bits, activations of 8 bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import ExportError
from kronmodel.export.c.forward import LayerRanges, measure_ranges, stored_ranges
from kronmodel.export.c.integers import (
    Bias,
    Weights,
    bytes_text,
    quantize_bias,
    quantize_weights,
    stored_bias,
    stored_weights,
)
from kronmodel.export.c.network import Convolution, TemplateNetwork
from kronmodel.export.c.steps import Branches, Step, branches_of, convolution_fields, describe
from kronmodel.native.network import DenseArrays, KroneckerArrays
from kronmodel.native.quantize import Range

__all__ = ["FRACTION", "IntegerNetwork", "QuantizedBranches", "QuantizedRows", "integer_steps", "quantize_network"]

Layer = Convolution | DenseArrays | KroneckerArrays
FRACTION = 16  # of real numbers, if they fit
LEAST_FRACTION = 8
LARGEST = 255  # of an activation


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedRows:
    """Dense layer or convolution.

    Attributes:
        layer: in floats.
        ranges: of input and output.
        weight: a row for each output or filter.
        bias: a number a line.
    """

    layer: DenseArrays | Convolution
    ranges: LayerRanges
    weight: Weights
    bias: Bias


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedBranches:
    """Branches of one order.

    Attributes:
        layer: in floats.
        group: the branches in floats.
        ranges: of input, output, and the branches between their factors.
        u: factor that is applied first, ``(count, lines, depth)``.
        v: other factor, ``(count, outputs, width)``.
        c: inner bias.
        d: bias, only of the layer's first branches.
    """

    layer: KroneckerArrays
    group: Branches
    ranges: LayerRanges
    u: Weights
    v: Weights
    c: Bias
    d: Bias


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerNetwork:
    """Network in integer arithmetic.

    Attributes:
        given: range of the features, standardised and with zeros behind.
        parts: in their order.
        fraction: FRACTION of the C code.
        bits: of the weights of each part's factors, without repetitions.
    """

    given: Range
    parts: tuple[QuantizedRows | QuantizedBranches, ...]
    fraction: int
    bits: tuple[int, ...]


def quantize_network(
    network: TemplateNetwork, samples: Callable[[], NDArray[np.float32]], bits: int, bias_bits: int = 8
) -> IntegerNetwork:
    """Quantize a network; integers and ranges that its file stores are kept.

    Args:
        network: the network.
        samples: returns real inputs ``(n, *shape)``, whose activations give the ranges that the file does not store.
        bits: of the weights in floats: 8, 4 or 2.
        bias_bits: of a bias that has one number for each value.

    Raises:
        ExportError: its numbers are too large for 32 bits.
    """
    with np.errstate(all="ignore"):  # what is too large is refused by its size
        return _quantized(network, stored_ranges(network) or measure_ranges(network, samples()), bits, bias_bits)


def _quantized(network: TemplateNetwork, ranges: list[LayerRanges], bits: int, bias_bits: int) -> IntegerNetwork:
    fraction = FRACTION
    while True:
        parts = tuple(_parts(network, ranges, bits, bias_bits, fraction))
        most = max(_largest(part) for part in parts)
        if most * 2**fraction < 2**30:
            break
        fraction -= 1
        if fraction < LEAST_FRACTION:
            raise ExportError(f"sums may reach {most:.3g}: too much for integer arithmetic; export without --bits")
    used = {each for part in parts for each in _bits_of(part)}
    return IntegerNetwork(given=ranges[0].given, parts=parts, fraction=fraction, bits=tuple(sorted(used, reverse=True)))


def _bits_of(part: QuantizedRows | QuantizedBranches) -> tuple[int, ...]:
    return (part.weight.bits,) if isinstance(part, QuantizedRows) else (part.u.bits, part.v.bits)


def _parts(
    network: TemplateNetwork, ranges: list[LayerRanges], bits: int, bias_bits: int, fraction: int
) -> Iterator[QuantizedRows | QuantizedBranches]:
    stored = network.stored
    no_integers = [None] * len(network.layers)
    steps, sizes = (no_integers, no_integers) if stored is None else (stored.steps.layers, stored.bits.layers)
    for place, (layer, of_layer, step, size) in enumerate(zip(network.layers, ranges, steps, sizes, strict=True)):
        parts = [] if stored is None else [(levels.layers[place], step.layers[place]) for levels, step in stored.biases]
        own = [(levels.bias, step.bias) for levels, step in parts]
        if isinstance(layer, KroneckerArrays):
            m1, m2 = layer.first.shape[1], layer.second.shape[1]
            for index, group in enumerate(branches_of(layer)):
                u, v = (_weights(key, index, (layer, step, size), bits) for key in ("u", "v"))
                d = layer.bias.reshape(m1, m2) if group.is_first else None
                yield QuantizedBranches(
                    layer=layer,
                    group=group,
                    ranges=of_layer,
                    u=u,
                    v=v,
                    c=_bias(
                        group.c,
                        [(_inner(levels, index), _inner(step, index)) for levels, step in parts],
                        fraction,
                        bias_bits,
                    ),
                    d=_turned(_bias(d, own, fraction, bias_bits), group.right),
                )
        else:
            weight = _weights("weight", 0, (layer, step, size), bits)
            bias = _bias(layer.bias, own, fraction, bias_bits)
            yield QuantizedRows(layer=layer, ranges=of_layer, weight=weight, bias=bias)


def _weights(key: str, index: int, layers: tuple[Layer, Layer | None, Layer | None], bits: int) -> Weights:
    """Take the integers of a weight that the file stores, or round its floats.

    Args:
        key: name of the weight.
        index: of the branches in their layer.
        layers: the layer with the values of its weights, with their steps, and with their bits.
        bits: of floats.
    """
    layer, steps, sizes = layers

    def rows(of: Layer) -> NDArray[np.float32]:
        if not isinstance(of, KroneckerArrays):
            return of.weight.reshape(len(of.weight), -1)
        values: NDArray[np.float32] = getattr(list(branches_of(of))[index], key)
        return values

    kept = None
    if steps is not None and sizes is not None:
        kept = stored_weights(rows(layer), rows(steps), rows(sizes))
    return quantize_weights(rows(layer), bits) if kept is None else kept


def _inner(layer: Layer, index: int) -> NDArray[np.float32]:
    """Return the inner bias of the branches of one order; empty if there is none."""
    assert isinstance(layer, KroneckerArrays)
    found = list(branches_of(layer))[index].c
    return np.zeros(0, np.float32) if found is None else found


def _bias(
    given: NDArray[np.float32] | None,
    stored: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
    fraction: int,
    bits: int,
) -> Bias:
    """Take the integers of a bias that the file stores, or round its floats."""
    kept = stored_bias(given, stored, fraction)
    return quantize_bias(given, fraction, bits) if kept is None else kept


def _turned(bias: Bias, right: bool) -> Bias:
    """Return the bias of an output whose lines are columns, if they are."""
    if not right:
        return bias
    fields = {**vars(bias), "line": bias.column, "column": bias.line}
    return Bias(**fields)


def _largest(part: QuantizedRows | QuantizedBranches) -> float:
    """Bound the real numbers of a part for any input."""
    if isinstance(part, QuantizedRows):
        return _bound(part.weight, part.ranges.given) + float(np.abs(part.layer.bias).max(initial=0))
    inner = _bound(part.u, part.ranges.given) + (0 if part.group.c is None else float(np.abs(part.group.c).max()))
    hidden = part.ranges.hidden
    outputs = sum(
        _bound(Weights(values=part.v.values[k], steps=part.v.steps[k], bits=8), hidden[index])
        for k, index in enumerate(_hidden_indices(part))
    )
    return max(inner, outputs + 2 * float(np.abs(part.layer.bias).max(initial=0)))


def _bound(weights: Weights, given: Range) -> float:
    sums = np.abs(weights.values.astype(np.int64)).sum(-1)
    if int(sums.max(initial=0)) * LARGEST >= 2**31:
        raise ExportError("a row of weights is too long for integer arithmetic; export without --bits")
    return float((sums * weights.steps).max(initial=0)) * LARGEST * given.scale


def _hidden_indices(part: QuantizedBranches) -> range:
    """Return where the ranges of these branches stand among those of their layer."""
    start = 0 if part.group.is_first else len(part.ranges.hidden) - len(part.group.u)
    return range(start, start + len(part.group.u))


def integer_steps(network: IntegerNetwork) -> list[Step]:
    """Make the steps of a network in integer arithmetic."""
    fraction = network.fraction
    return [
        _branches(part, fraction) if isinstance(part, QuantizedBranches) else _rows(part, fraction)
        for part in network.parts
    ]


def _rows(part: QuantizedRows, fraction: int) -> Step:
    layer = part.layer
    unit = part.ranges.given.scale * 2.0**fraction
    if isinstance(layer, Convolution):
        function, axes, sizes, size = "convolution", "filters, channels, rows, columns", convolution_fields(layer), 0
        size = math.prod(layer.out_shape)
        macs = layer.macs
    else:
        function, axes, size = "dense", "outputs, inputs", layer.out_features
        sizes = {"inputs": layer.in_features, "outputs": size}
        macs = layer.weight.size
    weights, weight = part.weight.arrays("weight", unit, axes)
    biases, bias = part.bias.arrays("bias", "outputs")
    return Step(
        function=function,
        about=describe(layer),
        arrays={**weights, **biases},
        fields={
            **sizes, "x_zero": part.ranges.given.zero, "activation": layer.activation.upper(), "weight": weight,
            "bias": bias, "result": bytes_text(part.ranges.result, fraction),
        },
        size=size,
        room=part.weight.values.shape[-1],
        activations=[layer.activation],
        macs=macs,
    )  # fmt: skip


def _branches(part: QuantizedBranches, fraction: int) -> Step:
    group, layer = part.group, part.layer
    first, second = ("B", "A") if group.right else ("A", "B")
    unit = part.ranges.given.scale * 2.0**fraction
    hidden = [part.ranges.hidden[index] for index in _hidden_indices(part)]
    us, u = part.u.arrays("u", unit, f"{first}: branches, lines, depth")
    steps = part.v.steps * np.array([each.scale for each in hidden])[:, None]
    v_weights = Weights(values=part.v.values, steps=steps, bits=part.v.bits)
    vs, v = v_weights.arrays("v", 2.0**fraction, f"{second}: branches, outputs, width")
    cs, c = part.c.arrays("c", "inner bias: branches, lines, width")
    ds, d = part.d.arrays("d", "bias, as the output")
    texts = ", ".join(bytes_text(each, fraction) for each in hidden)
    fields: dict[str, Any] = {
        **group.shape, "x_zero": part.ranges.given.zero, "inner": layer.inner.upper(),
        "outer": layer.activation.upper() if group.is_last else "NONE", "adds": int(not group.is_first),
        "u": u, "v": v, "c": c, "d": d, "hidden": "{name}_hidden",
        "result": bytes_text(part.ranges.result, fraction),
    }  # fmt: skip
    sizes = group.shape
    return Step(
        function="branches",
        about=describe(layer) + (", its right branches" if group.right else ""),
        arrays={**us, **vs, **cs, **ds},
        structures={"hidden": ("bytes", len(hidden), texts)},
        fields=fields,
        size=layer.out_features,
        line=sizes["outputs"],
        hidden=sizes["width"],
        room=max(sizes["depth"], sizes["width"]),
        adds=not group.is_first,
        activations=[layer.inner, layer.activation],
        macs=group.macs,
    )
