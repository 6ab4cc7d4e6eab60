"""What may lie in a folder of models, and which of it is served."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.errors import BadRequest, StartupError
from app.models.card import Card
from app.models.repository import Repository
from app.models.scan import Artifact, ScanResult, read_folder
from app.models.twin import default_names
from app.routes.models import model_info
from app.settings import Settings
from tests.app.graphs import CARD, classifier, model, publish, weights

LAYERS = weights([6, 3])
GOOD = classifier(LAYERS, card=CARD)


def read(folder: Path, **options: object) -> ScanResult:
    return asyncio.run(read_folder(Settings.model_validate({"models": folder, **options})))


def load(folder: Path, **options: object) -> Repository:
    return asyncio.run(Repository.load(Settings.model_validate({"models": folder, **options})))


def test_the_highest_version_is_taken_and_unfinished_ones_are_not(tmp_path: Path) -> None:
    for version in (2, 10):
        publish(tmp_path, "good", GOOD, version=version)
    (tmp_path / "good" / "11").mkdir()  # no model.onnx in it
    (tmp_path / "good" / ".12-unfinished").mkdir()
    publish(tmp_path, "good/.12-unfinished", GOOD, version=12)
    publish(tmp_path, ".hidden", GOOD)
    (tmp_path / "readme.txt").write_text("not a model")
    shelf = read(tmp_path)
    assert {name: artifact.version for name, artifact in shelf.artifacts.items()} == {"good": "10"}
    assert shelf.failures == {}
    artifact = shelf.artifacts["good"]
    assert artifact.file_bytes == artifact.path.stat().st_size
    assert artifact.initializer_bytes == 4 * 18
    assert artifact.initializer_elements == 18
    assert artifact.parameters == CARD["parameters"]


def test_the_same_file_is_the_same_model_whatever_its_trial_measured(tmp_path: Path) -> None:
    publish(tmp_path, "good", GOOD)
    first, again = (read(tmp_path).artifacts["good"] for _ in range(2))
    assert first.memory_bytes is not None
    assert again == replace(first, memory_bytes=first.memory_bytes + 4096)
    first.path.write_bytes(classifier(weights([6, 4, 3]), card=CARD).SerializeToString())
    assert read(tmp_path).artifacts["good"] != first


def test_initializers_are_counted_whatever_field_they_are_in(tmp_path: Path) -> None:
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
    """A model whose weights are in /etc/passwd, if anybody were to follow it there."""
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
    """Gives one number for all rows."""
    spec = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [])
    return model([helper.make_node("ReduceSum", ["input"], ["out"], keepdims=0)], spec, [out], [])


def any_width() -> onnx.ModelProto:
    specs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "width"]) for name in ("input", "out")]
    return model([helper.make_node("Relu", ["input"], ["out"])], specs[0], [specs[1]], [])


def test_what_cannot_be_served_is_named_with_its_reason_and_the_rest_is_served(tmp_path: Path) -> None:
    bad: dict[str, tuple[onnx.ModelProto | bytes, str]] = {
        "empty": (b"", "got 0 bytes"),
        "text": (b"hello, this is no protobuf", "not an ONNX file"),
        "truncated": (GOOD.SerializeToString()[:-60], "not an ONNX file, or a truncated one"),
        "external": (external(), "'w0' is kept in another file, expected one self-contained file"),
        "subgraph": (external_in_a_subgraph(), "'secret' is kept in another file"),
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
        assert str(tmp_path) not in repository.failures[name]


def test_models_of_other_shapes_are_served_and_say_why_they_take_no_rows(tmp_path: Path) -> None:
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
        assert model_info(model, None).get("unusable") == model.unusable
        with pytest.raises(BadRequest, match=f"models: {name} cannot be used here, only at /v2: "):
            _ = model.rows
        with pytest.raises(BadRequest, match=f"models: {name} cannot be used here, only at /v2: "):
            _ = model.head
    assert {name: repository.models[name].engine.batchable for name in odd} == {
        "two-inputs": True,
        "integers": True,
        "no-batch": False,
        "any-width": True,
    }


def test_a_bad_card_or_bad_samples_do_not_keep_a_model_from_being_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = publish(tmp_path, "odd", classifier(LAYERS, card='{"labels": 7}'))
    path.with_name("samples.npz").write_bytes(b"nothing")
    served = load(tmp_path).models["odd"]
    assert served.artifact.card is None
    assert served.samples is None
    assert "odd: card ignored: labels" in caplog.text
    assert "odd: samples.npz ignored: cannot be read" in caplog.text


def test_links_that_lead_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "models", tmp_path / "outside"
    target = publish(outside, "elsewhere", GOOD)
    publish(inside, "good", GOOD)
    (inside / "linked-name").symlink_to(outside / "elsewhere")
    (inside / "linked-file" / "1").mkdir(parents=True)
    (inside / "linked-file" / "1" / "model.onnx").symlink_to(target)
    (inside / "alias").symlink_to(inside / "good")
    (inside / "pipe" / "1" / "model.onnx").mkdir(parents=True)
    shelf = read(inside)
    assert shelf.artifacts.keys() == {"good", "alias"}
    assert "leads out of the folder" in shelf.failures["linked-name"]
    assert "leads out of the folder" in shelf.failures["linked-file"]
    assert "not a regular file" in shelf.failures["pipe"]


def test_missing_folder_and_too_many_models(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"is not a folder; make one with `kronmodel train"):
        read(tmp_path / "none")
    for name in "abc":
        publish(tmp_path, name, GOOD)
    with pytest.raises(StartupError, match=r"got 3, expected at most 2 \(KRON_MAX_MODELS\)"):
        read(tmp_path, max_models=2)


@pytest.mark.parametrize("name", ["x" * 300, "loop", "forbidden"])
def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    if name == "loop":
        folder.symlink_to(folder)
    elif name == "forbidden":
        folder.mkdir(mode=0)
        if os.access(folder, os.R_OK):
            pytest.skip("root may read everything")
    with pytest.raises(StartupError, match=r"^no models: \S+ (cannot be read: \w|is not a folder)"):
        read(folder)


def test_entries_that_cannot_be_looked_at_are_refused_by_name_and_the_rest_is_served(tmp_path: Path) -> None:
    publish(tmp_path, "good", GOOD)
    (tmp_path / "long").symlink_to("x" * 300)
    (tmp_path / "loop").symlink_to("loop")
    path = publish(tmp_path, "a\udcff", GOOD)  # a byte that is no UTF-8
    (tmp_path / "b" / "1").mkdir(parents=True)
    (tmp_path / "b" / "1" / "model.onnx").symlink_to(path)
    (tmp_path / "newline\n").mkdir()
    shelf = read(tmp_path)
    assert shelf.artifacts.keys() == {"good"}
    assert shelf.failures == {
        "long": "cannot be read: File name too long",
        "a\\udcff": "the name has to be letters, digits, '.', '_' and '-', at most 100",
        "b": "version 1: model.onnx: its real path is not UTF-8",
        "newline\n": "the name has to be letters, digits, '.', '_' and '-', at most 100",
    }


def twin(name: str, twin_name: str, role: str) -> Artifact:
    return Artifact(
        name=name, version="1", path=Path(name), file_bytes=1, initializer_bytes=1, initializer_elements=1,
        card=Card.model_validate({"twin": twin_name, "role": role}),
    )  # fmt: skip


def test_default_twin() -> None:
    alpha = [twin("z-alpha-d", "alpha", "dense"), twin("a-alpha-k", "alpha", "kronecker")]
    mnist = [twin("mnist-dense", "mnist", "dense"), twin("mnist-kronecker", "mnist", "kronecker")]
    half = twin("half", "aaa", "dense")
    assert default_names([*alpha, *mnist, half], None) == ["mnist-kronecker", "mnist-dense"]
    assert default_names([*alpha, *mnist, half], "alpha") == ["a-alpha-k", "z-alpha-d"]
    assert default_names([*alpha, half], None) == ["a-alpha-k", "z-alpha-d"]
    assert default_names([*alpha, half], "nobody") == ["a-alpha-k", "z-alpha-d"]
    assert default_names([half], None) == ["half"]
    assert default_names([], None) == []
