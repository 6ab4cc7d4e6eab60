"""Detection of images that are unlike the training images, by the directions of their edges.

A classifier picks one of its classes for any image, often with a high probability. The detector beside a model,
``novelty.npz``, holds for each class the mean and the principal components of a histogram of edges. An image is unlike
the training images if its histogram is far from the subspaces of all classes. ``app/models/novelty.py`` computes the
same histogram.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.dataset import Dataset

__all__ = ["FILE_NAME", "Novelty", "edge_histograms"]

FILE_NAME = "novelty.npz"
DIRECTIONS = 8
CELLS = 5  # along each side of the image
COMPONENTS = 15  # of each class
QUANTILE = 0.98  # fraction of held-out training images that are not marked
FITTED = 15_000  # largest number of training images for the components
HELD_OUT = 5_000  # largest number of further ones for the limits
MIN_HELD_OUT = 200
MIN_OF_CLASS = 2 * COMPONENTS
MAX_CLASSES = 100
CHUNK = 500


class Novelty:
    """Detector of images that are unlike the training images.

    Args:
        means: mean histogram of each class ``(classes, features)``.
        components: principal components of each class ``(classes, k, features)``, orthonormal rows.
        limits: squared distance of each class's subspace from which an image is unlike that class ``(classes,)``.
    """

    def __init__(
        self, means: NDArray[np.float32], components: NDArray[np.float32], limits: NDArray[np.float32]
    ) -> None:
        self.means = means
        self.components = components
        self.limits = limits

    @classmethod
    def fit(cls, data: Dataset, seed: int = 0) -> Novelty | None:
        """Fit a detector to training images; None if they are no images of classes, or too few.

        The limits are a quantile of training images that the components were not fitted to. Test images are not used.
        """
        images = _images(data, data.x_train)
        classes = len(data.labels)
        if images is None or not 2 <= classes <= MAX_CLASSES or min(images.shape[1:]) < CELLS:
            return None
        order = np.random.default_rng(seed).permutation(len(images))
        held_out, fitted = np.split(order, [min(HELD_OUT, len(order) // 3)])
        fitted = fitted[:FITTED]
        labels = data.y_train[fitted]
        if len(held_out) < MIN_HELD_OUT or np.bincount(labels, minlength=classes).min() < MIN_OF_CLASS:
            return None
        histograms = edge_histograms(images[fitted])
        parts = [_subspace(histograms[labels == each]) for each in range(classes)]
        means, components, spreads = (np.stack(each).astype(np.float32) for each in zip(*parts, strict=True))
        components = components.astype(np.float16).astype(np.float32)  # as they are stored
        found = cls(means, components, spreads)
        limit = np.quantile(found.distances(edge_histograms(images[held_out])), QUANTILE)
        return cls(means, components, (limit * spreads).astype(np.float32))

    def distances(self, histograms: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the distance of each row ``(n, features)`` from the nearest class; 1 is the limit."""
        found = []
        for mean, components, limit in zip(self.means, self.components, self.limits, strict=True):
            offset = histograms - mean  # (n, features)
            residual = (offset**2).sum(1) - ((offset @ components.T) ** 2).sum(1)  # (n,)
            found.append(residual / limit)
        nearest: NDArray[np.float32] = np.min(found, axis=0)
        return nearest

    def marked(self, data: Dataset, rows: NDArray[np.float32]) -> float:
        """Return the fraction of a data set's rows ``(n, width)`` that are marked as unlike the training images."""
        images = _images(data, rows)
        return 0.0 if images is None else float((self.distances(edge_histograms(images)) > 1).mean())

    def to_bytes(self) -> bytes:
        """Write the content of ``novelty.npz``."""
        file = io.BytesIO()
        components = self.components.astype(np.float16)
        np.savez_compressed(file, means=self.means, components=components, limits=self.limits)
        return file.getvalue()


def edge_histograms(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute histograms of the directions of edges in a grid of cells.

    Args:
        images: grey levels ``(n, height, width)`` from 0 to 1.

    Returns:
        The square roots of the histograms ``(n, 8 * 25)``, each of norm 1, or 0 for an image without edges.
    """
    parts = [_edge_histograms(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
    return np.concatenate(parts)


def _edge_histograms(images: NDArray[np.float32]) -> NDArray[np.float32]:
    x = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    across, down = x[:, :, 2:] - x[:, :, :-2], x[:, 2:] - x[:, :-2]
    across = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]  # (n, height, width)
    down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    angles = (2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS).astype(np.float32)[:, None, None]
    along = np.maximum(across[:, None] * np.cos(angles) + down[:, None] * np.sin(angles), 0)  # (n, 8, height, width)
    strength = np.maximum(np.hypot(across, down), np.float32(1e-3))[:, None]
    narrow = along * (along / strength) ** 3
    rows, columns = (np.arange(CELLS) * side // CELLS for side in images.shape[1:])
    cells = np.add.reduceat(np.add.reduceat(narrow, rows, axis=2), columns, axis=3)  # (n, 8, 5, 5)
    roots = np.sqrt(cells).reshape(len(images), -1)
    norms = np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), np.float32(1e-6))
    found: NDArray[np.float32] = (roots / norms).astype(np.float32)
    return found


def _subspace(histograms: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return mean, principal components, and mean squared distance from their subspace, of one class."""
    exact = histograms.astype(np.float64)
    mean = exact.mean(0)
    variances, directions = np.linalg.eigh(np.cov(exact - mean, rowvar=False))  # ascending
    rest = float(variances[:-COMPONENTS].sum())
    return mean, directions[:, : -COMPONENTS - 1 : -1].T, max(rest, 1e-9)


def _images(data: Dataset, rows: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Return rows as grey images ``(n, height, width)``; None if they are no images, or not of classes."""
    if data.image_shape is None or data.scaling is not None or data.task != "classification":
        return None
    *channels, height, width = data.image_shape
    images = rows.reshape(len(rows), *channels, height, width)
    return images.mean(1) if channels else images
