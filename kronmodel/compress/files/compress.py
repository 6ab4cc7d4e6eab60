"""Compression of an ONNX file: read, fit, quantise, check, compare, publish."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kronmodel.compress.files.checkpoints import DistillationCheckpoints, checkpoints_of, fingerprint
from kronmodel.compress.files.checks import check_format, check_model, examples
from kronmodel.compress.files.distilling import augmentation_of, check_trainable, distill_model
from kronmodel.compress.files.publication import Names, publish_pair
from kronmodel.compress.files.quantize import PRECISIONS, Precision
from kronmodel.compress.files.report import DistillationRow, GraphReport, LayerRow, VariantRow
from kronmodel.compress.files.sizing import Sizer
from kronmodel.compress.files.target import Distillation, Settings, Target
from kronmodel.compress.files.variants import Variants
from kronmodel.compress.graphs.loading import fitting_and_test, training_and_validation
from kronmodel.compress.graphs.samples import Samples, image_shape
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.data.user_file import FileOptions
from kronmodel.errors import Argument, KronmodelError, Message
from kronmodel.export.repository import check_writable, finish_publications

__all__ = ["compress_file"]

FITTING_SAMPLES = 1000
MAX_CARD_LAYERS = 200


def compress_file(
    path: Path,
    target: Target,
    *,
    data: str | None = None,
    options: FileOptions | None = None,
    samples: int = FITTING_SAMPLES,
    out: Path = Path("models"),
    name: str | None = None,
    quantize: Precision | None = None,
    distill: Distillation | None = None,
    settings: Settings | None = None,
) -> GraphReport:
    """Compress an ONNX file, compare the result with the original and its quantised variants, and publish it.

    Args:
        path: the ONNX file.
        target: size or quality to reach.
        data: name of a data set, or path of a ``.csv`` or ``.npz`` file; None takes the samples beside the file, and
            without those fits to the weights alone.
        options: how to read a file of data.
        samples: most samples to fit to.
        out: model repository.
        name: name of the original in the repository; the result's is derived from it.
        quantize: precision of the published result; None keeps the original's.
        distill: how to train the new weights on all training samples of the data; None for no training.
        settings: structures to consider, and callbacks.

    Raises:
        KronmodelError: the file, the data or a checkpoint can't be read, no layer can be compressed, the target can't
            be reached, a check of the result fails, or the repository can't be written to. Nothing is published then.
        ValueError: an argument is invalid.
    """
    settings = settings or Settings()
    _check_arguments(target, samples, quantize, distill)
    named = Names(path, out, name)
    check_writable(out)
    for version in finish_publications(out):
        settings.report(f"{version.parent.name} version {version.name} is published now: its process was killed before")
    with Workspace(path) as workspace, ExitStack() as opened:
        check_format(workspace.model, path)
        messages: list[str] = []
        loaded = fitting_and_test(
            workspace.model, path, data, options or FileOptions(), count=samples, report=settings.report
        )
        if loaded is None:
            messages.append("without samples, layers are fitted to their weights alone, which costs much accuracy")
            settings.report(f"{messages[0]}: give --data")
        if distill is not None:
            if loaded is None:
                raise KronmodelError(Message(Argument("distill"), " needs samples: give --data"))
            check_trainable(workspace, loaded[0])
            augmentation_of(workspace.model, loaded[0], distill)
        original = workspace.write(workspace.model, "original.onnx")
        feeds = examples(workspace.model, original, None if loaded is None else loaded[1])
        size = path.stat().st_size + sum(each.stat().st_size for each in workspace.data_files)
        fitting, test = loaded or (None, None)
        variants = Variants(workspace.folder, original, size, fitting)
        rows: list[LayerRow] = []
        trained: DistillationRow | None = None
        checkpoints: DistillationCheckpoints | None = None
        if target.is_given:
            fit = partial(
                _fitted,
                workspace,
                path,
                size,
                target,
                samples=loaded,
                example=next(iter(feeds.values())),
                settings=settings,
                notes=messages,
            )
            if distill is None or fitting is None:
                result, rows = fit()
            else:
                identity = fingerprint(path, data, fitting, target=target, asked=distill, settings=settings)
                folder = (distill.checkpoint or out / ".checkpoints") / named.variant("compressed")
                checkpoints = opened.enter_context(checkpoints_of(distill, folder, identity, settings.report))
                result, rows = checkpoints.fitted(workspace, fit)
                found = training_and_validation(workspace.model, path, data, options or FileOptions(), fitting)
                result, trained = distill_model(
                    workspace, result, found, distill, settings.progress, checkpoint=checkpoints.training
                )
                settings.report(str(trained))
            check_model(result, original, workspace.model)
            variants.add("compressed", result)
        settings.progress("comparing", 0, 0)
        chosen = _quantized(variants, quantize, original, workspace)
        compared = variants.rows(test, feeds, settings.seconds)
        row = next(each for each in compared if each.variant == chosen)
        if not row.times:
            raise KronmodelError(f"{chosen}: {row.note}")
        published = named.variant(chosen.replace(" + ", "-"))
        first, second = publish_pair(
            workspace,
            path,
            named,
            repository=out,
            variant=(published, variants.paths[chosen]),
            described=_described(row, variants.paths[chosen], rows, size, fitting),
            test=test,
        )
        if checkpoints is not None:
            checkpoints.remove()
        return GraphReport(
            model=path,
            name=published,
            path=second,
            original=first,
            fitted_to=_origin(fitting),
            measured_on=_origin(test) + (", which it was fitted to" if test is not None and test is fitting else ""),
            layers=rows,
            variants=compared,
            messages=messages,
            distillation=trained,
        )


def _fitted(
    workspace: Workspace,
    path: Path,
    size: int,
    target: Target,
    *,
    samples: tuple[Samples, Samples] | None,
    example: Mapping[str, NDArray[Any]],
    settings: Settings,
    notes: list[str],
) -> tuple[Path, list[LayerRow]]:
    """Replace layers of a model until the target is reached; return the result and the description of all layers.

    What the report has to say is added to ``notes``.
    """
    budget = target.bytes_of(size)
    sizer = Sizer(
        workspace,
        path,
        size,
        samples=samples,
        example=example,
        fraction=None if budget is None else budget / size,
        image_shape=image_shape(workspace.model, None if samples is None else samples[1]),
        settings=settings,
    )
    result = sizer.keep_quality(target.max_drop or 0.0) if budget is None else sizer.reach_size(budget)
    notes += sizer.notes
    return result, sizer.rows()


def _check_arguments(target: Target, samples: int, quantize: Precision | None, distill: Distillation | None) -> None:
    """Check the arguments of :func:`compress_file` against each other."""
    if not target.is_given and quantize is None:
        names = [Argument(each) for each in ("target_ratio", "max_bytes", "max_drop", "quantize")]
        raise ValueError(Message(names[0], ", ", names[1], ", ", names[2], " or ", names[3], " is needed"))
    if distill is not None and not target.is_given:
        raise ValueError(Message(Argument("distill"), " needs a size or quality to reach"))
    if samples < 1:
        raise ValueError(Message(Argument("samples"), f" must be at least 1, got {samples}"))


def _quantized(variants: Variants, asked: Precision | None, original: Path, workspace: Workspace) -> str:
    """Quantise the original and the compressed model, and return the name of the variant to publish.

    int8 stands in every comparison, since it is what many would choose instead.

    Raises:
        KronmodelError: the precision that was asked for can't be had.
    """
    chosen = "compressed" if "compressed" in variants.paths else "original"
    for of in list(variants.paths):
        for precision in PRECISIONS:
            if precision not in ("int8", asked):
                continue
            name = variants.add_quantized(of, precision)
            if precision == asked and of == chosen:
                published = name
    if asked is None:
        return chosen
    if published not in variants.paths:
        raise KronmodelError(variants.note(published))
    check_model(variants.paths[published], original, workspace.model, moved_opset=True)
    return published


def _described(
    row: VariantRow, path: Path, layers: list[LayerRow], size: int, fitting: Samples | None
) -> dict[str, Any]:
    """Return the fields of the result's model card."""
    graph = onnx.load(path, load_external_data=False).graph
    scores = row.scores
    metric: dict[str, Any] = {}
    if scores is not None and scores.accuracy is not None:
        metric = {"name": "accuracy", "value": scores.accuracy}
    elif scores is not None and scores.r2 is not None:
        metric = {"name": "r2", "value": scores.r2}
    if scores is not None and metric:
        metric |= {"higher_is_better": True, "samples": scores.samples}
    kept = [
        {"layer": each.layer, "structure": each.structure, "bytes": each.bytes, "error": each.error}
        for each in layers[:MAX_CARD_LAYERS]
    ]
    return {
        "parameters": sum(int(np.prod(tensor.dims)) for tensor in graph.initializer),
        **({"test_metric": metric} if metric else {}),
        "compression": {"bytes": [size, row.bytes], "fitted_to": _origin(fitting), "layers": kept},
    }


def _origin(samples: Samples | None) -> str:
    return "no samples" if samples is None else f"{len(samples):,} samples: {samples.origin}"
