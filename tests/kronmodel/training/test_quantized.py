"""Quantisation-aware training: phases, resumption, the native kernel, several processes, and bad values."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kronmodel import KroneckerConfig
from kronmodel.cli import main as cli
from kronmodel.data.dataset import Dataset
from kronmodel.export.inspect import describe
from kronmodel.native.build import library
from kronmodel.nn import _native
from kronmodel.nn.conv import ConvConfig
from kronmodel.quantization.network import QuantizedNetwork
from kronmodel.training.checkpoint import Checkpoint
from kronmodel.training.config import TrainConfig
from kronmodel.training.loop import Progress
from kronmodel.training.members import Member, fingerprint, train_member

NETWORK = KroneckerConfig(in_shape=(28, 28), hidden=((7, 9),), out_shape=(2, 5), rank=(2, 3))
QUANTIZED = TrainConfig(
    epochs=4, batch_size=500, learning_rate=1e-2, seed=3, bits=4, bias_form="row-column", activation_bits=8,
    quantize_epochs=3, validation_share=0.1,
)  # fmt: skip


def member(training: TrainConfig, network: KroneckerConfig = NETWORK) -> Member:
    return Member(twin="toy", role="kronecker", config=network, training=training, recipe="own")


def stored(network: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    assert isinstance(network, QuantizedNetwork)
    return [(each.levels, each.steps) for each in network.stored]


def interrupt_in(epoch: int) -> Callable[[Progress], None]:
    def report(now: Progress) -> None:
        if now.epoch == epoch:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize("epoch", [2, 4])
def test_a_resumed_training_gives_identical_levels(epoch: int, digits: Dataset, tmp_path: Path) -> None:
    trained = member(QUANTIZED)
    whole, expected = train_member(trained, digits)
    identity = fingerprint(trained, digits)
    with Checkpoint(tmp_path, identity) as checkpoint, pytest.raises(KeyboardInterrupt):
        train_member(trained, digits, interrupt_in(epoch), checkpoint=checkpoint)
    with Checkpoint(tmp_path, identity, resume=True) as checkpoint:
        network, result = train_member(trained, digits, checkpoint=checkpoint)
    assert isinstance(whole, QuantizedNetwork)
    assert isinstance(network, QuantizedNetwork)
    assert network.scales == whole.scales
    assert all(
        torch.equal(mine, theirs)
        for pair in zip(stored(network), stored(whole), strict=True)
        for mine, theirs in zip(*pair, strict=True)
    )
    assert result.test_score == expected.test_score


def test_the_kept_epoch_is_one_in_which_everything_is_quantised(digits: Dataset) -> None:
    _, result = train_member(member(QUANTIZED), digits)
    assert result.best_epoch == 4  # activations are quantised in the last epoch


def test_weights_are_quantised_in_the_last_epochs_only(digits: Dataset) -> None:
    last = replace(QUANTIZED, activation_bits=32, quantize_epochs=1, validation_share=0.0, epochs=8, batch_size=100)
    scores: list[float] = []
    train_member(member(last), digits, log=lambda epoch: scores.append(epoch.test))
    start: list[float] = []
    train_member(member(replace(last, quantize_epochs=0)), digits, log=lambda epoch: start.append(epoch.test))
    assert scores[0] != start[0]
    assert scores[-1] > 0.85
    assert start[-1] > 0.8


def test_the_final_network_has_the_measured_score(digits: Dataset) -> None:
    network, result = train_member(member(replace(QUANTIZED, epochs=2, quantize_epochs=0)), digits)
    with torch.inference_mode():
        found = network.eval()(torch.from_numpy(digits.x_test)).argmax(1).numpy()
    assert float(np.mean(found == digits.y_test)) == pytest.approx(result.test_score, abs=1e-9)
    counted = sum(each.tensor.size for each in network.stored) if isinstance(network, QuantizedNetwork) else 0
    assert network.parameter_count == counted < 28 * (7 + 9) * 2 + (7 + 9) * 7 * 3 + 500


@pytest.mark.skipif(library() is None, reason="no native code")
def test_quantised_weights_are_computed_by_the_native_kernel(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    apply = _native.apply

    def counted(*arguments: Any) -> torch.Tensor:
        chain = arguments[1]
        calls.append(len(_native._decode(chain.spec, chain.parameters)))
        return apply(*arguments)

    monkeypatch.setattr(_native, "apply", counted)
    train_member(
        member(replace(QUANTIZED, epochs=1, activation_bits=32, quantize_epochs=0, validation_share=0.0)), digits
    )
    assert len(calls) >= 8  # a step for every 500 samples
    assert set(calls) == {2}  # both layers at once


def test_bits_of_each_layer_count_convolutions_too(digits: Dataset) -> None:
    features = ConvConfig(image_shape=(1, 28, 28), channels=(2, 4), dropout=0.1)
    config = KroneckerConfig(in_shape=(14, 14), hidden=(), out_shape=(2, 5), rank=2, features=features)
    training = TrainConfig(epochs=2, batch_size=100, learning_rate=1e-2, bits=(8, 2, 4), activation_bits=8)
    network, result = train_member(member(training, config), digits)
    assert [card["bits"] for card in network.layer_cards()] == [8, 2, 4]
    assert result.test_score > 0.3
    with pytest.raises(ValueError, match="one for each of 3 layers"):
        train_member(member(replace(training, bits=(8, 2)), config), digits)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bits", "3"], "bits must be 8, 4 or 2"),
        (["--bits", "4,x"], "bits must be 8, 4 or 2"),
        (["--bits", "4,4,4"], "one for each of 2 layers"),
        (["--bits", "4", "--bias-bits", "4"], "bias_bits must be 8, or 32 for float, got 4"),
        (["--bits", "4", "--activation-bits", "16"], "activation_bits must be 8, or 32 for float, got 16"),
        (["--activation-bits", "8"], "activation_bits is for quantised weights"),
        (["--bias-form", "row-column"], "bias_form is for quantised weights"),
        (["--bits", "4", "--quantize-epochs", "-1"], "quantize_epochs must be a whole number of at least 0"),
        (["--bits", "4", "--quantize-epochs", "9", "--epochs", "2"], "at most the 2 epochs"),
    ],
)
def test_bad_values_are_refused_before_the_training(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--data", "mnist-5k", "--hidden", "8x8", "--out", str(tmp_path / "models"), *options]
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in " ".join(err.split())
    assert "Traceback" not in err


def test_the_command_shows_the_bytes_of_both_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "models", tmp_path / "report.html"
    options = ["--data", "mnist-5k", "--hidden", "8x8", "--epochs", "1", "--batch-size", "500", "--bits", "4"]
    assert cli.main(["train", *options, "--out", str(out), "--report", str(page), "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    for model in models.values():
        described = describe(Path(model["path"]))
        assert described["card"]["weight_bytes"] == model["weight_bytes"] < model["parameters"]
        assert described["card"]["training"]["bits"] == 4
        assert described["file_bytes"] < model["weight_bytes"] + 12_000
        assert f"{model['weight_bytes']:,}" in page.read_text()


@pytest.mark.slow
def test_two_processes_train_together(tmp_path: Path) -> None:
    arguments = [
        "--data", "mnist-5k", "--hidden", "8x8", "--epochs", "3", "--kind", "kronecker", "--bits", "4",
        "--activation-bits", "8", "--quantize-epochs", "2", "--json",
    ]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = []
    for number, command in enumerate(([sys.executable], torchrun)):
        run = subprocess.run(
            [*command, "-m", "kronmodel", "train", *arguments, "--out", str(tmp_path / str(number))],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert run.returncode == 0, run.stderr
        found.append(json.loads(run.stdout)["models"]["kronecker"])
    assert found[0]["weight_bytes"] == found[1]["weight_bytes"]
    assert found[0]["test_accuracy"] == pytest.approx(found[1]["test_accuracy"], abs=0.02)
