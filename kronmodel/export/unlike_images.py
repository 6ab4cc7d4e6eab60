"""Images that are made of training images, like them and unlike them: examples for the detector in ``novelty.py``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["moved_images", "unlike_images"]

STROKES = 4  # at most, of a drawing
POINTS = 16  # along a stroke
INK = 0.3  # grey level of what is drawn in an image
CHUNK = 100

Images = NDArray[np.float32]
Random = np.random.Generator


def unlike_images(images: Images, count: int, random: Random) -> Images:
    """Make images that are mostly unlike training images, in five ways.

    Two images joined along a line; one laid over another; one that is mirrored or turned; one with a part erased; and
    drawings of two to four strokes.

    Args:
        images: grey levels ``(n, height, width)`` from 0 to 1.
        count: number of images to make.
        random: source of random numbers.

    Returns:
        ``(count, height, width)``, float32.
    """
    each = -(-count // 5)

    def some(moved: float = 0) -> Images:
        chosen = images[random.integers(0, len(images), each)]
        return moved_images(chosen, round(moved * min(images.shape[1:])), random) if moved else chosen

    made = [
        np.where(_side(images, each, random, -0.1, 0.1), some(), some(0.1)),
        np.maximum(some(), some(0.15)),
        _turned(some()),
        np.where(_side(images, each, random, -0.03, 0.18), np.float32(0), some()),
        _drawings(images, each, random),
    ]
    return np.concatenate(made)[random.permutation(5 * each)[:count]]


def moved_images(images: Images, most: int, random: Random) -> Images:
    """Move each image by up to ``most`` pixels along each axis."""
    count, height, width = images.shape
    padded = np.pad(images, ((0, 0), (most, most), (most, most)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (1, 2))
    down, right = random.integers(0, 2 * most + 1, (2, count))
    found: Images = windows[np.arange(count), down, right]
    return found


def _side(images: Images, count: int, random: Random, low: float, high: float) -> NDArray[np.bool_]:
    """Choose a line through each of ``count`` images, near the centre, and return the pixels on one side of it."""
    height, width = images.shape[1:]
    y, x = np.mgrid[:height, :width]
    angle, offset = random.uniform(0, 2 * np.pi, (count, 1, 1)), random.uniform(low, high, (count, 1, 1))
    found: NDArray[np.bool_] = np.cos(angle) * (x - (width - 1) / 2) + np.sin(angle) * (
        y - (height - 1) / 2
    ) > offset * min(height, width)
    return found


def _turned(images: Images) -> Images:
    """Mirror a part of the images, and turn the others; those that are not square only by half a turn."""
    ways: list[Callable[[Images], Images]] = [lambda x: x[:, :, ::-1], lambda x: x[:, ::-1], lambda x: x[:, ::-1, ::-1]]
    if images.shape[1] == images.shape[2]:
        ways += [lambda x: x.transpose(0, 2, 1), lambda x: np.rot90(x, 1, (1, 2)), lambda x: np.rot90(x, 3, (1, 2))]
    return np.concatenate([way(part) for way, part in zip(ways, np.array_split(images, len(ways)), strict=True)])


def _drawings(images: Images, count: int, random: Random) -> Images:
    """Draw lines and arcs between the points of a 3x3 grid, each drawing of the size and at the place of an image."""
    height, width = images.shape[1:]
    start, end = (
        random.integers(0, 3, (count, STROKES, 2)) / 2 + random.normal(0, 0.04, (count, STROKES, 2)) for _ in "ab"
    )
    joined = random.random((count, STROKES, 1)) < 0.65
    for stroke in range(1, STROKES):
        start[:, stroke] = np.where(joined[:, stroke], end[:, stroke - 1], start[:, stroke])
    bend = random.normal(0, 0.38, (count, STROKES, 2)) * (random.random((count, STROKES, 1)) < 0.4)
    t = np.linspace(0, 1, POINTS)[:, None]
    points = start[:, :, None] * (1 - t) + end[:, :, None] * t + 2 * t * (1 - t) * bend[:, :, None]
    absent = np.arange(STROKES) >= random.integers(2, STROKES + 1, (count, 1))
    points = np.where(absent[:, :, None, None], points[:, :1], points).reshape(count, -1, 2)
    points[:, :, 1] *= random.uniform(0.5, 1, (count, 1))
    model = images[random.integers(0, len(images), count)]
    size = np.maximum(*(_extent(np.asarray(model.max(axis) > INK)) for axis in (2, 1)))
    radius = random.uniform(0.03, 0.13, count) * size
    scale = np.maximum(size - 2 * radius, 1) / np.maximum(np.ptp(points, 1).max(1), 0.3)
    points *= scale[:, None, None]
    total = np.maximum(model.sum((1, 2)), 1e-6)
    centre = np.stack([(model.sum(axis) * np.arange(side)).sum(1) for axis, side in ((2, height), (1, width))], 1)
    points += (centre / total[:, None] - points.mean(1))[:, None]
    found = np.empty((count, height, width), np.float32)
    for first in range(0, count, CHUNK):
        part = slice(first, first + CHUNK)
        down, across = (
            (np.arange(side, dtype=np.float32) - points[part, :, axis : axis + 1].astype(np.float32)) ** 2
            for axis, side in enumerate((height, width))
        )  # (chunk, points, side)
        distance = np.sqrt((down[:, :, :, None] + across[:, :, None]).min(1))
        found[part] = np.clip(radius[part, None, None] + 0.5 - distance, 0, 1)
    return found


def _extent(marked: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Length from the first to the last marked place of each row ``(n, side)``."""
    found: NDArray[np.intp] = marked.shape[1] - marked.argmax(1) - marked[:, ::-1].argmax(1)
    return found
