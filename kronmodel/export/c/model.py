"""ONNX models for the C export: the file, its names, and its samples."""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kronmodel.errors import ExportError
from kronmodel.export.c.network import TemplateNetwork
from kronmodel.export.c.reader import read_template_network
from kronmodel.export.card import read_card, served_name, set_card
from kronmodel.export.inspect import read_model

__all__ = ["DAMAGED", "CModel", "read_samples"]

FIGURES = ("bits", "weight_bytes", "scratch_bytes", "code_bytes", "compiler")  # of the card
DAMAGED = (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError)  # what damaged graphs raise
MAX_SAMPLES = 1024  # whose activations give the ranges


@dataclass(frozen=True, kw_only=True, eq=False)
class CModel:
    """Model for the C export.

    Attributes:
        path: of the ONNX file.
        name: of the model.
        sha256: of the ONNX file.
        card: the model card; empty if the file has none.
        network: for the templates; None if a node is none of theirs.
        reason: why there is no network; names the node.
    """

    path: Path
    name: str
    sha256: str
    card: dict[str, Any]
    network: TemplateNetwork | None
    reason: str = ""

    @classmethod
    def read(cls, path: Path) -> CModel:
        """Read an ONNX file.

        Raises:
            KronmodelError: the file can't be read, is not ONNX, or keeps weights in other files.
        """
        model = read_model(path)
        if not model.graph.node:
            raise ExportError(f"{path} is not an ONNX file: it holds no graph")
        if any(each.data_location == onnx.TensorProto.EXTERNAL for each in model.graph.initializer):
            raise ExportError(f"{path} keeps weights in other files, expected all of them in this one")
        card = read_card(model)
        network, reason = None, ""
        try:
            network = read_template_network(model, str(path))
        except ExportError as error:
            reason = str(error)
        except DAMAGED as error:
            raise ExportError(f"{path} holds a damaged graph: {' '.join(str(error).split())[:200]}") from error
        return cls(
            path=path,
            name=served_name(path, card),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            card=card or {},
            network=network,
            reason=reason,
        )

    def with_figures(self, figures: Mapping[str, Any]) -> tuple[CModel, bytes]:
        """Return the model with the sizes of its C code in the card, and the new content of its file.

        Args:
            figures: fields of the card's entry ``c``; others are left out.

        Raises:
            ExportError: the model has no card, or a list of checksums that a new card would break.
        """
        if not self.card:
            raise ExportError(f"{self.path} has no model card: leave out --card")
        checksums = self.path.with_name(f"{self.path.name}.sha256")
        if checksums.exists():
            raise ExportError(f"--card would change {self.path}, whose checksum is in {checksums}: leave out --card")
        kept = {key: figures[key] for key in FIGURES if figures.get(key) is not None}
        card = {**self.card, "c": kept}
        model = read_model(self.path)
        set_card(model, card)
        content = model.SerializeToString()
        return replace(self, card=card, sha256=hashlib.sha256(content).hexdigest()), content

    def samples(self) -> NDArray[np.float32]:
        """Read the samples beside the file, whose activations give the ranges of 8 bits.

        Raises:
            ExportError: there are none, or they don't fit.
        """
        return read_samples(self.path, () if self.network is None else self.network.front.shape)


def read_samples(path: Path, shape: Sequence[int]) -> NDArray[np.float32]:
    """Read the samples beside a model's file.

    Args:
        path: path of the ONNX file.
        shape: shape of a sample.

    Raises:
        ExportError: there are none, or they don't fit.
    """
    path = path.with_name("samples.npz")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = arrays["inputs"][:MAX_SAMPLES]
        if found.dtype.kind not in "fiub":
            raise ValueError(f"inputs are {found.dtype}")
        inputs: NDArray[np.float32] = found.astype(np.float32)
    except (
        OSError, ValueError, KeyError, EOFError, IndexError, TypeError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise ExportError(
            f"--bits needs samples for the ranges of activations: {path} can't be read ({error}); put a file there "
            "with an array `inputs` of real inputs, or export with floats, without --bits"
        ) from error
    if not len(inputs) or math.prod(inputs.shape[1:]) != math.prod(shape) or not np.isfinite(inputs).all():
        raise ExportError(f"{path}: got inputs {inputs.shape}, expected finite numbers {('n', *shape)}")
    return inputs
