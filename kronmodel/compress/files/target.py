"""What a compression of an ONNX file has to reach, and how."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kronmodel.compress.graphs.network import Progress
from kronmodel.compress.matrices.structures import KINDS, Kind
from kronmodel.errors import Argument, Message

__all__ = ["Distillation", "Settings", "Target"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the result has to reach; one of these, or none to quantise only.

    Attributes:
        ratio: size of the original divided by that of the result.
        max_bytes: greatest size of the result.
        max_drop: greatest loss of accuracy in percentage points, or without labels of agreement with the original.

    Raises:
        ValueError: a value is out of range, or there are several.
    """

    ratio: float | None = None
    max_bytes: int | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        names = {"target_ratio": self.ratio, "max_bytes": self.max_bytes, "max_drop": self.max_drop}
        if sum(value is not None for value in names.values()) > 1:
            several = [Argument(name) for name in names]
            raise ValueError(
                Message("only one of ", several[0], ", ", several[1], " and ", several[2], " can be given")
            )
        if self.ratio is not None and not (math.isfinite(self.ratio) and self.ratio > 1):
            raise ValueError(Message(Argument("target_ratio"), f" must be greater than 1, got {self.ratio}"))
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ValueError(Message(Argument("max_bytes"), f" must be at least 1, got {self.max_bytes}"))
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ValueError(Message(Argument("max_drop"), f" must be from 0 to 100, got {self.max_drop}"))

    @property
    def is_given(self) -> bool:
        """Whether there is something to reach."""
        return (self.ratio, self.max_bytes, self.max_drop) != (None, None, None)

    def bytes_of(self, size: int) -> int | None:
        """Return the greatest size of the result for an original of a size; None if the quality is the target."""
        return self.max_bytes if self.ratio is None else max(int(size / self.ratio), 1)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a compression goes about it.

    Attributes:
        structures: kinds of structures to consider.
        allow_slower: also replace layers by structures that are measured to be slower.
        tune_steps: most steps of training all new weights together on the samples; 0 for none.
        seconds: duration of the measurement of all variants at one number of samples.
        progress: called as the work goes on.
        report: called with messages for the user.
    """

    structures: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind != "dense")
    allow_slower: bool = False
    tune_steps: int = 1000
    seconds: float = 1.0
    progress: Progress = lambda step, done, total: None
    report: Callable[[str], None] = lambda message: None


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How the new weights of a compressed model are trained to give the original's outputs.

    Attributes:
        epochs: passes over the training samples of the data.
        label_weight: weight of the labels' loss beside that of the original's outputs, from 0 to 1; without labels, the
            original's outputs alone count.
        shift: largest random shift of an image in pixels. If this and the next three are None, those of the original's
            training, if its card names them, or else of the default recipe; or none, if a short trial without any
            comes nearer to the original's outputs.
        rotate: largest rotation in degrees, likewise.
        zoom: largest stretch as a fraction, likewise.
        flip: mirror half of the images, likewise.
        checkpoint: folder of the checkpoints; None for ``.checkpoints`` in the model repository.
        resume: continue from the checkpoints of an interrupted distillation, if there are any.

    Raises:
        ValueError: a value is out of range.
    """

    epochs: int = 1
    label_weight: float = 0.3
    shift: float | None = None
    rotate: float | None = None
    zoom: float | None = None
    flip: bool | None = None
    checkpoint: Path | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(Message(Argument("distill"), f" must be at least 1 epoch, got {self.epochs}"))
        if not 0 <= self.label_weight <= 1:
            raise ValueError(Message(Argument("label_weight"), f" must be from 0 to 1, got {self.label_weight}"))

    @property
    def changes(self) -> dict[str, float]:
        """The changes of images that are given."""
        found = {name: getattr(self, name) for name in ("shift", "rotate", "zoom", "flip")}
        return {name: value for name, value in found.items() if value is not None}
