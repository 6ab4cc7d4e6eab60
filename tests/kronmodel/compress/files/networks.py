"""A small classifier, samples of it, and settings for the tests of the compression of files."""

from itertools import pairwise

import numpy as np
import onnx
from onnx import helper

from kronmodel.compress.files.target import Settings
from tests.kronmodel.compress.onnx_models import Array, make_model

SIZES = (64, 96, 80, 10)
SETTINGS = Settings(
    allow_slower=True, structures=("low-rank",), seconds=0.05
)  # times of tiny layers vary with the load
node = helper.make_node


def weights_of(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for place, (width, out) in enumerate(pairwise(SIZES)):
        weights[f"w{place}"] = (rng.standard_normal((width, out)) * (2 / width) ** 0.5).astype(np.float32)
        weights[f"b{place}"] = (rng.standard_normal(out) / 5).astype(np.float32)
    return weights


def network(kind: str = "Gemm", *, batch: int | str = "batch", opset: int = 17, ir: int = 8) -> onnx.ModelProto:
    """A classifier with two hidden layers, of Gemm nodes, or of MatMul and Add nodes."""
    nodes, value = [], "x"
    for place in range(3):
        if kind == "Gemm":
            nodes.append(node("Gemm", [value, f"w{place}", f"b{place}"], [f"a{place}"], f"layer{place}"))
        else:
            nodes.append(node("MatMul", [value, f"w{place}"], [f"m{place}"], f"layer{place}"))
            nodes.append(node("Add", [f"m{place}", f"b{place}"], [f"a{place}"], f"bias{place}"))
        value = f"a{place}"
        if place < 2:
            nodes.append(node("Relu", [value], [f"r{place}"], f"relu{place}"))
            value = f"r{place}"
    nodes[-1].output[0] = "y"
    return make_model(nodes, weights_of(), [batch, SIZES[0]], opset=opset, ir=ir)


def inputs(count: int = 700) -> Array:
    """Samples near a subspace, as real ones are."""
    rng = np.random.default_rng(3)
    hidden = rng.standard_normal((count, 8)) @ rng.standard_normal((8, SIZES[0])) / 3
    samples: Array = (hidden + 0.03 * rng.standard_normal((count, SIZES[0]))).astype(np.float32)
    return samples
