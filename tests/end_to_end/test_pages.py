"""Commands of docs/api.md, operations.md and quickstart.md, run as they are, and the answers that the pages show."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.app.conftest import Serving, environment, serving

DOCS = Path(__file__).parents[2] / "docs"
API = re.findall(r"^```sh\n(.*?)^```\n\n```json\n(.*?)^```$", (DOCS / "api.md").read_text(), re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")


def blocks(page: str, language: str = "sh") -> list[str]:
    """Code blocks of a page in a language, by default the shell's; "" for those without one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return [code for name, code in found if name == language]


def run(script: str, folder: Path, server: Serving | None = None) -> str:
    """Run a shell block in a folder, with this environment's commands and the address of a service."""
    if server is not None:
        script = script.replace("http://localhost:8000", server.address).replace("localhost:8000", server.address)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        shell, cwd=folder, env=environment() | {"PATH": path}, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def skeleton(value: Any) -> Any:
    """Names and types of a JSON value; lists by their first element, texts that depend on the run as a type."""
    match value:
        case dict():
            return {name: value[name] if name in {"error", "role", "kind"} else skeleton(value[name]) for name in value}
        case list():
            return [skeleton(each) for each in value[:1]]
        case bool() | None:
            return value
        case int() | float():
            return "number"
        case _:
            return "text"


def test_the_answers_of_the_api_page_are_those_of_the_service(twin_repository: Path, tmp_path: Path) -> None:
    assert len(API) == len(blocks("api.md")) > 8
    with serving(twin_repository, reports=tmp_path / "reports.sqlite3") as server:
        for script, documented in API:
            answer = json.loads(run(script, tmp_path, server))
            assert skeleton(answer) == skeleton(json.loads(documented)), script
            if "receipt" in script:
                assert answer["outputs"][0]["shape"] == [1, 3]
            elif "samples" in script:
                assert [result["outputs"][0]["label"] for result in answer["results"]] == ["0", "0"]
            elif script.endswith("api/models/mnist-kronecker\n"):
                assert answer["card"]["layers"] == json.loads(documented)["card"]["layers"]


def test_the_new_version_of_the_operations_page_comes_into_service(trained_twin_copy: Path) -> None:
    shutil.copytree(trained_twin_copy / "models" / "mnist-kronecker" / "1", trained_twin_copy / "new")
    (script,) = blocks("operations.md")
    with serving(trained_twin_copy / "models") as server:
        assert server.client.get("/api/models/mnist-kronecker").json()["version"] == "1"
        run(script, trained_twin_copy, server)
        assert server.client.get("/api/models/mnist-kronecker").json()["version"] == "2"


@pytest.fixture
def trained_twin_copy(twin_repository: Path, tmp_path: Path) -> Path:
    """Folder with a copy of the default twin in `models`, which a test may change."""
    shutil.copytree(twin_repository, tmp_path / "models")
    return tmp_path


@pytest.mark.slow
def test_the_quickstart_runs(tmp_path: Path) -> None:
    _install, train, serve, predict, compare = blocks("quickstart.md")
    (table,) = blocks("quickstart.md", "")
    printed = run(train, tmp_path)
    for name in ("weights", "… with branch biases", "multiply-adds a sample"):
        (row,) = re.findall(rf"^│ {name} .*$", table, re.MULTILINE)
        assert row.split() in [line.split() for line in printed.splitlines()], row
    assert printed.splitlines()[-2:] == table.splitlines()[-2:]

    assert serve == "kronserve --models models --port 8000\n"
    with serving(tmp_path / "models") as server:
        answer = json.loads(run(predict, tmp_path, server))
    assert [result["model"] for result in answer["results"]] == ["digits-kronecker", "digits-dense"]
    assert "digits-dense" in run(f"{compare.rstrip()} --seconds 0.4", tmp_path)
