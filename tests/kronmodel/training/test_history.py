"""Choosing an epoch without the test set, stopping early, and the CSV file."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kronmodel import KroneckerConfig, Network, build
from kronmodel.data.dataset import Dataset
from kronmodel.errors import TrainingError
from kronmodel.training.config import TrainConfig
from kronmodel.training.history import Epoch, EpochLog, History
from kronmodel.training.loop import TrainResult, batches, hold_out, mean_loss, train
from kronmodel.training.tasks import Classification

KRONECKER = KroneckerConfig(in_shape=(28, 28), hidden=((16, 12),), out_shape=(2, 5), rank=2)
STOPPING = TrainConfig(
    epochs=30, batch_size=40, learning_rate=0.03, schedule="constant", validation_share=0.25, patience=2
)


def trained(data: Dataset, config: TrainConfig, **options: Any) -> tuple[Network, TrainResult]:
    torch.manual_seed(config.seed)
    network = build(KRONECKER)
    return network, train(network, data, config, **options)


def few(digits: Dataset) -> Dataset:
    return replace(digits, x_train=digits.x_train[::5], y_train=digits.y_train[::5])


def test_it_stops_when_validation_gets_no_better_and_keeps_the_best_epoch(digits: Dataset) -> None:
    data = few(digits)
    kept: dict[int, dict[str, Tensor]] = {}
    torch.manual_seed(0)
    network = build(KRONECKER)

    def keep(epoch: Epoch) -> None:
        kept[epoch.epoch] = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    result = train(network, data, STOPPING, log=keep)
    scores = [epoch.validation or 0.0 for epoch in result.history]
    best = int(np.argmax(scores)) + 1  # the first of equal ones
    assert result.best_epoch == best
    assert len(scores) == best + STOPPING.patience < STOPPING.epochs
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, kept[best][name]), name
    x_test, y_test = torch.from_numpy(data.x_test), torch.from_numpy(data.y_test)
    assert result.test_score == result.history[best - 1].test == Classification().score(network, x_test, y_test)
    _, _, x_held, y_held = hold_out(torch.from_numpy(data.x_train), torch.from_numpy(data.y_train), 0.25, 0)
    assert Classification().score(network, x_held, y_held) == scores[best - 1]


def test_the_test_set_decides_nothing(digits: Dataset) -> None:
    data = few(digits)
    other = replace(data, x_test=data.x_test[::-1].copy())  # the labels of other digits
    (first, result), (second, unlike) = trained(data, STOPPING), trained(other, STOPPING)
    assert result.test_score != unlike.test_score
    assert result.best_epoch == unlike.best_epoch
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_validation_split_is_drawn_by_the_seed_and_takes_nothing_twice() -> None:
    x, y = torch.arange(100.0)[:, None], torch.arange(100)
    x_rest, y_rest, x_held, y_held = hold_out(x, y, 0.1, 7)
    assert (len(x_rest), len(x_held)) == (90, 10)
    assert sorted([*y_rest.tolist(), *y_held.tolist()]) == list(range(100))
    assert torch.equal(x_rest[:, 0].long(), y_rest)
    assert torch.equal(x_held[:, 0].long(), y_held)
    assert torch.equal(hold_out(x, y, 0.1, 7)[3], y_held)
    assert not torch.equal(hold_out(x, y, 0.1, 8)[3], y_held)
    assert hold_out(x, y, 0.0, 7)[0] is x
    for share in (0.001, 0.999):
        with pytest.raises(ValueError, match=f"validation_share {share} of 100 samples is (0|100), expected at least"):
            hold_out(x, y, share, 7)


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples() -> None:
    values = torch.rand(103, dtype=torch.float64)
    order = batches(103, 20, torch.Generator().manual_seed(1), torch.device("cpu"))
    losses = [values[batch].mean() for batch in order]
    torch.testing.assert_close(mean_loss(losses, 103, 20), values.mean())


def epoch(number: int, validation: float | None) -> Epoch:
    return Epoch(epoch=number, seconds=1.5 * number, ms_per_step=2, loss=0.25, validation=validation, test=0.5)


def test_the_best_epoch_and_patience() -> None:
    network = torch.nn.Linear(1, 1)
    history = History()
    assert not history.patience_exhausted(1)
    for number, validation in enumerate((0.2, 0.5, 0.5, 0.4), start=1):
        history.add(epoch(number, validation), network)
        assert history.best.epoch == min(number, 2)
        assert [history.patience_exhausted(patience) for patience in (0, 1, 2)] == [False, number > 2, number > 3]
    assert History.of(history.state()) == history
    history.higher_is_better = False
    assert history.best.epoch == 1
    plain = History([epoch(1, None), epoch(2, None)])
    assert plain.best.epoch == 2


def test_the_log_is_there_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("of an earlier run")
    with EpochLog(path) as log:
        assert path.read_text() == "of an earlier run"
        log.add("toy-dense", epoch(1, None))
        (first,) = csv.DictReader(path.read_text().splitlines())
        log.add("toy-dense", epoch(2, 0.75))
    assert first == {
        "model": "toy-dense",
        "epoch": "1",
        "seconds": "1.5",
        "ms_per_step": "2",
        "loss": "0.25",
        "validation": "",
        "test": "0.5",
    }
    assert [row["validation"] for row in csv.DictReader(path.read_text().splitlines())] == ["", "0.75"]
    with EpochLog(None) as log:
        log.add("toy-dense", epoch(1, None))
    for wrong in (tmp_path, tmp_path / "no" / "log.csv"):
        with pytest.raises(TrainingError, match=r"can't write the log .*: expected a file name in a writable folder"):
            EpochLog(wrong)


def test_bfloat16_trains_nearly_as_well_and_keeps_float32_weights(digits: Dataset) -> None:
    config = TrainConfig(epochs=3, batch_size=100, learning_rate=1e-2)
    (_, full), (network, half) = (
        trained(digits, config),
        trained(digits, replace(config, precision="bfloat16")),
    )
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert half.history[-1].loss != full.history[-1].loss
    assert half.test_score == pytest.approx(full.test_score, abs=0.03)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patience": -1}, "patience must be a whole number between 0 and 100000, got -1"),
        ({"patience": 3}, "patience needs a validation_share above 0 to judge by, got patience 3"),
        ({"validation_share": 1.0}, "validation_share must be at least 0 and below 1, got 1.0"),
        ({"validation_share": float("nan")}, "validation_share must be at least 0 and below 1, got nan"),
        ({"precision": "float16"}, "precision must be float32 or bfloat16, got 'float16'"),
        ({"compile": True}, "compile is for CUDA devices: on others it doesn't pay, got device 'cpu'"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(epochs=1, **changes)
