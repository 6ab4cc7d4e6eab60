"""Patches of a convolution's input: the rows that its weight, as a matrix, is applied to."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.compress.graphs.layers import Use

__all__ = ["patches"]


def patches(
    images: NDArray[Any], use: Use, kernel: tuple[int, ...], most: int, rng: np.random.Generator
) -> tuple[NDArray[Any], int]:
    """Cut out the patches that a convolution multiplies by its weight, of which some are drawn at random.

    Args:
        images: input of the convolution, ``(n, channels, *size)``.
        use: the convolution, with its strides, dilations and padding.
        kernel: shape of the kernel.
        most: most patches; of more, as many are drawn.
        rng: draws them.

    Returns:
        Patches ``(rows, channels * prod(kernel))``, and the number of patches before the draw.
    """
    axes = len(kernel)
    strides = use.attribute("strides", None) or [1] * axes
    dilations = use.attribute("dilations", None) or [1] * axes
    before, after = _padding(images.shape[2:], use, kernel, strides, dilations)
    padded = np.pad(images, ((0, 0), (0, 0), *zip(before, after, strict=True)))
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    sizes = [(size - need) // stride + 1 for size, need, stride in zip(padded.shape[2:], reach, strides, strict=True)]
    shape = (len(images), *sizes)
    count = int(np.prod(shape))
    chosen = np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
    sample, *corner = np.unravel_index(chosen, shape)
    rows: NDArray[Any] = np.empty((len(chosen), images.shape[1], *kernel), images.dtype)
    for offset in itertools.product(*map(range, kernel)):
        at = tuple(
            np.asarray(place) * stride + step * dilation
            for place, stride, step, dilation in zip(corner, strides, offset, dilations, strict=True)
        )
        target: tuple[Any, ...] = (slice(None), slice(None), *offset)
        rows[target] = padded[(np.asarray(sample), slice(None), *at)]
    return rows.reshape(len(chosen), -1), count


def _padding(
    sizes: tuple[int, ...], use: Use, kernel: tuple[int, ...], strides: list[int], dilations: list[int]
) -> tuple[list[int], list[int]]:
    """Return the zeros before and after each axis."""
    mode = use.attribute("auto_pad", b"NOTSET").decode()
    axes = len(kernel)
    if mode in ("NOTSET", ""):
        pads = list(use.attribute("pads", None) or [0] * (2 * axes))
        return pads[:axes], pads[axes:]
    if mode == "VALID":
        return [0] * axes, [0] * axes
    before, after = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return before, after
