"""Keys that are added to and removed from the key file of a running service, in every worker."""

import logging
import os
import signal
from pathlib import Path

import httpx
import pytest

from app.access.key_file import KeyFile
from app.access.keys import Role, find_key, make_key
from tests.app.conftest import serving, wait_until
from tests.app.graphs import classifier, publish, weights


def test_a_changed_file_replaces_the_keys_and_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (old, old_line), (new, new_line), (_, kept_line) = (
        make_key(name, role) for name, role in (("old", Role.admin), ("new", Role.read), ("kept", Role.predict))
    )
    path = tmp_path / "keys"
    path.write_text(f"{old_line}\n{kept_line}\n")
    keys = KeyFile(path)
    assert not keys.refresh()
    path.write_text(f"{kept_line}\n{new_line}\n")
    assert keys.refresh()
    assert find_key(keys.keys, old.encode()) is None
    assert find_key(keys.keys, new.encode()) is not None
    assert "API keys: 2 in force; added new (read); removed old (admin)" in caplog.text
    secrets = [old, new, *(line.rpartition(":")[2] for line in (old_line, new_line, kept_line))]
    assert not any(secret in caplog.text for secret in secrets)


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(make_key("a", Role.read)[1])
    keys = KeyFile(path)
    (other, line), times = make_key("a", Role.read), path.stat()
    (tmp_path / "new").write_text(line)
    os.utime(tmp_path / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "new").replace(path)
    assert keys.refresh()
    assert find_key(keys.keys, other.encode()) is not None


@pytest.mark.parametrize("damage", ["", "a read secret\n", None])
def test_a_damaged_file_keeps_the_last_keys_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str | None
) -> None:
    key, line = make_key("a", Role.read)
    path = tmp_path / "keys"
    path.write_text(line)
    keys = KeyFile(path)
    path.unlink() if damage is None else path.write_text(damage)
    for _ in range(3):
        assert not keys.refresh()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("API keys: the file cannot be used; the 1 keys in force stay: --keys")
    assert "secret" not in caplog.text
    assert find_key(keys.keys, key.encode()) is not None
    path.write_text(make_key("b", Role.read)[1])
    assert keys.refresh()


def test_a_removed_key_ends_in_every_worker_with_its_streams(tmp_path: Path) -> None:
    models = tmp_path / "models"
    publish(models, "plain", classifier(weights([6, 3])))
    publish(models, "other", classifier(weights([6, 3], seed=2)))
    (old, old_line), (new, new_line) = make_key("old", Role.admin), make_key("new", Role.read)
    path = tmp_path / "keys"
    path.write_text(f"{old_line}\n{new_line}\n")
    with serving(models, workers=2, keys=path) as server:
        compare = {"models": ["plain", "other"], "batch_sizes": [1, 2, 3, 5, 8, 13, 21, 34], "seconds": 60}
        headers = {"X-API-Key": old, "Accept": "text/event-stream"}
        url = f"{server.address}/api/compare"

        def statuses(key: str) -> set[int]:
            return {
                httpx.get(f"{server.address}/api/models", headers={"X-API-Key": key}).status_code for _ in range(16)
            }

        assert statuses(old) == statuses(new) == {200}
        with httpx.stream("POST", url, json=compare, headers=headers, timeout=60) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: started"
            path.write_text(f"{new_line}\n")
            assert list(lines)[-3:-1] == ["event: error", 'data: {"error":"the API key was removed; the job goes on"}']
            wait_until(lambda: statuses(old) == {401})  # without a signal
        path.write_text(f"{old_line}\n")
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: statuses(old) == {200} and statuses(new) == {401})
