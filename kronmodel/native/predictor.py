"""Predictions of an exported network by the native library: numpy in, numpy out."""

from __future__ import annotations

import ctypes
import sys
import zipfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import LoadError, NativeError
from kronmodel.native.build import status
from kronmodel.native.compiled import CompiledPredictor
from kronmodel.native.network import KroneckerArrays, Layer, NetworkArrays
from kronmodel.native.onnx_reader import read_onnx
from kronmodel.native.packing import as_kronecker, pack_floats, pack_int8, structures
from kronmodel.native.quantize import quantize

__all__ = ["Precision", "Predictor", "load"]

Precision = Literal["float32", "int8"]
SAMPLES_NAME = "samples.npz"
LIBRARY_SUFFIX = ".so"
MAX_SAMPLES = 1024  # whose activations give the ranges
F4 = np.dtype(np.float32)
HEADER = object.__basicsize__  # bytes of an object before the fields of an array
_empty = np.empty


def load(
    path: Path | str, precision: Precision = "float32", samples: NDArray[np.float32] | None = None
) -> Predictor | CompiledPredictor:
    """Load a network that ``kronmodel train`` has exported, for predictions on the CPU by the native library.

    Args:
        path: the ONNX file, of dense layers and Kronecker layers with two factors; or the library ``.so`` that
            ``kronmodel export --to c --shared`` has compiled, whose precision was chosen then. The code of a library
            runs in this process.
        precision: ``"float32"``, with onnxruntime's answers up to rounding errors; or ``"int8"``, with weights and
            activations of 8 bits.
        samples: for int8, real inputs ``(n, *input_shape)`` whose activations give the ranges; by default the
            ``samples.npz`` that training puts beside the file. At most 1,024 are used.

    Raises:
        NativeError: the native library is not available here; the error says why.
        LoadError: the file can't be read, or holds another operator, which the error names; or there are no samples.
        ValueError: the precision is unknown, or samples don't fit.
    """
    if precision not in ("float32", "int8"):
        raise ValueError(f"precision must be float32 or int8, got {precision!r}")
    if Path(path).suffix == LIBRARY_SUFFIX:
        return CompiledPredictor(Path(path))
    found = status()
    if found.library is None:
        raise NativeError(f"the native library is not available: {found.reason}")
    network = read_onnx(Path(path))
    if precision == "float32":
        return Predictor(network, found.library)
    if samples is None:
        samples = _read_samples(Path(path).with_name(SAMPLES_NAME))
    samples = np.asarray(samples, F4)[:MAX_SAMPLES]
    if samples.shape[1:] != network.input_shape or not len(samples) or not np.isfinite(samples).all():
        raise ValueError(
            f"samples must be finite numbers of the shape {('n', *network.input_shape)}, n at least 1, "
            f"got {samples.shape}"
        )
    return Predictor(network, found.library, samples)


def _read_samples(path: Path) -> NDArray[np.float32]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs: NDArray[np.float32] = arrays["inputs"]
            return inputs
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise LoadError(
            f"int8 needs samples for the ranges of activations: {path} can't be read ({error}); pass `samples`"
        ) from error


class Predictor:
    """Network with packed weights; a call computes its outputs. Calls from several threads run at the same time.

    Args:
        network: arrays of the network.
        library: the native library.
        samples: inputs ``(n, *input_shape)`` that give the ranges of int8; None for float32.

    Attributes:
        input_name: name of the graph's input.
        input_shape: shape of a sample.
        output_names: names of the graph's outputs.
        weight_bytes: size of the packed weights and biases.

    Example::

        predictor = load("models/mnist-kronecker/1/model.onnx")
        predictor(images)["probabilities"].argmax(1)
    """

    def __init__(
        self, network: NetworkArrays, library: ctypes.CDLL, samples: NDArray[np.float32] | None = None
    ) -> None:
        self.input_name = network.input_name
        self.input_shape = network.input_shape
        self.output_names = list(network.outputs)
        self._kept: list[Any] = [library]  # what the structures point to
        parts: list[tuple[int, NDArray[np.uint8], Sequence[Layer]]]
        if samples is None:
            runs = _runs([as_kronecker(layer) for layer in network.layers])
            parts = [(0, pack_floats(library, each), each) for each in runs]
        else:
            library.kron_int8_offset.restype = ctypes.c_int64
            given, layers = quantize(network, samples, library.kron_int8_offset())
            parts = [(1, pack_int8(library, layers, given.inverse, given.zero), network.layers)]
        self.weight_bytes = sum(memory.size for _, memory, _ in parts)
        rows = [(kind, memory, layers[0].in_features, layers[-1].out_features) for kind, memory, layers in parts]
        structure, kept = structures(rows)
        widest = max(max(row[2], row[3]) for row in rows)
        softmax = any(network.outputs.values())
        shape = np.array(self.input_shape, np.int64)
        fields = (network.n_features, network.mean, network.inverse, len(rows), structure, widest, network.scale,
                  network.offset, int(softmax), 1 + len(shape), shape)  # fmt: skip
        predictor, others = structures([fields])
        self._kept += [kept, others, predictor]
        self._structure = predictor.ctypes.data
        self._classes = network.out_features
        self._named = _namer(network.outputs)
        self._arrays = 1 + softmax
        _check_arrays(library)
        self._predict = library.kron_predict_arrays
        self._predict.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]

    def __call__(self, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute the outputs of a batch.

        Args:
            x: ``(batch, *input_shape)``, float32; other numbers are converted.

        Returns:
            The graph's outputs by name, ``(batch, k)``, float32.

        Raises:
            ValueError: samples have another shape.
            MemoryError: there is not enough memory.
        """
        if type(x) is not np.ndarray or x.dtype is not F4 or not x.ndim:
            x = self._converted(x)
        arrays = _empty((self._arrays, len(x), self._classes), F4)
        code = self._predict(self._structure, id(x) + HEADER, id(arrays) + HEADER)
        if code > 0:  # not contiguous, or another shape
            return self(self._converted(x))
        if code:
            raise MemoryError(f"not enough memory for a batch of {len(x):,}")
        return self._named(arrays)

    def _converted(self, x: Any) -> NDArray[np.float32]:
        array = np.require(x, F4, ["C", "A"])
        if array.ndim < 1 or array.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, ("batch", *self.input_shape)))
            raise ValueError(f"x must have the shape ({expected}), got {array.shape}")
        return array


def _namer(outputs: dict[str, bool]) -> Callable[[NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """Build a function that names the outputs and their softmax, which stand in one array; for two it is faster."""
    if len(outputs) == 2:
        (first, i), (second, j) = ((name, int(is_softmax)) for name, is_softmax in outputs.items())
        return lambda arrays: {first: arrays[i], second: arrays[j]}
    return lambda arrays: {name: arrays[int(is_softmax)] for name, is_softmax in outputs.items()}


def _check_arrays(library: ctypes.CDLL) -> None:
    """Check that the library reads numpy's arrays where they are.

    Raises:
        NativeError: this is another Python than CPython, or arrays have another layout.
    """
    probe = np.empty((3, 5), F4)
    values = library.kron_array_values
    values.argtypes, values.restype = [ctypes.c_void_p], ctypes.c_void_p
    if sys.implementation.name != "cpython" or values(id(probe) + HEADER) != probe.ctypes.data:
        raise NativeError("the native library can't read numpy's arrays of this Python")


def _runs(layers: list[KroneckerArrays]) -> list[list[KroneckerArrays]]:
    """Split layers where one takes another matrix than the one before gives."""
    runs = [[layers[0]]]
    for before, layer in pairwise(layers):
        given = (before.first.shape[1], before.second.shape[1])
        if given == (layer.first.shape[2], layer.second.shape[2]):
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return runs
