"""Compression of a model that takes the columns of a table: texts and numbers, which its graph encodes."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from kronmodel.cli.main import main
from kronmodel.compress.files.compress import compress_file
from kronmodel.compress.files.target import Target
from kronmodel.data.user_file import FileOptions
from kronmodel.errors import DataError
from tests.kronmodel.compress.files.networks import SETTINGS
from tests.kronmodel.compress.onnx_models import run

COLOURS = ("red", "green", "blue")


def write_table(path: Path, *columns: str) -> None:
    rng = np.random.default_rng(0)
    lines = [",".join(columns)]
    for _ in range(900):
        colour, size, age = rng.choice(COLOURS), rng.normal(), rng.normal()
        answer = "yes" if size + 1.5 * (colour == "red") - age > 0.5 else "no"
        lines.append(f"{colour},{size:.4f},{age:.4f},{answer}")
    path.write_text("\n".join(lines))


def test_layers_behind_the_encoders_are_compressed_on_the_rows_of_the_test_part(tmp_path: Path) -> None:
    table, models = tmp_path / "table.csv", tmp_path / "models"
    write_table(table, "colour", "size", "age", "answer")
    train = ["train", "--data", str(table), "--target", "answer", "--kind", "dense", "--hidden", "8x8,8x8"]
    assert main([*train, "--epochs", "8", "--name", "table", "--out", str(models), "--json"]) == 0
    path = models / "table-dense/1/model.onnx"
    options = FileOptions(target="answer")
    report = compress_file(
        path, Target(ratio=1.5), data=str(table), options=options, out=tmp_path / "small", settings=SETTINGS
    )
    assert any(row.structure.startswith("low-rank") for row in report.layers)
    before, after = (onnx.load(each).graph for each in (path, report.path))
    assert before.input == after.input
    encoders = ("Equal", "Where", "IsNaN", "Concat", "Cast")
    kinds = [[node.op_type for node in graph.node if node.op_type in encoders] for graph in (before, after)]
    assert kinds[0] == kinds[1]
    scores = {row.variant: row.scores for row in report.variants}["compressed"]
    assert scores is not None
    assert scores.accuracy is not None
    assert scores.accuracy > 0.75
    feeds = {
        "colour": np.array([["green"], ["red"]]),
        "size": np.ones((2, 1)),
        "age": np.zeros((2, 1)),
    }
    np.testing.assert_allclose(run(path, **feeds)[0], run(report.path, **feeds)[0], atol=3)
    other = tmp_path / "other.csv"
    write_table(other, "colour", "width", "age", "answer")
    with pytest.raises(DataError, match="has no column for the model's input size"):
        compress_file(path, Target(ratio=1.5), data=str(other), options=options, out=tmp_path / "no")
