"""The scan of a folder of models: selected versions, refused files and their reasons."""

import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.errors import BadRequest, ModelError, StartupError
from app.models.repository import Repository
from app.models.scan import ScanResult, read_folder
from app.routes.models import model_info
from app.settings import Settings
from tests.app.graphs import CARD, classifier, model, publish, weights
from tests.app.versions import CURE, put, repository_of

LAYERS = weights([6, 3])
GOOD = classifier(LAYERS, card=CARD)


def read(folder: Path, **options: object) -> ScanResult:
    return asyncio.run(read_folder(Settings.model_validate({"models": folder, **options})))


def load(folder: Path, **options: object) -> Repository:
    return asyncio.run(Repository.load(Settings.model_validate({"models": folder, **options})))


def test_the_highest_finished_version_is_selected(tmp_path: Path) -> None:
    for version in (2, 10):
        publish(tmp_path, "good", GOOD, version=version)
    (tmp_path / "good" / "11").mkdir()  # no model.onnx in it
    (tmp_path / "good" / ".12-unfinished").mkdir()
    publish(tmp_path, "good/.12-unfinished", GOOD, version=12)
    publish(tmp_path, ".hidden", GOOD)
    (tmp_path / "readme.txt").write_text("not a model")
    scan = read(tmp_path)
    assert {name: artifact.version for name, artifact in scan.artifacts.items()} == {"good": "10"}
    assert scan.failures == {}
    artifact = scan.artifacts["good"]
    assert artifact.file_bytes == artifact.path.stat().st_size
    assert artifact.initializer_bytes == 4 * 18
    assert artifact.initializer_elements == 18
    assert artifact.parameters == CARD["parameters"]


def test_artifacts_of_an_unchanged_file_are_equal_whatever_memory_was_measured(tmp_path: Path) -> None:
    publish(tmp_path, "good", GOOD)
    first, again = (read(tmp_path).artifacts["good"] for _ in range(2))
    assert first.memory_bytes is not None
    assert again == replace(first, memory_bytes=first.memory_bytes + 4096)
    first.path.write_bytes(classifier(weights([6, 4, 3]), card=CARD).SerializeToString())
    assert read(tmp_path).artifacts["good"] != first


def test_initializers_in_raw_and_typed_fields_are_counted(tmp_path: Path) -> None:
    raw = numpy_helper.from_array(np.ones((6, 2), np.float32), "raw")
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [2, 3], [0.5] * 6)
    nodes = [helper.make_node("MatMul", ["input", "raw"], ["h"]), helper.make_node("MatMul", ["h", "typed"], ["out"])]
    spec = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", w]) for n, w in (("input", 6), ("out", 3))]
    publish(tmp_path, "both", model(nodes, spec[0], [spec[1]], [raw, typed]))
    artifact = read(tmp_path).artifacts["both"]
    assert (artifact.initializer_elements, artifact.initializer_bytes) == (18, 72)
    assert artifact.card is None
    assert artifact.parameters == 18


def external() -> bytes:
    """A model whose external weights are in /etc/passwd."""
    made = classifier(LAYERS)
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    return made.SerializeToString()


def external_in_a_subgraph() -> bytes:
    inner = helper.make_tensor("secret", TensorProto.FLOAT, [1], [0.0])
    inner.external_data.add(key="location", value="/etc/passwd")
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Identity", ["secret"], ["y"])], "branch", [], [out], [inner])
    made = classifier(LAYERS)
    made.graph.node.append(helper.make_node("If", ["input"], ["y"], then_branch=branch, else_branch=branch))
    return made.SerializeToString()


def two_inputs() -> onnx.ModelProto:
    specs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("a", "b", "out")]
    made = model([helper.make_node("Add", ["a", "b"], ["out"])], specs[0], [specs[2]], [])
    made.graph.input.append(specs[1])
    return made


def integers() -> onnx.ModelProto:
    specs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", 3]) for name in ("input", "out")]
    return model([helper.make_node("Neg", ["input"], ["out"])], specs[0], [specs[1]], [])


def words_beside_bfloat16() -> onnx.ModelProto:
    kinds = [("word", TensorProto.STRING), ("input", TensorProto.BFLOAT16), ("out", TensorProto.BFLOAT16)]
    specs = [helper.make_tensor_value_info(name, kind, ["batch", 3]) for name, kind in kinds]
    made = model([helper.make_node("Identity", ["input"], ["out"])], specs[0], [specs[2]], [])
    made.graph.input.append(specs[1])
    return made


def no_batch() -> onnx.ModelProto:
    """A model with one output number for all rows."""
    spec = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [])
    return model([helper.make_node("ReduceSum", ["input"], ["out"], keepdims=0)], spec, [out], [])


def any_width() -> onnx.ModelProto:
    specs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "width"]) for name in ("input", "out")]
    return model([helper.make_node("Relu", ["input"], ["out"])], specs[0], [specs[1]], [])


def test_refused_models_have_a_reason_and_others_are_served(tmp_path: Path) -> None:
    bad: dict[str, tuple[onnx.ModelProto | bytes, str]] = {
        "empty": (b"", "got 0 bytes"),
        "text": (b"hello, this is no protobuf", "not an ONNX file"),
        "truncated": (GOOD.SerializeToString()[:-60], "not an ONNX file, or a truncated one"),
        "external": (
            external(),
            "'w0' is kept in '../../../../etc/passwd', expected a plain name: put the file into",
        ),
        "subgraph": (
            external_in_a_subgraph(),
            "'secret' is kept in another file, expected that only of initializers",
        ),
        "oversized": (classifier(weights([6, 4000])), "expected 1 to 50000"),
        "bad name!": (GOOD, "the name has to be letters, digits"),
        "mixed": (words_beside_bfloat16(), "got strings beside bfloat16"),
        "op": (classifier(LAYERS).SerializeToString().replace(b"MatMul", b"MatMad"), "onnxruntime refuses it"),
    }
    for name, (made, _) in bad.items():
        publish(tmp_path, name, made)
    (tmp_path / "nothing-in-it").mkdir()
    publish(tmp_path, "good", GOOD)
    repository = load(tmp_path, max_model_bytes=50_000)
    assert list(repository.models) == ["good"]
    assert repository.failures.keys() == {*bad, "nothing-in-it"}
    for name, (_, message) in bad.items():
        assert message in repository.failures[name]
        assert CURE.search(repository.failures[name]), repository.failures[name]
        assert str(tmp_path) not in repository.failures[name]


def test_models_without_row_input_are_served_at_v2_with_a_reason(tmp_path: Path) -> None:
    odd = {
        "two-inputs": (two_inputs(), "got 2 inputs, expected 1"),
        "integers": (integers(), "input 'input': got INT64, expected one of FP32, FP16, FP64"),
        "no-batch": (no_batch(), "expected a row for each input row"),
        "any-width": (any_width(), "got shape [-1, -1], expected [batch, fixed sizes ...]"),
    }
    for name, (made, _) in odd.items():
        publish(tmp_path, name, made)
    repository = load(tmp_path)
    assert repository.failures == {}
    assert repository.default == []
    for name, (_, message) in odd.items():
        model = repository.models[name]
        assert message in (model.unusable or "")
        assert model_info(model, None, downloadable=False).get("unusable") == model.unusable
        with pytest.raises(BadRequest, match=f"models: {name} cannot be used here, only at /v2: "):
            _ = model.row_input
        with pytest.raises(BadRequest, match=f"models: {name} cannot be used here, only at /v2: "):
            _ = model.output_head
    assert {name: repository.models[name].engine.batchable for name in odd} == {
        "two-inputs": True,
        "integers": True,
        "no-batch": False,
        "any-width": True,
    }


def test_a_model_with_an_invalid_card_or_samples_is_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = publish(tmp_path, "odd", classifier(LAYERS, card='{"labels": 7}'))
    path.with_name("samples.npz").write_bytes(b"nothing")
    served = load(tmp_path).models["odd"]
    assert served.artifact.card is None
    assert served.samples is None
    assert "odd: card ignored: labels" in caplog.text
    assert "odd: samples.npz ignored: cannot be read" in caplog.text


def test_links_to_files_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "models", tmp_path / "outside"
    target = publish(outside, "elsewhere", GOOD)
    publish(inside, "good", GOOD)
    (inside / "linked-name").symlink_to(outside / "elsewhere")
    (inside / "linked-file" / "1").mkdir(parents=True)
    (inside / "linked-file" / "1" / "model.onnx").symlink_to(target)
    (inside / "alias").symlink_to(inside / "good")
    (inside / "pipe" / "1" / "model.onnx").mkdir(parents=True)
    scan = read(inside)
    assert scan.artifacts.keys() == {"good", "alias"}
    assert "is outside of the folder" in scan.failures["linked-name"]
    assert "is outside of the folder" in scan.failures["linked-file"]
    assert "not a regular file" in scan.failures["pipe"]


def test_a_missing_folder_and_too_many_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"is not a folder; make one with `kronmodel train"):
        read(tmp_path / "none")
    for name in "abc":
        publish(tmp_path, name, GOOD)
    with pytest.raises(StartupError, match=r"got 3, expected at most 2 \(KRON_MAX_MODELS\)"):
        read(tmp_path, max_models=2)


@pytest.mark.parametrize("name", ["x" * 300, "loop", "forbidden"])
def test_an_unreadable_folder_is_reported_in_one_line(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    if name == "loop":
        folder.symlink_to(folder)
    elif name == "forbidden":
        folder.mkdir(mode=0)
        if os.access(folder, os.R_OK):
            pytest.skip("root may read everything")
    with pytest.raises(StartupError, match=r"^no models: \S+ (cannot be read: \w|is not a folder)"):
        read(folder)


def test_unreadable_entries_are_refused_and_others_are_served(tmp_path: Path) -> None:
    publish(tmp_path, "good", GOOD)
    (tmp_path / "long").symlink_to("x" * 300)
    (tmp_path / "loop").symlink_to("loop")
    path = publish(tmp_path, "a\udcff", GOOD)  # a byte that is not UTF-8
    (tmp_path / "b" / "1").mkdir(parents=True)
    (tmp_path / "b" / "1" / "model.onnx").symlink_to(path)
    (tmp_path / "newline\n").mkdir()
    scan = read(tmp_path)
    assert scan.artifacts.keys() == {"good"}
    assert scan.failures == {
        "long": "cannot be read: File name too long",
        "a\\udcff": "the name has to be letters, digits, '.', '_' and '-', at most 100 characters: rename the folder",
        "b": "version 1: model.onnx: its real path is not UTF-8: rename its folders",
        "newline\n": "the name has to be letters, digits, '.', '_' and '-', at most 100 characters: rename the folder",
    }


def test_the_checksum_file_is_compared(tmp_path: Path) -> None:
    for name in ("right", "wrong", "bad"):
        put(tmp_path, 1, name=name)
    digest = hashlib.sha256((tmp_path / "right" / "1" / "model.onnx").read_bytes()).hexdigest()
    (tmp_path / "right" / "1" / "model.onnx.sha256").write_text(f"{digest.upper()}  model.onnx\n")
    (tmp_path / "wrong" / "1" / "model.onnx.sha256").write_text("0" * 64)
    (tmp_path / "bad" / "1" / "model.onnx.sha256").write_text("0" * 63)
    repository = repository_of(tmp_path)
    assert repository.get("right").artifact.sha256 == digest
    assert repository.failures == {
        "wrong": f"version 1: model.onnx: got SHA-256 {digest}, expected {'0' * 64} (model.onnx.sha256): "
        "copy the file again",
        "bad": "version 1: model.onnx.sha256: expected 64 hexadecimal digits and a name a line, "
        "as sha256sum writes them",
    }


def test_a_file_that_changes_between_verification_and_load_is_refused(tmp_path: Path) -> None:
    put(tmp_path, 1)
    artifact = repository_of(tmp_path).get("m").artifact
    artifact.check_unchanged()
    artifact.path.write_bytes(artifact.path.read_bytes() + b"x")
    with pytest.raises(ModelError, match=r"model\.onnx was changed while it was being loaded"):
        artifact.check_unchanged()
    artifact.path.unlink()
    with pytest.raises(ModelError, match="was changed"):
        artifact.check_unchanged()
