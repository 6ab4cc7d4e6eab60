"""Exported C code of a trained twin on all test images of MNIST, beside onnxruntime and integers in numpy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from kronmodel.cli import main as cli
from kronmodel.data.registry import load
from kronmodel.export.c.formats import write_source
from kronmodel.export.c.integer_steps import quantize_network
from kronmodel.export.c.model import CModel
from tests.kronmodel.export.c.graphs import outputs_of
from tests.kronmodel.export.c.programs import compile_program, run_program
from tests.kronmodel.export.c.test_integers import forward, quantized_inputs

pytestmark = pytest.mark.skipif(not os.environ.get("KRONMODEL_C_TARGETS"), reason="takes minutes: `make test-c`")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    options = ["--epochs", "1", "--threads", "1", "--name", "mnist", "--out", str(path)]
    assert cli.main(["train", "--data", "mnist", *options]) == 0
    return path


@pytest.mark.parametrize("role", ["kronecker", "dense"])
def test_all_test_images(role: str, folder: Path, tmp_path: Path) -> None:
    images = load("mnist", print).x_test.astype(np.float32)
    model = CModel.read(folder / f"mnist-{role}/1/model.onnx")
    assert model.network is not None
    expected = outputs_of(model.path, images)["probabilities"]
    for libm in (True, False):
        source = write_source(model, "net", None, libm=libm)
        program = compile_program(tmp_path / "float", source, ["cc", "-O2"])
        labels, found = run_program([str(program)], tmp_path / "float", images, 10)
        np.testing.assert_array_equal(labels, expected.argmax(1))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    source = write_source(model, "net", 8)
    if role == "kronecker":
        assert source.scratch_bytes <= 4096
        assert source.weight_bytes <= 14_000
    program = compile_program(tmp_path / "integers", source, ["cc", "-O2"])
    labels, _ = run_program([str(program)], tmp_path / "integers", images, 10)
    integers = quantize_network(model.network, model.samples, 8, 8)
    for part in range(0, len(images), 1000):
        rows = images[part : part + 1000]
        oracle = forward(integers, quantized_inputs(model, integers.given, rows)).argmax(1)
        np.testing.assert_array_equal(labels[part : part + 1000], oracle)
    assert np.mean(labels == expected.argmax(1)) >= 0.985
