"""File locks, private folders, and that both work where there is no `fcntl`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.system.files import FileLock, PrivateFolder, locked
from tests.app.conftest import environment, serving
from tests.app.graphs import classifier, publish, weights

PREFIX = "kind-"

IMPORT_AND_USE = """
import pkgutil
import sys
from importlib import import_module
from pathlib import Path
import app
for module in pkgutil.walk_packages(app.__path__, "app."):
    if module.name != "app.__main__":
        import_module(module.name)
assert sys.modules["fcntl"] is None

from app.jobs.store import JobStore
from app.models.worker_state import UnloadedModels
from app.settings import Settings
from app.system.files import FileLock, PrivateFolder, locked
folder = Path(sys.argv[1])
one, two = PrivateFolder("kind-", folder), PrivateFolder("kind-", folder)
one.make()
two.make()
assert one.path.is_dir()
one.remove()
two.remove()
lock = FileLock(folder / "file")
assert lock.acquire()
lock.release()
with locked(folder / "file"):
    pass
unloaded = UnloadedModels()
unloaded.add("name")
assert unloaded.names == {"name"}
with JobStore.open(Settings(models=folder)).exclusive_slot():
    pass
"""


@pytest.fixture
def without_fcntl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In new processes `import fcntl` fails, as it does on Windows."""
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text('import sys\nsys.modules["fcntl"] = None\n')
    monkeypatch.setenv("PYTHONPATH", str(folder))


def names(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir())


def test_a_lock_excludes_others_until_it_is_released(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire()
    second.release()  # it is not held: nothing happens
    assert not second.acquire()
    first.release()
    with locked(tmp_path / "lock"):
        assert not second.acquire()
    assert second.acquire()
    second.release()


@pytest.mark.usefixtures("without_fcntl")
def test_without_fcntl_every_module_can_be_imported_and_locks_do_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IMPORT_AND_USE, str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("without_fcntl")
def test_without_fcntl_the_service_predicts_unloads_and_compares(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name in ("one", "two"):
        publish(models, name, classifier(weights([6, 3])))
    with serving(models) as server:
        assert server.client.post("/api/predict", json={"inputs": [[0.5] * 6], "models": ["one"]}).is_success
        report = server.client.post("/api/compare", json={"models": ["one", "two"], "batch_sizes": [1], "seconds": 0.2})
        assert report.is_success, report.text
        assert server.client.post("/v2/repository/models/one/unload").is_success


def test_removing_a_folder_leaves_those_still_in_use(tmp_path: Path) -> None:
    first, second = PrivateFolder(PREFIX, tmp_path), PrivateFolder(PREFIX, tmp_path)
    for folder in (first, second):
        folder.make()
        assert folder.path.stat().st_mode & 0o777 == 0o700
    (first.path / "inner").mkdir()
    assert len(names(tmp_path)) == 2
    first.remove()
    assert names(tmp_path) == [second.path.name]
    second.remove()
    second.remove()
    PrivateFolder(PREFIX, tmp_path).remove()  # was never made
    assert names(tmp_path) == []


def test_making_a_folder_removes_that_of_a_killed_process(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, signal
from app.system.files import PrivateFolder
folder = PrivateFolder({PREFIX!r}, pathlib.Path({str(tmp_path)!r}))
folder.make()
(folder.path / "rows").write_bytes(bytes(1000))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (abandoned,) = names(tmp_path)
    folder = PrivateFolder(PREFIX, tmp_path)
    folder.make()
    assert names(tmp_path) == [folder.path.name] != [abandoned]
    folder.remove()


def test_files_links_and_unlocked_folders_with_the_prefix_stay(tmp_path: Path) -> None:
    """Any user may create anything in the system's temporary folder."""
    precious, parent = tmp_path / "precious", tmp_path / "parent"
    for path in (precious, parent / f"{PREFIX}new", parent / "other-kind"):
        path.mkdir(parents=True)
    for path in (precious, parent / "other-kind"):
        (path / "lock").touch()
    (parent / f"{PREFIX}link").symlink_to(precious)
    (parent / f"{PREFIX}file").touch()
    before = names(parent)
    folder = PrivateFolder(PREFIX, parent)
    folder.make()
    folder.remove()
    assert names(parent) == before
    assert names(precious) == ["lock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_another_users_folder_stays(tmp_path: Path) -> None:
    planted = tmp_path / f"{PREFIX}planted"
    planted.mkdir()
    (planted / "lock").touch()
    os.chown(planted, 65534, 65534)
    folder = PrivateFolder(PREFIX, tmp_path)
    folder.make()
    folder.remove()
    assert names(tmp_path) == [planted.name]
