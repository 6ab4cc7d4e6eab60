"""Search for the rank at which a Kronecker network is no longer worse than its dense twin, on the same split."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from kronmodel.data.dataset import Dataset
from kronmodel.errors import TrainingError
from kronmodel.nn.networks import KroneckerConfig, build
from kronmodel.training.members import Member, train_member

__all__ = ["RankSearch", "RankTrial", "is_worse", "search_ranks", "shown_rank"]

POINTS = 0.01  # of accuracy that the twin is better by, or
RATIO = 1.03  # its RMSE is smaller by, to count
DOUBLINGS = 4
SECONDS = 60.0  # for all trials; the next one is expected to last twice as long as the one before


@dataclass(frozen=True, kw_only=True)
class RankTrial:
    """Kronecker network of a higher rank, trained as the network of the twin was.

    Attributes:
        rank: rank of every layer, or of each.
        score: test score: accuracy or RMSE.
        parameters: number of its parameters.
        weight_bytes: bytes of its weights, biases and step sizes.
        seconds: time for the training.
    """

    rank: int | tuple[int, ...]
    score: float
    parameters: int
    weight_bytes: int
    seconds: float

    @property
    def name(self) -> str:
        """Name for a table of scores."""
        return f"Kronecker network of rank {shown_rank(self.rank)}"


@dataclass(frozen=True, kw_only=True)
class RankSearch:
    """Kronecker networks of higher ranks beside a twin.

    Attributes:
        trials: the networks, by rising rank.
        text: sentence for the user: the rank that suffices, or that none does.
    """

    trials: tuple[RankTrial, ...]
    text: str


def is_worse(metric: str, score: float, dense: float) -> bool:
    """Tell whether a score is clearly worse than the dense network's: by a point of accuracy, or 3 % of RMSE."""
    return dense - score >= POINTS if metric == "accuracy" else score > RATIO * dense


def search_ranks(
    member: Member,
    data: Dataset,
    *,
    metric: str,
    score: float,
    dense: float,
    dense_parameters: int,
    report: Callable[[str], None] = lambda line: None,
    seconds: float = SECONDS,
) -> RankSearch | None:
    """Train Kronecker networks of twice the rank, and so on, until one is not clearly worse than the dense network.

    The search ends at a network with as many parameters as the dense one has, and before a training that is expected to
    exceed the time. Nothing is published.

    Args:
        member: the Kronecker network of the twin.
        data: data set of the twin.
        metric: ``"accuracy"`` or ``"rmse"``.
        score: test score of the Kronecker network.
        dense: test score of the dense network.
        dense_parameters: number of its parameters.
        report: called with a message before each training.
        seconds: time for all trainings.

    Returns:
        The trials; None if the Kronecker network is not clearly worse.
    """
    if not isinstance(member.config, KroneckerConfig) or not is_worse(metric, score, dense):
        return None
    scores = f"{_shown(metric, score)}, the dense network's {_shown(metric, dense).split()[1]}"
    begin = f"the Kronecker network is worse than its twin on these test rows ({scores})"
    trials: list[RankTrial] = []
    start = time.perf_counter()
    for config in _higher(member.config, dense_parameters):
        spent = time.perf_counter() - start
        if trials and spent + 2 * trials[-1].seconds > seconds:
            break
        report(f"training a Kronecker network of rank {shown_rank(config.rank)} for comparison ...")
        try:
            network, result = train_member(replace(member, config=config), data)
        except TrainingError as error:
            report(f"rank {shown_rank(config.rank)}: {error}")
            break
        trials.append(
            RankTrial(
                rank=config.rank,
                score=result.test_score,
                parameters=network.parameter_count,
                weight_bytes=network.weight_bytes,
                seconds=time.perf_counter() - start - spent,
            )
        )
        if not is_worse(metric, result.test_score, dense):
            rank = shown_rank(config.rank)
            text = f"{begin}; with rank {rank} it is not ({_shown(metric, result.test_score)})"
            return RankSearch(trials=tuple(trials), text=text)
    if not trials:
        return RankSearch(trials=(), text=f"{begin}; a higher rank needs as many parameters as the dense network has")
    tried = ", ".join(shown_rank(each.rank) for each in trials)
    return RankSearch(trials=tuple(trials), text=f"{begin}, and so are those of rank {tried}")


def shown_rank(rank: int | tuple[int, ...]) -> str:
    """Format a rank, or one for each layer, as the option ``--rank`` takes it."""
    return ",".join(map(str, rank)) if isinstance(rank, tuple) else str(rank)


def _higher(config: KroneckerConfig, limit: int) -> Iterator[KroneckerConfig]:
    """Iterate over configurations with doubled ranks that have fewer than ``limit`` parameters."""
    ranks = config.ranks
    for _ in range(DOUBLINGS):
        ranks = tuple(2 * rank for rank in ranks)
        try:
            config = replace(config, rank=ranks if isinstance(config.rank, tuple) else ranks[0])
        except ValueError:  # above the useful maximum of a linear layer, or there is an order for each branch
            return
        with torch.random.fork_rng([]), torch.device("meta"):  # allocates no memory for the weights
            if build(config).parameter_count >= limit:
                return
        yield config


def _shown(metric: str, score: float) -> str:
    return f"accuracy {score:.1%}" if metric == "accuracy" else f"RMSE {score:.4g}"
