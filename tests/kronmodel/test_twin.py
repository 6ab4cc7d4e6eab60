"""`train_twin` does from Python what the command does, prints nothing, and restores what it changes."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from sklearn.datasets import load_iris

import kronmodel
from kronmodel.cli import main as cli
from kronmodel.data.dataset import Dataset
from kronmodel.errors import CheckpointError, DataError, KronmodelError
from kronmodel.training.history import Epoch
from kronmodel.training.loop import Progress
from kronmodel.training.members import Member
from kronmodel.twin import TrainingCallback, train_twin

NETWORK = {"hidden": ((4, 5),), "rank": 2}
TRAINING = {"epochs": 2, "batch_size": 100, "seed": 3}


class Recorder(TrainingCallback):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_message(self, line: str) -> None:
        self.events.append(("message", line))

    def on_start(self, members: Sequence[Member], data: Dataset) -> None:
        self.events.append(("start", [member.name for member in members], data.name))

    @contextmanager
    def training(self, member: Member) -> Iterator[None]:
        self.events.append(("training", member.role))
        yield
        self.events.append(("trained", member.role))

    def on_step(self, member: Member, progress: Progress) -> None:
        assert progress.steps > 0

    def on_epoch(self, member: Member, epoch: Epoch) -> None:
        self.events.append(("epoch", member.role, epoch.epoch))

    def on_export(self) -> None:
        self.events.append(("export",))


def weights(path: Path | None) -> dict[str, NDArray[Any]]:
    assert path is not None
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


def test_it_trains_what_the_command_trains(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder()
    random = torch.get_rng_state()
    twin = train_twin("digits", network=NETWORK, training=TRAINING, out=tmp_path / "python", callback=recorder)
    assert torch.equal(torch.get_rng_state(), random)
    assert capfd.readouterr() == ("", "")
    assert [event for event in recorder.events if event[0] != "message"] == [
        ("start", ["digits-kronecker", "digits-dense"], "digits"),
        *(
            event
            for role in ("kronecker", "dense")
            for event in (("training", role), ("epoch", role, 1), ("epoch", role, 2), ("trained", role))
        ),
        ("export",),
    ]
    options = ["--hidden", "4x5", "--rank", "2", "--epochs", "2", "--batch-size", "100", "--seed", "3", "--json"]
    assert cli.main(["train", "--data", "digits", *options, "--out", str(tmp_path / "command")]) == 0
    summary = json.loads(capfd.readouterr().out)["models"]
    for role, model in twin.models.items():
        assert model.path == tmp_path / "python" / f"digits-{role}" / "1" / "model.onnx"
        assert model.card is not None
        assert model.card["test_metric"] == summary[role]["test_metric"]
        assert [epoch.epoch for epoch in model.result.history] == [1, 2]
        mine, commands = weights(model.path), weights(Path(summary[role]["path"]))
        assert mine.keys() == commands.keys()
        for name, values in mine.items():
            np.testing.assert_array_equal(values, commands[name], err_msg=name)
        loaded = kronmodel.load(model.path.parent)
        for one, other in zip(loaded.parameters(), model.network.parameters(), strict=True):
            assert torch.equal(one, other)
    assert not (tmp_path / "python" / ".checkpoints").exists()


def test_arrays_a_data_set_and_nothing_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    iris = load_iris()
    whole = train_twin({"x": iris.data, "y": iris.target}, kind="kronecker", training={"epochs": 30}, out=None)
    (model,) = whole.models.values()
    assert model.path is None
    assert model.card is not None
    assert model.card["test_metric"]["value"] > 0.8
    assert (len(whole.data.x_train), len(whole.data.x_test), whole.data.task) == (120, 30, "classification")
    order = np.random.default_rng(0).permutation(150)
    x, y = iris.data[order], iris.target[order]
    arrays = {"x_train": x[:100], "y_train": y[:100], "x_test": x[100:], "y_test": y[100:]}
    split = train_twin(arrays, name="iris", kind="dense", training={"epochs": 1}, out=None)
    assert split.data.split == "as in the file"
    np.testing.assert_array_equal(split.data.x_test, x[100:].astype(np.float32))
    again = train_twin(split.data, name="iris", kind="dense", training={"epochs": 1}, out=None)
    for one, other in zip(
        split.models["dense"].network.parameters(), again.models["dense"].network.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_is_resumed(tmp_path: Path) -> None:
    class Interrupting(Recorder):
        def on_step(self, member: Member, progress: Progress) -> None:
            if progress.epoch == 2:
                raise KeyboardInterrupt

    arguments: dict[str, Any] = {"network": NETWORK, "training": TRAINING, "kind": "kronecker", "out": tmp_path / "one"}
    recorder = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        train_twin("digits", **arguments, callback=recorder)
    assert recorder.events[-1][1].endswith("the same training with resume=True continues from there")
    with pytest.raises(CheckpointError, match=r"of another configuration .* without resume=True it is replaced"):
        train_twin("digits", **{**arguments, "network": {"rank": 1}}, resume=True)
    resumed = train_twin("digits", **arguments, resume=True)
    whole = train_twin("digits", **{**arguments, "out": tmp_path / "two"})
    mine, expected = (weights(twin.models["kronecker"].path) for twin in (resumed, whole))
    for name, values in mine.items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"data": "mnits"}, DataError, "no data set named 'mnits'"),
        ({"data": {"x": [[1.0]]}}, DataError, "expected arrays x, y or x_train, y_train, x_test, y_test, got x"),
        ({"data": {"x": [[1.0], [np.nan]], "y": [0, 1]}}, DataError, r"x\[1, 0\] is nan, expected finite numbers"),
        ({"data": {"x": [[{}]], "y": [0]}}, DataError, "x is of type object, expected numbers"),
        ({"data": {"x": [[1.0]], "y": [0]}, "target": "y"}, ValueError, "target can only be given for tables"),
        ({"target": "y"}, ValueError, "target is for files, not for the data set digits"),
        ({"kind": "triplet"}, ValueError, "kind must be one of twin, kronecker, dense, got 'triplet'"),
        ({"recipe": "best"}, KronmodelError, "no recipe named 'best'; expected one of: default"),
        ({"network": {"depth": 3}}, ValueError, "network has no field 'depth'; expected some of hidden, rank"),
        ({"network": {"dropout": 0.1}}, ValueError, "dropout leaves out convolutional features; expected features"),
        ({"training": {"epoch": 3}}, ValueError, "training has no field 'epoch'; expected some of epochs"),
        ({"training": {"device": "tpu"}}, ValueError, "device must be cpu, cuda or cuda:N, got 'tpu'"),
        ({"threads": 0}, ValueError, "threads must be between 1 and"),
        ({"name": "../up"}, ValueError, "a model's name must be 1 to 100 letters"),
    ],
)
def test_impossible_arguments(arguments: dict[str, Any], kind: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=message):
        train_twin(**{"data": "digits", "out": tmp_path / "models", **arguments})
    assert not (tmp_path / "models").exists()
