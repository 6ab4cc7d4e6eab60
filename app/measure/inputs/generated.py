"""Inputs that are made up from a model's metadata: free sizes and values are tried until the models run.

Imports numpy only, since the measuring processes import it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

import numpy as np

from app.inference.datatypes import BOOL, BYTES, DTYPES
from app.measure.inputs.arrays import Array, InputArrays
from app.measure.inputs.interface import FLOATS, GraphTensor, Interface

SEED = 0
TRIAL_SECONDS = 20.0  # spent at most on trying sizes
# Sizes of free axes in the order in which they are tried. The last one of each fits most graphs that only have to run.
IMAGE_SIZES = ((224, 224), (48, 320), (640, 640), (32, 32), (28, 28), (1, 1))  # rows and columns; 48 is a line of text
TOKENS = (128, 64, 16, 1)
SAMPLES = (512, 576, 16_000, 128, 16, 1)  # of audio: frames of 32 and 36 ms, and a second, at 16 kHz
OTHER_SIZES = (128, 16, 1)
CHANNELS = frozenset({1, 3, 4})
# The largest value of integers, which may be indices, in the order in which they are tried.
LARGEST_INTEGERS = (255, 1, 0)
SAMPLE_RATES = frozenset({"sr", "sample_rate", "sampling_rate", "samplerate"})
SAMPLE_RATE = 16_000

T = TypeVar("T")
AxisKey = str | tuple[str, int]  # the name of a free axis; the input and the position of one without a name
Sizes = Mapping[AxisKey, int]


class NoInputs(Exception):  # noqa: N818
    """The models refuse all inputs that were made up; the message has the reason of the first refusal."""


class Failed(Exception):  # noqa: N818
    """A model failed on inputs that were made up."""


@dataclass(frozen=True)
class GeneratedInputs:
    """A rule that makes inputs for a graph.

    Args:
        interface: of the graph.
        sizes: of free axes that are not the batch.
        largest: the largest value of integers, by input; by default zeros.
        batch_axes: the axis of the batch by input.
    """

    interface: Interface
    sizes: Sizes = field(default_factory=dict)
    largest: Mapping[str, int] = field(default_factory=dict)
    batch_axes: Mapping[str, int] = field(default_factory=dict)

    def arrays(self, rows: int) -> InputArrays:
        """Make `rows` rows for every input, the same ones in each call."""
        rng = np.random.default_rng(SEED)
        return InputArrays(
            {tensor.name: self._array(tensor, rows, rng) for tensor in self.interface.inputs}, self.batch_axes
        )

    def describe(self, tensor: GraphTensor) -> str:
        """The shape and values of an input in words."""
        axis = self.batch_axes.get(tensor.name)
        sizes = ["batch" if index == axis else str(size) for index, size in enumerate(self._shape(tensor, 1))]
        return f"{tensor.name} {tensor.datatype} [{', '.join(sizes)}] {self._values_text(tensor)}"

    def _shape(self, tensor: GraphTensor, rows: int) -> tuple[int, ...]:
        axis = self.batch_axes.get(tensor.name)
        return tuple(
            rows if index == axis else size if isinstance(size, int) else self.sizes.get(_key(tensor, index), 1)
            for index, size in enumerate(tensor.shape)
        )

    def _array(self, tensor: GraphTensor, rows: int, rng: "np.random.Generator") -> Array:
        shape = self._shape(tensor, rows)
        if tensor.datatype in FLOATS:
            return np.asarray(rng.random(shape, np.float32))
        if (value := _known_value(tensor)) is not None:
            return np.full(shape, value, np.int64).astype(DTYPES[tensor.datatype])
        integers = np.asarray(rng.integers(0, self._largest(tensor) + 1, shape))
        return integers.astype(np.str_) if tensor.datatype == BYTES else integers.astype(DTYPES[tensor.datatype])

    def _largest(self, tensor: GraphTensor) -> int:
        if tensor.datatype == BOOL:
            return 1
        return min(self.largest.get(tensor.name, 0), 127 if tensor.datatype == "INT8" else 255)

    def _values_text(self, tensor: GraphTensor) -> str:
        if tensor.datatype in FLOATS:
            return f"random numbers from 0 to 1 (seed {SEED})"
        if (value := _known_value(tensor)) is not None:
            return "ones" if value == 1 else str(value)
        if tensor.datatype == BOOL:
            return f"random (seed {SEED})"
        largest = self._largest(tensor)
        kind = "integers as text" if tensor.datatype == BYTES else "integers"
        return "zeros" if largest == 0 else f"random {kind} from 0 to {largest} (seed {SEED})"


def random_rows(interface: Interface, rows: int) -> InputArrays:
    """Rows of random numbers for a graph whose only free axis is the batch."""
    return GeneratedInputs(interface, batch_axes=interface.batch_axes).arrays(rows)


def find_inputs(interface: Interface, run: Callable[[InputArrays, int], None]) -> GeneratedInputs:
    """Find sizes of free axes, and integers that are not only zeros, with which all models run.

    Args:
        interface: that the models share.
        run: runs all models on arrays at a batch size.

    Raises:
        NoInputs: nothing that was tried runs.
    """
    size = interface.fixed_batch or 1
    first: Failed | None = None
    end = monotonic() + TRIAL_SECONDS

    def works(found: GeneratedInputs) -> bool:
        nonlocal first
        try:
            run(found.arrays(size), size)
        except Failed as error:
            first = first or error
            return False
        return True

    whole = [tensor for tensor in interface.inputs if tensor.datatype not in FLOATS and _known_value(tensor) is None]
    for sizes in _size_plans(interface):
        found = GeneratedInputs(interface, sizes, {each.name: LARGEST_INTEGERS[0] for each in whole},
                                interface.batch_axes)  # fmt: skip
        if works(found):
            return found
        zeros = GeneratedInputs(interface, sizes, {}, interface.batch_axes)
        if whole and works(zeros):
            return _with_integers(zeros, whole, works)
        if monotonic() > end:
            break
    raise NoInputs(str(first))


def _with_integers(
    found: GeneratedInputs, tensors: Sequence[GraphTensor], works: Callable[[GeneratedInputs], bool]
) -> GeneratedInputs:
    """Give each input of integers the largest values with which the models still run."""
    for tensor in tensors:
        for largest in LARGEST_INTEGERS[:-1]:
            larger = GeneratedInputs(
                found.interface, found.sizes, {**found.largest, tensor.name: largest}, found.batch_axes
            )
            if works(larger):
                found = larger
                break
    return found


def _size_plans(interface: Interface) -> Iterator[Sizes]:
    """Sizes of the free axes that are not the batch, in the order in which they are tried."""
    seen: list[Sizes] = []
    for attempt in range(max(map(len, (IMAGE_SIZES, TOKENS, SAMPLES, OTHER_SIZES)))):
        sizes = _sizes(interface, attempt)
        if sizes not in seen:
            seen.append(sizes)
            yield sizes


def _sizes(interface: Interface, attempt: int) -> Sizes:
    sizes: dict[AxisKey, int] = {}
    for tensor in interface.inputs:
        batch = interface.batch_axes.get(tensor.name)
        for axis, size in enumerate(tensor.shape):
            if axis != batch and not isinstance(size, int):
                sizes.setdefault(_key(tensor, axis), _size(tensor, axis, attempt))
    for key in sizes:  # an axis such as "past + sequence" has the size of both
        parts = key.split(" + ") if isinstance(key, str) else []
        known = [int(part) if part.isdigit() else sizes.get(part) for part in parts]
        if len(parts) > 1 and None not in known:
            sizes[key] = sum(each for each in known if each is not None)
    return sizes


def _size(tensor: GraphTensor, axis: int, attempt: int) -> int:
    """The size to try for a free axis, by the kind of tensor that its rank and datatype suggest."""
    rank = len(tensor.shape)
    if rank == 4:
        last = tensor.shape[3] in CHANNELS and tensor.shape[1] not in CHANNELS
        rows = 1 if last else 2  # the axis of an image's rows
        if axis in (rows, rows + 1):
            return _at(IMAGE_SIZES, attempt)[axis - rows]
        return 3
    if tensor.datatype in FLOATS:
        return _at(SAMPLES if rank < 3 else OTHER_SIZES, attempt)
    return _at(TOKENS, attempt)


def _at(values: Sequence[T], attempt: int) -> T:
    return values[min(attempt, len(values) - 1)]


def _key(tensor: GraphTensor, axis: int) -> AxisKey:
    name = tensor.shape[axis]
    return name if isinstance(name, str) else (tensor.name, axis)


def _known_value(tensor: GraphTensor) -> int | None:
    """The value of an input whose name says it: a mask of ones, a sample rate; else None."""
    if tensor.datatype in FLOATS or tensor.datatype in {BOOL, BYTES}:
        return None
    if tensor.name.lower() in SAMPLE_RATES:
        return SAMPLE_RATE if DTYPES[tensor.datatype].itemsize > 1 else None
    return 1 if "mask" in tensor.name.lower() else None
