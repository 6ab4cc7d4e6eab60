"""Examples of a confusion matrix: the first rows behind each cell of wrong predictions."""

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 12  # rows of a cell


def wrong_rows(true: NDArray[Any], predicted: NDArray[Any]) -> list[dict[str, Any]]:
    """List the cells of wrong predictions with their first rows, as fields of `WrongRows`.

    Args:
        true: positions (n,) of the true classes.
        predicted: positions (n,) of the predicted ones.
    """
    cells: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for row in np.flatnonzero(true != predicted).tolist():
        rows = cells[int(true[row]), int(predicted[row])]
        if len(rows) < MOST:
            rows.append(row)
    return [{"true": i, "predicted": j, "rows": rows} for (i, j), rows in sorted(cells.items())]
