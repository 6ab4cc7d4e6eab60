"""Conclusions in sentences, also where the smaller network is slower."""

from typing import Any

import pytest

from app.measure.bootstrap import verdict
from app.measure.comparison_schemas import ComparedModel, Memory, Pair
from app.measure.conclusions import memory_sentence, output_difference, predicted_ratios
from app.models.card import TestMetric

MIB = 2**20


def model(
    name: str, *, macs: int | None = None, size: int = MIB, loaded: int = 2 * MIB, accuracy: float | None = None
) -> ComparedModel:
    memory = Memory(
        baseline_rss_bytes=60 * MIB, loaded_rss_bytes=60 * MIB + loaded, peak_rss_bytes=None, session_bytes=loaded
    )
    metric = None if accuracy is None else TestMetric(name="accuracy", value=accuracy)
    return ComparedModel(
        model=name, version="1", role=None, provider="CPU", parameters=1, file_bytes=size, initializer_bytes=size,
        macs_per_sample=macs, test_metric=metric, load_ms=1, first_run_ms=1, memory=memory, latency=[],
    )  # fmt: skip


def pair(a: str, b: str, ratio: float, batch_size: int = 8) -> Pair:
    low, high = 0.99 * ratio, 1.01 * ratio
    return Pair(
        a=a, b=b, batch_size=batch_size, ratio=ratio, low=low, high=high, verdict=verdict(low, high), sentence=""
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ratio", "end"),
    [
        (2.5, "and is 2.50 times as fast."),
        (0.8, "but takes 1.25 times as long."),
        (1.01, "but takes about as long."),
    ],
)
def test_predicted_and_measured_time_in_either_order(ratio: float, end: str) -> None:
    sentence = f"At batch size 8, small has 4.0 times fewer multiply-adds than large, {end}"
    small, large = model("small", macs=100), model("large", macs=400)
    (found,) = predicted_ratios([small, large], [pair("small", "large", ratio)])
    assert found.sentences[0] == sentence
    assert (found.macs_ratio, found.time[0].predicted_ratio, found.time[0].measured_ratio) == (4.0, 4.0, ratio)
    (found,) = predicted_ratios([large, small], [pair("large", "small", 1 / ratio)])
    assert found.sentences[0] == sentence
    assert found.macs_ratio == 0.25


def test_equal_multiply_adds_and_none() -> None:
    (found,) = predicted_ratios([model("a", macs=100), model("b", macs=102)], [pair("a", "b", 2.0)])
    assert found.sentences[0] == "At batch size 8, a is 2.00 times as fast as b, with about as many multiply-adds."
    (found,) = predicted_ratios([model("a"), model("b", macs=102)], [pair("a", "b", 2.0)])
    assert (found.macs_ratio, found.time[0].predicted_ratio) == (None, None)
    assert not any("multiply-adds" in sentence for sentence in found.sentences)


@pytest.mark.parametrize(("ratio", "words"), [(1.004, "a is as fast as b"), (0.98, "a is 0.98 times as fast as b")])
def test_equal_times_are_no_multiple(ratio: float, words: str) -> None:
    (found,) = predicted_ratios([model("a", macs=100), model("b", macs=101)], [pair("a", "b", ratio)])
    assert found.sentences[0] == f"At batch size 8, {words}, with about as many multiply-adds."


@pytest.mark.parametrize(("loaded", "words"), [(6.2, "as much"), (3, "2.0 times more"), (12, "2.0 times less")])
def test_memory_is_more_less_or_as_much(loaded: float, words: str) -> None:
    small, large = model("small", size=MIB // 10, loaded=6 * MIB), model("large", loaded=round(loaded * MIB))
    (found,) = predicted_ratios([small, large], [pair("small", "large", 1.0)])
    assert found.sentences[0].endswith(f"; loading small adds {words} memory.")


def test_predicted_and_measured_memory_and_lower_accuracy() -> None:
    small = model("small", size=MIB // 10, loaded=MIB, accuracy=0.97)
    large = model("large", loaded=6 * MIB, accuracy=0.985)
    (found,) = predicted_ratios([large, small], [pair("large", "small", 1.0)])
    assert found.memory.measured_ratio == pytest.approx(1 / 6, abs=1e-3)
    assert found.sentences == [
        "The weights of small are 10.0 times smaller than those of large; loading small adds 6.0 times less memory.",
        "The test accuracy of small is 1.50 points lower than that of large.",
    ]
    tiny = model("tiny", size=MIB // 10, loaded=4096)
    (found,) = predicted_ratios([tiny, large], [pair("tiny", "large", 1.0)])
    assert found.memory.measured_ratio is None
    assert found.sentences[0].endswith("loading adds too little memory to compare.")


def test_nothing_is_predicted_from_weights_that_cannot_be_counted() -> None:
    counted, none = model("counted", loaded=MIB), model("none", size=0, loaded=6 * MIB)
    for models in ([counted, none], [none, counted], [none, model("other", size=0)]):
        (found,) = predicted_ratios(models, [pair(models[0].model, models[1].model, 1.0)])
        assert (found.initializer_bytes_ratio, found.memory.predicted_ratio, found.sentences) == (None, None, [])


@pytest.mark.parametrize(
    ("measured", "end"),
    [
        ({"largest": 0.0, "mean": 0.0, "cosine": 1.0, "lowest_cosine": 1.0}, ": equal on 7 rows."),
        ({"equal": 1.0}, ": equal on 7 rows."),
        (
            {"largest": 0.4441, "mean": 0.03, "cosine": 0.98, "lowest_cosine": 0.9, "equal_top1": 0.5},
            " on 7 rows: differs by up to 0.444, by 0.03 on average; cosine similarity 0.98000, at least 0.90000; the "
            "same class for 50.0 %.",
        ),
        ({"equal": 0.25}, " on 7 rows: 25.0 % of the elements are equal."),
        ({"shapes": [[2, 4], [3, 4]]}, " cannot be compared: got the shapes [2, 4] and [3, 4] for the same rows."),
    ],
)
def test_the_difference_of_an_output_in_words(measured: dict[str, Any], end: str) -> None:
    figures: dict[str, Any] = dict.fromkeys(("largest", "mean", "cosine", "lowest_cosine", "equal_top1", "equal"))
    shapes = measured if "shapes" in measured else figures | measured
    found = output_difference({"a": "full", "b": "int8", "output": "y", **shapes}, 7)
    assert found.sentence == f"Output y of full and int8{end}"
    assert (found.rows, found.largest, found.equal) == (7, measured.get("largest"), measured.get("equal"))


def test_the_memory_that_compression_cannot_reduce() -> None:
    sentence = memory_sentence([model("small", loaded=MIB), model("large", loaded=30 * MIB)])
    assert sentence == (
        "Python, numpy and onnxruntime take 60.0 MiB with any model: no compression reduces that. Loading a model "
        "adds: small 1.0 MiB, large 30.0 MiB. In total, a process with large takes 1.48 times as much memory as one "
        "with small."
    )
    unknown: Any = Memory(baseline_rss_bytes=None, loaded_rss_bytes=None, peak_rss_bytes=None)
    assert memory_sentence([model("a"), model("b").model_copy(update={"memory": unknown})]) is None
