"""Differences of outputs beside numpy's own, over several runs."""

import numpy as np
import pytest

from app.measure.differences import OutputDifference
from tests.app.graphs import Array

RNG = np.random.default_rng(8)


def difference(a: Array, b: Array, *, name: str = "y", runs: int = 3) -> dict[str, object]:
    made = OutputDifference()
    for first, second in zip(np.array_split(a, runs), np.array_split(b, runs), strict=True):
        made.add(first, second, name, len(first))
    return made.result()


def test_floats_have_distances_and_the_cosine_of_each_row() -> None:
    a, b = RNG.standard_normal((2, 7, 3, 5)).astype(np.float32)
    rows = a.reshape(7, 15).astype(float), b.reshape(7, 15).astype(float)
    cosines = [x @ y / np.sqrt(x @ x) / np.sqrt(y @ y) for x, y in zip(*rows, strict=True)]
    found = difference(a, b)
    assert found["largest"] == pytest.approx(np.abs(a - b).max(), rel=1e-6)
    assert found["mean"] == pytest.approx(np.abs(a - b).mean(), rel=1e-6)
    assert found["cosine"] == pytest.approx(np.mean(cosines))
    assert found["lowest_cosine"] == pytest.approx(min(cosines))
    assert (found["equal_top1"], found["equal"]) == (None, None)


def test_probabilities_under_any_name_have_the_fraction_of_equal_classes() -> None:
    scores = RNG.standard_normal((2, 9, 4))
    a, b = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    same = (a.argmax(axis=1) == b.argmax(axis=1)).mean()
    assert 0 < same < 1
    assert difference(a, b)["equal_top1"] == pytest.approx(same)
    assert difference(scores[0], scores[1])["equal_top1"] is None
    assert difference(scores[0], scores[1], name="logits")["equal_top1"] == pytest.approx(same)
    text = np.stack([a, b], axis=1)  # a class for each of two positions
    assert difference(text, text[:, ::-1])["equal_top1"] == pytest.approx(same)


def test_integers_and_text_have_the_fraction_of_equal_elements() -> None:
    a, b = np.array([[1, 5], [7, 7], [2, 9]]), np.array([[1, 5], [7, -3], [2, 8]])
    found = difference(a, b)
    assert (found["largest"], found["mean"], found["equal"], found["cosine"]) == (10, 11 / 6, 4 / 6, None)
    found = difference(a.astype(str).astype(object), b.astype(str).astype(object))
    assert (found["largest"], found["equal"]) == (None, 4 / 6)
    assert difference(a > 1, b > 5)["equal"] == 3 / 6


def test_rows_of_zeros_have_a_cosine() -> None:
    a, b = np.array([[0.0, 0], [0, 0], [3, 4]]), np.array([[0.0, 0], [1, 0], [-3, -4]])
    found = difference(a, b)
    assert (found["cosine"], found["lowest_cosine"]) == (0, -1)


def test_a_single_number_has_no_cosine() -> None:
    found = difference(np.array([[0.5], [2.0], [1.0]]), np.array([[0.25], [2.0], [-1.0]]))
    assert (found["largest"], found["mean"], found["cosine"], found["lowest_cosine"]) == (2, 0.75, None, None)


def test_other_shapes_are_reported() -> None:
    made = OutputDifference()
    made.add(np.ones((2, 4)), np.ones((3, 4)), "boxes", 2)
    assert made.result() == {"shapes": [[2, 4], [3, 4]]}
