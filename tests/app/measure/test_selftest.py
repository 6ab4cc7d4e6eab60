"""The self-test: comparisons of models whose differences are known."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from app.cli.main import main
from app.measure.selftest import DELAYS_US, PADDING_BYTES, Check, selftest
from app.settings import Settings
from tests.app.cli.test_main import run

pytestmark = [pytest.mark.alone, pytest.mark.slow]


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    steps: list[str] = []
    found = asyncio.run(selftest(Settings(threads=1), runs=3, seconds=0.8, on_step=steps.append))
    assert steps[0] == "the same model twice, run 1 of 3, 0 found a difference so far"
    return found


def test_the_same_model_twice_is_not_distinguishable(checks: list[Check]) -> None:
    assert checks[0].name == "the same model twice at session, n = 3"
    assert checks[0].passed, checks[0]


def test_a_delay_is_measured_as_such(checks: list[Check]) -> None:
    delays = [check for check in checks if "µs added to" in check.name]
    assert len(delays) == 2 * len(DELAYS_US)
    for check in delays:
        wanted = int(check.name.split()[0])
        added = float(check.measured.split()[0])
        # A busy machine interrupts processes in the middle of a run, which adds an unknown time to the delay.
        assert 0.95 * wanted - 2 < added < 2 * wanted + 20, check


def test_a_padding_is_measured_in_bytes(checks: list[Check]) -> None:
    padded = [check for check in checks if "bytes added" in check.name]
    assert [check.name.rpartition(": ")[2] for check in padded] == ["file", "initialisers", "memory once loaded"]
    assert all(check.passed for check in padded), padded
    assert re.sub(r"[ ,a-z]", "", padded[1].measured) == str(PADDING_BYTES + 4)


def test_the_command_prints_json_and_exits_by_the_result(tmp_path: Path) -> None:
    done = run("selftest", "--runs", "1", "--seconds", "0.1", "--json")
    printed = json.loads(done.stdout)
    assert done.returncode == (0 if printed["passed"] else 1)
    assert printed["passed"] == all(check["passed"] for check in printed["checks"])
    assert "the same model twice, run 1 of 1" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "0"], "--runs: got 0, expected 1 to 1000"),
        (["--depths", "wire"], "--depths: got 'wire', expected 'session', 'queue' or 'http'"),
        (["--seconds", "0"], "--seconds: got 0.0, expected greater than or equal to 0.1"),
    ],
)
def test_bad_input_is_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", *arguments]) == 2
    assert message in capsys.readouterr().err
