"""Publication of a compressed model beside its original: names, model cards, samples and files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from kronmodel.compress.graphs.loading import PUBLISHED
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.errors import KronmodelError
from kronmodel.export.c.figures import c_figures
from kronmodel.export.card import read_card, set_card
from kronmodel.export.novelty import FILE_NAME as NOVELTY_NAME
from kronmodel.export.repository import Publication, check_name, publish
from kronmodel.export.saved import CONFIG_NAME, WEIGHTS_NAME

__all__ = ["Names", "publish_pair"]

FOR_BOTH = (NOVELTY_NAME,)  # depends on the training images alone
OF_THE_ORIGINAL = (CONFIG_NAME, WEIGHTS_NAME)  # the network for PyTorch
SAMPLES = 100  # published with a model whose original has none


class Names:
    """Names of a compressed model and its original in the model repository.

    Args:
        source: path of the original.
        repository: model repository.
        name: name of the original; None takes that of its folder in the repository, else its file's.

    Attributes:
        original: name of the original.
        published: path of the original if the repository holds it already, else None.

    Raises:
        ValueError: the name is not valid for a model.
    """

    def __init__(self, source: Path, repository: Path, name: str | None) -> None:
        folder = source.resolve().parent
        inside = (
            source.name == "model.onnx" and folder.name.isdecimal() and folder.parent.parent == repository.resolve()
        )
        self.published = source if inside else None
        versioned = source.name == "model.onnx" and folder.name.isdecimal()
        base = folder.parent.name if versioned else source.stem
        self.original = folder.parent.name if inside else check_name(name or _valid(base))
        self._base = name or self.original
        check_name(self.variant("compressed-int8-static"))

    def variant(self, suffix: str) -> str:
        """Return the name of a variant of the model, such as ``mnist-dense-compressed``."""
        return f"{self._base}-{suffix}"


def _valid(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("._-")[:60] or "model"


def publish_pair(
    workspace: Workspace,
    source: Path,
    names: Names,
    *,
    repository: Path,
    variant: tuple[str, Path],
    described: Mapping[str, Any],
    test: Samples | None,
) -> tuple[Path, Path]:
    """Publish a compressed model, and its original unless the repository has it; both or none.

    Args:
        workspace: temporary folder.
        source: path of the original.
        names: names of both.
        repository: model repository.
        variant: name and file of the compressed model.
        described: fields of the compressed model's card that differ from its original's.
        test: samples with labels, published if none lie beside the original.

    Returns:
        Paths of the original and of the compressed model in the repository.
    """
    card = _card(workspace.model)
    twin = str(card.get("twin") or names.original)
    of = {"of": names.original, "of_sha256": _sha256(source)}
    whole = onnx.load(variant[1])
    samples = _samples(source, test)
    figures = c_figures(whole, source if samples["inputs"] is None else samples["inputs"])
    set_card(whole, _compressed_card(card, variant[0], twin, {**described, **of, **figures}))
    samples["files"] |= _beside(source, FOR_BOTH)
    small = Publication(name=variant[0], model=whole, **samples)
    if names.published is not None:
        (path,) = publish([small], repository)
        return names.published, path
    original = _copy_with_card(workspace, source, card, names.original, twin)
    folder = source.parent.resolve()
    weights = {str(path.relative_to(folder)): path for path in workspace.data_files}
    samples["files"] = {**weights, **_beside(source, OF_THE_ORIGINAL), **samples["files"]}
    first, second = publish([Publication(name=names.original, model=original, **samples), small], repository)
    return first, second


def _card(model: onnx.ModelProto) -> dict[str, Any]:
    """Read the original's card; a damaged one counts as none."""
    try:
        return read_card(model) or {}
    except KronmodelError:
        return {}


def _compressed_card(card: Mapping[str, Any], name: str, twin: str, described: Mapping[str, Any]) -> dict[str, Any]:
    """Build the card of a compressed model: the original's, without what is not true for it."""
    kept = ("task", "activation", "input", "preprocessing", "labels", "data", "novelty")
    return {
        "card_version": 1,
        "name": name,
        "twin": twin,
        "role": "compressed",
        **{key: card[key] for key in kept if key in card},
        **described,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _copy_with_card(workspace: Workspace, source: Path, card: Mapping[str, Any], name: str, twin: str) -> Path:
    """Return the original's file; for one without a card, a copy with a card behind its unchanged bytes.

    A protobuf message that follows another is merged into it, so that the card becomes one more entry of the metadata.
    """
    if card:
        return source
    elements = sum(int(np.prod(tensor.dims)) for tensor in workspace.model.graph.initializer)
    addition = onnx.ModelProto()
    set_card(addition, {"card_version": 1, "name": name, "twin": twin, "role": "original", "parameters": elements})
    path = workspace.folder / "original-with-card.onnx"
    with source.open("rb") as before, path.open("wb") as file:
        while part := before.read(1 << 20):
            file.write(part)
        file.write(addition.SerializeToString())
    return path


def _samples(source: Path, test: Samples | None) -> dict[str, Any]:
    """Return the samples to publish: those beside the original, else test samples with labels."""
    nothing: dict[str, Any] = {"inputs": None, "labels": None, "files": {}}
    beside = _beside(source, (PUBLISHED,))
    if beside:
        return {**nothing, "files": beside}
    if test is None or test.labels is None or len(test.arrays) != 1 or test.constant or test.by_call:
        return nothing
    (inputs,) = test.arrays.values()
    if inputs.dtype != np.float32:
        return nothing
    return {"inputs": inputs[:SAMPLES], "labels": test.labels[:SAMPLES], "files": {}}


def _beside(source: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return those of some files that lie beside the original, by name."""
    paths = {name: source.with_name(name) for name in names}
    return {name: path for name, path in paths.items() if path.is_file()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
