"""Baselines of a data set: scores of scikit-learn's methods on the same split, and when they are better."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.metrics import balanced_accuracy_score

from kronmodel.data.file_options import FileOptions
from kronmodel.data.user_file import from_arrays
from kronmodel.training import baselines as module
from kronmodel.training.baselines import Baseline, baselines, verdict


def quiet(line: str) -> None:
    pass


def test_baselines_of_a_classification() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    kept = np.concatenate([np.flatnonzero(y == 1), np.flatnonzero(y == 0)[:80]])
    data = from_arrays({"x": x[kept], "y": y[kept]}, quiet, FileOptions(), name="a", origin="a")
    found = {each.name: each for each in baselines(data)}
    assert list(found) == ["most frequent class", "logistic regression", "gradient boosting"]
    constant = np.full(len(data.y_test), np.bincount(data.y_train).argmax())
    frequent = found["most frequent class"].scores
    assert frequent["accuracy"] == pytest.approx((data.y_test == constant).mean())
    assert frequent["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(data.y_test, constant))
    assert found["logistic regression"].scores["accuracy"] > 0.95
    assert found["gradient boosting"].scores["balanced_accuracy"] > 0.75
    assert {each.train_rows for each in found.values()} == {len(data.x_train)}


@pytest.mark.parametrize("targets", [1, 2])
def test_baselines_of_a_regression_are_in_the_targets_units(targets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = load_diabetes(return_X_y=True, scaled=False)
    y = np.stack([y, 100 * x[:, 2]], 1)[:, :targets]
    data = from_arrays({"x": x, "y": y}, quiet, FileOptions(), name="a", origin="a")
    found = {each.name: each.scores for each in baselines(data)}
    assert list(found) == ["mean", "linear regression", "gradient boosting"]
    predicted = LinearRegression().fit(data.x_train, data.y_train).predict(data.x_test)
    errors = (predicted - data.y_test) ** 2
    assert found["linear regression"]["rmse"] == pytest.approx(np.sqrt(errors.mean()), rel=1e-3)
    r2 = (1 - errors.mean(0) / data.y_test.var(0)).mean()
    assert found["linear regression"]["r2"] == pytest.approx(r2, abs=1e-3)
    assert found["mean"]["r2"] <= 0
    monkeypatch.setattr(module, "MAX_VALUES", 1000)
    assert {each.train_rows for each in baselines(data)} == {100}


def test_a_better_baseline_is_said_in_words() -> None:
    found = [
        Baseline(name=name, scores={"accuracy": score, "rmse": score}, train_rows=9, seconds=0.1)
        for name, score in (("a", 0.5), ("b", 0.9))
    ]
    assert verdict(found, "accuracy", {"kronecker": 0.8, "dense": 0.89}) == (
        "b is better on these test rows (accuracy 90.00%, the best network's 89.00%): unless size or speed decides, "
        "use it instead"
    )
    assert verdict(found, "accuracy", {"kronecker": 0.9}) is None
    assert str(verdict(found, "rmse", {"kronecker": 0.6})).startswith("a is better on these test rows (RMSE 0.5,")
    assert verdict(found, "rmse", {"kronecker": 0.5}) is None
