"""An epoch whose loss is far above that of a constant prediction is neither saved nor recommended to resume."""

from dataclasses import replace
from pathlib import Path

import pytest

from kronmodel.data.dataset import Dataset
from kronmodel.training.checkpoint import Checkpoint
from kronmodel.training.members import Member, fingerprint, train_member
from tests.kronmodel.training.test_checkpoint import MEMBER, SGD, interrupt_in


def member(rate: float) -> Member:
    return replace(MEMBER, training=replace(SGD, learning_rate=rate))


def test_an_absurd_epoch_does_not_replace_the_last_good_one(digits: Dataset, tmp_path: Path) -> None:
    losses: list[float] = []
    absurd = member(1e3)  # diverges to losses that are finite
    folder = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt), Checkpoint(folder, fingerprint(absurd, digits)) as checkpoint:
        train_member(
            absurd, digits, interrupt_in(3), log=lambda epoch: losses.append(epoch.loss), checkpoint=checkpoint
        )
    assert len(losses) == 2
    assert min(losses) > 100
    assert not checkpoint.hint
    assert not folder.exists()

    with pytest.raises(KeyboardInterrupt), Checkpoint(folder, fingerprint(absurd, digits)) as checkpoint:
        train_member(member(0.1), digits, interrupt_in(2), checkpoint=checkpoint)
    with pytest.raises(KeyboardInterrupt), Checkpoint(folder, fingerprint(absurd, digits), resume=True) as checkpoint:
        train_member(absurd, digits, interrupt_in(4), checkpoint=checkpoint)
    assert checkpoint.hint.startswith("epoch 1 is kept in ")


def test_a_checkpoint_with_an_absurd_loss_is_not_recommended(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absurd = member(1e3)
    with monkeypatch.context() as patch:  # written by a version that saved every epoch
        patch.setattr("kronmodel.training.loop.ABSURD_FACTOR", float("inf"))
        with pytest.raises(KeyboardInterrupt), Checkpoint(tmp_path, fingerprint(absurd, digits)) as checkpoint:
            train_member(absurd, digits, interrupt_in(3), checkpoint=checkpoint)
        assert checkpoint.hint.startswith("epoch 2 is kept in ")
    with pytest.raises(KeyboardInterrupt), Checkpoint(tmp_path, fingerprint(absurd, digits), resume=True) as checkpoint:
        train_member(absurd, digits, interrupt_in(3), checkpoint=checkpoint)
    assert not checkpoint.hint
