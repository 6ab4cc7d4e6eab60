"""Steps of a network in float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kronmodel.export.c.network import Convolution, TemplateNetwork
from kronmodel.export.c.steps import Step, branches_of, convolution_fields, describe
from kronmodel.native.network import DenseArrays, KroneckerArrays

__all__ = ["float_steps"]


def float_steps(network: TemplateNetwork) -> list[Step]:
    """Make the steps of a network in float32."""
    steps = [_convolution(each) for each in network.front.convolutions]
    for layer in network.arrays.layers:
        steps.extend([_dense(layer)] if isinstance(layer, DenseArrays) else _kronecker(layer))
    return steps


def _convolution(layer: Convolution) -> Step:
    channels, height, width = layer.out_shape
    return Step(
        function="convolution",
        about=describe(layer),
        arrays={"weight": (layer.weight, "filters, channels, rows, columns"), "bias": (layer.bias, "filters")},
        fields={
            **convolution_fields(layer),
            "activation": layer.activation.upper(),
            "weight": "{name}_weight",
            "bias": "{name}_bias",
        },
        size=channels * height * width,
        activations=[layer.activation],
        macs=layer.macs,
    )


def _dense(layer: DenseArrays) -> Step:
    return Step(
        function="dense",
        about=describe(layer),
        arrays={"weight": (layer.weight, "outputs, inputs"), "bias": (layer.bias, "outputs")},
        fields={
            "inputs": layer.in_features, "outputs": layer.out_features, "activation": layer.activation.upper(),
            "weight": "{name}_weight", "bias": "{name}_bias",
        },
        size=layer.out_features,
        activations=[layer.activation],
        macs=layer.in_features * layer.out_features,
    )  # fmt: skip


def _kronecker(layer: KroneckerArrays) -> Iterator[Step]:
    for each in branches_of(layer):
        first, second = ("B", "A") if each.right else ("A", "B")
        transposed = each.v.transpose(0, 2, 1)
        arrays = {
            "u": (each.u, f"{first}: branches, lines, depth"),
            "v": (np.ascontiguousarray(transposed), f"{second}, transposed: branches, width, outputs"),
        }
        fields = {
            **each.shape,
            "inner": layer.inner.upper(),
            "outer": layer.activation.upper() if each.is_last else "NONE",
            "adds": int(not each.is_first),
            "u": "{name}_u",
            "v": "{name}_v",
        }
        if each.c is not None:
            arrays["c"] = (np.ascontiguousarray(each.c), "inner bias: branches, lines, width")
        if each.is_first:
            arrays["d"] = (layer.bias, "bias, as the output")
        fields |= {"c": "{name}_c" if each.c is not None else "NULL", "d": "{name}_d" if each.is_first else "NULL"}
        yield Step(
            function="branches",
            about=describe(layer) + (", its right branches" if each.right else ""),
            arrays=arrays,
            fields=fields,
            size=layer.out_features,
            line=each.shape["outputs"] + each.shape["width"],
            adds=not each.is_first,
            activations=[layer.inner, layer.activation],
            macs=each.macs,
        )
