"""Figures of a model's C code for its model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kronmodel.errors import KronmodelError
from kronmodel.export.c.formats import writer_of
from kronmodel.export.c.model import DAMAGED, read_samples
from kronmodel.export.c.reader import read_template_network

__all__ = ["c_figures"]

MAX_BYTES = 1 << 25  # of weights; larger models are not for microcontrollers, and take long to read


def c_figures(model: onnx.ModelProto, samples: NDArray[np.float32] | Path) -> dict[str, Any]:
    """Compute the sizes of the C code that ``kronmodel export --to c`` writes for a model, without a compiler.

    Args:
        model: the model.
        samples: real inputs ``(n, *shape)``, or the path of the file of a model that they lie beside.

    Returns:
        The entry ``c`` of the model card, with the bits of the weights, their bytes, and those of the scratch memory;
        empty if the templates can't compute the model, or need samples and there are none.
    """
    if sum(len(each.raw_data) for each in model.graph.initializer) > MAX_BYTES:
        return {}
    try:
        network = read_template_network(model, "model")
        network.check("model")
        shape = network.front.shape
        writer = writer_of(network, lambda: _inputs(samples, shape), None, name="model", title="", card={}, libm=True)
        weights, scratch = writer.figures()
    except (KronmodelError, *DAMAGED):
        return {}
    return {"c": {"bits": writer.bits, "weight_bytes": weights, "scratch_bytes": scratch}}


def _inputs(samples: NDArray[np.float32] | Path, shape: Sequence[int]) -> NDArray[np.float32]:
    return read_samples(samples, shape) if isinstance(samples, Path) else samples
