"""Examples of docs/protocol.md and of the OpenAPI document, run unchanged against the default twin."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.app.conftest import serving

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


def code_block(language: str, address: str) -> str:
    """Code block of docs/protocol.md in a language, with the address of the test's service."""
    code = re.search(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)
    assert code is not None
    assert "localhost:8000" in code[1]
    return code[1].replace("localhost:8000", address)


def test_the_examples_of_the_protocol_page_run(twin_repository: Path) -> None:
    pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    with serving(twin_repository) as server:
        address = httpx.URL(server.address).netloc.decode()
        python = [sys.executable, "-c", code_block("py", address)]
        completed = subprocess.run(python, capture_output=True, text=True, timeout=60, check=True)
        lines = completed.stdout.splitlines()
        assert lines[0].startswith("[[")
        assert next(line.partition(": ")[0] for line in lines if ": " in line) == "1"
        assert lines[-1] == "2"
        shell = ["bash", "-c", code_block("sh", address)]
        completed = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=True)
        assert completed.stdout.startswith(
            '{"model_name":"mnist-kronecker","model_version":"1","outputs":[{"name":"logits"'
        )


def test_the_examples_of_the_openapi_document_succeed(twin_repository: Path) -> None:
    with serving(twin_repository) as server:
        path = "/v2/models/{name}/infer"
        operation = server.client.get("/openapi.json").json()["paths"][path]["post"]
        for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
            answer = server.client.post(path.replace("{name}", "mnist-dense"), json=example["value"])
            assert answer.is_success
            best = answer.json()["outputs"][-1]["data"]
            if example["summary"].startswith("The three"):
                assert best[0].endswith(":1:1")
            else:
                assert max(range(10), key=best.__getitem__) == 1
