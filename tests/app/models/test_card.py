import json
import logging
from typing import Any

import orjson
import pytest

from app.models.card import Card
from tests.app.graphs import CARD


def test_unknown_keys_are_ignored_and_every_field_is_optional() -> None:
    card = Card.parse(
        json.dumps({"twin": "mnist", "surprise": 1, "layers": [{"kind": "Linear", "colour": "red"}]}), "m"
    )
    assert card is not None
    assert card.model_dump(exclude_none=True) == {"twin": "mnist", "layers": [{"kind": "Linear"}]}
    assert Card.parse("{}", "m") == Card()


@pytest.mark.parametrize("seed", [0, -(2**63), 2**64 - 1, 2**64, 2**128 - 1, -(2**63) - 1])
def test_a_seed_of_more_than_64_bits_becomes_text(seed: int) -> None:
    """numpy draws seeds of 128 bits."""
    card = Card.parse(json.dumps(CARD | {"training": {"seed": seed}}), "m")
    assert card is not None
    assert card.training is not None
    assert int(card.training.seed or 0) == seed
    written = orjson.dumps(card.model_dump()).decode()
    assert Card.parse(written, "m") == card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": "many"}, "parameters: got 'many', expected a valid integer"),
        ({"parameters": -1}, "parameters: got -1, expected greater than or equal to 0"),
        ({"role": "big"}, "role: got 'big', expected 'kronecker', 'dense', 'compressed' or 'original'"),
        ({"labels": [1, 2]}, "labels.0: got 1, expected a valid string"),
        ({"labels": []}, "labels: got []"),
        ({"input": {"shape": [0]}}, "input.shape.0: got 0, expected greater than or equal to 1"),
        ({"card_version": 2**64}, "card_version: got 18446744073709551616, expected less than or equal to"),
        ({"training": {"seed": 10**300}}, "training.seed"),
        ({"input": {"range": [0, 10**400]}}, "input.range.1: got 1000"),
        ({"test_metric": {"name": "accuracy"}}, "test_metric.value: missing"),
        ({"preprocessing": "x" * 3000}, "preprocessing: got 'xxx"),
    ],
)
def test_an_invalid_card_is_ignored_with_a_logged_reason(
    change: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert Card.parse(json.dumps(CARD | change), "some-model") is None
    assert f"some-model: card ignored: {message}" in caplog.text


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"test_metric": {"name": "a", "value": NaN}}', "x" * 300_000])
def test_text_that_is_not_a_card_is_ignored(text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert Card.parse(text, "some-model") is None
    assert "some-model: card ignored" in caplog.text
