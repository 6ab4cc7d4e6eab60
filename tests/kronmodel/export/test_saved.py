"""What was trained is read back: the same weights, the same predictions as the ONNX file beside, ready to train on."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

import kronmodel
from kronmodel import ConvConfig, DenseConfig, KroneckerConfig, Network, build
from kronmodel.data.dataset import Dataset, Scaling, prepared
from kronmodel.data.registry import load as load_data
from kronmodel.errors import LoadError
from kronmodel.export.published import publish_members
from kronmodel.export.saved import saved_files
from kronmodel.training.config import TrainConfig
from kronmodel.training.loop import train
from kronmodel.training.members import make_members, train_member
from kronmodel.training.recipes import RECIPES

RNG = np.random.default_rng(5)


def table() -> Dataset:
    """A regression of two values from five raw features, of which one is constant, in odd units."""
    x = (RNG.normal(size=(80, 5)) * [1, 1e-4, 1e5, 3, 0] + [0, 1, -1e6, 0.1, 7]).astype(np.float32)
    y = np.stack([x[:, 0] * 1e4 + 3e5, x[:, 3] / 1e3], 1).astype(np.float32)
    return Dataset(
        name="odd",
        x_train=x[:60],
        y_train=y[:60],
        x_test=x[60:],
        y_test=y[60:],
        task="regression",
        feature_names=tuple("abcde"),
        scaling=Scaling.of(x[:60]),
        target_scaling=Scaling.of(y[:60]),
        preprocessing="none",
        origin="made up",
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Dataset, Any, Path]]:
    """Each role of a regression with padding, and a classification with convolutions; data, network, version folder."""
    repository = tmp_path_factory.mktemp("models")
    made = {}
    for data, recipe, pad in (
        (table(), replace(RECIPES["small-table"], hidden=((3, 4),)), True),
        (load_data("digits", pytest.fail), replace(RECIPES["default"], hidden=((4, 6),), features=(4,)), False),
    ):
        members = make_members(data.name, data, "toy", recipe, {"epochs": 1, "batch_size": 40}, pad=pad)
        trained = [(member, *train_member(member, data)) for member in members.values()]
        for (member, network, _), each in zip(trained, publish_members(trained, data, repository), strict=True):
            made[member.name] = (data, network, each.path.parent)
    return made


NAMES = ["odd-kronecker", "odd-dense", "digits-kronecker", "digits-dense"]


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_the_trained_one_and_predicts_what_the_file_does(published: Any, name: str) -> None:
    data, network, folder = published[name]
    files = {"model.onnx", "model.safetensors", "model.json", "samples.npz"}
    if data.name == "digits":  # images have a description of what is unlike them
        files.add("novelty.npz")
    assert {path.name for path in folder.iterdir()} == files
    random = torch.get_rng_state()
    loaded = kronmodel.load(folder)
    assert torch.equal(torch.get_rng_state(), random)
    assert isinstance(loaded, Network)
    assert all(module.training for module in loaded.modules())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in loaded.parameters())
    want = network.state_dict()
    assert list(loaded.state_dict()) == list(want)
    for key, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, want[key]), key
    x = data.x_test[:20]
    loaded.eval()
    with torch.no_grad():
        got = loaded.preprocessing.predictions(loaded(loaded.preprocessing.features(x))).numpy()
    model = ReferenceEvaluator(str(folder / "model.onnx"))
    shape = np.load(folder / "samples.npz")["inputs"].shape[1:]
    (expected,) = model.run([model.output_names[-1]], {"input": x.reshape(-1, *shape)})
    unit = 1.0 if data.target_scaling is None else data.target_scaling.std
    np.testing.assert_array_less(np.abs(got - expected) / unit, 1e-5)
    assert loaded.preprocessing.labels == data.labels
    assert loaded.preprocessing.feature_names == data.feature_names
    assert loaded.config.activation == network.activation


def test_the_preprocessing_is_that_of_the_training_bit_for_bit(published: Any) -> None:
    data, network, folder = published["odd-kronecker"]
    ready = prepared(data, network.in_features)
    preprocessing = kronmodel.load(folder).preprocessing
    np.testing.assert_array_equal(preprocessing.features(data.x_test).numpy(), ready.x_test)
    np.testing.assert_array_equal(preprocessing.targets(data.y_test).numpy(), ready.y_test)
    assert preprocessing.width == 6 > preprocessing.n_features == 5
    with pytest.raises(ValueError, match="expected 5 features a sample, got 4"):
        preprocessing.features(data.x_test[:, :4])


def test_training_goes_on_as_with_the_network_that_was_saved(published: Any) -> None:
    data, network, folder = published["odd-dense"]
    config = TrainConfig(epochs=2, batch_size=30)
    ready = prepared(data, network.in_features)
    loaded = kronmodel.load(folder.parent)
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    train(loaded, ready, config)
    train(network.train(), ready, config)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name
        assert not torch.equal(tensor, before[name])
    network.load_state_dict(before)
    assert torch.equal(kronmodel.load(folder).layers[0].weight, before["layers.0.weight"])  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_types_and_the_newest_version(dtype: torch.dtype, tmp_path: Path) -> None:
    config = KroneckerConfig(in_shape=(2, 3), hidden=((3, 4),), out_shape=(1, 2), rank=(3, 1), order="right")
    for version in (2, 10):
        network = build(config).to(dtype)
        write(tmp_path / "model" / str(version), saved_files(network, config, table_of(6, 2)))
    (tmp_path / "model" / "notes").mkdir()
    loaded = kronmodel.load(str(tmp_path / "model"))
    assert (loaded.path.name, loaded.config) == ("10", config)
    assert {each.dtype for each in loaded.parameters()} == {dtype}
    for one, other in zip(loaded.parameters(), network.parameters(), strict=True):
        assert torch.equal(one, other)


def table_of(features: int, outputs: int) -> Dataset:
    x, y = RNG.normal(size=(9, features)).astype(np.float32), RNG.integers(0, outputs, 9)
    return Dataset(
        name="t",
        x_train=x,
        y_train=y,
        x_test=x,
        y_test=y,
        labels=tuple(map(str, range(outputs))),
        preprocessing="",
        origin="",
        scaling=Scaling.of(x),
    )


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


CONFIG = DenseConfig(in_features=6, hidden=(4,), out_features=2)


def edited(*path: str, value: Any) -> Callable[[dict[str, bytes]], None]:
    """Change one value of the configuration; ``...`` removes it."""

    def edit(files: dict[str, bytes]) -> None:
        described = json.loads(files["model.json"])
        part = described
        for name in path[:-1]:
            part = part[name]
        if value is ...:
            del part[path[-1]]
        else:
            part[path[-1]] = value
        files["model.json"] = json.dumps(described).encode()

    return edit


def replaced(name: str, change: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({name: change(files[name])})


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[dict[str, bytes]], None]:
    def edit(files: dict[str, bytes]) -> None:
        loaded = safetensors.torch.load(files["model.safetensors"])
        change(loaded)
        files["model.safetensors"] = safetensors.torch.save(loaded)

    return edit


HUGE_HEADER = struct.pack("<Q", 1 << 62)
PICKLE = b"\x80\x04cposix\nsystem\n(S'touch /tmp/kronmodel-pickle'\ntR."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop("model.safetensors"), "model.safetensors can't be read: No such file"),
        (lambda files: files.pop("model.json"), "has no model.json; expected the folder of a model"),
        (replaced("model.json", lambda content: content[:-20]), "model.json is not JSON, or truncated"),
        (replaced("model.json", lambda content: b"\xff\xfe\x00"), "model.json is not JSON"),
        (replaced("model.json", lambda content: b"[" * 100_000), "model.json is not JSON"),
        (replaced("model.json", lambda content: b"[1]"), "must be a JSON object, got list"),
        (replaced("model.json", lambda content: PICKLE), "model.json is not JSON"),
        (replaced("model.safetensors", lambda content: content[:-4]), "is not a safetensors file, or truncated"),
        (replaced("model.safetensors", lambda content: b""), "is not a safetensors file, or truncated"),
        (replaced("model.safetensors", lambda content: HUGE_HEADER + content[8:]), "is not a safetensors file"),
        (replaced("model.safetensors", lambda content: PICKLE), "is not a safetensors file"),
        (edited("format_version", value=2), "has format version 2, expected 1"),
        (edited("format_version", value=...), "has format version None, expected 1"),
        (edited("surprise", value=1), "unknown field 'surprise'"),
        (edited("labels", value=...), "no 'labels'; expected"),
        (edited("labels", value=["a"]), "expected a label for each of the 2 classes, got 1"),
        (edited("labels", value=[1, 2]), "labels must be a list of texts"),
        (edited("task", value="poetry"), "task must be classification or regression, got 'poetry'"),
        (edited("task", value=["classification"]), "task must be classification or regression"),
        (edited("task", value="regression"), "label for each|target_scaling"),
        (edited("n_features", value=7), "n_features must be between 1 and the network's 6 inputs, got 7"),
        (edited("n_features", value=True), "n_features must be between 1"),
        (edited("image_shape", value=[2, 4]), "with the product 6, got"),
        (edited("scaling", "mean", value=[1.0]), "scaling must have 6 finite numbers in each of"),
        (edited("scaling", "mean", value=[1e300] * 6), "scaling must have 6 finite numbers"),
        (edited("scaling", "mean", value={"a": 1}), "is not the configuration of a network"),
        (edited("scaling", value=[]), "scaling must be an object or null"),
        (edited("network", "kind", value="transformer"), "kind of kronecker or dense"),
        (edited("network", "kind", value=[]), "is not the configuration of a network"),
        (edited("network", "init", value=...), "no 'init'; expected"),
        (edited("network", "activation", value="os.system"), "activation must be one of gelu, relu, tanh"),
        (edited("network", "activation", value=["gelu"]), "is not the configuration of a network"),
        (edited("network", "hidden", value=[1 << 24]), "model.safetensors does not fit model.json"),
        (edited("network", "hidden", value=[1 << 40]), "numbers must be at most 16,777,216"),
        (edited("network", "hidden", value=[4] * 1001), "a list of at most 1000 layers"),
        (edited("network", "hidden", value="4"), "a list of at most 1000 layers"),
        (edited("network", "features", value={"image_shape": [1, 4, 4]}), "no 'channels'"),
        (edited("network", "features", value=3), "features must be an object or null"),
        (tensors(lambda found: found.update(other=torch.ones(1))), r"other: got \(1,\), expected None"),
        (tensors(lambda found: found.pop("layers.0.bias")), r"layers.0.bias: got None, expected \(4,\)"),
        (tensors(lambda found: found["layers.0.bias"].fill_(torch.nan)), "layers.0.bias must hold finite"),
        (
            tensors(lambda found: found.update({"layers.0.bias": torch.ones(4, dtype=torch.int64)})),
            "layers.0.bias must hold finite floating-point numbers",
        ),
    ],
)
def test_files_that_are_missing_damaged_or_hostile(change: Any, message: str, tmp_path: Path) -> None:
    files = saved_files(build(CONFIG), CONFIG, table_of(6, 2))
    change(files)
    with pytest.raises(LoadError, match=message):
        kronmodel.load(write(tmp_path / "1", files))
    assert not Path("/tmp/kronmodel-pickle").exists()


def test_a_rank_that_no_file_can_hold(tmp_path: Path) -> None:
    config = KroneckerConfig(in_shape=(2, 3), hidden=(), out_shape=(1, 2))
    files = saved_files(build(config), config, table_of(6, 2))
    for rank in (1 << 24, [1 << 24]):
        edited("network", "rank", value=rank)(files)
        with pytest.raises(LoadError, match=r"rank|fit"):
            kronmodel.load(write(tmp_path / "1", files))


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="is not a folder; expected that of a model"):
        kronmodel.load(tmp_path / "missing")
    with pytest.raises(LoadError, match=r"has no model.json; expected the folder of a model that was trained here"):
        kronmodel.load(tmp_path)
    (tmp_path / "3").mkdir()
    with pytest.raises(LoadError, match=r"3 has no model.json"):
        kronmodel.load(tmp_path)


def test_an_activation_or_image_with_convolutions_is_kept(tmp_path: Path) -> None:
    features = ConvConfig(image_shape=(1, 4, 6), channels=(2,), dropout=0.25)
    config = KroneckerConfig(in_shape=(3, 4), hidden=(), out_shape=(1, 2), activation="tanh", features=features)
    data = replace(table_of(24, 2), image_shape=(4, 6), scaling=None)
    loaded = kronmodel.load(write(tmp_path / "1", saved_files(build(config), config, data)))
    assert loaded.config == config
    assert loaded.preprocessing.image_shape == (4, 6)
    assert isinstance(loaded.features, nn.Module)
    assert loaded.preprocessing.features(np.ones((3, 4, 6), np.uint8)).shape == (3, 24)
