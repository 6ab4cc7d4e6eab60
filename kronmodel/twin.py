"""Training of a twin: a Kronecker network and its dense counterpart, on the same data, published together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from kronmodel.data.arrays import SPLIT, WHOLE, check_array
from kronmodel.data.dataset import Dataset, TaskName
from kronmodel.data.file_options import FileOptions, column_options
from kronmodel.data.registry import load
from kronmodel.data.user_file import from_arrays
from kronmodel.errors import Argument, DataError, KronmodelError, Message
from kronmodel.export.initial_weights import read_initial_weights
from kronmodel.export.published import Published, card_of, publish_members
from kronmodel.export.repository import check_name, check_writable, finish_publications
from kronmodel.nn.networks import Network
from kronmodel.shapes import PrimeWidthError, input_shape
from kronmodel.training.checkpoint import Checkpoint, RunIdentity
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
    """Base class of callbacks for :func:`train_twin`; each method does nothing unless a subclass overrides it.

    An exception from a method ends the training; the checkpoints are kept.
    """

    def on_message(self, line: str) -> None:
        """Receive a message for the user, which may be a :class:`~kronmodel.errors.Message` that names arguments."""

    def on_start(self, members: Sequence[Member], data: Dataset) -> None:
        """Receive the configurations of the networks and the data, before the first training step."""

    def training(self, member: Member) -> AbstractContextManager[None]:
        """Return a context manager that is active during the training of one network."""
        return nullcontext()

    def on_step(self, member: Member, progress: Progress) -> None:
        """Receive the progress of a training, about ten times a second and after each epoch."""

    def on_epoch(self, member: Member, epoch: Epoch) -> None:
        """Receive the loss and the scores of an epoch; when resuming, first those of the earlier epochs."""

    def on_export(self) -> None:
        """Receive the event that all networks are trained and the export begins."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """Trained network of a twin, with its result and its model card.

    Attributes:
        network: network with its final weights, on the training device.
        result: scores, times and the history of the epochs.
        card: model card; None in all processes except the main process.
        path: path of the published ``model.onnx``; None if the network was not published.
    """

    network: Network
    result: TrainResult
    card: dict[str, Any] | None
    path: Path | None


@dataclass(frozen=True, kw_only=True)
class Twin:
    """Trained twin: the Kronecker network and the dense network with their data and published models.

    Attributes:
        name: name of the twin.
        data: data set that the networks were trained on.
        models: trained networks by role; only one if ``kind`` selected one.
        published: published models in the repository, in the same order; empty without a repository, and in all
            processes of a distributed run except the main process.
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
    columns: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = "models",
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    threads: int | None = None,
    callback: TrainingCallback | None = None,
    initial_weights: Sequence[str | os.PathLike[str]] = (),
) -> Twin:
    """Train a Kronecker network and its dense counterpart, and publish both, like ``kronmodel train``.

    Under ``torchrun``, every process has to call this function: the processes train together, and the main process
    publishes. Torch's random state and number of threads are unchanged afterwards.

    Args:
        data: the name of a data set, the path of a table such as a .csv file or of a .npz file, a
            :class:`~kronmodel.data.dataset.Dataset`, or arrays by name: ``x`` and ``y``, or ``x_train``, ``y_train``,
            ``x_test`` and ``y_test``.
        kind: train both networks or only one of them.
        name: name of the twin; by default the name of the data.
        recipe: name of a recipe or a :class:`~kronmodel.training.recipes.Recipe`; by default the one recommended for
            the data.
        network: fields of the recipe that describe the network and replace its values: ``hidden``, ``rank``,
            ``layer``, ``order``, ``activation``, ``features``, ``dropout``.
        training: fields of :class:`~kronmodel.training.config.TrainConfig` that replace the recipe's for both networks,
            such as ``epochs``, ``batch_size``, ``learning_rate``, ``seed`` and ``device``.
        pad: pad the features with zeros to a width that has balanced factors; a table with a prime number of features
            is padded in any case.
        target: column of a table to predict; for regression several, separated by commas.
        task: classification or regression, for files and arrays; by default inferred from the target.
        test_fraction: fraction of the samples to keep for the test, if they are not split already; by default 0.2.
        skip_bad_rows: leave out unusable rows of a table instead of refusing the file.
        columns: further options for the columns of a table, fields of
            :class:`~kronmodel.data.file_options.FileOptions`: ``drop``, ``categorical``, ``numeric`` and ``date``, each
            with a sequence of names; ``impute``; ``groups`` and ``time_order``, each with a name.
        out: model repository; None publishes nothing.
        checkpoint: folder of the checkpoints; by default ``.checkpoints`` in the repository, or no checkpoints without
            a repository.
        resume: continue from the checkpoints of an interrupted training, if there are any.
        threads: number of CPU threads; by default torch's choice.
        callback: receives progress and messages.
        initial_weights: for each network that is trained a published model or a checkpoint, whose weights and
            configuration the training starts from, for example to quantise them: the folder of a model or of a
            version, a file in it, or a ``last.pt``. The recipe then only configures the training.

    Raises:
        KronmodelError: the data, the checkpoints or the repository can't be read or written, the device is not
            available, the training diverges, or a model fails a check.
        ValueError: a value is invalid, or contradicts another.
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
        **column_options(columns or {}),
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
        given = network or {}
        if initial_weights:
            pad = _padded(given, pad=pad)
        members = _members(name or dataset.name, dataset, recipe, given, overrides, pad=pad, callback=callback)
        chosen = [member for role, member in members.items() if kind in ("twin", role)]
        if initial_weights:
            chosen = _started(chosen, [Path(each).expanduser() for each in initial_weights], dataset, folder)
        if group.is_main and repository is not None:
            check_writable(repository)
            for version in finish_publications(repository):
                text = f"{version.parent.name} version {version.name} is published now"
                callback.on_message(f"{text}: the process of an earlier training was killed before that")
        callback.on_start(chosen, dataset)
        run = RunIdentity()
        with _checkpoints(chosen, dataset, folder, group, callback, resume=resume, run=run) as checkpoints:
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
                published = publish_members(trained, dataset, repository, run if folder is not None else None)
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
    """Load a data set by name or path, or build one from arrays, for :func:`train_twin`."""
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
    if options.given_for_tables():
        arguments = [part for argument in options.given_for_tables() for part in (" and ", argument)][1:]
        raise ValueError(Message(*arguments, " can only be given for tables such as .csv files, got arrays"))
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
    callback: TrainingCallback,
) -> dict[Role, Member]:
    """Check the names of the overridden fields, and configure the networks of a twin."""
    check_name(f"{name}-kronecker")
    fields = TrainConfig.__dataclass_fields__
    unknown = [field for field in overrides if field not in fields]
    if unknown:
        raise ValueError(f"training has no field {unknown[0]!r}; expected some of {', '.join(fields)}")
    recipe_name = recipe if isinstance(recipe, str) else "own" if recipe is not None else recommended(data)
    changed = (recipe if isinstance(recipe, Recipe) else RECIPES[recipe_name]).with_network(network)
    if not pad and data.image_shape is None and not changed.features:
        try:
            input_shape(data.features, None, pad=False)
        except PrimeWidthError as error:
            pad = True
            padded = "x".join(map(str, error.padded))
            count = f"{data.features} features have no factors but 1 and {data.features}, which compress nothing"
            callback.on_message(f"{count}: each row is filled up with zeros to {padded}")
    return make_members(name, data, recipe_name, changed, overrides, pad=pad)


def _padded(network: Mapping[str, Any], *, pad: bool) -> bool:
    """Refuse a configuration of the network beside one to start from; return whether features may be padded for it."""
    if network or pad:
        text = " is given by the network that the training starts from; leave it out"
        raise ValueError(Message(Argument(next(iter(network), "pad")), text))
    return True


def _started(members: Sequence[Member], paths: Sequence[Path], data: Dataset, folder: Path | None) -> list[Member]:
    """Give each network the weights and the configuration that its training starts from."""
    own = [] if folder is None else [(folder / member.name).resolve() for member in members]
    for path in paths:
        if path.resolve() in own or path.resolve().parent in own:
            text = f"the checkpoints of this training would replace {path}, from which it starts; give another "
            raise ValueError(Message(text, Argument("name"), " or ", Argument("checkpoint")))
    found = read_initial_weights(paths, data)
    if set(found) != {member.role for member in members}:
        wanted, got = ", ".join(member.role for member in members), ", ".join(found)
        text = f" must have a network of each kind that is trained: expected {wanted}, got {got}; or choose by "
        raise ValueError(Message(Argument("initial_weights"), text, Argument("kind")))
    return [replace(member, config=found[member.role].config, start=found[member.role]) for member in members]


@contextmanager
def _checkpoints(
    members: Sequence[Member],
    data: Dataset,
    folder: Path | None,
    group: Group,
    callback: TrainingCallback,
    *,
    resume: bool,
    run: RunIdentity,
) -> Iterator[list[Checkpoint | None]]:
    """Open a checkpoint for each network during a ``with`` block; if interrupted, report how to resume."""
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
                    run=run,
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
