"""The check for known vulnerabilities, by the real pip-audit against a server that answers as OSV does."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.dependencies.audit import Acceptance, read_acceptances
from tests.dependencies.pins import ROOT

TOOLS = ROOT / "build/envs/dependencies"
needs_tools = pytest.mark.skipif(not (TOOLS / ".ready").exists(), reason="`make lint` installs pip-audit")
PINS = "requests==2.31.0\nurllib3==2.8.0\n"
# From OSV's answer for requests 2.31.0.
VULNERABLE = {
    "vulns": [
        {
            "id": "GHSA-9wx4-h78v-vm56",
            "summary": "Requests `Session` object does not verify requests after making first with verify=False",
            "aliases": ["CVE-2024-35195"],
            "modified": "2025-01-14T10:57:35Z",
            "published": "2024-05-20T20:15:00Z",
            "affected": [
                {
                    "package": {"name": "requests", "ecosystem": "PyPI", "purl": "pkg:pypi/requests"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.32.0"}]}],
                }
            ],
            "schema_version": "1.6.0",
        }
    ]
}


@contextmanager
def osv(status: int = 200) -> Iterator[str]:
    """Serve OSV's answers for PINS; yields the address of the query."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = question["package"]["name"] == "requests" and question["version"] == "2.31.0"
            body = json.dumps(VULNERABLE if found else {}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def audit(folder: Path, address: str, pins: str = PINS, accepted: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "pins.txt").write_text(pins)
    (folder / "accepted.toml").write_text(accepted)
    command: list[str | Path] = [TOOLS / "bin/python", "-m", "tests.dependencies.audit", "--osv-url", address]
    command += ["--requirement", folder / "pins.txt", "--accepted", folder / "accepted.toml"]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=ROOT)


def entry(until: str, id_: str = "CVE-2024-35195") -> str:
    return f'[[accepted]]\nid = "{id_}"\npackage = "requests"\nreason = "verify is never False"\nuntil = {until}\n'


@needs_tools
@pytest.mark.parametrize(
    ("pins", "accepted", "code", "words"),
    [
        (PINS, "", 1, ["requests 2.31.0: CVE-2024-35195, GHSA-9wx4-h78v-vm56, fixed by 2.32.0", "make pins"]),
        (PINS, entry("2999-01-01"), 0, ["accepted until 2999-01-01: verify is never False"]),
        (PINS, entry("2020-01-01"), 1, ["was accepted until 2020-01-01"]),
        (PINS, entry("2999-01-01", "CVE-2024-1"), 1, ["fixed by 2.32.0", "CVE-2024-1 of requests no longer applies"]),
        ("urllib3==2.8.0\n", "", 0, ["known vulnerabilities of 1 pins: none"]),
    ],
)
def test_a_known_vulnerability_is_a_fault_unless_it_is_accepted(
    pins: str, accepted: str, code: int, words: list[str], tmp_path: Path
) -> None:
    with osv() as address:
        result = audit(tmp_path, address, pins, accepted)
    assert result.returncode == code, result.stderr
    for word in words:
        assert word in result.stdout + result.stderr


@needs_tools
def test_a_database_that_gives_no_answer_is_a_notice(tmp_path: Path) -> None:
    with osv(status=503) as address:
        failing = audit(tmp_path, address)
    gone = audit(tmp_path, address)
    for result in (failing, gone):
        assert (result.returncode, result.stdout) == (0, ""), result.stderr
        assert (
            result.stderr
            == f"the pins are not checked for known vulnerabilities: the database {address} gives no answer\n"
        )


@needs_tools
def test_another_failure_of_pip_audit_is_a_failure(tmp_path: Path) -> None:
    with osv() as address:
        result = audit(tmp_path, address, "requests==2.31.0\nrequests==2.31.1\n")
    assert result.returncode == 1
    assert "pip-audit failed" in result.stderr


def test_an_acceptance_needs_a_reason_and_a_date(tmp_path: Path) -> None:
    path = tmp_path / "accepted.toml"
    path.write_text(entry("2999-01-01"))
    assert [each.package for each in read_acceptances(path)] == ["requests"]
    for text in (
        entry('"soon"'),
        entry("2999-01-01").replace("verify is never False", " "),
        '[[accepted]]\nid = "CVE-1"',
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"needs id, package and reason|is empty"):
            read_acceptances(path)


def test_the_acceptances_of_the_repository_can_be_read() -> None:
    assert all(
        isinstance(each, Acceptance) for each in read_acceptances(ROOT / "tests/dependencies/vulnerabilities.toml")
    )
