"""`kronserve compare --native`: native code beside onnxruntime, in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def add_model(folder: Path, name: str, activation: str, samples: bool = True) -> None:
    """Write a network of two dense layers into a model repository."""
    rng = np.random.default_rng(len(name))
    sizes = ((9, 6), (6, 3))
    constants = [
        onnx.numpy_helper.from_array(rng.normal(size=s).astype(np.float32), f"w{i}") for i, s in enumerate(sizes)
    ]
    nodes = [
        helper.make_node("Gemm", ["input", "w0"], ["h"]),
        helper.make_node(activation, ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "w1"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    infos = [
        helper.make_tensor_value_info(each, TensorProto.FLOAT, ["batch", size])
        for each, size in (("input", 9), ("logits", 3), ("probabilities", 3))
    ]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], constants)
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    if samples:
        inputs = rng.normal(size=(20, 9)).astype(np.float32)
        np.savez(path.with_name("samples.npz"), inputs=inputs, labels=np.zeros(20, np.int64))


def compare(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "compare", "a", "b", "--models", str(folder), "--native", *options]
    env = {name: value for name, value in os.environ.items() if not name.startswith("KRON")} | environment
    return subprocess.run(
        [*command, "--seconds", "0.2", "--batch-sizes", "3"], capture_output=True, text=True, env=env, check=False
    )


def test_native_code_is_timed_beside_onnxruntime(tmp_path: Path) -> None:
    add_model(tmp_path, "a", "Gelu")
    add_model(tmp_path, "b", "Sigmoid")
    done = compare(tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    native = json.loads(done.stdout)["native"]
    runs = {(run["model"], run["runtime"]): run for run in native["runs"]}
    assert list(runs) == [("a", "onnxruntime"), ("a", "native float32"), ("a", "native int8"), ("b", "onnxruntime")]
    (note,) = native["notes"]
    assert "the Sigmoid node" in note
    assert note.startswith("b: ")
    assert runs["a", "native float32"]["largest_difference"] <= 1e-5
    assert 1e-5 < runs["a", "native int8"]["largest_difference"] <= 0.5
    assert runs["a", "native float32"]["same_class"] == 1
    for run in runs.values():
        (latency,) = run["latency"]
        assert latency["batch_size"] == 3
        assert latency["p50_us"] > 0
    median = runs["a", "native int8"]["latency"][0]["p50_us"]
    speedup = runs["a", "onnxruntime"]["latency"][0]["p50_us"] / median
    assert runs["a", "native int8"]["speedup"] == [pytest.approx(speedup, rel=0.05)]


def export_c(folder: Path, name: str, out: Path, *options: str) -> None:
    model = folder / name / "1" / "model.onnx"
    command = [sys.executable, "-m", "kronmodel", "export", str(model), "--to", "c", "--shared", "--out", str(out)]
    subprocess.run([*command, *options], check=True, capture_output=True)


def test_compiled_c_code_is_timed_beside_onnxruntime(tmp_path: Path) -> None:
    models = tmp_path / "models"
    add_model(models, "a", "Gelu")
    add_model(models, "b", "Tanh")
    export_c(models, "a", tmp_path / "floats.c")
    export_c(models, "b", tmp_path / "integers.c", "--bits", "8")
    chosen = ["--library", str(tmp_path / "floats.so"), "--library", str(tmp_path / "integers.so")]
    done = compare(models, "--json", *chosen, KRONMODEL_NATIVE="0")  # libraries don't need the native code
    assert done.returncode == 0, done.stderr
    native = json.loads(done.stdout)["native"]
    runs = {(run["model"], run["runtime"]): run for run in native["runs"]}
    assert list(runs) == [
        ("a", "onnxruntime"), ("a", "C, floats.so"), ("b", "onnxruntime"), ("b", "C, integers.so")
    ]  # fmt: skip
    assert 0 < runs["a", "C, floats.so"]["largest_difference"] <= 1e-5
    assert 1e-5 < runs["b", "C, integers.so"]["largest_difference"] <= 0.1
    for name, library in (("a", "C, floats.so"), ("b", "C, integers.so")):
        (latency,) = runs[name, library]["latency"]
        speedup = runs[name, "onnxruntime"]["latency"][0]["p50_us"] / latency["p50_us"]
        assert runs[name, library]["speedup"] == [pytest.approx(speedup, rel=0.05)]


def test_libraries_of_other_files_are_refused(tmp_path: Path) -> None:
    models = tmp_path / "models"
    add_model(models, "a", "Gelu")
    add_model(models, "b", "Tanh")
    add_model(tmp_path / "other", "long", "Tanh")
    export_c(tmp_path / "other", "long", tmp_path / "other.c")
    (tmp_path / "text.so").write_text("text")
    for path, message in (
        (tmp_path / "other.so", f"--library {tmp_path}/other.so was exported from another file than a or b: export it"),
        (tmp_path / "text.so", f"--library: {tmp_path}/text.so is no library of `kronmodel export --to c --shared`"),
        (tmp_path / "none.so", f"--library {tmp_path}/none.so: expected a file .so of `kronmodel export"),
        (tmp_path / "other.c", f"--library {tmp_path}/other.c: expected a file .so of `kronmodel export"),
    ):
        done = compare(models, "--library", str(path))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[-1].startswith(f"kronserve: {message}")


def test_models_that_native_code_cannot_run_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        add_model(tmp_path, name, "Sigmoid", samples=False)
    done = compare(tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("kronserve: --native: a: ")
    assert "the Sigmoid node" in done.stderr.splitlines()[-1]


def test_a_machine_without_native_code_is_named(tmp_path: Path) -> None:
    for name in "ab":
        add_model(tmp_path, name, "Tanh")
    done = compare(tmp_path, KRONMODEL_NATIVE="0")
    assert done.returncode == 2
    expected = "kronserve: --native: a: the native library is not available: switched off by KRONMODEL_NATIVE=0"
    assert done.stderr.splitlines()[-1] == expected
    done = compare(tmp_path, "--device", "cuda")
    assert "--native: runs on the CPU only" in done.stderr
