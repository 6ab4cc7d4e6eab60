"""Quality of models against uploaded labels, evaluated by a real measuring process."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import BadRequest, ComparisonError
from app.measure.children import quality as quality_child
from app.measure.inputs.arrays import InputArrays
from app.measure.inputs.interface import GraphTensor, Interface
from app.processes.parent import run_measuring_process
from tests.app.conftest import KRONECKER, ROWS
from tests.app.graphs import CARD, LABELS, Array, classifier, forward, heavy, publish

VALUES: Array = np.random.default_rng(4).standard_normal((7, 1)).astype(np.float32)
TRUE: Array = (np.arange(len(ROWS)) ** 2) % 3  # 0 and 1 only
BEST: Array = forward(KRONECKER, ROWS).argmax(axis=1)


def quality(folder: Path, models: dict[str, Path], card: Any, rows: Array, labels: Array) -> Any:
    interface = Interface((GraphTensor("input", "FP32", ("batch", rows.shape[1])),), ())
    InputArrays({"input": rows}, interface.batch_axes).save(folder / "inputs", labels)
    job = {
        "device": "cpu",
        "threads": 1,
        "batch_sizes": [1],
        "inputs": str(folder / "inputs"),
        "source": {"source": "uploaded", "name": "mine.npy"},
        "models": [{"name": name, "path": str(path), "samples": "", "card": card} for name, path in models.items()],
    }
    return asyncio.run(run_measuring_process(quality_child.__name__, job))["quality"]


def classified(folder: Path, labels: Array) -> Any:
    path = publish(folder, "digits", classifier(KRONECKER))
    return quality(folder, {"digits": path}, json.dumps(CARD), ROWS, labels)


def regressed(folder: Path, labels: Array) -> Any:
    """The quality of a model whose output is its input."""
    return quality(folder, {"price": publish(folder, "price", heavy(width=1, products=2))}, None, VALUES, labels)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([f"{label}.0" for label in TRUE]),  # as pandas writes a column with a missing value
        np.array([LABELS[label] if row % 2 else str(label) for row, label in enumerate(TRUE)]),
        TRUE.astype(np.float64),
    ],
    ids=["text with a point", "names and positions", "floats"],
)
def test_labels_are_names_or_whole_numbers_in_any_notation(tmp_path: Path, labels: Array) -> None:
    (model,) = classified(tmp_path, labels)["models"]
    assert 0 < model["accuracy"] == pytest.approx((BEST == TRUE).mean())
    assert np.sum(model["confusion"], axis=1).tolist() == np.bincount(TRUE, minlength=3).tolist()
    assert np.trace(model["confusion"]) == (BEST == TRUE).sum()
    for cell in model["wrong"]:
        behind = np.flatnonzero((cell["true"] == TRUE) & (cell["predicted"] == BEST))
        assert cell["true"] != cell["predicted"]
        assert cell["rows"] == behind[:12].tolist()
        assert model["confusion"][cell["true"]][cell["predicted"]] == len(behind)
    assert sum(map(np.count_nonzero, model["confusion"])) - np.count_nonzero(np.diag(model["confusion"])) == len(
        model["wrong"]
    )


@pytest.mark.parametrize("kind", [np.int64, np.float64, np.str_])
def test_whole_numbers_are_names_where_all_of_them_are(tmp_path: Path, kind: type) -> None:
    card = json.dumps(CARD | {"labels": ["1", "7", "2"]})
    models = {"digits": publish(tmp_path, "digits", classifier(KRONECKER))}
    named = np.array([1, 7, 2])[TRUE]
    (model,) = quality(tmp_path, models, card, ROWS, named.astype(kind))["models"]
    assert model["accuracy"] == pytest.approx((BEST == TRUE).mean())
    (model,) = quality(tmp_path, models, card, ROWS, TRUE.astype(kind))["models"]  # 0 is no name
    assert model["accuracy"] == pytest.approx((BEST == TRUE).mean())


@pytest.mark.parametrize("label", ["inf", "-1e999", "nan", "1.5", "1e300"])
def test_labels_that_are_not_classes_are_refused(tmp_path: Path, label: str) -> None:
    labels = np.array(["1", label, *["2"] * (len(ROWS) - 2)])
    with pytest.raises(BadRequest, match=rf"^labels\[1\]: got '{label}', expected one of zero, one, two, or 0 to 2: "):
        classified(tmp_path, labels)


def test_the_rmse_of_a_regression_is_that_of_its_labels(tmp_path: Path) -> None:
    (model,) = regressed(tmp_path, np.array([f"{value}" for value in range(7)]))["models"]
    assert model["rmse"] == pytest.approx(np.sqrt(np.mean((VALUES[:, 0] - np.arange(7)) ** 2)))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("nan", r"^labels\[2\]: got 'nan', expected a finite number$"),
        ("-inf", r"^labels\[2\]: got '-inf', expected a finite number$"),
        ("1e999", r"^labels\[2\]: got '1e999', expected a finite number$"),
        ("1e200", r"^labels: the RMSE of price is not finite, expected labels of the size of its outputs$"),
        ("x", r"^labels: could not convert string to float: .*'x'.*, expected the numbers that a regression predicts$"),
    ],
)
def test_targets_without_a_finite_rmse_are_refused(tmp_path: Path, label: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        regressed(tmp_path, np.array(["1", "0.5", label, "3", "-4", "1e3", "7"]))


def test_a_result_that_is_not_finite_fails_the_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON has no such number, and a measuring process may have forgotten to check."""
    (tmp_path / "forgetful_child.py").write_text(
        "from app.processes import child\nchild.receive()\nchild.send(result={'values': [1.5, float('nan')]})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ComparisonError, match=r"^a measuring process failed: got a number that is not finite"):
        asyncio.run(run_measuring_process("forgetful_child", {}))
