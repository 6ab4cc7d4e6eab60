"""Distillation of compressed files: labels, augmentation, and what the report says of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from kronmodel.cli.options import option_text
from kronmodel.compress.distillation import DISTILLATION
from kronmodel.compress.files.compress import compress_file
from kronmodel.compress.files.distilling import augmentation_of, distill_model
from kronmodel.compress.files.report import GraphReport
from kronmodel.compress.files.target import Distillation, Target
from kronmodel.compress.gradients.tuning import Pair
from kronmodel.compress.graphs.loading import fitting_and_test, training_and_validation
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.compress.matrices.fitting import HELD_OUT
from kronmodel.data.user_file import FileOptions
from kronmodel.errors import CheckpointError
from kronmodel.training.config import Augmentation
from tests.kronmodel.compress.files.networks import SETTINGS, inputs, network
from tests.kronmodel.compress.onnx_models import Array, run, save

UNTUNED = replace(SETTINGS, tune_steps=0)


def test_distillation_without_labels_brings_the_outputs_nearer(tmp_path: Path) -> None:
    path, x = save(network("MatMul"), tmp_path), inputs(3000)
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=x)  # for the input named x, without labels
    errors = []
    for asked in (None, Distillation(epochs=8)):
        report = compress_file(
            path,
            Target(ratio=6),
            data=str(rows),
            samples=2000,
            distill=asked,
            out=tmp_path / "models",
            settings=UNTUNED,
        )
        scores = next(each.scores for each in report.variants if each.variant == "compressed")
        assert scores is not None
        assert scores.agreement is not None
        errors.append(1 - scores.agreement)
    assert errors[1] < 0.9 * errors[0]
    assert report.distillation is not None
    assert report.distillation.label_weight == 0
    assert report.distillation.metric == "agreement"
    assert report.distillation.after > report.distillation.before


def test_an_interrupted_distillation_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    path, rows = save(network(), tmp_path), tmp_path / "rows.npz"
    np.savez(rows, x=inputs(1500))
    messages: list[str] = []
    steps: list[str] = []

    def start(out: str, *, stop: str = "", epochs: int = 3, resume: bool = False) -> GraphReport:
        def progress(step: str, done: int, total: int) -> None:
            steps.append(step)
            if step == stop:
                raise KeyboardInterrupt

        steps.clear()
        messages.clear()
        return compress_file(
            path,
            Target(ratio=4),
            data=str(rows),
            distill=Distillation(epochs=epochs, resume=resume),
            out=tmp_path / out,
            settings=replace(UNTUNED, progress=progress, report=lambda line: messages.append(option_text(line))),
        )

    whole = start("whole")
    assert {each.name for each in (tmp_path / "whole").iterdir()} == {"model", "model-compressed"}  # no checkpoints
    checkpoints = tmp_path / "models/.checkpoints/model-compressed"
    for stop, kept in (
        ("distilling, epoch 1", "fitted/last.pt: the same"),
        ("distilling, epoch 3", "epoch 2 is kept in"),
    ):
        with pytest.raises(KeyboardInterrupt):
            start("models", stop=stop)
        assert kept in messages[-1]
        assert "--resume" in messages[-1]
        assert [each.name for each in (tmp_path / "models").iterdir()] == [".checkpoints"]  # nothing is published
    with pytest.raises(CheckpointError, match=r"distillation\.epochs: got 3, expected 4"):
        start("models", epochs=4, resume=True)
    resumed = start("models", resume=True)
    assert not [each for each in steps if each.startswith(("fit", "error curves", "distilling, epoch 1"))]
    layers = [[replace(row, time_ratio=None) for row in each.layers] for each in (whole, resumed)]
    assert layers[0] == layers[1]
    assert resumed.distillation is not None
    assert whole.distillation is not None
    assert resumed.distillation.after == whole.distillation.after
    models = [onnx.load(each.path).graph.SerializeToString() for each in (whole, resumed)]
    assert models[0] == models[1]
    assert not checkpoints.parent.exists()


def test_labels_count_in_the_loss_and_decide(tmp_path: Path) -> None:
    path, x = save(network(), tmp_path), inputs(3000)
    data = tmp_path / "data.npz"
    y = run(path, x=x)[0].argmax(1)
    np.savez(data, x=x, y=(y + 1) % 10)  # labels that contradict the network
    accuracy = {}
    for weight in (0.0, 1.0):
        asked = Distillation(epochs=6, label_weight=weight)
        report = compress_file(
            path, Target(ratio=4), data=str(data), samples=500, distill=asked, out=tmp_path / "models", settings=UNTUNED
        )
        row = report.distillation
        assert row is not None
        assert row.metric == "accuracy"
        assert row.label_weight == weight
        accuracy[weight] = row.after
        assert f"labels {weight:g}: accuracy on {row.validated} others" in str(row)
    assert accuracy[1.0] > 2 * accuracy[0.0] + 0.1


def test_what_judges_a_training_was_neither_fitted_nor_trained(tmp_path: Path) -> None:
    path = save(network(), tmp_path)
    x = inputs(1000)
    for with_labels in (True, False):
        data = tmp_path / "data.npz"
        arrays = {"x": x, "y": np.arange(1000) % 10} if with_labels else {"x": x}
        np.savez(data, allow_pickle=False, **arrays)
        arguments = (onnx.load(path), path, str(data), FileOptions())
        loaded = fitting_and_test(*arguments, count=300, report=lambda message: None)
        assert loaded is not None
        training, validation = training_and_validation(*arguments, loaded[0])
        sets = [
            {row.tobytes() for row in each.arrays["x"]}
            for each in (training, validation, loaded[1], loaded[0].other_part(HELD_OUT))
        ]
        assert not sets[1] & (sets[0] | sets[3])
        assert not sets[2] & (sets[0] | sets[1])
        assert sets[3] <= sets[0]
        assert len(validation) == (80 if with_labels else len(loaded[0].part(HELD_OUT)))


def images(shape: tuple[int, ...] | None, x: Array | None = None) -> Samples:
    array = np.zeros((4, 28 * 28), np.float32) if x is None else x
    return Samples(
        arrays={"x": array}, constant={}, batch=4, fixed=False, by_call=False, labels=None, task=None, origin="here",
        image_shape=shape,
    )  # fmt: skip


def test_changes_of_images_are_made_only_if_a_trial_with_them_comes_nearer(tmp_path: Path) -> None:
    model, x = network(), inputs(2500)
    card = '{"card_version": 1, "training": {"shift": 3, "rotate": 0, "zoom": 0, "flip": false}}'
    model.metadata_props.add(key="kronmodel", value=card)
    path, data = save(model, tmp_path), tmp_path / "data.npz"
    np.savez(data, x=x[:500])
    small = compress_file(path, Target(ratio=5), data=str(data), out=tmp_path / "models", settings=UNTUNED).path
    plain = x[500:1000].reshape(-1, 8, 8)
    shifted = np.zeros_like(plain)
    shifted[:, 3:, :-2] = plain[:, :-3, 2:]
    for judging, asked, expected in (
        (plain, Distillation(), {}),
        (shifted, Distillation(), {"shift": 3}),
        (plain, Distillation(shift=2), {"shift": 2}),  # as asked, without a trial
    ):
        with Workspace(path) as workspace:
            samples = images((8, 8), x[1000:]), images((8, 8), judging.reshape(-1, 64))
            _, row = distill_model(workspace, small, samples, asked, lambda step, done, total: None)
        assert row.augmentation == expected


def test_a_trial_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    path, data = save(network(), tmp_path), tmp_path / "data.npz"
    np.savez(data, x=inputs(800))
    small = compress_file(path, Target(ratio=5), data=str(data), out=tmp_path / "models", settings=UNTUNED).path
    with Workspace(path) as workspace:
        parts = images(None, inputs(800)[:600]), images(None, inputs(800)[600:])
        pair = Pair(workspace, onnx.load(small), parts[1])
        before = {name: weight.detach().clone() for name, weight in pair.student.weights.items()}
        shorter, *errors = (
            pair.trial(*parts, replace(DISTILLATION, epochs=epochs), label_weight=0) for epochs in (1, 12, 12)
        )
        assert errors[0] == errors[1] < shorter
        assert all(torch.equal(weight, before[name]) for name, weight in pair.student.weights.items())


def test_images_are_changed_as_in_the_original_training_or_the_default_recipe() -> None:
    model = network()
    assert augmentation_of(model, images((28, 28)), Distillation()) == Augmentation(shift=1, rotate=10, zoom=0.1)
    assert augmentation_of(model, images((8, 8)), Distillation()) == Augmentation()  # a pixel is too much there
    assert augmentation_of(model, images((28, 28)), Distillation(rotate=0)) == Augmentation(shift=1, zoom=0.1)
    assert augmentation_of(model, images(None), Distillation()) == Augmentation()
    with pytest.raises(ValueError, match="is for images, but the data are none"):
        augmentation_of(model, images(None), Distillation(zoom=0.1))
    card = '{"card_version": 1, "training": {"shift": 2, "rotate": 0, "zoom": 0, "flip": true}}'
    model.metadata_props.add(key="kronmodel", value=card)
    assert augmentation_of(model, images((28, 28)), Distillation()) == Augmentation(shift=2, flip=True)
