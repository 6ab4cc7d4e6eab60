"""The estimators: scikit-learn's own checks, searches in pipelines, and the networks that they train."""

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.estimator_checks import check_estimator

from kronmodel import KroneckerClassifier, KroneckerLinear, KroneckerRegressor
from kronmodel.nn.base import KroneckerLayer


@pytest.mark.parametrize("estimator", [KroneckerClassifier, KroneckerRegressor])
def test_the_checks_of_scikit_learn_pass(estimator: type[Any]) -> None:
    results = check_estimator(estimator(epochs=20, threads=1), on_skip=None, on_fail="raise")
    passed = [each["check_name"] for each in results if each["status"] == "passed"]
    skipped = {each["check_name"] for each in results if each["status"] == "skipped"}
    assert len(passed) > 35
    assert skipped <= {"check_array_api_input"}


def test_a_search_over_a_pipeline_with_texts() -> None:
    rng = np.random.default_rng(0)
    kinds, sizes = rng.choice(["flat", "house", "shed"], 150), rng.normal(0, 1, 150)
    x = np.empty((150, 2), object)
    x[:, 0], x[:, 1] = kinds, sizes
    y = np.where((kinds == "house") ^ (sizes > 0), "dear", "cheap")
    encoder = make_column_transformer((OneHotEncoder(), [0]), remainder="passthrough")
    pipeline = make_pipeline(encoder, KroneckerClassifier(random_state=1, threads=1))
    grid = {"kroneckerclassifier__rank": [1, 2], "kroneckerclassifier__epochs": [1, 60]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(x, y)
    assert search.best_params_["kroneckerclassifier__epochs"] == 60
    assert search.best_score_ > 0.9
    network = search.best_estimator_[-1].network_
    layers = [module for module in network.modules() if isinstance(module, KroneckerLayer)]
    assert {layer.rank for layer in layers} == {search.best_params_["kroneckerclassifier__rank"]}


def test_probabilities_and_classes_survive_pickling() -> None:
    x, y = load_wine(return_X_y=True)
    names = np.array(["Barolo", "Grignolino", "Barbera"])[y]
    model = KroneckerClassifier(random_state=2, epochs=40, threads=1).fit(x, names)
    assert model.classes_.tolist() == ["Barbera", "Barolo", "Grignolino"]
    probabilities = model.predict_proba(x)
    assert probabilities.shape == (178, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (model.classes_[probabilities.argmax(1)] == model.predict(x)).all()
    assert model.score(x, names) > 0.95
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict_proba(x) == probabilities).all()
    same = KroneckerClassifier(random_state=2, epochs=40, threads=1).fit(x, names)
    np.testing.assert_array_equal(same.predict_proba(x), probabilities)
    other = KroneckerClassifier(random_state=3, epochs=40, threads=1).fit(x, names)
    assert np.abs(other.predict_proba(x) - probabilities).max() > 1e-6


def test_a_regression_is_about_as_good_as_a_linear_one() -> None:
    x, y = load_diabetes(return_X_y=True)
    model = KroneckerRegressor(random_state=0, threads=1, layer="linear")
    linear = cross_val_score(LinearRegression(), x, y, cv=3).mean()
    assert cross_val_score(model, x, y, cv=3).mean() > linear - 0.1
    assert any(isinstance(module, KroneckerLinear) for module in model.fit(x, y).network_.modules())


def test_several_targets_of_other_units() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 7)) * [1, 1e6, 1e-9, 1, 1, 1, 0] + [0, 1e9, 0, 0, 0, 0, 5]
    z = (x[:, :3] - x[:, :3].mean(0)) / x[:, :3].std(0)
    y = np.stack([1e12 + 1e4 * z[:, 0], 1e-6 * (z[:, 1] - z[:, 2])], 1)
    model = KroneckerRegressor(random_state=0, threads=1).fit(x, y)
    predicted = model.predict(x)
    assert predicted.shape == (200, 2)
    assert model.score(x, y) > 0.9
    assert model.fit(x, y[:, 1]).predict(x[:3]).shape == (3,)
    assert (model.fit(x, np.full(200, 3.5)).predict(x) == 3.5).all()


def test_errors() -> None:
    x, y = np.zeros((4, 2)), np.array([0, 0, 0, 0])
    with pytest.raises(ValueError, match="expected at least 2 classes, got 1 class: 0"):
        KroneckerClassifier().fit(x, y)
    with pytest.raises(NotFittedError):
        KroneckerRegressor().predict(x)
    with pytest.raises(ValueError, match="rank"):
        KroneckerClassifier(rank=0).fit(x, [0, 1, 0, 1])
    with pytest.raises(ValueError, match="X has 3 features, but KroneckerClassifier is expecting 2"):
        KroneckerClassifier(epochs=1).fit(x, [0, 1, 0, 1]).predict(np.zeros((1, 3)))
