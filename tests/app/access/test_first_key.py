"""The admin key that a service without keys generates at its first start."""

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.access.first_key import first_key
from app.access.keys import Role, find_key, read_keys
from tests.app.conftest import environment


def generated(text: str) -> str:
    found = re.search(r"It is printed only now: (\S{43})", text)
    assert found, text
    return found[1]


def test_a_key_is_generated_once_and_its_hash_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    first = first_key(path)
    assert first.path == path
    assert first.message is not None
    key = generated(first.message)
    kept = find_key(read_keys(path), key.encode())
    assert kept is not None
    assert kept.role is Role.admin
    assert key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]
    before = path.read_bytes()
    again = first_key(path)
    assert (again.path, again.message, path.read_bytes()) == (path, None, before)


@pytest.mark.skipif(sys.platform != "linux", reason="files in memory")
def test_where_the_file_cannot_be_written_the_key_is_kept_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "none" / "keys"
    first = first_key(path)
    assert first.message is not None
    assert f"{path} cannot be written: No such file or directory" in first.message
    for _ in range(2):  # each worker reads the file, and again at each reload
        assert find_key(read_keys(first.path), generated(first.message).encode())


@pytest.mark.parametrize(
    ("workers", "names"),
    [(1, ["keys", "keys"]), (2, ["none/keys"])],  # the last cannot be written: forks have to find the key in memory
)
def test_a_service_for_all_addresses_starts_with_a_generated_key(
    models: Path, tmp_path: Path, workers: int, names: list[str]
) -> None:
    options = {"host": "0.0.0.0", "log_format": "json", "log_level": "error", "workers": workers}
    keys: list[str] = []
    for path in (tmp_path / name for name in names):
        with subprocess.Popen(
            [sys.executable, "-m", "app", "--port", "0"],
            env=environment(models=models, generate_key=path, reports="off", drain_seconds=0, **options),
            stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                lines = []
                for line in process.stdout:
                    lines.append(json.loads(line)["message"])
                    if "Open http" in lines[-1]:
                        break
                keys += [generated(line) for line in lines if "printed only now" in line]
                address = re.search(r"http://localhost:\d+", lines[-1])
                assert address
                url = f"{address[0]}/api/models"
                assert httpx.get(url).status_code == 401
                assert httpx.get(url, headers={"X-API-Key": keys[0]}).status_code == 200
            finally:
                process.terminate()
        assert process.returncode == 0
    assert len(keys) == 1  # none at the second start
