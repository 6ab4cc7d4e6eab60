"""Detection of images that are unlike the training images, by the directions of their edges.

A classifier picks one of its classes for any image, often with a high probability. The detector beside a model,
``novelty.npz``, marks an image whose histogram of edges is far from the principal components of all classes, or which a
small network tells from training images: it learned that on images that are made of them, see ``unlike_images.py``.
``app/models/novelty.py`` computes the same.
"""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kronmodel.data.dataset import Dataset
from kronmodel.export.unlike_images import moved_images, unlike_images
from kronmodel.training.device import cpu_threads

__all__ = ["FILE_NAME", "Novelty", "edge_histograms"]

FILE_NAME = "novelty.npz"
DIRECTIONS = 8
CELLS = 5  # along each side of the image
COMPONENTS = 8  # of each class
WIDTH = 128  # of the hidden layer
NEAR = 0.999  # fraction of held-out training images that the limit of the distance leaves unmarked
MARKED, SLACK = 0.02, 12  # fraction of them that the network's limit marks, less a number: few say little about others
FITTED = 15_000  # largest number of training images for the network
OTHERS = 1.5  # images that are made, for each of them
HELD_OUT = 5_000  # largest number of further ones for the limit
MIN_HELD_OUT = 200
MIN_OF_CLASS = 30
MAX_CLASSES = 100
CHUNK = 500
EPOCHS, MAX_STEPS, BATCH, LEARNING_RATE = 20, 1200, 256, 1e-2
GAIN = 4.0  # of the histograms' values, which are small, in the training

Floats = NDArray[np.float32]


class Novelty:
    """Detector of images that are unlike the training images.

    Args:
        means: mean histogram of each class ``(classes, features)``.
        components: principal components of each class ``(classes, k, features)``, orthonormal rows.
        limits: squared distance of each class's subspace from which an image is unlike that class ``(classes,)``.
        hidden: weights of the network's hidden layer ``(features, width)``.
        bias: its biases ``(width,)``.
        output: weights of the network's output ``(width,)``.
        limit: output from which an image is unlike the training images, ``()``.
    """

    def __init__(
        self,
        *,
        means: Floats,
        components: Floats,
        limits: Floats,
        hidden: Floats,
        bias: Floats,
        output: Floats,
        limit: Floats,
    ) -> None:
        self.means, self.components, self.limits = means, components, limits
        self.hidden, self.bias, self.output, self.limit = hidden, bias, output, limit

    @classmethod
    def fit(cls, data: Dataset, seed: int = 0) -> Novelty | None:
        """Fit a detector to training images; None if they are no images of classes, or too few.

        The limits are quantiles of training images that nothing else is fitted to. Test images are not used.
        """
        images = _images(data, data.x_train)
        classes = len(data.labels)
        if images is None or not 2 <= classes <= MAX_CLASSES or min(images.shape[1:]) < CELLS:
            return None
        random = np.random.default_rng(seed)
        order = random.permutation(len(images))
        held_out, fitted = np.split(order, [min(HELD_OUT, len(order) // 3)])
        fitted = fitted[:FITTED]
        labels = data.y_train[fitted]
        if len(held_out) < MIN_HELD_OUT or np.bincount(labels, minlength=classes).min() < MIN_OF_CLASS:
            return None
        histograms = edge_histograms(images[fitted])
        parts = [_subspace(histograms[labels == each]) for each in range(classes)]
        means, components, spreads = (np.stack(each).astype(np.float32) for each in zip(*parts, strict=True))
        components = components.astype(np.float16).astype(np.float32)  # as they are stored
        others = edge_histograms(unlike_images(images[fitted], round(OTHERS * len(fitted)), random))
        if 2 * len(fitted) <= FITTED:
            histograms = np.concatenate([histograms, edge_histograms(moved_images(images[fitted], 1, random))])
        with cpu_threads(1):  # several would wait for each other most of the time
            hidden, bias, output = _train(histograms, others, random)
        found = cls(
            means=means,
            components=components,
            limits=spreads,
            hidden=hidden,
            bias=bias,
            output=output,
            limit=np.zeros((), np.float32),  # set below, by the scores of the network above
        )
        unseen = edge_histograms(images[held_out])
        found.limits = (spreads * np.quantile(found.distances(unseen), NEAR)).astype(np.float32)
        marked = max(1.0, MARKED * len(unseen) - SLACK)
        found.limit = np.asarray(np.quantile(found.scores(unseen), 1 - marked / len(unseen)), np.float32)
        return found

    def distances(self, histograms: Floats) -> Floats:
        """Return the distance of each row ``(n, features)`` from the nearest class; 1 is the limit."""
        found = []
        for mean, components, limit in zip(self.means, self.components, self.limits, strict=True):
            offset = histograms - mean  # (n, features)
            residual = (offset**2).sum(1) - ((offset @ components.T) ** 2).sum(1)  # (n,)
            found.append(residual / limit)
        nearest: Floats = np.min(found, axis=0)
        return nearest

    def scores(self, histograms: Floats) -> Floats:
        """Return the output of the network for each row ``(n, features)``."""
        found: Floats = np.maximum(histograms @ self.hidden + self.bias, 0) @ self.output
        return found

    def unlike(self, images: Floats) -> NDArray[np.bool_]:
        """Tell for each image ``(n, height, width)`` whether it is unlike the training images."""
        histograms = edge_histograms(images)
        found: NDArray[np.bool_] = (self.distances(histograms) > 1) | (self.scores(histograms) > self.limit)
        return found

    def marked(self, data: Dataset, rows: Floats) -> float:
        """Return the fraction of a data set's rows ``(n, width)`` that are marked as unlike the training images."""
        images = _images(data, rows)
        return 0.0 if images is None else float(self.unlike(images).mean())

    def to_bytes(self) -> bytes:
        """Write the content of ``novelty.npz``."""
        file = io.BytesIO()
        halved = {name: getattr(self, name).astype(np.float16) for name in ("components", "hidden")}
        np.savez_compressed(file, **vars(self) | halved)
        return file.getvalue()


def _train(like: Floats, unlike: Floats, random: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Train a network with a hidden layer to tell histograms of two kinds apart; return its weights."""
    rows = torch.from_numpy(GAIN * np.concatenate([like, unlike]))
    truth = torch.cat([torch.zeros(len(like)), torch.ones(len(unlike))])
    shapes = ((rows.shape[1], WIDTH), (WIDTH,), (WIDTH,))
    weights = [
        torch.from_numpy(random.uniform(-1, 1, shape).astype(np.float32)) / len(rows[0]) ** 0.5 for shape in shapes
    ]
    for weight in weights:
        weight.requires_grad_()
    steps = min(MAX_STEPS, max(1, EPOCHS * len(rows) // BATCH))
    optimizer = torch.optim.AdamW(weights, LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
    for _ in range(steps):
        chosen = torch.from_numpy(random.integers(0, len(rows), BATCH))
        loss = F.binary_cross_entropy_with_logits(_output(rows[chosen], *weights), truth[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    hidden, bias, output = (weight.detach().numpy() for weight in weights)
    return (GAIN * hidden).astype(np.float16).astype(np.float32), bias, output  # float16 as they are stored


def _output(rows: Tensor, hidden: Tensor, bias: Tensor, output: Tensor) -> Tensor:
    return (rows @ hidden + bias).relu() @ output


def edge_histograms(images: Floats) -> Floats:
    """Compute histograms of the directions of edges in a grid of cells.

    Args:
        images: grey levels ``(n, height, width)`` from 0 to 1.

    Returns:
        The square roots of the histograms ``(n, 8 * 25)``, each of norm 1, or 0 for an image without edges.
    """
    parts = [_edge_histograms(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
    return np.concatenate(parts)


def _edge_histograms(images: Floats) -> Floats:
    x = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    across, down = x[:, :, 2:] - x[:, :, :-2], x[:, 2:] - x[:, :-2]
    across = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]  # (n, height, width)
    down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    angles = (2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS).astype(np.float32)[:, None, None]
    along = np.maximum(across[:, None] * np.cos(angles) + down[:, None] * np.sin(angles), 0)  # (n, 8, height, width)
    strength = np.maximum(np.hypot(across, down), np.float32(1e-3))[:, None]
    cosine = along / strength
    narrow = along * (cosine * cosine * cosine)  # many times faster than a power
    rows, columns = (np.arange(CELLS) * side // CELLS for side in images.shape[1:])
    cells = np.add.reduceat(np.add.reduceat(narrow, rows, axis=2), columns, axis=3)  # (n, 8, 5, 5)
    roots = np.sqrt(cells).reshape(len(images), -1)
    norms = np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), np.float32(1e-6))
    found: Floats = (roots / norms).astype(np.float32)
    return found


def _subspace(histograms: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return mean, principal components, and mean squared distance from their subspace, of one class."""
    exact = histograms.astype(np.float64)
    mean = exact.mean(0)
    variances, directions = np.linalg.eigh(np.cov(exact - mean, rowvar=False))  # ascending
    rest = float(variances[:-COMPONENTS].sum())
    return mean, directions[:, : -COMPONENTS - 1 : -1].T, max(rest, 1e-9)


def _images(data: Dataset, rows: Floats) -> Floats | None:
    """Return rows as grey images ``(n, height, width)``; None if they are no images, or not of classes."""
    if data.image_shape is None or data.scaling is not None or data.task != "classification":
        return None
    *channels, height, width = data.image_shape
    images = rows.reshape(len(rows), *channels, height, width)
    return images.mean(1) if channels else images
