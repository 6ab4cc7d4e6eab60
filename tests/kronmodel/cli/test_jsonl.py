"""What a program that drives a training is told, and what it can ask before."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import pytest

from kronmodel.cli import main as cli
from kronmodel.cli.jsonl import Messages
from kronmodel.data.registry import DATASETS, catalogue, load
from kronmodel.export.card import read_card
from kronmodel.training.config import TrainConfig
from kronmodel.training.history import Epoch
from kronmodel.training.members import Member, make_members
from kronmodel.training.recipes import RECIPES

FAST = ["--data", "digits", "--hidden", "8x8", "--rank", "1", "--batch-size", "500"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("bits", [[], ["--bits", "4,8", "--bias-form", "row-column", "--activation-bits", "8"]])
def test_a_training_tells_plan_steps_and_epochs_in_their_order(
    bits: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "told"
    with told.open("w") as file:
        options = ["--epochs", "3", "--validation-share", "0.2", "--out", str(tmp_path / "models"), "--json"]
        assert cli.main(["train", *FAST, *options, *bits, "--progress-fd", str(file.fileno())]) == 0
    printed, _ = capsys.readouterr()
    models = json.loads(printed)["models"]
    first, *rest, last = lines(told)
    assert first["event"] == "plan"
    assert (first["metric"], first["data"]["name"], first["data"]["features"]) == ("accuracy", "digits", 64)
    assert [member["role"] for member in first["members"]] == ["kronecker", "dense"]
    for member in first["members"]:
        published = models[member["role"]]
        same = ("name", "parameters", "weight_bytes", "macs_per_sample")
        assert {key: member[key] for key in same} == {key: published[key] for key in same}
        card = read_card(onnx.load(published["path"]))
        assert card is not None
        assert member["layers"] == card["layers"]
        assert published["c"] == card["c"]
        assert published["c"]["bits"] == (8 if bits else 32)
        assert published["c"]["scratch_bytes"] > 0
        assert sum(layer["parameters"] for layer in member["layers"]) == member["parameters"]
        assert member["epochs"] == 3
    assert last == {"event": "exporting"}
    epochs = [message for message in rest if message["event"] == "epoch"]
    assert [(each["role"], each["epoch"]) for each in epochs] == [
        (role, number) for role in ("kronecker", "dense") for number in (1, 2, 3)
    ]
    assert {*epochs[0]} == {"event", "role", "name", *Epoch.__dataclass_fields__}
    assert epochs[-1]["test"] is not None
    assert epochs[-1]["validation"] is not None
    steps = [message for message in rest if message["event"] == "step"]
    assert len(steps) + len(epochs) == len(rest)
    for role in ("kronecker", "dense"):
        own = [step["step"] for step in steps if step["role"] == role]
        assert own == sorted(own)
        assert own[-1] == steps[-1]["steps"] == 9  # 1,150 samples, 500 a step, three epochs


def test_the_plan_has_the_bytes_of_quantised_networks(tmp_path: Path) -> None:
    told, out = tmp_path / "told", tmp_path / "models"
    options = ["--features", "3", "--bits", "8,4,2", "--bias-form", "row-column", "--activation-bits", "8"]
    with told.open("w") as file:
        given = [*FAST, *options, "--epochs", "1", "--out", str(out), "--progress-fd", str(file.fileno())]
        assert cli.main(["train", *given]) == 0
    for member in lines(told)[0]["members"]:
        card = read_card(onnx.load(out / member["name"] / "1" / "model.onnx"))
        assert card is not None
        for key in ("parameters", "weight_bytes", "macs_per_sample", "layers"):
            assert member[key] == card[key]
        assert [layer["bits"] for layer in member["layers"]] == [8, 4, 2]
        assert sum(layer["parameters"] for layer in member["layers"]) == member["parameters"]
        assert member["weight_bytes"] < member["parameters"]


def test_a_driver_that_is_gone_and_a_descriptor_that_is_none_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read, write = os.pipe()
    os.close(read)
    folder = os.open(tmp_path, os.O_RDONLY)
    out = tmp_path / "models"
    for descriptor, message in (
        (write, f"can't tell the progress to --progress-fd {write}: [Errno 32] Broken pipe"),
        (folder, f"--progress-fd must be a file descriptor that is open for writing, got {folder}"),
        (-1, "--progress-fd must be a file descriptor that is open for writing, got -1"),
        (2**40, f"--progress-fd must be a file descriptor that is open for writing, got {2**40}"),
    ):
        assert cli.main(["train", *FAST, "--out", str(out), "--progress-fd", str(descriptor)]) == 2
        assert message in capsys.readouterr().err
    os.close(write)
    os.close(folder)
    assert not out.exists()


def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    data = load("digits", lambda line: None)
    member: Member = make_members("toy", data, "default", RECIPES["default"], {})["dense"]
    told = tmp_path / "told"
    with told.open("w") as file:
        Messages(file.fileno()).epoch(
            member, Epoch(epoch=1, seconds=1.0, ms_per_step=1.0, loss=2.0, validation=None, test=float("inf"))
        )
    (message,) = lines(told)
    assert (message["loss"], message["test"]) == (2.0, None)


def test_recipes_as_a_list_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes"]) == 0
    assert "default: GELU, AdamW" in capsys.readouterr().out
    assert cli.main(["recipes", "--json"]) == 0
    recipes = json.loads(capsys.readouterr().out)["recipes"]
    assert [recipe["name"] for recipe in recipes] == list(RECIPES)
    assert TrainConfig(**recipes[0]["dense"]) == RECIPES["default"].dense
    assert recipes[0] == json.loads(json.dumps({"name": "default", **asdict(RECIPES["default"])}))


def test_the_catalogue_says_of_data_sets_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)["datasets"]
    assert described == catalogue()
    assert [each["name"] for each in described] == list(DATASETS)
    for each in described:
        if each["name"] not in ("digits", "mnist-5k"):  # the others may not be here
            continue
        data = load(each["name"], lambda line: None)
        assert each["found"] is True
        assert each["where"] == data.origin
        assert data.image_shape is not None
        assert (each["train_samples"], each["image_shape"], each["features"], each["outputs"], each["task"]) == (
            len(data.x_train),
            list(data.image_shape),
            data.features,
            data.outputs,
            data.task,
        )


def test_a_data_set_that_is_not_here_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONMODEL_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (cifar,) = [each for each in catalogue() if each["name"] == "cifar10"]
    assert cifar["found"] is False
    assert "CIFAR-10 is not on this machine" in cifar["where"]
