"""Baselines for a data set: what simple methods of scikit-learn reach on the same split, to judge networks by."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.dataset import Dataset, prepared

__all__ = ["Baseline", "baselines", "verdict"]

MAX_VALUES = 4_000_000  # of the training rows that a baseline learns from; more would make it slow
MAX_CLASSES = 30  # gradient boosting grows trees for each class


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Test scores of a simple method.

    Attributes:
        name: name of the method.
        scores: accuracy and balanced accuracy; or RMSE and R².
        train_rows: number of training rows that it learned from.
        seconds: time for training and test.
    """

    name: str
    scores: dict[str, float]
    train_rows: int
    seconds: float


def baselines(data: Dataset, seed: int = 0) -> list[Baseline]:
    """Train the baselines on a data set, and score them on its test rows.

    For classification: always the most frequent class, logistic regression, gradient boosting; for regression: always
    the mean, linear regression, gradient boosting. Of a large data set, they learn from a random part.

    Args:
        data: data set with raw or encoded features.
        seed: random seed of the methods and of that part.
    """
    ready = prepared(data, data.features)
    most = max(1, MAX_VALUES // data.features)
    rows = np.arange(len(ready.x_train))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
    x, y = ready.x_train[rows], ready.y_train[rows]
    found = []
    for name, method in _methods(data, seed):
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an optimisation that has not converged is a baseline, too
            scores = _scores(data, method.fit(x, y if data.task == "classification" else _column(y)), ready.x_test)
        found.append(Baseline(name=name, scores=scores, train_rows=len(x), seconds=time.perf_counter() - start))
    return found


def _methods(data: Dataset, seed: int) -> list[tuple[str, Any]]:
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.multioutput import MultiOutputRegressor

    if data.task == "classification":
        boosting = HistGradientBoostingClassifier(early_stopping=False, random_state=seed)
        return [
            ("most frequent class", DummyClassifier(strategy="most_frequent")),
            ("logistic regression", LogisticRegression(max_iter=1000)),
            *([("gradient boosting", boosting)] if data.outputs <= MAX_CLASSES else []),
        ]
    boosting = HistGradientBoostingRegressor(early_stopping=False, random_state=seed)
    several = boosting if data.outputs == 1 else MultiOutputRegressor(boosting)
    return [("mean", DummyRegressor()), ("linear regression", LinearRegression()), ("gradient boosting", several)]


def _column(y: NDArray[Any]) -> NDArray[Any]:
    return y[:, 0] if y.shape[1] == 1 else y


def _scores(data: Dataset, method: Any, x: NDArray[np.float32]) -> dict[str, float]:
    from sklearn.metrics import r2_score, recall_score, root_mean_squared_error

    predicted = method.predict(x)
    if data.task == "classification":
        recall = recall_score(data.y_test, predicted, labels=np.unique(data.y_test), average="macro", zero_division=0)
        return {"accuracy": float((predicted == data.y_test).mean()), "balanced_accuracy": float(recall)}
    scaling = data.target_scaling
    if scaling is None:
        raise ValueError("a regression data set needs the scaling of its targets, got None")
    values = predicted.reshape(len(x), -1) * scaling.std + scaling.mean
    # Like the networks' score: the root of the error averaged over all targets.
    error = float(np.sqrt(np.mean(root_mean_squared_error(data.y_test, values, multioutput="raw_values") ** 2)))
    found = {"rmse": error}
    if (data.y_test.std(0) > 0).all():
        found["r2"] = float(r2_score(data.y_test, values))
    return found


def verdict(found: list[Baseline], metric: str, scores: dict[str, float]) -> str | None:
    """Say when a baseline is better than all networks; None if none is.

    Args:
        found: the baselines.
        metric: ``"accuracy"`` or ``"rmse"``.
        scores: test score of each network by its name.
    """
    higher = metric == "accuracy"
    best = (max if higher else min)(found, key=lambda baseline: baseline.scores[metric], default=None)
    if best is None or not scores:
        return None
    network = (max if higher else min)(scores.values())
    score = best.scores[metric]
    if not (score > network if higher else score < network):
        return None
    form = "{:.2%}" if higher else "{:.4g}"
    title = "accuracy" if higher else "RMSE"
    shown = f"{title} {form.format(score)}, the best network's {form.format(network)}"
    return f"{best.name} is better on these test rows ({shown}): unless size or speed decides, use it instead"
