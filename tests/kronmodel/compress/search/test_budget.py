"""The budget solver against all combinations."""

import itertools

import numpy as np
import pytest

from kronmodel.compress.matrices.candidates import Candidate
from kronmodel.compress.matrices.structures import dense
from kronmodel.compress.search.budget import BudgetError, pareto, solve


def candidate(size: int, error: float, macs: int = 1, microseconds: float | None = None) -> Candidate:
    return Candidate(
        structure=dense(size, macs), bytes=size, macs=macs, weight_error=error, output_error=error,
        microseconds=microseconds,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("currency", ["bytes", "macs"])
def test_the_choice_is_the_best_of_all_combinations(seed: int, currency: str) -> None:
    rng = np.random.default_rng(seed)
    curves = [
        [candidate(int(rng.integers(1, 60)), float(rng.random()), int(rng.integers(1, 60))) for _ in range(count)]
        for count in (5, 3, 7, 4)
    ]
    weights = rng.random(4).tolist()
    total = sum(max(getattr(each, currency) for each in curve) for curve in curves)
    budget = max(0.5 * total, sum(min(getattr(each, currency) for each in curve) for curve in curves))
    best = min(
        sum(weight * each.output_error**2 for weight, each in zip(weights, choice, strict=True))
        for choice in itertools.product(*curves)
        if sum(getattr(each, currency) for each in choice) <= budget
    )
    chosen = solve(curves, budget, currency=currency, importance=weights)  # type: ignore[arg-type]
    assert sum(getattr(each, currency) for each in chosen) <= budget
    assert all(each in curve for each, curve in zip(chosen, curves, strict=True))
    found = sum(weight * each.output_error**2 for weight, each in zip(weights, chosen, strict=True))
    assert found == pytest.approx(best)


def test_many_layers_stay_within_the_budget() -> None:
    rng = np.random.default_rng(7)
    curves = [[candidate(int(size), float(1 / size**0.5)) for size in rng.integers(100, 10**7, 20)] for _ in range(12)]
    budget = 0.3 * sum(max(each.bytes for each in curve) for curve in curves)
    chosen = solve(curves, budget)
    assert 0.99 * budget < sum(each.bytes for each in chosen) <= budget


def test_a_budget_of_measured_time_needs_measured_candidates() -> None:
    slow, fast = candidate(1, 0.5, microseconds=9.0), candidate(2, 0.6, microseconds=3.0)
    assert solve([[slow, fast]], 5, currency="microseconds") == [fast]
    with pytest.raises(ValueError, match="no measured time"):
        solve([[candidate(1, 0.5)]], 5, currency="microseconds")


def test_a_budget_that_cannot_be_met_names_the_least_one() -> None:
    with pytest.raises(BudgetError, match="need 12 bytes, expected at most 11") as error:
        solve([[candidate(5, 0.1), candidate(9, 0.0)], [candidate(7, 0.2)]], 11)
    assert error.value.least == 12
    with pytest.raises(ValueError, match="at least one candidate"):
        solve([[], [candidate(7, 0.2)]], 11)
    with pytest.raises(ValueError, match="importance for each of 1 layers, got 2"):
        solve([[candidate(7, 0.2)]], 11, importance=[1, 2])


def test_dominated_candidates_are_left_out() -> None:
    kept = pareto([candidate(9, 0.0), candidate(5, 0.2), candidate(6, 0.3), candidate(5, 0.4)])
    assert [(each.bytes, each.output_error) for each in kept] == [(5, 0.2), (9, 0.0)]
