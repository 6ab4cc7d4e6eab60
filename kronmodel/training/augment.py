"""Image augmentation by random shifts, rotations, zooms and flips, computed for a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kronmodel.shapes import image_of
from kronmodel.training.config import Augmentation

__all__ = ["Augmenter"]


class Augmenter:
    """Random shifts, rotations, zooms and flips of batches of images.

    Args:
        augmentation: largest random changes.
        image_shape: shape of the image in each row, ``(height, width)`` or ``(channels, height, width)``.
        features: number of values in a row: those of the image, then the padding, if there is any.
        device: device of the rows.

    Raises:
        ValueError: the data are not images.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        image_shape: Sequence[int] | None,
        features: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if image_shape is None:
            raise ValueError(f"{augmentation} is for images, got data that are none")
        self.augmentation = augmentation
        self.image = image_of(image_shape)
        self.pixels = math.prod(self.image)
        if features < self.pixels:
            raise ValueError(f"images of shape {self.image} have {self.pixels} values, got rows of {features}")
        _, height, width = self.image
        x, y = _centres(width), _centres(height)
        # torch's affine_grid computes the same grid, but takes thirty times as long.
        self._grid = torch.stack([x.repeat(height), y.repeat_interleave(width), torch.ones(height * width)]).to(device)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw random affine maps ``(count, 2, 3)`` from target to source pixels, in units of half widths and heights.

        The maps are drawn on the CPU, so that they are equal for every device. A change that is configured as zero
        draws no random numbers.
        """
        limits, (_, height, width) = self.augmentation, self.image

        def symmetric(most: float, *shape: int) -> Tensor:
            if not most:
                return torch.zeros(count, *shape)
            return most * (2 * torch.rand(count, *shape, generator=generator) - 1)

        angle = symmetric(math.radians(limits.rotate))
        scale = 1 + symmetric(limits.zoom, 2)  # of width and height
        shift = symmetric(limits.shift, 2) * torch.tensor([2 / width, 2 / height])
        if limits.flip:
            scale[:, 0] *= 1.0 - 2.0 * torch.randint(0, 2, (count,), generator=generator)
        cos, sin = angle.cos(), angle.sin()
        # Rotations are defined in pixels: terms that mix half widths and half heights need the ratio of the two.
        columns = (
            torch.stack([cos, sin * (width / height)], 1) * scale[:, :1],
            torch.stack([-sin * (height / width), cos], 1) * scale[:, 1:],
            shift,
        )
        return torch.stack(columns, 2)

    def change(self, rows: Tensor, maps: Tensor) -> Tensor:
        """Transform the images in rows ``(n, features)`` by affine maps ``(n, 2, 3)``, with bilinear interpolation.

        Pixels from outside an image are 0.
        """
        channels, height, width = self.image
        images = rows[:, : self.pixels].reshape(-1, channels, height, width)
        grid = (maps.to(rows.device) @ self._grid).transpose(1, 2).reshape(-1, height, width, 2)
        changed = F.grid_sample(images, grid, align_corners=False).reshape(len(rows), self.pixels)
        return torch.cat([changed, rows[:, self.pixels :]], 1) if rows.shape[1] > self.pixels else changed


def _centres(size: int) -> Tensor:
    """Return the coordinates of the centres of ``size`` adjacent pixels that span -1 to 1."""
    return (2 * torch.arange(size) + 1) / size - 1
