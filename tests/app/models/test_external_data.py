"""Models that keep weights in other files: served with all of their files, or refused with a reason."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.errors import ModelError
from app.inference.session import open_session
from app.measure.comparison import _copy_model
from app.models.repository import Repository
from app.models.scan import ScanResult, read_folder
from app.settings import Settings
from tests.app.graphs import Array, classifier, forward, model, publish, weights
from tests.app.versions import CURE

LAYERS = weights([6, 4, 3])
DATA = "model.onnx.data"
ROWS = np.random.default_rng(3).random((5, 6), np.float32)


def load(folder: Path, **options: object) -> Repository:
    return asyncio.run(Repository.load(Settings.model_validate({"models": folder, **options})))


def read(folder: Path, **options: object) -> ScanResult:
    return asyncio.run(read_folder(Settings.model_validate({"models": folder, **options})))


def save(folder: Path, name: str, made: onnx.ModelProto, *, one_file: bool = True, version: int = 1) -> Path:
    """Save a model as `onnx` does, with all of its weights in other files."""
    path = folder / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True)
    copy = onnx.ModelProto.FromString(made.SerializeToString())
    onnx.save(copy, path, save_as_external_data=True, all_tensors_to_one_file=one_file, location=DATA, size_threshold=0)
    return path


def added(offsets: Array) -> onnx.ModelProto:
    """`out = input + offsets`, whose weights onnxruntime uses in place."""
    specs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 6]) for name in ("input", "out")]
    nodes = [helper.make_node("Add", ["input", "offsets"], ["out"])]
    return model(nodes, specs[0], [specs[1]], [numpy_helper.from_array(offsets, "offsets")])


def moved(location: str, *, offset: int | str = 0, length: int | str | None = None) -> onnx.ModelProto:
    """`classifier` whose first weights are said to be in another file."""
    made = classifier(LAYERS)
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="offset", value=str(offset))
    if length is not None:
        tensor.external_data.add(key="length", value=str(length))
    return made


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_model_as_pytorch_exports_it_is_served(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "torch" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    layer = torch.nn.Linear(48, 20).eval()
    torch.onnx.export(layer, (torch.zeros(1, 48),), str(path), verbose=False)
    data = path.with_name(DATA)
    assert data.exists(), "PyTorch's default has changed"
    served = load(tmp_path).models["torch"]
    rows = np.random.default_rng(1).random((1, 48), np.float32)
    (got,) = served.engine.run({served.engine.inputs[0].name: rows}).values()
    np.testing.assert_allclose(got, layer(torch.from_numpy(rows)).detach().numpy(), atol=1e-6)
    assert served.artifact.file_bytes == path.stat().st_size + data.stat().st_size
    assert served.artifact.initializer_bytes == 4 * (48 * 20 + 20)
    assert served.artifact.initializer_elements == 48 * 20 + 20


@pytest.mark.parametrize("one_file", [True, False])
def test_all_files_count_and_are_part_of_the_checksum(tmp_path: Path, *, one_file: bool) -> None:
    path = save(tmp_path, "m", classifier(LAYERS), one_file=one_file)
    names = sorted({entry.name for entry in path.parent.iterdir()} - {"model.onnx"})
    assert names == ([DATA] if one_file else ["w0", "w1"])
    served = load(tmp_path).models["m"]
    np.testing.assert_allclose(served.engine.run({"input": ROWS})["logits"], forward(LAYERS, ROWS), atol=1e-5)
    artifact = served.artifact
    assert list(artifact.data_files) == names
    assert artifact.file_bytes == sum(entry.stat().st_size for entry in path.parent.iterdir())
    assert artifact.initializer_bytes == 4 * (6 * 4 + 4 * 3)
    listed = "".join(
        f"{hashlib.sha256((path.parent / name).read_bytes()).hexdigest()}  {name}\n" for name in ["model.onnx", *names]
    )
    assert artifact.sha256 == hashlib.sha256(listed.encode()).hexdigest()

    (path.parent / "model.onnx.sha256").write_text(listed)
    assert list(read(tmp_path).artifacts) == ["m"]
    (path.parent / "model.onnx.sha256").write_text(listed.replace(listed.splitlines()[-1][:64], "0" * 64))
    assert f"{names[-1]}: got SHA-256 " in read(tmp_path).failures["m"]
    (path.parent / "model.onnx.sha256").write_text(listed.splitlines()[0])
    assert f"has no line for {names[0]}, expected one: sha256sum model.onnx " in read(tmp_path).failures["m"]


def test_a_changed_data_file_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, "m", added(np.arange(6, dtype=np.float32)))
    repository = load(tmp_path)
    before = repository.models["m"]
    before.artifact.check_unchanged()
    data = path.with_name(DATA)
    data.write_bytes(np.full(6, 7, np.float32).tobytes())
    os.utime(data, ns=(1, 1))
    with pytest.raises(ModelError, match=rf"^{DATA} was changed while it was being loaded: load the model again"):
        before.artifact.check_unchanged()
    asyncio.run(repository.refresh())
    after = repository.models["m"]
    assert after.artifact.sha256 != before.artifact.sha256
    np.testing.assert_array_equal(after.engine.run({"input": ROWS})["out"], ROWS + 7)
    data.unlink()
    with pytest.raises(ModelError, match=f"^{DATA} was changed"):
        after.artifact.check_unchanged()


def test_a_data_file_that_is_overwritten_or_truncated_changes_nothing_in_service(tmp_path: Path) -> None:
    """onnxruntime by itself maps the file, and the process ends by SIGBUS when it is truncated."""
    offsets = np.arange(6, dtype=np.float32)
    path = save(tmp_path, "m", added(offsets))
    served = load(tmp_path).models["m"]
    with path.with_name(DATA).open("r+b") as data:
        data.write(np.full(6, 7, np.float32).tobytes())
    np.testing.assert_array_equal(served.engine.run({"input": ROWS})["out"], ROWS + offsets)
    os.truncate(path.with_name(DATA), 0)
    np.testing.assert_array_equal(served.engine.run({"input": ROWS})["out"], ROWS + offsets)


def test_weights_of_any_datatype_and_shape_are_read(tmp_path: Path) -> None:
    """A scalar, empty and unused tensors, bfloat16, booleans and 4-bit integers, against onnxruntime by itself."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    tensors: dict[str, Array] = {
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "unused": np.ones((4, 3), np.float64),
        "brain": np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16),
        "flags": np.array([[True, False, True], [False, True, True]]),
        "nibbles": np.array([[1, -2, 3], [-4, 5, -6]]).astype(ml_dtypes.int4),
        "wide": np.array([[2**40, 1, -3]], np.int64),
    }
    cast = ["brain", "flags", "nibbles", "wide"]
    nodes = [helper.make_node("Cast", [name], [f"{name}-float"], to=TensorProto.FLOAT) for name in cast]
    nodes += [
        helper.make_node("Concat", ["empty", *(f"{name}-float" for name in cast)], ["rows"], axis=0),
        helper.make_node("Mul", ["rows", "scalar"], ["scaled"]),
        helper.make_node("MatMul", ["input", "scaled"], ["out"]),
    ]
    made = model(
        nodes,
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 7]),
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    made.opset_import[0].version = 21
    path = save(tmp_path, "m", made)
    alone = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = np.random.default_rng(2).random((2, 7), np.float32)
    served = load(tmp_path)
    assert served.failures == {}
    np.testing.assert_array_equal(
        served.models["m"].engine.run({"input": rows})["out"], alone.run(None, {"input": rows})[0]
    )
    assert served.models["m"].artifact.data_files.keys() == {DATA}
    assert served.models["m"].artifact.file_bytes == sum(entry.stat().st_size for entry in path.parent.iterdir())


def test_offsets_above_four_gigabytes_are_read(tmp_path: Path) -> None:
    offset = 2**32 + 4096
    made = added(np.zeros(6, np.float32))
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", DATA), ("offset", str(offset)), ("length", "24")):
        tensor.external_data.add(key=key, value=value)
    path = publish(tmp_path, "m", made)
    values = np.arange(6, dtype=np.float32)
    with path.with_name(DATA).open("wb") as data:  # sparse
        data.seek(offset)
        data.write(values.tobytes())
    session = open_session(str(path), device="cpu", threads=1)
    np.testing.assert_array_equal(session.run(None, {"input": ROWS})[0], ROWS + values)


def test_the_memory_of_a_smoke_test_counts_all_files(tmp_path: Path) -> None:
    """Weights of twice the memory that a smoke test may have beyond the sizes of the files."""
    size = 2**27
    made = added(np.zeros(6, np.float32))
    made.graph.initializer[0].CopyFrom(
        TensorProto(name="table", data_type=1, dims=[size // 24, 6], data_location=TensorProto.EXTERNAL)
    )
    made.graph.initializer[0].external_data.add(key="location", value="table.bin")
    made.graph.initializer.append(numpy_helper.from_array(np.array([1]), "index"))
    made.graph.node.insert(0, helper.make_node("Gather", ["table", "index"], ["offsets"]))
    path = publish(tmp_path, "m", made)
    with path.with_name("table.bin").open("wb") as data:
        data.truncate(size)
    assert read(tmp_path, trial_bytes=2**26).failures == {}
    refused = read(tmp_path, trial_bytes=2**26, max_model_bytes=2**26).failures["m"]
    assert f"got {size} bytes of weights in other files, expected at most " in refused
    assert "(KRON_MAX_MODEL_BYTES)" in refused


def text_tensor() -> onnx.ModelProto:
    made = moved(DATA)
    made.graph.initializer[0].data_type = TensorProto.STRING
    return made


def attribute() -> onnx.ModelProto:
    """A constant, not an initializer, that is kept in another file."""
    made = moved(DATA)
    made.graph.node.insert(0, helper.make_node("Constant", [], ["w0"], value=made.graph.initializer[0]))
    del made.graph.initializer[0]
    return made


def twice() -> onnx.ModelProto:
    made = moved(DATA)
    made.graph.initializer.append(made.graph.initializer[0])
    return made


PLAIN = "expected a plain name: put the file into the model's folder"
HOSTILE: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "parent": (lambda: moved("../../good/1/model.onnx.data"), PLAIN),
    "hidden-parent": (lambda: moved("inner/../../../good/1/model.onnx.data"), PLAIN),
    "absolute": (lambda: moved("/etc/passwd"), PLAIN),
    "windows": (lambda: moved("C:\\weights.bin"), PLAIN),
    "address": (lambda: moved("*/_ORT_MEM_ADDR_/*", offset=2**40), PLAIN),
    "nameless": (lambda: moved(""), PLAIN),
    "control": (lambda: moved("a\nb"), PLAIN),
    "long": (lambda: moved("x" * 300), PLAIN),
    "link": (lambda: moved("outside.bin"), "a link to a file outside of the folder of the model"),
    "link-folder": (lambda: moved("outside/model.onnx.data"), "a link to a file outside of the folder of the model"),
    "loop": (lambda: moved("loop"), "which cannot be read"),
    "pipe": (lambda: moved("pipe"), "which is not a regular file"),
    "folder": (lambda: moved("inner"), "which is not a regular file"),
    "missing": (lambda: moved("none.bin"), "which is missing: copy it to the folder of the model"),
    "beyond": (lambda: moved(DATA, offset=8), "'model.onnx.data' has 100 bytes, expected 96 from byte 8 on"),
    "negative": (lambda: moved(DATA, offset=-8), "expected 96 from byte -1 on"),
    "wrong-length": (lambda: moved(DATA, length=92), "in 'model.onnx.data': got 92 bytes, expected 96"),
    "odd-length": (lambda: moved(DATA, length="9" * 50), "got -1 bytes, expected 96"),
    "text": (text_tensor, "got datatype 8 and shape [6, 4], expected numbers"),
    "attribute": (attribute, "expected that only of initializers of the main graph"),
    "twice": (twice, "expected a name for each: export the model again"),
}  # fmt: skip


def test_hostile_locations_are_refused_and_others_are_served(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    good = save(folder, "good", classifier(LAYERS))
    for name, (made, _) in HOSTILE.items():
        own = publish(folder, name, made()).parent
        (own / DATA).write_bytes(bytes(100))
        (own / "inner").mkdir()
        (own / "outside.bin").symlink_to(good.with_name(DATA))
        (own / "outside").symlink_to(good.parent)
        (own / "loop").symlink_to("loop")
        os.mkfifo(own / "pipe")
    nested = publish(folder, "nested", moved("inner/deep.bin")).parent
    (nested / "inner").mkdir()
    (nested / "inner" / "deep.bin").write_bytes(LAYERS[0].tobytes())
    linked = publish(folder, "linked", moved("alias.bin")).parent
    (linked / "real.bin").write_bytes(LAYERS[0].tobytes())
    (linked / "alias.bin").symlink_to("real.bin")
    repository = load(folder)
    assert list(repository.models) == ["good", "linked", "nested"]
    for served in repository.models.values():
        np.testing.assert_allclose(served.engine.run({"input": ROWS})["logits"], forward(LAYERS, ROWS), atol=1e-5)
    assert repository.failures.keys() == HOSTILE.keys()
    for name, (_, message) in HOSTILE.items():
        assert message in repository.failures[name], name
        assert CURE.search(repository.failures[name]), repository.failures[name]
        assert str(tmp_path) not in repository.failures[name]


def test_a_data_file_that_is_replaced_by_a_link_after_its_check_is_not_followed(tmp_path: Path) -> None:
    path = save(tmp_path / "models", "m", classifier(LAYERS))
    data = path.with_name(DATA)
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="a link to a file outside of the folder of the model"):
        open_session(str(path), device="cpu", threads=1)


def test_a_comparison_copies_all_files(tmp_path: Path) -> None:
    path = save(tmp_path / "models", "m", classifier(LAYERS), one_file=False)
    path.with_name("w1").rename(path.with_name("real"))
    path.with_name("w1").symlink_to("real")
    (artifact,) = read(tmp_path / "models").artifacts.values()
    _copy_model(artifact, tmp_path / "copy")
    (copied,) = read(tmp_path / "copy").artifacts.values()
    assert replace(copied, path=artifact.path, data_files={}, fingerprint=(), memory_bytes=None) == replace(
        artifact, data_files={}, fingerprint=(), memory_bytes=None
    )


def test_info_counts_all_files(tmp_path: Path) -> None:
    path = save(tmp_path, "m", classifier(LAYERS))
    command = [sys.executable, "-m", "kronmodel", "info", str(path), "--json"]
    described = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert described["file_bytes"] == path.stat().st_size + path.with_name(DATA).stat().st_size
    assert described["data_files"] == [DATA]
    path.with_name(DATA).unlink()
    failed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert failed.returncode == 2
    assert f"keeps weights in '{DATA}', which can't be read: copy it beside" in failed.stdout + failed.stderr
