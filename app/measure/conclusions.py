"""Conclusions of a comparison in sentences: speed, memory, and predicted beside measured ratios."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from app.measure.bootstrap import PRACTICAL_MARGIN, Verdict
from app.measure.bootstrap import verdict as verdict_of
from app.measure.comparison_schemas import (
    ComparedModel,
    MeasuredLayer,
    Pair,
    PredictedMemory,
    PredictedRatios,
    PredictedTime,
)
from app.measure.quality_schemas import OutputDifference

MIN_LOAD_BYTES = 256 * 1024  # less memory than that is noise of the allocator
LAYER_PHRASES: Mapping[MeasuredLayer, str] = {"session": "", "queue": " through the queue", "http": " over HTTP"}
OPPOSITE: dict[Verdict, Verdict] = {
    "faster": "slower",
    "slower": "faster",
    "not distinguishable": "not distinguishable",
}


def compared_pair(measured: Mapping[str, Any], models: Sequence[ComparedModel], layer: MeasuredLayer) -> Pair:
    """The verdict on two models, with its figures in a sentence.

    Args:
        measured: positions `a` and `b`, `batch_size`, and `ratio` of the medians b / a with its interval.
        models: the compared models.
        layer: the layer that was measured.
    """
    a, b = models[measured["a"]], models[measured["b"]]
    size, ratio, low, high = measured["batch_size"], measured["ratio"], measured["low"], measured["high"]
    verdict = verdict_of(low, high)
    p50_a, p50_b = (_p50(model, layer, size) for model in (a, b))
    place = f"At batch size {size}{LAYER_PHRASES[layer]}"
    medians = f"medians {p50_a:,.1f} µs and {p50_b:,.1f} µs"
    if verdict == "not distinguishable":
        sentence = (
            f"{place}, {a.model} and {b.model} are not distinguishable "
            f"({medians}; ratio {ratio:.3f}, 95 % interval {low:.3f} to {high:.3f})."
        )
    else:
        fast, slow = (a, b) if verdict == "faster" else (b, a)
        if verdict == "slower":
            ratio, low, high = 1 / ratio, 1 / high, 1 / low
        digits = 2 if low >= 1.1 else 3  # so that no end of the interval is rounded to 1
        sentence = (
            f"{place}, {fast.model} is {ratio:.{digits}f} times as fast as {slow.model} "
            f"({medians} for {a.model} and {b.model}; 95 % interval {low:.{digits}f} to {high:.{digits}f})."
        )
    return Pair(
        depth=layer, a=a.model, b=b.model, batch_size=size, verdict=verdict, sentence=sentence,
        ratio=round(measured["ratio"], 4), low=round(measured["low"], 4), high=round(measured["high"], 4),
    )  # fmt: skip


def memory_sentence(models: Sequence[ComparedModel]) -> str | None:
    """The memory of a process with each model, and the part that no compression reduces; None where it is unknown."""
    known = [
        (model, model.memory.baseline_rss_bytes, model.memory.loaded_rss_bytes)
        for model in models
        if model.memory.baseline_rss_bytes is not None and model.memory.loaded_rss_bytes is not None
    ]
    if len(known) < len(models):
        return None
    runtime = min(baseline for _, baseline, _ in known)
    added = [(model.model, max(0, loaded - baseline)) for model, baseline, loaded in known]
    each = ", ".join(f"{name} {_mebibytes(size)}" for name, size in added)
    small, large = min(added, key=lambda pair: pair[1]), max(added, key=lambda pair: pair[1])
    ratio = (runtime + large[1]) / (runtime + small[1])
    return (
        f"Python, numpy and onnxruntime take {_mebibytes(runtime)} with any model: no compression reduces that. "
        f"Loading a model adds: {each}. In total, a process with {large[0]} takes {_times(ratio)}as much memory as "
        f"one with {small[0]}."
    )


def predicted_ratios(models: Sequence[ComparedModel], pairs: Sequence[Pair]) -> list[PredictedRatios]:
    """The ratios predicted from multiply-adds and bytes beside the measured ones, for each pair of models.

    Args:
        models: the compared models.
        pairs: their verdicts at the session.
    """
    return [
        _predicted_ratios(a, b, [pair for pair in pairs if (pair.a, pair.b) == (a.model, b.model)])
        for a, b in itertools.combinations(models, 2)
    ]


def output_difference(measured: Mapping[str, Any], rows: int) -> OutputDifference:
    """The difference of one output of two models, with its figures in a sentence.

    Args:
        measured: fields of `OutputDifference`, or the `shapes` of the outputs where those differ.
        rows: that both models ran on.
    """
    place = f"Output {measured['output']} of {measured['a']} and {measured['b']}"
    on = f"on {rows:,} row{'s' * (rows != 1)}"
    if "shapes" in measured:
        shapes = " and ".join(str(shape) for shape in measured["shapes"])
        sentence = f"{place} cannot be compared: got the shapes {shapes} for the same rows."
        fields = {name: value for name, value in measured.items() if name != "shapes"}
        return OutputDifference(**fields, rows=rows, sentence=sentence)
    if measured["equal"] == 1 or (measured["largest"] == 0 and measured["equal"] is None):
        return OutputDifference(**measured, rows=rows, sentence=f"{place}: equal {on}.")
    parts = []
    if measured["largest"] is not None:
        parts.append(f"differs by up to {measured['largest']:.3g}, by {measured['mean']:.3g} on average")
    if measured["cosine"] is not None:
        parts.append(f"cosine similarity {measured['cosine']:.5f}, at least {measured['lowest_cosine']:.5f}")
    if measured["equal_top1"] is not None:
        parts.append(f"the same class for {100 * measured['equal_top1']:.1f} %")
    if measured["equal"] is not None:
        parts.append(f"{100 * measured['equal']:.1f} % of the elements are equal")
    return OutputDifference(**measured, rows=rows, sentence=f"{place} {on}: {'; '.join(parts)}.")


def _predicted_ratios(a: ComparedModel, b: ComparedModel, pairs: Sequence[Pair]) -> PredictedRatios:
    macs = b.macs_per_sample / a.macs_per_sample if a.macs_per_sample and b.macs_per_sample else None
    known = a.initializer_bytes > 0 and b.initializer_bytes > 0
    size = b.initializer_bytes / a.initializer_bytes if known else None
    added = a.memory.session_bytes, b.memory.session_bytes
    measured = (
        added[1] / added[0]
        if added[0] is not None and added[1] is not None and min(added[0], added[1]) >= MIN_LOAD_BYTES
        else None
    )
    sentences = [] if macs is None else [_time_sentence(a, b, macs, pair) for pair in pairs]
    if size is not None:
        sentences.append(_loading_sentence(a, b, size, measured))
    if a.test_metric is not None and b.test_metric is not None:
        sentences += _metric_sentence(a, b)
    return PredictedRatios(
        a=a.model,
        b=b.model,
        macs_ratio=_rounded(macs),
        initializer_bytes_ratio=_rounded(size),
        time=[
            PredictedTime(batch_size=pair.batch_size, predicted_ratio=_rounded(macs), measured_ratio=pair.ratio)
            for pair in pairs
        ],
        memory=PredictedMemory(predicted_ratio=_rounded(size), measured_ratio=_rounded(measured)),
        sentences=sentences,
    )


def _times(ratio: float) -> str:
    """Return "1.25 times ", or nothing for a ratio that is rounded to 1."""
    text = f"{ratio:.2f}"
    return "" if text == "1.00" else f"{text} times "


def _time_sentence(a: ComparedModel, b: ComparedModel, macs: float, pair: Pair) -> str:
    """Predicted and measured time of the model with fewer multiply-adds.

    Args:
        a: a model.
        b: another one.
        macs: ratio of their multiply-adds b / a.
        pair: their measured times.
    """
    small, large, predicted, ratio, verdict = a, b, macs, pair.ratio, pair.verdict
    if macs < 1:
        small, large, predicted, ratio = b, a, 1 / macs, 1 / pair.ratio
        verdict = OPPOSITE[verdict]
    start = f"At batch size {pair.batch_size}, {small.model}"
    if predicted < 1 + PRACTICAL_MARGIN:
        return f"{start} is {_times(ratio)}as fast as {large.model}, with about as many multiply-adds."
    start = f"{start} has {predicted:.1f} times fewer multiply-adds than {large.model},"
    if verdict == "slower":
        return f"{start} but takes {1 / ratio:.2f} times as long."
    if verdict == "not distinguishable":
        return f"{start} but takes about as long."
    return f"{start} and is {ratio:.2f} times as fast."


def _loading_sentence(a: ComparedModel, b: ComparedModel, size: float, measured: float | None) -> str:
    """Bytes of the weights and memory added by loading, of the model with fewer bytes.

    Args:
        a: a model.
        b: another one.
        size: ratio of the bytes of their weights b / a.
        measured: ratio of the memory that loading adds b / a; None where it is too little to compare.
    """
    small, large, predicted = (a, b, size) if size >= 1 else (b, a, 1 / size)
    start = f"The weights of {small.model} are {predicted:.1f} times smaller than those of {large.model}; "
    if predicted < 1 + PRACTICAL_MARGIN:
        start = f"The weights of {small.model} and {large.model} are about as large; "
    if measured is None:
        return f"{start}loading adds too little memory to compare."
    ratio = measured if small is a else 1 / measured
    if f"{ratio:.1f}" == "1.0":
        return f"{start}loading {small.model} adds as much memory."
    difference = f"{ratio:.1f} times less" if ratio > 1 else f"{1 / ratio:.1f} times more"
    return f"{start}loading {small.model} adds {difference} memory."


def _metric_sentence(a: ComparedModel, b: ComparedModel) -> list[str]:
    """The difference of the test metrics of two models; empty where they are equal or not the same metric."""
    first, second = a.test_metric, b.test_metric
    if first is None or second is None or first.name != second.name or first.value == second.value:
        return []
    larger, smaller = (a, b) if first.value > second.value else (b, a)
    high, low = max(first.value, second.value), min(first.value, second.value)
    if first.name == "accuracy":
        points = 100 * (high - low)
        return [f"The test accuracy of {smaller.model} is {points:.2f} points lower than that of {larger.model}."]
    return [f"The {first.name} on test data is {high:.4g} with {larger.model} and {low:.4g} with {smaller.model}."]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _p50(model: ComparedModel, layer: MeasuredLayer, batch_size: int) -> float:
    latencies = (*model.latency, *model.service_latency)
    return next(each.p50_us for each in latencies if (each.depth, each.batch_size) == (layer, batch_size))
