"""A twin: a Kronecker network and its dense counterpart, trained on the same data and published together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from kronmodel.data.arrays import SPLIT, WHOLE, check_array
from kronmodel.data.dataset import Dataset, TaskName
from kronmodel.data.registry import load
from kronmodel.data.user_file import FileOptions, from_arrays
from kronmodel.errors import Argument, DataError, KronmodelError, Message
from kronmodel.export.published import Published, card_of, publish_members
from kronmodel.export.repository import check_name, check_writable
from kronmodel.nn.networks import Network
from kronmodel.training.checkpoint import Checkpoint
from kronmodel.training.config import TrainConfig
from kronmodel.training.device import check_device, cpu_threads
from kronmodel.training.distributed import Group, joined
from kronmodel.training.history import Epoch
from kronmodel.training.loop import Progress, TrainResult
from kronmodel.training.members import Member, Role, fingerprint, make_members, train_member
from kronmodel.training.recipes import RECIPES, Recipe, recommended

__all__ = ["TrainedModel", "TrainingCallback", "Twin", "train_twin"]

Kind = Literal["twin", "kronecker", "dense"]


class TrainingCallback:
    """Methods that :func:`train_twin` calls on its way; each does nothing until a subclass overrides it.

    An exception from any of them ends the training; its checkpoints are kept.
    """

    def on_message(self, line: str) -> None:
        """Receive a line for the user, which may be a :class:`~kronmodel.errors.Message` that names arguments."""

    def on_start(self, members: Sequence[Member], data: Dataset) -> None:
        """Receive the networks that will be trained, and the data, before the first step."""

    def training(self, member: Member) -> AbstractContextManager[None]:
        """Return a context that spans the training of one network."""
        return nullcontext()

    def on_step(self, member: Member, progress: Progress) -> None:
        """Receive the progress of a training, about ten times a second and after each epoch."""

    def on_epoch(self, member: Member, epoch: Epoch) -> None:
        """Receive the loss and the scores of an epoch; when resuming, first those of the earlier epochs."""

    def on_export(self) -> None:
        """Learn that all networks are trained and will be exported."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained network of a twin.

    Attributes:
        network: with the weights that are kept, on the device on which it was trained.
        result: scores, times and the history of the epochs.
        card: its model card; None in other processes than the main one.
        path: of its published ``model.onnx``; None if it was not published.
    """

    network: Network
    result: TrainResult
    card: dict[str, Any] | None
    path: Path | None


@dataclass(frozen=True, kw_only=True)
class Twin:
    """What :func:`train_twin` returns.

    Attributes:
        name: of the twin.
        data: what it was trained on.
        models: the trained networks by role; one, if only one kind was asked for.
        published: the models in the repository, in the same order; empty if there is none, or in other processes than
            the main one of a run of several.
    """

    name: str
    data: Dataset
    models: Mapping[Role, TrainedModel]
    published: Sequence[Published]


def train_twin(
    data: str | os.PathLike[str] | Dataset | Mapping[str, Any] = "mnist",
    *,
    kind: Kind = "twin",
    name: str | None = None,
    recipe: str | Recipe | None = None,
    network: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    pad: bool = False,
    target: str | None = None,
    task: TaskName | None = None,
    test_fraction: float | None = None,
    skip_bad_rows: bool = False,
    out: str | os.PathLike[str] | None = "models",
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    threads: int | None = None,
    callback: TrainingCallback | None = None,
) -> Twin:
    """Train a Kronecker network and its dense counterpart, and publish both: what ``kronmodel train`` does.

    In each of the processes that ``torchrun`` started, it trains together with the others; the main one publishes.
    Torch's random state and number of threads are unchanged afterwards.

    Args:
        data: the name of a data set, the path of a .csv or .npz file, a :class:`~kronmodel.data.dataset.Dataset`, or
            arrays by name: ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and ``y_test``.
        kind: train both networks or only one of them.
        name: of the twin; by default that of the data.
        recipe: network and training to start from, by name or itself; by default the one that suits the data.
        network: fields of :class:`~kronmodel.training.recipes.Recipe` that describe the network, to use instead of the
            recipe's: ``hidden``, ``rank``, ``layer``, ``order``, ``activation``, ``features``, ``dropout``.
        training: fields of :class:`~kronmodel.training.config.TrainConfig` to use instead of the recipe's for both
            networks, such as ``epochs``, ``batch_size``, ``learning_rate``, ``seed`` and ``device``.
        pad: fill the features up with zeros to a width that has balanced factors.
        target: column of a .csv file to predict.
        task: of files and arrays; by default inferred from the target.
        test_fraction: of the samples to keep for the test, where they are not split already; by default 0.2.
        skip_bad_rows: leave out rows of a .csv file that can't be used instead of refusing the file.
        out: model repository; None publishes nothing.
        checkpoint: folder of the checkpoints; by default ``.checkpoints`` in the repository, or none without one.
        resume: continue from the checkpoints of an interrupted training, if there are any.
        threads: CPU threads; by default torch's choice.
        callback: receives progress and messages.

    Raises:
        KronmodelError: the data, the checkpoints or the repository can't be read or written, the device is not there,
            the training diverges, or a model fails a check.
        ValueError: a value is not possible, or doesn't fit the others.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    callback = callback or TrainingCallback()
    overrides = dict(training or {})
    device = str(overrides.get("device", "cpu"))
    options = FileOptions(
        target=target,
        task=task,
        test_fraction=test_fraction,
        skip_bad_rows=skip_bad_rows,
        seed=overrides.get("seed", 0),
    )
    if isinstance(recipe, str) and recipe not in RECIPES:
        raise KronmodelError(f"no recipe named {recipe!r}; expected one of: {', '.join(RECIPES)}")
    repository = None if out is None else Path(out)
    folder = Path(checkpoint) if checkpoint is not None else None if repository is None else repository / ".checkpoints"
    with cpu_threads(threads), joined(device) as group:
        check_device(device)
        group.take_device(device)
        with group.main_process_first():
            dataset = _dataset(data, options, callback)
        members = _members(name or dataset.name, dataset, recipe, network or {}, overrides, pad=pad)
        chosen = [member for role, member in members.items() if kind in ("twin", role)]
        if group.is_main and repository is not None:
            check_writable(repository)
        callback.on_start(chosen, dataset)
        with _checkpoints(chosen, dataset, folder, group, callback, resume=resume) as checkpoints:
            trained = []
            for member, saved in zip(chosen, checkpoints, strict=True):
                with callback.training(member):
                    outcome = train_member(
                        member,
                        dataset,
                        partial(callback.on_step, member),
                        log=partial(callback.on_epoch, member),
                        checkpoint=saved,
                        group=group,
                    )
                trained.append((member, *outcome))
            published: list[Published] = []
            if group.is_main and repository is not None:
                callback.on_export()
                published = publish_members(trained, dataset, repository)
            for saved in checkpoints:
                if saved is not None:
                    saved.remove()
        described: list[tuple[dict[str, Any] | None, Path | None]]
        if published:
            described = [(each.card, each.path) for each in published]
        else:
            described = [(card_of(*each, dataset) if group.is_main else None, None) for each in trained]
    models = {
        member.role: TrainedModel(network=trained_network, result=result, card=card, path=path)
        for (member, trained_network, result), (card, path) in zip(trained, described, strict=True)
    }
    return Twin(name=name or dataset.name, data=dataset, models=models, published=published)


def _dataset(
    data: str | os.PathLike[str] | Dataset | Mapping[str, Any], options: FileOptions, callback: TrainingCallback
) -> Dataset:
    """Load the data that :func:`train_twin` was given."""
    if isinstance(data, Dataset):
        if options.given():
            arguments = [part for argument in options.given() for part in (" and ", argument)][1:]
            raise ValueError(Message(*arguments, " can only be given for files and arrays, got a Dataset"))
        return data
    if not isinstance(data, Mapping):
        return load(os.fspath(data), callback.on_message, options)
    names = SPLIT if "x_train" in data else WHOLE
    if set(data) != set(names):
        got = ", ".join(sorted(map(str, data))) or "nothing"
        raise DataError(f"expected arrays {', '.join(WHOLE)} or {', '.join(SPLIT)}, got {got}")
    if options.target is not None or options.skip_bad_rows:
        raise ValueError(
            Message(Argument("target"), " and ", Argument("skip_bad_rows"), " are for .csv files, got arrays")
        )
    arrays = {each: np.asarray(data[each]) for each in names}
    for each, array in arrays.items():
        check_array(array, each)
    return from_arrays(arrays, callback.on_message, options, name="data", origin="arrays")


def _members(
    name: str,
    data: Dataset,
    recipe: str | Recipe | None,
    network: Mapping[str, Any],
    overrides: dict[str, Any],
    *,
    pad: bool,
) -> dict[Role, Member]:
    """Configure the networks of a twin after checking the names of the overrides."""
    check_name(f"{name}-kronecker")
    fields = TrainConfig.__dataclass_fields__
    unknown = [field for field in overrides if field not in fields]
    if unknown:
        raise ValueError(f"training has no field {unknown[0]!r}; expected some of {', '.join(fields)}")
    recipe_name = recipe if isinstance(recipe, str) else "own" if recipe is not None else recommended(data)
    changed = (recipe if isinstance(recipe, Recipe) else RECIPES[recipe_name]).with_network(network)
    return make_members(name, data, recipe_name, changed, overrides, pad=pad)


@contextmanager
def _checkpoints(
    members: Sequence[Member],
    data: Dataset,
    folder: Path | None,
    group: Group,
    callback: TrainingCallback,
    *,
    resume: bool,
) -> Iterator[list[Checkpoint | None]]:
    """Open a checkpoint for each member; if the block is interrupted, report what a resumption would continue from."""
    with ExitStack() as stack:
        checkpoints = [
            None
            if folder is None
            else stack.enter_context(
                Checkpoint(
                    folder / member.name,
                    fingerprint(member, data),
                    resume=resume,
                    writes=group.is_main,
                    report=callback.on_message,
                )
            )
            for member in members
        ]
        try:
            yield checkpoints
        except (KeyboardInterrupt, SystemExit):
            for checkpoint in checkpoints:
                if checkpoint is not None and checkpoint.hint:
                    callback.on_message(checkpoint.hint)
            raise
