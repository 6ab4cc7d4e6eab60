"""How images are changed at random in training; what changes them is in ``augmenter.py``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Augmentation"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far the images of a batch are changed at random, each by itself. All zero changes nothing.

    Attributes:
        shift: most pixels up, down, left or right.
        rotate: most degrees, either way.
        zoom: most that height and width are stretched or shrunk, each by a factor of its own, as a share.
        flip: mirror half of the images, left to right.

    Raises:
        ValueError: a value outside its range.
    """

    shift: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        for name, unit, most in (("shift", "pixels", 1024), ("rotate", "degrees", 180), ("zoom", "as a share", 0.9)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"{name} must be between 0 and {most} ({unit}), got {value!r}")

    def __bool__(self) -> bool:
        return bool(self.shift or self.rotate or self.zoom or self.flip)
