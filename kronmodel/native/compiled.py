"""Predictions of a network that ``kronmodel export --to c --shared`` has compiled to a library of its own."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import LoadError

__all__ = ["CompiledPredictor"]

F4 = np.dtype(np.float32)


class CompiledPredictor:
    """Network in a shared library; a call computes its outputs. Calls from several threads run at the same time.

    Args:
        path: of the library. Its code runs in this process, so it must come from a trusted place.

    Attributes:
        name: of the model.
        sha256: of the ONNX file that the library was exported from.
        input_name: name of the graph's input.
        input_shape: shape of a sample.
        output_names: names of the graph's outputs that it computes: probabilities, or values.
        weight_bytes: size of the weights.

    Raises:
        LoadError: the file can't be loaded, or is no such library.
    """

    def __init__(self, path: Path) -> None:
        try:
            library = ctypes.CDLL(str(path.absolute()))
            describe = library.kronmodel_describe
            self._predict = library.kronmodel_predict
        except (OSError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise LoadError(
                f"{path} is no library of `kronmodel export --to c --shared` for this machine: {reason}"
            ) from error
        describe.restype = ctypes.c_char_p
        try:
            about: dict[str, Any] = json.loads(describe())
            self.name: str = about["name"]
            self.sha256: str = about["sha256"]
            self.input_name: str = about["input_name"]
            self.input_shape: tuple[int, ...] = tuple(about["input_shape"])
            self.output_names: list[str] = about["output_names"]
            self.weight_bytes: int = about["weight_bytes"]
            self._outputs: int = about["outputs"]
        except (ValueError, KeyError, TypeError) as error:
            raise LoadError(f"{path} was compiled by another version of kronmodel: export it again") from error
        self._predict.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_longlong]

    def __call__(self, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute the outputs of a batch.

        Args:
            x: ``(batch, *input_shape)``, float32; other numbers are converted. A row with an input that is not a number
                has undefined outputs.

        Returns:
            The outputs by name, ``(batch, k)``, float32.

        Raises:
            ValueError: samples have another shape.
        """
        array = np.require(x, F4, ["C", "A"])
        if array.ndim < 1 or array.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, ("batch", *self.input_shape)))
            raise ValueError(f"x must have the shape ({expected}), got {array.shape}")
        out = np.full((len(array), self._outputs), np.nan, F4)
        self._predict(array.ctypes.data, out.ctypes.data, len(array))
        return dict.fromkeys(self.output_names, out)
