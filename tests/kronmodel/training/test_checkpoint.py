"""A training that is interrupted, killed or diverges goes on where it was; what is not its own is refused."""

import pickle
import re
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kronmodel import DenseConfig, KroneckerConfig, build
from kronmodel.data.dataset import Dataset
from kronmodel.errors import CheckpointError, TrainingError
from kronmodel.native.build import library
from kronmodel.nn import _native
from kronmodel.training.checkpoint import Checkpoint
from kronmodel.training.config import TrainConfig
from kronmodel.training.loop import Progress, TrainResult, train
from kronmodel.training.members import Member, fingerprint, train_member

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload([__name__])

KRONECKER = KroneckerConfig(in_shape=(28, 28), hidden=((16, 12),), out_shape=(2, 5), rank=2)
MIXED = replace(KRONECKER, hidden=((13, 7), (7, 13)), rank=3, order=("left", "right", "left"))
ADAM = TrainConfig(epochs=4, batch_size=150, learning_rate=1e-2, seed=3)  # 150 does not divide 4,000
SGD = TrainConfig(epochs=4, batch_size=150, optimizer="sgd", learning_rate=0.1, schedule="constant")
HELD_OUT = replace(ADAM, validation_share=0.2)


class Dropping(nn.Module):
    """A network that draws random numbers while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(0.2), build(KRONECKER), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "kronecker": lambda: build(KRONECKER),
    "dense": lambda: build(DenseConfig(in_features=784, hidden=(30,), out_features=10)),
    "dropout": Dropping,
}


def run(kind: str, data: Dataset, config: TrainConfig, *arguments: Any, **options: Any) -> tuple[nn.Module, Any]:
    torch.manual_seed(config.seed)
    network = NETWORKS[kind]()
    return network, train(network, data, config, *arguments, **options)


def interrupt_in(epoch: int) -> Callable[[Progress], None]:
    def report(now: Progress) -> None:
        if now.epoch == epoch:
            raise KeyboardInterrupt

    return report


def assert_the_same(got: tuple[nn.Module, TrainResult], want: tuple[nn.Module, TrainResult]) -> None:
    expected = want[0].state_dict()
    for name, tensor in got[0].state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    for mine, other in zip(got[1].history, want[1].history, strict=True):
        assert (mine.epoch, mine.loss, mine.validation, mine.test) == (
            other.epoch,
            other.loss,
            other.validation,
            other.test,
        )
    assert (got[1].best_epoch, got[1].test_score, got[1].steps) == (
        want[1].best_epoch,
        want[1].test_score,
        want[1].steps,
    )


@pytest.mark.parametrize(
    ("kind", "config"),
    [("kronecker", ADAM), ("kronecker", SGD), ("dense", HELD_OUT), ("dropout", replace(ADAM, precision="bfloat16"))],
    ids=["adam", "sgd", "validation", "dropout"],
)
def test_a_resumed_training_ends_with_the_very_same_weights(
    kind: str, config: TrainConfig, digits: Dataset, tmp_path: Path
) -> None:
    whole = run(kind, digits, config)
    for epoch in (2, 3):  # interrupted twice, both times within an epoch
        with pytest.raises(KeyboardInterrupt), Checkpoint(tmp_path, {}, resume=True) as checkpoint:
            run(kind, digits, config, interrupt_in(epoch), checkpoint=checkpoint)
        assert checkpoint.epoch == epoch - 1
    logged: list[int] = []
    with Checkpoint(tmp_path, {}, resume=True) as checkpoint:
        resumed = run(kind, digits, config, log=lambda epoch: logged.append(epoch.epoch), checkpoint=checkpoint)
    assert_the_same(resumed, whole)
    assert logged == [1, 2, 3, 4]
    assert resumed[1].train_seconds > 0

    with Checkpoint(tmp_path, {}, resume=True) as checkpoint:  # one that is finished trains no more
        again = run(kind, digits, config, interrupt_in(4), checkpoint=checkpoint)
    assert_the_same(again, whole)


@pytest.mark.skipif(library() is None, reason="no native library")
@pytest.mark.parametrize("kept_bytes", [_native.KEPT_BYTES, 0])
def test_a_training_by_the_native_kernel_resumes_to_the_bit(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_bytes: int
) -> None:
    backward, passes = _native._backward, []

    def counted(*arguments: Any) -> Any:
        passes.append(1)
        return backward(*arguments)

    monkeypatch.setattr(_native, "_backward", counted)
    monkeypatch.setattr(_native, "KEPT_BYTES", kept_bytes)
    monkeypatch.setitem(NETWORKS, "mixed", lambda: build(MIXED))
    whole = run("mixed", digits, ADAM)
    assert len(passes) == whole[1].steps
    with pytest.raises(KeyboardInterrupt), Checkpoint(tmp_path, {}, resume=True) as checkpoint:
        run("mixed", digits, ADAM, interrupt_in(3), checkpoint=checkpoint)
    with Checkpoint(tmp_path, {}, resume=True) as checkpoint:
        resumed = run("mixed", digits, ADAM, checkpoint=checkpoint)
    assert_the_same(resumed, whole)


MEMBER = Member(twin="toy", role="dense", config=KRONECKER.dense(), training=ADAM, recipe="default")


def train_in_child(folder: Path, data: Dataset) -> None:
    torch.set_num_threads(1)
    with Checkpoint(folder, fingerprint(MEMBER, data), resume=True) as checkpoint:
        train_member(MEMBER, data, checkpoint=checkpoint)


def test_killed_in_training_again_and_again_it_still_comes_to_the_same_end(digits: Dataset, tmp_path: Path) -> None:
    """SIGKILL 0 to 60 ms after a new checkpoint is there, in whatever the training does at that time."""
    folder = tmp_path / "toy-dense"
    path = folder / "last.pt"
    reached = 0
    for delay in (0.0, 0.02, 0.06):
        child = FORKS.Process(target=train_in_child, args=(folder, digits))
        before = path.stat().st_mtime_ns if path.exists() else 0
        child.start()
        while child.is_alive() and (not path.exists() or path.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(delay)
        child.kill()
        child.join()
        with Checkpoint(folder, fingerprint(MEMBER, digits), resume=True) as checkpoint:
            assert checkpoint.load() is not None
        assert checkpoint.epoch >= min(reached + 1, 4)
        reached = checkpoint.epoch
    with Checkpoint(folder, fingerprint(MEMBER, digits), resume=True) as checkpoint:
        assert_the_same(train_member(MEMBER, digits, checkpoint=checkpoint), train_member(MEMBER, digits))
        checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def write_for_ever(folder: Path) -> None:
    with Checkpoint(folder, {"a": 1}) as checkpoint:
        epoch = 0
        while True:
            epoch += 1
            value = epoch
            checkpoint.save(epoch, lambda: {"weights": torch.full((400_000,), value), "epoch": value})  # noqa: B023


def test_it_counts_once_it_is_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing the folder may take long, and a stop may come meanwhile."""

    def stopped(folder: Path) -> None:
        raise SystemExit(143)

    with Checkpoint(tmp_path / "toy", {"a": 1}) as checkpoint:
        monkeypatch.setattr("kronmodel.training.checkpoint.sync_folder", stopped)
        with pytest.raises(SystemExit):
            checkpoint.save(3, lambda: {"weights": torch.ones(2)})
        assert checkpoint.path.exists()
        assert checkpoint.hint.startswith("epoch 3 is kept in ")


def test_killed_while_writing_it_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """A process that does nothing but write is killed at eight moments, and on until one finds a file half-written."""
    halfway = number = 0
    while number < 8 or (not halfway and number < 80):
        number += 1
        folder = tmp_path / str(number)
        child = FORKS.Process(target=write_for_ever, args=(folder,))
        child.start()
        while not (folder / "last.pt").exists():
            assert child.is_alive()
            time.sleep(0.002)
        time.sleep(0.01 + 0.017 * (number % 8))
        child.kill()
        child.join()
        halfway += (folder / "last.pt.new").exists()
        with Checkpoint(folder, {"a": 1}, resume=True) as checkpoint:
            state = checkpoint.load()
        assert state is not None
        assert torch.equal(state["weights"], torch.full((400_000,), state["epoch"]))
        assert checkpoint.epoch == state["epoch"]
        assert [path.name for path in folder.iterdir()] == ["last.pt"]  # the half-written one is swept up
    assert halfway >= 1


def test_another_setting_is_refused_by_name_and_value(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Checkpoint(tmp_path, fingerprint(MEMBER, digits)) as checkpoint:
        train_member(MEMBER, digits, interrupt_in(2), checkpoint=checkpoint)
    other = replace(MEMBER, training=replace(ADAM, batch_size=100), config=KRONECKER)
    fewer = replace(digits, x_train=digits.x_train[:100], y_train=digits.y_train[:100])
    for member, data, message in (
        (other, digits, r"network\.rank: got None, expected 2"),
        (other, digits, r"training\.batch_size: got 150, expected 100"),
        (MEMBER, fewer, rf"data\.sha256: got {digits.sha256}, expected {fewer.sha256}"),
    ):
        with (
            pytest.raises(CheckpointError, match=message),
            Checkpoint(tmp_path, fingerprint(member, data), resume=True) as checkpoint,
        ):
            train_member(member, data, checkpoint=checkpoint)


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("owned"),))


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", pickle.dumps({"format": 1}), pickle.dumps(Evil()), None],
    ids=["empty", "text", "fields", "pickle", "cut"],
)
def test_a_damaged_file_is_refused_and_nothing_in_it_is_run(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Checkpoint(tmp_path / "c", {}, resume=True) as checkpoint:
        checkpoint.save(1, lambda: {"weights": torch.zeros(1000)})
        whole = checkpoint.path.read_bytes()
        checkpoint.path.write_bytes(whole[: len(whole) // 2] if content is None else content)
        with pytest.raises(CheckpointError, match=r"last\.pt is not a checkpoint, or damaged \(.*starts afresh"):
            checkpoint.load()
    assert not Path("owned").exists()


def test_a_folder_is_for_one_training_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with Checkpoint(folder, {}):
        message = f"another training is writing checkpoints to {re.escape(str(folder))}; expected a folder of its own"
        with pytest.raises(CheckpointError, match=message), Checkpoint(folder, {}):
            pass
    assert list(tmp_path.iterdir()) == []
    with Checkpoint(folder, {}):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="can't write checkpoints to"), Checkpoint(tmp_path / "file" / "c", {}):
        pass


def test_a_checkpoint_that_cannot_be_written_stops_the_training(digits: Dataset, tmp_path: Path) -> None:
    def remove_it(now: Progress) -> None:
        if now.test_score is None and now.epoch == 2:
            shutil.rmtree(tmp_path / "c", ignore_errors=True)

    with (
        pytest.raises(CheckpointError, match=r"can't write checkpoints to .*c: .*No such file"),
        Checkpoint(tmp_path / "c", {}) as checkpoint,
    ):
        run("kronecker", digits, ADAM, remove_it, checkpoint=checkpoint)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    with Checkpoint(tmp_path, {}, resume=True) as checkpoint:
        checkpoint.save(1, lambda: {"weights": torch.ones(10)})
        usual, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, most))
        try:
            with pytest.raises(CheckpointError, match=r"can't write checkpoints to .*File too large"):
                checkpoint.save(2, lambda: {"weights": torch.ones(100_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (usual, most))
        assert checkpoint.epoch == 1
        state = checkpoint.load()
    assert state is not None
    assert torch.equal(state["weights"], torch.ones(10))
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_notes_say_what_is_done(tmp_path: Path) -> None:
    notes: list[str] = []
    for resume in (True, False, True):
        with Checkpoint(tmp_path, {}, resume=resume, report=notes.append) as checkpoint:
            checkpoint.load()
            checkpoint.save(5, dict)
    path = tmp_path / "last.pt"
    assert notes == [
        f"no checkpoint in {tmp_path}: starting from the beginning",
        f"starting afresh; the checkpoint {path} of an earlier run will be replaced (or: resume=True)",
        f"continuing from {path} after epoch 5",
    ]


def test_after_a_divergence_one_goes_on_from_the_last_good_epoch_at_a_lower_rate(
    digits: Dataset, tmp_path: Path
) -> None:
    """The rates are absurd on purpose: from the first good epoch on, 1e30 must diverge and 0.05 must not."""

    def member(rate: float) -> Member:
        return replace(MEMBER, training=replace(SGD, learning_rate=rate))

    with pytest.raises(KeyboardInterrupt), Checkpoint(tmp_path, fingerprint(member(0.1), digits)) as checkpoint:
        train_member(member(0.1), digits, interrupt_in(2), checkpoint=checkpoint)
    message = (
        r"training diverged in epoch 2: .*try a lower learning rate; epoch 1 is kept in .*last\.pt: the same training "
        r"with resume=True continues from there"
    )
    with (
        pytest.raises(TrainingError, match=message),
        Checkpoint(tmp_path, fingerprint(member(1e30), digits), resume=True) as checkpoint,
    ):
        train_member(member(1e30), digits, checkpoint=checkpoint)
    with Checkpoint(tmp_path, fingerprint(member(0.05), digits), resume=True) as checkpoint:
        network, result = train_member(member(0.05), digits, checkpoint=checkpoint)
    assert [epoch.epoch for epoch in result.history] == [1, 2, 3, 4]
    assert result.test_score > result.history[0].test
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


def test_weights_that_are_not_finite_are_never_saved(digits: Dataset, tmp_path: Path) -> None:
    """One step an epoch: its loss is finite, what the step makes of the weights is not."""
    config = TrainConfig(epochs=2, batch_size=4000, optimizer="sgd", learning_rate=1e38, schedule="constant")
    few = replace(digits, x_train=1e3 * digits.x_train)
    with (
        pytest.raises(TrainingError, match="in epoch 1: the weights are no longer finite"),
        Checkpoint(tmp_path / "c", {}) as checkpoint,
    ):
        run("dense", few, config, checkpoint=checkpoint)
    assert not checkpoint.path.exists()
