"""Network of matrices as the compression sees it, so that torch modules and ONNX graphs share its code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kronmodel.compress.matrices.candidates import Fitted, MatrixLayer
from kronmodel.compress.matrices.fitting import LayerData

__all__ = ["MatrixNetwork"]


class MatrixNetwork(Protocol):
    """Protocol of a network whose layers are replaced: implemented for torch modules and for ONNX graphs.

    Attributes:
        layers: layers that may be replaced, in the order in which the network computes them.
    """

    layers: Sequence[MatrixLayer]

    def data_of(self, index: int) -> LayerData | None:
        """Collect the moments of a layer: inputs as the network computes them with the replacements made so far.

        Targets are the layer's outputs in the original network. The samples are run in batches, and only the moments
        are kept.

        Returns:
            The moments of the samples to fit and of held-out ones; None if there are no samples.
        """
        ...

    def replace(self, index: int, fitted: Fitted | None) -> None:
        """Replace a layer by a fitted one, or restore the original layer."""
        ...

    def output_error(self) -> float | None:
        """Measure the root mean square of the change of the network's outputs on held-out samples, relative to them.

        Returns:
            The error with the replacements made so far; None if there are no samples.
        """
        ...
