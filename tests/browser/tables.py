"""A repository of models that take rows of numbers: a twin that predicts prices, and two models without a card."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.naive_bayes import GaussianNB

from tests.app.graphs import model, publish

NAMES = ["rooms", "age", "distance", "garden", "floor"]
ROWS: NDArray[np.float32] = np.random.default_rng(5).uniform(-2, 9, (7, len(NAMES))).astype(np.float32)
WEIGHTS = {
    "kronecker": np.array([[30.0], [-2.0], [-5.0], [12.0], [1.5]], np.float32),
    "dense": np.array([[31.0], [-2.5], [-4.0], [11.0], [1.0]], np.float32),
}
PRICES = (ROWS @ WEIGHTS["dense"] + 3)[:, 0]


def write(repository: Path) -> Path:
    """Publish the twin `houses`, the model `plain`, and the classifier `fruit` as scikit-learn exports it."""
    for role, weights in WEIGHTS.items():
        card = {
            "card_version": 1,
            "name": f"houses-{role}",
            "twin": "houses",
            "role": role,
            "task": "regression",
            "layers": [{"kind": "Linear", "in_shape": [5], "out_shape": [1], "parameters": 5, "macs_per_sample": 5}],
            "parameters": 5,
            "macs_per_sample": 5,
            "input": {"kind": "features", "names": NAMES},
            "data": {"name": "houses", "train_samples": 100, "test_samples": 20},
            "test_metric": {"name": "rmse", "value": 4.5, "samples": 20},
        }
        path = publish(repository, f"houses-{role}", linear(weights, card))
        np.savez_compressed(path.parent / "samples.npz", inputs=ROWS, labels=PRICES)
    publish(repository, "plain", linear(np.ones((3, 1), np.float32), None))
    rows = np.array([[1, 9], [2, 8], [5, 5], [6, 5], [9, 1], [8, 2]], np.float32)
    fruit = GaussianNB().fit(rows, ["plum", "plum", "apple", "apple", "pear", "pear"])
    publish(repository, "fruit", to_onnx(fruit, rows[:1]))
    return repository


def linear(weights: NDArray[np.float32], card: dict[str, Any] | None) -> Any:
    """Make a graph of one matrix product."""
    return model(
        [helper.make_node("MatMul", ["input", "weight"], ["prediction"])],
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", len(weights)]),
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(weights, "weight")],
        card,
    )
