"""The detector beside a model of images, `novelty.npz`: marks images that are unlike the training images.

The file is untrusted: sizes are checked before arrays are allocated. `kronmodel/export/novelty.py` writes it, and
defines the histogram of edges, the distance and the network that are computed here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.models.samples import SamplesError, read_arrays

FILE_NAME = "novelty.npz"
MAX_BYTES = 16 * 2**20
MAX_COMPONENTS = 64
MAX_WIDTH = 1024  # of the network's hidden layer
DIRECTIONS = 8
CELLS = 5  # along each side of the image
FEATURES = DIRECTIONS * CELLS * CELLS

Rows = NDArray[np.float32]
_ANGLES = (2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS).astype(np.float32)[:, None, None]
_COS, _SIN = np.cos(_ANGLES), np.sin(_ANGLES)


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """Detector of images that are unlike the training images.

    Args:
        shape: channels, height and width of an image.
        means: mean histogram of each class (classes, 200).
        components: principal components of each class (classes, k, 200).
        limits: squared distance from which an image is unlike a class (classes,).
        hidden: weights of the network's hidden layer (200, width).
        bias: its biases (width,).
        output: weights of the network's output (width,).
        limit: output from which an image is unlike the training images ().
    """

    shape: tuple[int, int, int]
    means: Rows
    components: Rows
    limits: Rows
    hidden: Rows
    bias: Rows
    output: Rows
    limit: Rows

    @classmethod
    def read(cls, path: Path, shape: tuple[int, ...]) -> "Novelty":
        """Read the detector for images of a shape: rows and columns, with channels in front of them or not.

        Raises:
            SamplesError: the file cannot be read, is too large, or does not fit such images.
        """
        names = ["means", "components", "limits", "hidden", "bias", "output", "limit"]
        arrays = read_arrays(path, names, MAX_BYTES)
        means, components, limits, hidden = arrays[:4]
        width = hidden.shape[1] if hidden.ndim == 2 else 0
        classes, parts = len(means) if means.ndim else 0, components.shape[1] if components.ndim == 3 else 0
        expected = [
            (classes, FEATURES),
            (classes, parts, FEATURES),
            (classes,),
            (FEATURES, width),
            (width,),
            (width,),
            (),
        ]
        got = [array.shape for array in arrays]
        if got != expected or not classes or parts > MAX_COMPONENTS or width > MAX_WIDTH:
            most = f"{MAX_COMPONENTS} components and a width of {MAX_WIDTH}"
            raise SamplesError(f"got arrays of shapes {got}, expected {expected} with at most {most}")
        if any(array.dtype.kind != "f" or not np.isfinite(array).all() for array in arrays) or limits.min() <= 0:
            raise SamplesError("got values that are not finite numbers, or limits that are not positive")
        channels, height, width = shape if len(shape) == 3 else (1, *shape)
        if min(height, width) < CELLS:
            raise SamplesError(f"got images of {height}x{width}, expected at least {CELLS}x{CELLS}")
        return cls((channels, height, width), *(np.array(array, np.float32, order="C") for array in arrays))

    def unlike(self, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell for each row (n, ...) whether its image is unlike the training images."""
        images = rows.reshape(len(rows), *self.shape).mean(1, dtype=np.float32)
        found = edge_histograms(images)
        nearest = np.full(len(rows), np.inf, np.float32)
        for mean, components, limit in zip(self.means, self.components, self.limits, strict=True):
            offset = found - mean
            residual = (offset**2).sum(1) - ((offset @ components.T) ** 2).sum(1)
            np.minimum(nearest, residual / limit, out=nearest)
        scores = np.maximum(found @ self.hidden + self.bias, 0) @ self.output
        marks: NDArray[np.bool_] = (nearest > 1) | (scores > self.limit)
        return marks


def edge_histograms(images: Rows) -> Rows:
    """Compute the histograms (n, 200) of the directions of edges of grey images (n, height, width) from 0 to 1."""
    x = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    across, down = x[:, :, 2:] - x[:, :, :-2], x[:, 2:] - x[:, :-2]
    across = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    along = np.maximum(across[:, None] * _COS + down[:, None] * _SIN, 0)  # (n, 8, height, width)
    strength = np.maximum(np.hypot(across, down), np.float32(1e-3))[:, None]
    cosine = along / strength
    narrow = along * (cosine * cosine * cosine)  # many times faster than a power
    rows, columns = (np.arange(CELLS) * side // CELLS for side in images.shape[1:])
    cells = np.add.reduceat(np.add.reduceat(narrow, rows, axis=2), columns, axis=3)
    roots = np.sqrt(cells).reshape(len(images), -1)
    found: Rows = roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), np.float32(1e-6))
    return found
