"""Budget solver: one candidate for each layer, with the least total error that a budget allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kronmodel.compress.matrices.candidates import Candidate
from kronmodel.errors import KronmodelError

__all__ = ["BudgetError", "Currency", "cost_of", "pareto", "solve"]

Currency = Literal["bytes", "macs", "microseconds"]
MAX_FRONT = 1 << 12  # partial sums that are kept; more are thinned evenly along the cost


class BudgetError(KronmodelError):
    """Error of a budget that no choice of candidates meets.

    Attributes:
        least: the least possible total cost.
    """

    def __init__(self, message: str, least: float) -> None:
        super().__init__(message)
        self.least = least


def cost_of(currency: Currency) -> Callable[[Candidate], float]:
    """Return the function that reads a candidate's cost.

    Raises:
        ValueError: on calling the function, if the candidate has no measured time.
    """

    def cost(candidate: Candidate) -> float:
        value = getattr(candidate, currency)
        if value is None:
            raise ValueError(f"{candidate.structure} has no measured time, which the budget counts")
        return float(value)

    return cost


def pareto(curve: Sequence[Candidate], currency: Currency = "bytes") -> list[Candidate]:
    """Return the candidates that no other beats in both cost and output error, cheapest first."""
    cost = cost_of(currency)
    kept: list[Candidate] = []
    for candidate in sorted(curve, key=lambda each: (cost(each), each.output_error, each.macs)):
        if not kept or candidate.output_error < kept[-1].output_error:
            kept.append(candidate)
    return kept


@dataclass(frozen=True)
class _Front:
    """Pareto-optimal partial sums over the layers so far: cost and error, and the choices that led to them."""

    costs: NDArray[np.float64]
    errors: NDArray[np.float64]
    parents: NDArray[np.int64]
    choices: NDArray[np.int64]


def solve(
    curves: Sequence[Sequence[Candidate]],
    budget: float,
    *,
    currency: Currency = "bytes",
    importance: Sequence[float] | None = None,
) -> list[Candidate]:
    """Choose one candidate for each layer so that the sum of squared errors is least within a budget.

    The Pareto-optimal partial sums are carried from layer to layer, which is exact as long as they are at most 4,096;
    beyond, sums whose costs are nearest are merged, which wastes at most a 4,096th of the budget at each layer.

    Args:
        curves: candidates of each layer, in any order; to leave a layer alone, give only its unchanged candidate. A
            candidate that must not be chosen is left out.
        budget: largest total cost.
        currency: cost to bound: stored bytes, multiply-adds a sample, or measured microseconds.
        importance: factor of each layer's squared relative output error; 1 by default.

    Returns:
        The chosen candidate of each layer.

    Raises:
        BudgetError: the cheapest candidates together exceed the budget.
        ValueError: a layer has no candidates, or one without a measured time where the budget counts it.
    """
    cost = cost_of(currency)
    factors = [1.0] * len(curves) if importance is None else list(importance)
    if len(factors) != len(curves):
        raise ValueError(f"expected an importance for each of {len(curves)} layers, got {len(factors)}")
    if not all(curves):
        raise ValueError("each layer needs at least one candidate, such as the unchanged one")
    fronts_of = [pareto(curve, currency) for curve in curves]
    cheapest = [cost(front[0]) for front in fronts_of]
    least = sum(cheapest)
    if least > budget:
        raise BudgetError(
            f"the smallest candidates need {least:,.0f} {currency}, expected at most {budget:,.0f}; "
            "allow more, or more structures, or fewer layers that are left alone",
            least,
        )
    fronts: list[_Front] = []
    costs, errors, remaining = np.zeros(1), np.zeros(1), least
    for front, factor, low in zip(fronts_of, factors, cheapest, strict=True):
        remaining -= low  # what the layers to come need at least
        own_costs = np.array([cost(candidate) for candidate in front])
        own_errors = np.array([factor * candidate.output_error**2 for candidate in front])
        # (partial sums, candidates)
        all_costs, all_errors = costs[:, None] + own_costs, errors[:, None] + own_errors
        kept = _undominated(all_costs.ravel(), all_errors.ravel(), budget - max(remaining, 0.0))
        parents, choices = np.divmod(kept, len(front))
        costs, errors = all_costs.ravel()[kept], all_errors.ravel()[kept]
        fronts.append(_Front(costs, errors, parents, choices))
    index = int(np.argmin(errors))
    chosen: list[Candidate] = []
    for sums, candidates in zip(reversed(fronts), reversed(fronts_of), strict=True):
        chosen.append(candidates[sums.choices[index]])
        index = int(sums.parents[index])
    return chosen[::-1]


def _undominated(costs: NDArray[np.float64], errors: NDArray[np.float64], limit: float) -> NDArray[np.intp]:
    """Return the indices of the sums within a limit that no other beats, by rising cost."""
    tolerance = 1e-9 * max(abs(limit), 1.0)  # sums in another order differ in their last digits
    within = np.flatnonzero(costs <= limit + tolerance)
    order = within[np.lexsort((errors[within], costs[within]))]
    before = np.minimum.accumulate(np.concatenate(([np.inf], errors[order][:-1])))
    kept = order[errors[order] < before]
    if len(kept) > MAX_FRONT:
        # The cheapest of each step of cost would lose accuracy, the best of each is the last.
        steps = np.floor((costs[kept] - costs[kept[0]]) / (costs[kept[-1]] - costs[kept[0]]) * (MAX_FRONT - 1))
        last = np.append(np.flatnonzero(np.diff(steps)), len(kept) - 1)
        kept = kept[np.union1d([0], last)]
    return kept
