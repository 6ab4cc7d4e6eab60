"""Kronecker networks as estimators of scikit-learn, for pipelines, searches over parameters, and cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from kronmodel.data.dataset import Dataset, Scaling
from kronmodel.shapes import Layer, Shape
from kronmodel.twin import train_twin

__all__ = ["KroneckerClassifier", "KroneckerRegressor"]

WATCHED = 32  # training rows that the training loop scores after each epoch; they change nothing
BATCH = 4096  # rows of a prediction's run
MAX_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class _Standardised:
    """Mean and standard deviation of columns, in float64; the standard deviation of a constant one is 0."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[Any]) -> _Standardised:
        exact = values.astype(np.float64)
        mean, std = exact.mean(0), exact.std(0)
        constant = (std <= np.finfo(np.float64).eps * np.abs(mean)) | (exact == exact[:1]).all(0)
        return cls(mean=mean, std=np.where(constant, 0.0, std))

    def apply(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Standardise ``(n, k)`` values; those of a constant column become 0."""
        inverse = np.divide(1, self.std, out=np.zeros_like(self.std), where=self.std > 0)
        found: NDArray[np.float64] = (values.astype(np.float64) - self.mean) * inverse
        return found


class _KroneckerEstimator(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Parameters, training and predictions that the classifier and the regressor share.

    Args:
        recipe: name of a recipe; by default the one recommended for the number of rows.
        hidden: factor sizes of each hidden layer, such as ``((8, 8),)``; by default the recipe's, like the others.
        rank: Kronecker rank of every layer.
        layer: ``"dual"`` for layers with biases and activations between their factors, or ``"linear"``.
        activation: gelu, relu or tanh.
        epochs: passes over the training rows.
        batch_size: rows of a step.
        learning_rate: maximum of the one-cycle schedule.
        weight_decay: weight decay of AdamW.
        device: training device, such as ``"cpu"`` or ``"cuda"``.
        threads: number of CPU threads; by default torch's choice.
        random_state: seed of the initial weights and of the order of the rows.
    """

    def __init__(
        self,
        *,
        recipe: str | None = None,
        hidden: Sequence[Shape] | None = None,
        rank: int | None = None,
        layer: Layer | None = None,
        activation: str | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        device: str = "cpu",
        threads: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.recipe = recipe
        self.hidden = hidden
        self.rank = rank
        self.layer = layer
        self.activation = activation
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.device = device
        self.threads = threads
        self.random_state = random_state

    def _train(self, x: NDArray[Any], y: NDArray[Any], labels: tuple[str, ...]) -> None:
        """Standardise the features and the values to predict, and train the network."""
        self._features = _Standardised.of(x)
        features = self._features.apply(x).astype(np.float32)
        if not labels:
            self._targets = _Standardised.of(y)
            y = self._targets.apply(y).astype(np.float32)
        unit = np.ones(0 if labels else y.shape[1], np.float32)
        data = Dataset(
            name="estimator",
            x_train=features,
            y_train=y,
            x_test=features[:WATCHED],
            y_test=y[:WATCHED],
            task="classification" if labels else "regression",
            labels=labels,
            feature_names=tuple(f"x{index}" for index in range(features.shape[1])),
            target_scaling=None if labels else Scaling(mean=0 * unit, std=unit, inverse=unit),
            preprocessing="standardised",
            origin="arrays",
        )
        network = {name: getattr(self, name) for name in ("hidden", "rank", "layer", "activation")}
        training = {name: getattr(self, name) for name in ("epochs", "batch_size", "learning_rate", "weight_decay")}
        seed = int(check_random_state(self.random_state).randint(MAX_SEED))
        twin = train_twin(
            data,
            kind="kronecker",
            recipe=self.recipe,
            network={name: value for name, value in network.items() if value is not None},
            training={
                **{name: value for name, value in training.items() if value is not None},
                "seed": seed,
                "device": self.device,
            },
            out=None,
            threads=self.threads,
        )
        # float64: the answer to a row must not depend on the other rows of a batch by more than rounding of float64.
        self.network_ = twin.models["kronecker"].network.cpu().double().eval()

    def _outputs(self, x: ArrayLike) -> torch.Tensor:
        """Compute the network's outputs for rows ``(n, n_features)``."""
        check_is_fitted(self)
        features = torch.from_numpy(self._features.apply(validate_data(self, x, reset=False)))
        padded = torch.nn.functional.pad(features, (0, self.network_.in_features - features.shape[1]))
        with torch.inference_mode():
            return torch.cat([self.network_(part) for part in padded.split(BATCH)])


class KroneckerClassifier(ClassifierMixin, _KroneckerEstimator):  # type: ignore[misc]
    """Classifier: a network of Kronecker layers.

    Attributes:
        classes_: the classes, sorted.
        network_: trained network, in float64, of standardised features.
        n_features_in_: number of features.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from kronmodel import KroneckerClassifier
        >>> x, y = load_iris(return_X_y=True)
        >>> round(KroneckerClassifier(random_state=0).fit(x, y).score(x, y), 1)
        1.0
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803 - scikit-learn's name
        """Train the network.

        Args:
            X: ``(n, n_features)`` numbers.
            y: ``(n,)`` classes: numbers or texts.

        Raises:
            ValueError: the arrays are not valid, or have fewer than two classes.
        """
        x, y = validate_data(self, X, y, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, indices = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"expected at least 2 classes, got 1 class: {self.classes_[0]}")
        self._train(x, indices.astype(np.int64), tuple(map(str, self.classes_.tolist())))
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """Return the probability of each class: ``(n, classes)``."""
        found: NDArray[np.float64] = self._outputs(X).softmax(-1).numpy()
        return found

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable classes: ``(n,)``."""
        probabilities = self.predict_proba(X)
        found: NDArray[Any] = self.classes_[probabilities.argmax(1)]
        return found


class KroneckerRegressor(RegressorMixin, _KroneckerEstimator):  # type: ignore[misc]
    """Regressor for one value or several: a network of Kronecker layers.

    Attributes:
        network_: trained network, in float64, of standardised features and values.
        n_features_in_: number of features.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Train the network.

        Args:
            X: ``(n, n_features)`` numbers.
            y: ``(n,)`` or ``(n, k)`` values to predict.

        Raises:
            ValueError: the arrays are not valid.
        """
        x, values = validate_data(self, X, y, multi_output=True, y_numeric=True, ensure_min_samples=2)
        self._flat = values.ndim == 1
        self._train(x, values.reshape(len(values), -1), ())
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """Return the predicted values: ``(n,)`` or ``(n, k)``, as ``y`` in the training."""
        output: NDArray[np.float64] = self._outputs(X).numpy()
        found = output * self._targets.std + self._targets.mean
        return found[:, 0] if self._flat else found
