"""The choice of the output that answers rows, and its decoding."""

import numpy as np
import pytest

from app.errors import ModelError
from app.models.card import Card
from app.models.output_head import OutputHead, softmax

PROBABILITIES = np.array([[0.2, 0.3, 0.5], [0.9, 0.1, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("outputs", "card", "class_labels", "head"),
    [
        (["logits", "probabilities"], {"labels": ["a", "b", "c"]}, {}, OutputHead("probabilities", ["a", "b", "c"])),
        (["logits", "probabilities"], {"labels": ["a", "b"]}, {}, OutputHead("probabilities", ["0", "1", "2"])),
        (["other", "logits"], None, {}, OutputHead("logits", ["0", "1", "2"], softmax=True)),
        (["other", "more"], None, {}, OutputHead("other")),
        (["other", "prediction"], {"task": "regression"}, {}, OutputHead("prediction")),
        (["other"], {"task": "regression"}, {}, OutputHead("other")),
        (["label", "mine"], None, {"mine": ["x", "y", "z"]}, OutputHead("mine", ["x", "y", "z"])),
        (
            ["logits", "mine"],
            {"labels": ["a", "b", "c"]},
            {"mine": ["x", "y", "z"]},
            OutputHead("mine", ["a", "b", "c"]),
        ),
        (["mine"], {"labels": ["a", "b"]}, {"mine": ["x", "y", "z"]}, OutputHead("mine", ["x", "y", "z"])),
        (["mine"], None, {"mine": ["x", "y"]}, OutputHead("mine", ["0", "1", "2"])),
    ],
)
def test_output_is_chosen_by_names_and_card(
    outputs: list[str], card: dict[str, object] | None, class_labels: dict[str, list[str]], head: OutputHead
) -> None:
    parsed = None if card is None else Card.model_validate(card)
    assert OutputHead.of(dict.fromkeys(outputs, PROBABILITIES), parsed, class_labels) == head


def test_a_model_without_a_numeric_output_is_refused() -> None:
    with pytest.raises(ModelError, match="got no numeric output"):
        OutputHead.of({"label": np.array(["a"])}, None, {})


def test_decode() -> None:
    rows = OutputHead("probabilities", ["a", "b", "c"]).decode(PROBABILITIES)
    assert [row["label"] for row in rows] == ["c", "a"]
    np.testing.assert_array_equal(rows[1]["probabilities"], PROBABILITIES[1])
    assert OutputHead("prediction").decode(np.array([[1.5], [2.5]])) == [{"value": 1.5}, {"value": 2.5}]
    assert OutputHead("prediction").decode(np.array([1.5, 2.5])) == [{"value": 1.5}, {"value": 2.5}]
    np.testing.assert_array_equal(OutputHead("other").decode(PROBABILITIES)[0]["value"], PROBABILITIES[0])


def test_softmax_of_large_logits_is_finite() -> None:
    np.testing.assert_allclose(softmax(np.array([[1000.0, 1000.0, -1000.0]])), [[0.5, 0.5, 0.0]])
