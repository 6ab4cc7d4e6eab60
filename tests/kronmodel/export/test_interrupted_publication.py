"""A publication that is killed before any of its file operations is completed or removed by the next run."""

import os
import signal
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import onnx
import pytest

from kronmodel.errors import ExportError
from kronmodel.export.repository import COMPLETE, STAGING, finish_publications, publish
from kronmodel.files import FolderLock
from tests.kronmodel.export.test_repository import everything, publication

FORKS = get_context("fork")
OPERATIONS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "shutil.rmtree", "tempfile.mkdtemp"}
NAMES = ("toy-dense", "toy-kronecker")
ENDED_BY_ITSELF = 7


def publish_until(repository: Path, number: int) -> None:
    """Publish two models; die by SIGKILL before the file operation of that number."""
    seen = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in OPERATIONS and any(STAGING in str(argument) for argument in arguments):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    publish([publication(name, 2.0) for name in NAMES], repository)
    os._exit(ENDED_BY_ITSELF)


def values(repository: Path, name: str) -> list[str]:
    """The values by which the published versions of a model can be told apart, oldest first."""
    return [onnx.load(path / "model.onnx").doc_string for path in sorted((repository / name).glob("[0-9]*"))]


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_killed_before_any_file_operation_both_models_are_published_or_none(tmp_path: Path) -> None:
    completed = set()
    number, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        number += 1
        repository = tmp_path / str(number)
        publish([publication(name, 1.0) for name in NAMES], repository)
        child = FORKS.Process(target=publish_until, args=(repository, number))
        child.start()
        child.join()
        code = child.exitcode or 0
        half = values(repository, NAMES[0]) != values(repository, NAMES[1])
        finished = finish_publications(repository)
        completed.add(len(finished))
        assert finished or not half
        assert values(repository, NAMES[0]) == values(repository, NAMES[1]) in (["1.0"], ["1.0", "2.0"]), number
        assert not list(repository.glob(f"{STAGING}*")), number
        assert finish_publications(repository) == []
    assert code == ENDED_BY_ITSELF
    assert number > 10
    assert completed == {0, 1, 2}


def test_the_folder_of_a_running_process_stays(tmp_path: Path) -> None:
    folder = tmp_path / f"{STAGING}1-abc"
    (folder / "toy").mkdir(parents=True)
    (folder / COMPLETE).touch()
    lock = FolderLock(folder)
    assert finish_publications(tmp_path) == []
    publish([publication("other")], tmp_path)
    assert (folder / "toy").is_dir()
    lock.release()
    assert finish_publications(tmp_path) == [tmp_path / "toy" / "1"]
    assert not folder.exists()


def test_if_one_model_cannot_be_renamed_none_is_published(tmp_path: Path) -> None:
    publish([publication("a", 1.0)], tmp_path)
    (tmp_path / "c").write_text("a file where the model's folder should be")
    before = everything(tmp_path)
    with pytest.raises(ExportError, match="can't write to the model repository"):
        publish([publication("a", 2.0), publication("b"), publication("c")], tmp_path)
    assert everything(tmp_path) == before


def test_ctrl_c_between_two_renames_completes_the_publication(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted: list[Path] = []

    def interrupt(folder: Path) -> None:
        if folder == tmp_path / "a" and not interrupted:
            interrupted.append(folder)
            raise KeyboardInterrupt

    monkeypatch.setattr("kronmodel.export.repository.sync_folder", interrupt)
    with pytest.raises(KeyboardInterrupt):
        publish([publication("a"), publication("b")], tmp_path)
    assert values(tmp_path, "a") == values(tmp_path, "b") == ["1.0"]
    assert not list(tmp_path.glob(f"{STAGING}*"))
