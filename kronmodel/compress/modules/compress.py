"""Compression of any torch module: ``compress``."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn

from kronmodel.compress.matrices.candidates import Candidate, MatrixLayer, unchanged
from kronmodel.compress.matrices.structures import KINDS, Kind
from kronmodel.compress.modules.network import TorchNetwork
from kronmodel.compress.report import CompressionReport, Whole, layer_reports
from kronmodel.compress.samples import batches_of
from kronmodel.compress.search.budget import BudgetError, Currency, cost_of, solve
from kronmodel.compress.search.importance import importances
from kronmodel.compress.search.in_order import CompressedLayer, Options, fit_in_order, put
from kronmodel.compress.search.sequential import (
    compress_layers,
    curves_of,
)
from kronmodel.errors import KronmodelError
from kronmodel.training.evaluation import evaluation_mode

__all__ = ["Compressed", "compress"]

LARGEST_RATIO = 100.0  # of the search for a permitted drop
SEARCH_STEPS = 6
TUNE_STEPS = 1000
TIMED_CALLS = 15


@dataclass(frozen=True, kw_only=True, eq=False)
class Compressed:
    """Compressed network with its report.

    Attributes:
        model: the compressed module; the original is unchanged.
        report: what was done for each layer, and what it cost.
    """

    model: nn.Module
    report: CompressionReport


def compress(
    model: nn.Module,
    *,
    target_ratio: float | None = None,
    max_bytes: int | None = None,
    max_drop: float | None = None,
    data: Any = None,
    samples: int = 1000,
    structures: Sequence[Kind] = KINDS,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    budget: Currency = "bytes",
    image_shape: tuple[int, int] | None = None,
    tune_steps: int = TUNE_STEPS,
    evaluate: Callable[[nn.Module], float] | None = None,
    report: Callable[[str, str], None] = lambda layer, action: None,
) -> Compressed:
    """Replace the matrices of a trained module by smaller structures, so that its outputs change least.

    Exactly one of the three targets is given. With sample inputs, each layer is fitted to the outputs that the original
    layer gives, layer by layer on the inputs that its compressed predecessors give; then the replaced layers are tuned
    together. Labels are not needed. Without samples, only the weights are approximated, which costs much accuracy.

    Supported layers are ``nn.Linear``, ``nn.Conv1d``, ``nn.Conv2d`` without groups, ``nn.Embedding``,
    ``nn.MultiheadAttention``, and the ``Conv1D`` of Hugging Face's transformers; subclasses and layers with hooks are
    left alone. Tied weights stay tied, frozen parameters stay frozen, and data types are kept.

    Args:
        model: any module, on any device; it is not changed.
        target_ratio: how many times smaller the whole network shall be.
        max_bytes: most bytes of all parameters and buffers.
        max_drop: largest loss of the score of ``evaluate``, or without it, of the agreement with the original on
            held-out samples, in percentage points; the smallest network within it is searched.
        data: sample inputs: a tensor or array ``(n, ...)``, or an iterable of batches: tensors, arrays, tuples of
            arguments, or mappings of named arguments, without labels. The last eighth of each batch is held out.
        samples: most samples to use.
        structures: kinds of structures to consider.
        include: patterns of the names of layers to compress, such as ``"encoder.*"``; None for all.
        exclude: patterns of names to leave alone.
        budget: what ``target_ratio`` divides: ``"bytes"`` of the network, ``"macs"`` for the multiply-adds of the
            layers, or ``"microseconds"`` for their measured times for one sample, which needs ``data``.
        image_shape: height and width, if the first layer takes flat images.
        tune_steps: most steps of tuning all replaced layers together; 0 for none.
        evaluate: returns a score of a module, such as the accuracy in %, higher is better; for the report and
            ``max_drop``, it decides nothing else.
        report: called with the name of a layer and what is done for it.

    Returns:
        The compressed module and its report.

    Raises:
        BudgetError: the target can't be reached with these layers and structures.
        KronmodelError: no layer can be compressed.
        DataError: the samples are of an unsupported type, or there are none.
        ValueError: not exactly one target is given, or a value is out of range.

    Example:
        >>> from kronmodel.compress import compress
        >>> small = compress(nn.Sequential(nn.Linear(784, 784), nn.GELU(), nn.Linear(784, 10)), target_ratio=4)
        >>> small.report.ratio > 4
        True
    """
    _check(target_ratio, max_bytes, max_drop, structures, budget)
    if max_drop is not None and data is None and evaluate is None:
        raise ValueError("max_drop needs data or evaluate to measure the drop by, got neither")
    if budget == "microseconds" and data is None:
        raise ValueError("a budget of microseconds needs data to measure the layers with, got none")
    batches = batches_of(data, model, samples)
    network = TorchNetwork(model, batches, include, exclude)
    if not network.layers:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in network.skipped[:3])
        raise KronmodelError(
            f"{type(model).__name__} has no layer to compress ({reasons or 'no layer of a supported type'})"
        )
    whole = _bytes(model)
    measured = network.timer() if budget == "microseconds" else _unmeasured
    layers = [measured(layer, unchanged(layer)) for layer in network.layers]
    rest = whole - sum(layer.bytes for layer in layers)
    score = None if evaluate is None else evaluate(model)

    def options(limit: float) -> Options:
        return Options(
            budget=limit,
            currency=budget,
            structures=tuple(structures),
            image_shape=image_shape,
            measured=measured,
            report=report,
        )

    if max_drop is None:
        limit = _limit(layers, rest=rest, whole=whole, target_ratio=target_ratio, max_bytes=max_bytes, budget=budget)
        fits = compress_layers(network, options(limit))
    else:
        smallest = _smallest(
            network, options(math.inf), max_drop=max_drop, rest=rest, whole=whole, score=score, evaluate=evaluate
        )
        fits = [smallest]
    results, step = _tuned(network, fits, tune_steps)
    compressed = network.finished()
    after_score = None if evaluate is None else evaluate(compressed)
    before, after = (_latency(each, network) for each in (model, compressed))
    notes = []
    if not batches:
        notes.append("without samples only the weights were approximated; sample inputs would keep more accuracy")
    if step:
        notes.append(f"tuned on the samples for {step} steps")
    return Compressed(
        model=compressed,
        report=CompressionReport(
            layers=layer_reports(results, measured),
            before=Whole(bytes=whole, macs=sum(each.macs for each in layers), score=score, latency_us=before),
            after=Whole(
                bytes=_bytes(compressed),
                macs=sum(result.chosen.macs for result in results),
                score=after_score,
                latency_us=after,
            ),
            output_error=network.output_error(),
            agreement=network.agreement(),
            skipped=tuple((each.name, each.reason) for each in network.skipped),
            notes=tuple(notes),
        ),
    )


def _unmeasured(layer: MatrixLayer, candidate: Candidate) -> Candidate:
    return candidate


def _check(
    target_ratio: float | None,
    max_bytes: int | None,
    max_drop: float | None,
    structures: Sequence[Kind],
    budget: Currency,
) -> None:
    """Check the arguments of :func:`compress`."""
    given = {"target_ratio": target_ratio, "max_bytes": max_bytes, "max_drop": max_drop}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ValueError(f"expected one of target_ratio, max_bytes and max_drop, got {', '.join(named) or 'none'}")
    if target_ratio is not None and not (math.isfinite(target_ratio) and target_ratio > 1):
        raise ValueError(f"target_ratio must be a number above 1, got {target_ratio!r}")
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1, got {max_bytes!r}")
    if max_drop is not None and not 0 <= max_drop < 100:
        raise ValueError(f"max_drop must be at least 0 and below 100 percentage points, got {max_drop!r}")
    unknown = [kind for kind in structures if kind not in get_args(Kind)]
    if unknown or not structures:
        raise ValueError(f"structures must be some of {', '.join(KINDS[1:])}, got {list(structures)}")
    if budget not in get_args(Currency) or (budget != "bytes" and target_ratio is None):
        raise ValueError(f"budget must be 'bytes', or 'macs' or 'microseconds' with target_ratio, got {budget!r}")


def _limit(
    layers: Sequence[Candidate],
    *,
    rest: int,
    whole: int,
    target_ratio: float | None,
    max_bytes: int | None,
    budget: Currency,
) -> float:
    """Return the largest sum of the layers' costs that meets the target."""
    if target_ratio is not None and budget != "bytes":
        return sum(map(cost_of(budget), layers)) / target_ratio
    limit = max_bytes if max_bytes is not None else whole / (target_ratio or 1.0)
    if limit <= rest:
        raise BudgetError(
            f"{rest:,} of the {whole:,} bytes are no layers that can be compressed: a target of {limit:,.0f} bytes "
            "can't be reached; expected a larger one, or fewer excluded layers",
            rest,
        )
    return limit - rest


def _smallest(
    network: TorchNetwork,
    options: Options,
    *,
    max_drop: float,
    rest: int,
    whole: int,
    score: float | None,
    evaluate: Callable[[nn.Module], float] | None,
) -> list[CompressedLayer]:
    """Search the smallest network within a permitted drop by bisection of the ratio."""
    curves = curves_of(network, options)
    weights = importances(network, curves)
    least = sum(min(each.bytes for each in curve) for curve in curves)
    low, high = 1.0, min(LARGEST_RATIO, whole / (rest + least))

    def fitted(ratio: float) -> list[CompressedLayer]:
        put(network, None)
        choice = solve(curves, max(whole / ratio - rest, least), importance=weights)
        return fit_in_order(network, choice, curves, options)

    def drop() -> float:
        if evaluate is not None and score is not None:
            return score - evaluate(network.model)
        agreement = network.agreement()
        return math.inf if agreement is None else 100 * (1 - agreement)

    for _ in range(SEARCH_STEPS):
        middle = math.sqrt(low * high)
        fitted(middle)
        low, high = (middle, high) if drop() <= max_drop else (low, middle)
    if low == 1.0:
        raise BudgetError(f"no network that was tried is within a drop of {max_drop} points; allow more", float(whole))
    return fitted(low)


def _tuned(
    network: TorchNetwork, fits: Sequence[list[CompressedLayer]], steps: int
) -> tuple[list[CompressedLayer], int]:
    """Train the replaced layers of each fit together, and keep the one with the least error on held-out samples.

    Args:
        network: the network with the replacements of the first fit; afterwards with the trained ones of the best.
        fits: results for all layers.
        steps: most steps of each training.

    Returns:
        The best fit, and the step of its weights; 0 for the untrained ones.
    """
    if not steps:
        return fits[0], 0
    if len(fits) == 1:
        return fits[0], network.tune(steps)
    tried = []
    for number, results in enumerate(fits):
        put(network, results)
        step = network.tune(steps)
        states = [copy.deepcopy(module.state_dict()) for module in network.replaced_modules()]
        tried.append((network.output_error() or 0.0, number, step, states))
    _, best, step, states = min(tried)
    put(network, fits[best])
    for module, state in zip(network.replaced_modules(), states, strict=True):
        module.load_state_dict(state)
    return fits[best], step


def _bytes(model: nn.Module) -> int:
    """Count the bytes of all parameters and buffers; shared ones count once."""
    tensors = {id(each): each for each in (*model.parameters(), *model.buffers())}
    return sum(each.numel() * each.element_size() for each in tensors.values())


def _latency(model: nn.Module, network: TorchNetwork) -> float | None:
    """Measure the median time of a call with the first batch's first sample, in microseconds."""
    batch = network.one_sample()
    if batch is None:
        return None
    times = []
    with evaluation_mode(model), torch.inference_mode():
        for _ in range(TIMED_CALLS):
            began = time.perf_counter()
            model(*batch[0], **batch[1])
            times.append(time.perf_counter() - began)
    return 1e6 * statistics.median(times[TIMED_CALLS // 3 :])
