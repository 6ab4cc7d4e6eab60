"""Versions appear whole or not at all."""

import os
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from kronmodel.errors import ExportError
from kronmodel.export.repository import Publication, check_name, check_writable, publish


def publication(name: str = "toy-dense", value: float = 1.0) -> Publication:
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["out"])], "toy", [], [])
    model = helper.make_model(graph)
    model.doc_string = str(value)
    return Publication(
        name=name, model=model, inputs=np.full((4, 3), value, np.float32), labels=np.arange(4, dtype=np.int64)
    )


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_each_run_writes_the_next_version(tmp_path: Path) -> None:
    repository = tmp_path / "deep" / "models"
    for version in ("1", "2", "3"):
        paths = publish([publication("a", 1.5), publication("b")], repository)
        assert paths == [repository / name / version / "model.onnx" for name in ("a", "b")]
    assert everything(repository) == sorted(
        ["a", "b"]
        + [f"{name}/{version}" for name in "ab" for version in (1, 2, 3)]
        + [
            f"{name}/{version}/{file}"
            for name in "ab"
            for version in (1, 2, 3)
            for file in ("model.onnx", "samples.npz")
        ]
    )
    assert onnx.load(repository / "a/3/model.onnx").doc_string == "1.5"
    samples = np.load(repository / "a/3/samples.npz", allow_pickle=False)
    np.testing.assert_array_equal(samples["inputs"], np.full((4, 3), 1.5, np.float32))
    assert samples["labels"].tolist() == [0, 1, 2, 3]


def test_versions_go_on_after_the_highest_as_numbers(tmp_path: Path) -> None:
    for folder in ("9", "10", "notes", ".11"):
        (tmp_path / "a" / folder).mkdir(parents=True)
    assert publish([publication("a")], tmp_path) == [tmp_path / "a" / "11" / "model.onnx"]


def test_another_user_can_read_what_was_published(tmp_path: Path) -> None:
    (path,) = publish([publication()], tmp_path)
    assert path.parent.stat().st_mode & 0o755 == 0o755
    assert path.stat().st_mode & 0o444 == 0o444 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failure_on_the_way_leaves_the_repository_as_it_was(tmp_path: Path) -> None:
    publish([publication("a")], tmp_path)
    before = everything(tmp_path)
    broken = Publication(
        name="b",
        model=publication().model,
        inputs=np.empty((0, 0), np.float32),
        labels=np.array([publish], dtype=object),  # fails after model.onnx is written
    )
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        publish([publication("a"), broken], tmp_path)
    (tmp_path / "c").write_text("a file where the model's folder should be")
    with pytest.raises(ExportError, match=f"can't write to the model repository {re.escape(str(tmp_path))}"):
        publish([publication("c")], tmp_path)
    assert everything(tmp_path) == sorted([*before, "c"])


def publish_one(repository: Path) -> str:
    return str(publish([publication()], repository)[0])


def test_runs_at_the_same_time_get_versions_of_their_own(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        paths = list(pool.map(publish_one, [tmp_path] * 12))
    assert sorted(int(Path(path).parent.name) for path in paths) == list(range(1, 13))


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a b", "ä", "x" * 101])
def test_impossible_names(name: str) -> None:
    with pytest.raises(ValueError, match="a model's name must be"):
        check_name(name)


def test_a_repository_that_cannot_be_written_is_found_out_before_training(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "models")
    assert everything(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="file is not a writable folder"):
        check_writable(tmp_path / "file" / "models")
