"""Figures of a model's C code for its model card."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kronmodel.errors import KronmodelError
from kronmodel.export.c.formats import writer_of
from kronmodel.export.c.reader import read_template_network

__all__ = ["c_figures"]


def c_figures(model: onnx.ModelProto, samples: NDArray[np.float32]) -> dict[str, Any]:
    """Compute the sizes of the C code that ``kronmodel export --to c`` writes for a model, without a compiler.

    Args:
        model: the model.
        samples: real inputs ``(n, *shape)``.

    Returns:
        The entry ``c`` of the model card, with the bits of the weights, their bytes, and those of the scratch memory;
        empty if the templates can't compute the model.
    """
    try:
        network = read_template_network(model, "model")
        network.check("model")
        writer = writer_of(network, lambda: samples, None, name="model", title="", card={}, libm=True)
        weights, scratch = writer.figures()
    except KronmodelError:
        return {}
    return {"c": {"bits": writer.bits, "weight_bytes": weights, "scratch_bytes": scratch}}
