"""API keys: their file, the role that each request needs, and the command that makes a key."""

import hashlib
from pathlib import Path

import pytest

from app.access.keys import Key, Role, find_key, make_key, read_keys, required_role
from app.cli.main import main
from app.errors import StartupError
from app.main import create_app
from app.settings import Settings

DIGEST = hashlib.sha256(b"secret").hexdigest()


def test_keys_are_found_by_their_hash(tmp_path: Path) -> None:
    key, line = make_key("ci", Role.predict)
    file = tmp_path / "keys"
    file.write_text(f"# a comment\n\n  boss admin sha256:{DIGEST}\n{line}\n")
    keys = read_keys(file)
    assert keys[0] == Key("boss", Role.admin, bytes.fromhex(DIGEST))
    assert find_key(keys, key.encode()) == keys[1]
    assert keys[1].name == "ci"
    for wrong in (b"", b"Secret", key.encode()[:-1], DIGEST.encode()):
        assert find_key(keys, wrong) is None
    assert key not in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got 0 keys in "),
        (f"a read sha256:{DIGEST}\nb root sha256:{DIGEST}", "line 2: expected `name role sha256:<64 hex digits>`"),
        ("a read secret", "line 1: expected"),
        (f"a read sha256:{DIGEST[:-1]}", "line 1: expected"),
        (f"a read sha256:{DIGEST}\na admin sha256:{DIGEST}", "line 2: got the name 'a' again, expected"),
        ("x" * 300_000, "expected at most 262144"),
    ],
)
def test_a_malformed_file_is_one_line_that_does_not_reveal_its_content(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(StartupError, match=r"^--keys \(KRON_KEYS\): ") as caught:
        read_keys(file)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read: No such file"):
        read_keys(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(StartupError, match="cannot be read: it is not UTF-8 text"):
        read_keys(tmp_path / "binary")


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/", None),
        ("GET", "/metrics", None),
        ("GET", "/v2/health/ready", None),
        ("GET", "/static/app.js", None),
        ("GET", "/api/models", Role.read),
        ("HEAD", "/v2/models/a", Role.read),
        ("GET", "/static", Role.read),
        ("GET", "/api/models/a/file", Role.predict),
        ("HEAD", "/api/models/a/file", Role.predict),
        ("GET", "/api/models/file", Role.read),
        ("POST", "/v2/repository/index", Role.read),
        ("POST", "/api/predict", Role.predict),
        ("POST", "/v2/models/a/versions/2/infer", Role.predict),
        ("POST", "/v2/repository/models/a/load", Role.admin),
        ("POST", "/v2/repository/models/infer", Role.admin),
        ("POST", "/api/compare", Role.admin),
        ("GET", "/api/trainings/options", Role.read),
        ("POST", "/api/trainings", Role.admin),
        ("DELETE", "/api/trainings/0", Role.admin),
        ("DELETE", "/api/models", Role.admin),
        ("POST", "/static/../api/compare", Role.admin),
    ],
)
def test_requests_need_a_role(method: str, path: str, role: Role | None) -> None:
    assert required_role(method, path) == role


def test_the_command_prints_the_line_to_stdout_and_the_key_to_stderr(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["key", "grafana", "--role", "read"]) == 0
    printed = capsys.readouterr()
    (tmp_path / "keys").write_text(printed.out)
    key = printed.err.split(": ", 1)[1].split()[0]
    found = find_key(read_keys(tmp_path / "keys"), key.encode())
    assert found is not None
    assert (found.name, found.role) == ("grafana", Role.read)
    assert main(["key", "two words"]) == 2
    assert capsys.readouterr().err.startswith("kronserve: NAME: got 'two words', expected")


def test_with_keys_the_openapi_document_names_the_role_of_each_operation(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"boss admin sha256:{DIGEST}\n")
    paths = create_app(Settings.read({"KRON_KEYS": str(file), "KRON_MODELS": str(tmp_path)})).openapi()["paths"]
    for method, path, role in (
        ("post", "/v2/models/{name}/infer", "predict"),
        ("get", "/v2/models/{name}", "read"),
        ("post", "/v2/repository/models/{name}/unload", "admin"),
    ):
        operation = paths[path][method]
        assert operation["security"] == [{"bearer": []}, {"header": []}]
        assert operation["description"].endswith(f"Role: {role}.")
    assert "security" not in paths["/v2/health/ready"]["get"]
    assert "security" not in str(create_app(Settings.read({"KRON_MODELS": str(tmp_path)})).openapi())
