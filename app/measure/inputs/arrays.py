"""Arrays for the inputs of models under test: rows that are repeated or cut to a batch.

Imports numpy only, since the measuring processes import it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

INDEX_NAME = "index.json"
LABELS_NAME = "labels.npy"

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class InputArrays:
    """An array for each input of a graph.

    Args:
        arrays: by name of the input, with the rows on the axis of the batch.
        batch_axes: that axis by name; an input without one gets its array unchanged in every run.
    """

    arrays: Mapping[str, Array]
    batch_axes: Mapping[str, int]

    @property
    def rows(self) -> int:
        """Number of rows; 1 where no input has a batch."""
        return next((self.arrays[name].shape[axis] for name, axis in self.batch_axes.items()), 1)

    def batch(self, size: int, start: int = 0) -> dict[str, Array]:
        """The rows from `start` on, as many as `size`; after the last row follows the first one."""
        index = np.arange(start, start + size) % self.rows
        return {
            name: np.take(array, index, self.batch_axes[name]) if name in self.batch_axes else np.asarray(array)
            for name, array in self.arrays.items()
        }

    def save(self, folder: Path, labels: Array | None = None) -> None:
        """Write the arrays, and labels of the rows, into a folder for measuring processes."""
        folder.mkdir(exist_ok=True)
        for index, array in enumerate(self.arrays.values()):
            np.save(folder / f"{index}.npy", array, allow_pickle=False)
        if labels is not None:
            np.save(folder / LABELS_NAME, labels, allow_pickle=False)
        (folder / INDEX_NAME).write_text(json.dumps({"names": list(self.arrays), "axes": dict(self.batch_axes)}))

    @classmethod
    def load(cls, folder: Path) -> "InputArrays":
        """Map the arrays that `save` wrote; only the rows that are used take memory."""
        index = json.loads((folder / INDEX_NAME).read_text())
        files = (folder / f"{position}.npy" for position in range(len(index["names"])))
        arrays = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
        return cls(dict(zip(index["names"], arrays, strict=True)), index["axes"])


def load_labels(folder: Path) -> Array | None:
    """The labels that `InputArrays.save` wrote; None where there are none."""
    path = folder / LABELS_NAME
    return np.load(path, allow_pickle=False) if path.exists() else None
