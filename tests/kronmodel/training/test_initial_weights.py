"""Trainings that start from trained weights: of a published model or a checkpoint, and what doesn't fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kronmodel import load, train_twin
from kronmodel.cli import main as cli
from kronmodel.data.dataset import Dataset
from kronmodel.errors import CheckpointError, KronmodelError
from kronmodel.export.inspect import describe
from kronmodel.quantization.network import QuantizedNetwork
from kronmodel.training.loop import Progress
from kronmodel.training.members import Member
from kronmodel.twin import TrainingCallback

NETWORK: dict[str, Any] = {"hidden": ((7, 9),), "rank": (2, 3)}
FLOAT: dict[str, Any] = {"epochs": 3, "batch_size": 200, "learning_rate": 1e-2, "seed": 3}
STILL: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 500,
    "learning_rate": 1e-9,
    "bits": 8,
}  # quantises the weights without changing them


class Interrupt(TrainingCallback):
    """Callback that ends a training in an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_step(self, member: Member, progress: Progress) -> None:
        if progress.epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def repository(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repository with a float twin, and the checkpoint of an interrupted training."""
    folder = tmp_path_factory.mktemp("models")
    train_twin(digits, name="toy", network=NETWORK, training=FLOAT, out=folder)
    with pytest.raises(KeyboardInterrupt):
        train_twin(
            digits, name="cut", kind="kronecker", network=NETWORK, training=FLOAT, out=folder, callback=Interrupt(3)
        )
    four: dict[str, Any] = {
        "kind": "dense",
        "network": NETWORK,
        "training": {**FLOAT, "bits": 4},
        "callback": Interrupt(2),
    }
    with pytest.raises(KeyboardInterrupt):
        train_twin(digits, name="four", out=folder, **four)
    return folder


def checkpoint(repository: Path, name: str) -> Path:
    return repository / ".checkpoints" / name / "last.pt"


def assert_rounded(network: Any, expected: dict[str, torch.Tensor]) -> None:
    """Assert that stored levels are the given weights rounded to 8 bits."""
    assert isinstance(network, QuantizedNetwork)
    assert {each.tensor.parameter for each in network.stored} == set(expected)
    for each in network.stored:
        wanted = expected[each.tensor.parameter].reshape(each.levels.shape)
        values = each.values().reshape(each.levels.shape)
        steps = each.steps.float()[:, None]
        assert ((values - wanted.clamp(-128 * steps, 127 * steps)).abs() <= 0.51 * steps).all()
        assert (values - wanted).norm() <= 0.02 * wanted.norm()


@pytest.mark.parametrize("shown", ["{}", "{}/1", "{}/1/model.onnx"])
def test_a_published_twin_is_quantised(shown: str, repository: Path, digits: Dataset) -> None:
    paths = [shown.format(repository / f"toy-{role}") for role in ("dense", "kronecker")]
    twin = train_twin(digits, training=STILL, out=None, initial_weights=paths)
    for role, model in twin.models.items():
        saved = load(repository / f"toy-{role}")
        assert_rounded(model.network, saved.state_dict())
        assert model.card is not None
        assert model.card["training"]["initial_weights"] == f"toy-{role}/1"
        assert model.card["weight_bytes"] < 1.2 * model.card["parameters"]


@pytest.mark.parametrize("folder", [False, True])
def test_a_checkpoint_is_quantised(folder: bool, repository: Path, digits: Dataset) -> None:
    path = checkpoint(repository, "cut-kronecker")
    twin = train_twin(
        digits, kind="kronecker", training=STILL, out=None, initial_weights=[path.parent if folder else path]
    )
    assert_rounded(twin.models["kronecker"].network, torch.load(path, weights_only=True)["state"]["network"])


def test_another_float_training_goes_on_where_the_model_is(repository: Path, digits: Dataset) -> None:
    path = repository / "toy-kronecker"
    still = {**STILL, "bits": 32}
    model = train_twin(digits, kind="kronecker", training=still, out=None, initial_weights=[path]).models["kronecker"]
    with torch.inference_mode():
        expected = load(path).eval()(torch.from_numpy(digits.x_test)).argmax(1).numpy()
    assert model.result.test_score == pytest.approx(float(np.mean(expected == digits.y_test)), abs=2e-3)


def test_it_is_resumed_from_its_own_start_only(repository: Path, digits: Dataset, tmp_path: Path) -> None:
    def train(start: Path, **more: Any) -> Any:
        quantized = {**FLOAT, "bits": 4}
        return train_twin(
            digits,
            name="q",
            kind="kronecker",
            training=quantized,
            out=None,
            checkpoint=tmp_path,
            initial_weights=[start],
            **more,
        )

    model = repository / "toy-kronecker"
    with pytest.raises(KeyboardInterrupt):
        train(model, callback=Interrupt(2))
    with pytest.raises(CheckpointError, match=r"another configuration .*initial_weights: got"):
        train(checkpoint(repository, "cut-kronecker"), resume=True)
    resumed = train(model, resume=True).models["kronecker"]
    whole = train(model).models["kronecker"]
    assert resumed.result.epoch_scores == whole.result.epoch_scores


CASES: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "options of the network": (lambda m: ["--from", f"{m}/toy-dense", "--rank", "3"], "--rank is given by the network"),
    "padding": (lambda m: ["--from", f"{m}/toy-dense", "--pad"], "--pad is given by the network"),
    "one of two": (
        lambda m: ["--from", f"{m}/toy-dense", "--kind", "twin"],
        "--from must have a network of each kind that is trained: expected kronecker, dense, got dense; or choose by "
        "--kind",
    ),
    "the other one": (lambda m: ["--from", f"{m}/toy-kronecker"], "expected dense, got kronecker"),
    "two of a kind": (
        lambda m: ["--from", f"{m}/toy-dense", "--from", f"{m}/toy-dense/1"],
        "--from has two dense networks, toy-dense/1 and toy-dense/1; expected one of each kind",
    ),
    "quantised checkpoint": (
        lambda m: ["--from", str(checkpoint(m, "four-dense"))],
        "is of a training with quantised weights; expected float ones, or a published model; continue that training "
        "with --resume",
    ),
    "no checkpoint": (lambda m: ["--from", f"{m}/damaged.pt"], "damaged.pt is not a checkpoint, or damaged"),
    "nothing there": (lambda m: ["--from", f"{m}/none"], "none is not a folder"),
    "its own checkpoints": (
        lambda m: ["--from", str(checkpoint(m, "four-dense")), "--name", "four", "--checkpoint", f"{m}/.checkpoints"],
        "give another --name or --checkpoint",
    ),
    "other data": (
        lambda m: ["--from", f"{m}/toy-dense", "--data", f"{m}/other.npz"],
        "number of features: expected 784 as there, got 12",
    ),
    "other labels": (
        lambda m: ["--from", f"{m}/toy-dense", "--data", f"{m}/labels.npz"],
        "other data; labels: expected 0, 1",
    ),
    "other data of a checkpoint": (
        lambda m: ["--from", str(checkpoint(m, "cut-kronecker")), "--data", f"{m}/labels.npz"],
        "is of a training on other data",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused(
    case: str, repository: Path, digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "damaged.pt").write_bytes(b"PK\3\4 not a checkpoint")
    np.savez(repository / "other.npz", x=np.eye(40)[:, :12], y=np.arange(40) % 10)
    np.savez(repository / "labels.npz", x=digits.x_test[:200], y=digits.y_test[:200] + 5)
    options, words = CASES[case]
    given = ["--kind", "dense", "--data", "mnist-5k", *options(repository)]
    assert cli.main(["train", *given, "--out", str(tmp_path / "models"), "--epochs", "1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in " ".join(err.split())
    assert "Traceback" not in err


def test_a_checkpoint_without_a_sound_network_is_refused(repository: Path, digits: Dataset, tmp_path: Path) -> None:
    saved = torch.load(checkpoint(repository, "cut-kronecker"), weights_only=True)
    known = json.loads(saved["fingerprint"])
    weights = saved["state"]["network"]
    name = next(iter(weights))
    unsound: tuple[tuple[dict[str, Any], dict[str, torch.Tensor], str], ...] = (
        ({**known, "network.rank": -1}, weights, "does not have the configuration of a network"),
        ({**known, "network": 3}, weights, "does not have the configuration of a network"),
        ({**known, "network.hidden": [[1 << 30, 2]]}, weights, "does not have the configuration of a network"),
        (known, {**weights, name: weights[name][:1]}, "has other weights than its configuration says"),
        (known, {**weights, name: weights[name] * np.nan}, "weights that are not finite"),
        (known, {}, "has other weights than its configuration says"),
    )
    path = tmp_path / "last.pt"
    for fingerprint, network, words in unsound:
        content = {**saved, "fingerprint": json.dumps(fingerprint), "state": {**saved["state"], "network": network}}
        torch.save(content, path)
        with pytest.raises(KronmodelError, match=words):
            train_twin(digits, kind="kronecker", training=STILL, out=None, initial_weights=[path])


def test_the_command_publishes_a_quantised_version_whose_weights_can_be_floats_again(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", "mnist-5k", "--kind", "kronecker", "--name", "bits", "--out", str(repository), "--json"]
    quantized = ["--bits", "4", "--bias-form", "row-column", "--epochs", "1", "--batch-size", "500"]
    start = ["--from", str(repository / "toy-kronecker")]
    assert cli.main(["train", *options, *quantized, *start, "--learning-rate", "1e-4"]) == 0
    model = json.loads(capsys.readouterr().out)["models"]["kronecker"]
    card = describe(Path(model["path"]))["card"]
    assert card["training"]["initial_weights"] == "toy-kronecker/1"
    assert [layer["bits"] for layer in card["layers"]] == [4, 4]
    assert model["weight_bytes"] < 2_000
    assert model["test_accuracy"] > 0.5  # one step at that rate, from random weights, gives about 0.1
    out = repository / "float.onnx"
    assert cli.main(["export", model["path"], "--to", "onnx", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == out.stat().st_size
    described = describe(out)["card"]
    assert (
        described["weight_bytes"]
        == 4 * described["parameters"]
        == 4 * load(repository / "toy-kronecker").parameter_count
    )
    assert cli.main(["export", str(out), "--to", "onnx", "--out", str(out)]) == 2
    assert "has no quantised weights; expected a file that" in " ".join(capsys.readouterr().err.split())
