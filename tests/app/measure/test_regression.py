"""Regressions between reports, and `kronserve compare --check`, which measures a report again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli.main import main
from app.measure.regression import changes, read_report
from tests.app.conftest import environment

pytestmark = [pytest.mark.alone, pytest.mark.slow]

TWIN = ["small-kronecker", "small-dense"]
Raw = dict[str, Any]


@pytest.fixture(scope="module")
def raw(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Raw:
    """A report of a real comparison."""
    return measured(models, "--batch-sizes", "1,32")


def measured(models: Path, *arguments: str) -> Raw:
    command = [sys.executable, "-m", "app", "compare", *TWIN, "--models", str(models), "--seconds", "1", "--json"]
    done = subprocess.run(
        [*command, *arguments],
        env=environment(), capture_output=True, text=True, timeout=250, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def changed(raw: Raw, **ratios: float) -> Raw:
    """A copy of a report with figures multiplied by the given factors."""
    copy: Raw = json.loads(json.dumps(raw))
    for pair in copy["pairs"]:
        for key in ("ratio", "low", "high"):
            pair[key] *= ratios.get("ratio", 1)
    for model in copy["models"]:
        model["file_bytes"] = round(model["file_bytes"] * ratios.get("file", 1))
        for latency in model["latency"]:
            for key in ("p50_us", "p50_low_us", "p50_high_us"):
                latency[key] *= ratios.get("time", 1)
    return copy


def moved(before: Raw, now: Raw, *, tolerance: float = 0.1, absolute: bool = False) -> list[tuple[str, bool]]:
    reports = [read_report(json.dumps(report).encode(), "r.json") for report in (before, now)]
    return [(change.what, change.worse) for change in changes(*reports, tolerance=tolerance, absolute=absolute)]


def test_a_report_has_no_changes_against_itself(raw: Raw) -> None:
    assert moved(raw, raw, tolerance=0, absolute=True) == []


def test_a_smaller_advantage_is_worse_and_a_larger_one_better(raw: Raw) -> None:
    what = [f"speed of small-kronecker against small-dense, batch size {size}, session" for size in (1, 32)]
    assert moved(changed(raw, ratio=3), raw) == [(name, True) for name in what]
    assert moved(raw, changed(raw, ratio=3)) == [(name, False) for name in what]
    assert moved(changed(raw, ratio=3), raw, tolerance=2.1) == []


def test_a_change_within_the_interval_is_ignored(raw: Raw) -> None:
    wide = changed(raw, ratio=1.5)
    for pair in wide["pairs"]:
        pair["low"], pair["high"] = pair["ratio"] / 3, pair["ratio"] * 3
    assert moved(wide, raw) == []


def test_times_are_compared_only_on_request(raw: Raw) -> None:
    slower = changed(raw, time=2.0)
    assert moved(raw, slower) == []
    found = moved(raw, slower, absolute=True)
    assert ("median of small-dense, batch size 32, session", True) in found
    assert len(found) == 4
    assert {worse for _, worse in moved(slower, raw, absolute=True)} == {False}


def test_sizes_and_memory(raw: Raw) -> None:
    assert moved(raw, changed(raw, file=1.2)) == [(f"file of {name}", True) for name in TWIN]
    heavier = json.loads(json.dumps(raw))
    heavier["models"][1]["memory"]["session_bytes"] += 2**19
    assert moved(raw, heavier) == []  # noise
    heavier["models"][1]["memory"]["session_bytes"] += 2**22
    assert moved(raw, heavier) == [("memory added by loading of small-dense", True)]


def check(models: Path, report: Raw, folder: Path, *arguments: str) -> int:
    path = folder / "report.json"
    path.write_text(json.dumps(report))
    return main(["compare", "--check", str(path), "--models", str(models), *arguments])


def test_check_passes_and_fails_by_exit_code(
    raw: Raw, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(models, raw, tmp_path, "--tolerance", "1") == 0
    assert "no regressions beyond 100 %" in capsys.readouterr().out
    # Wrapped as by `GET /api/comparisons/{id}`.
    assert check(models, {"id": "1", "report": changed(raw, ratio=20, file=0.5)}, tmp_path, "--tolerance", "0.5") == 1
    out, err = capsys.readouterr()
    assert "WORSE: speed of small-kronecker against small-dense, batch size 32, session: " in out
    assert "WORSE: file of small-dense: " in out
    assert "4 regressions beyond 50 %" in out
    assert err.count("[0/") == 2  # measured twice to confirm the regressions
    assert check(models, changed(raw, time=1e-3), tmp_path, "--absolute", "--json", "--tolerance", "1") == 1
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["regressions"]) == 4
    assert printed["regressions"][0]["what"] == "median of small-kronecker, batch size 1, session"
    assert printed["report"]["settings"]["batch_sizes"] == [1, 32]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("not json", [], "is not JSON: "),
        ("[]", [], "is not the report of a comparison: "),
        ("{}", [], "is not the report of a comparison: id: missing"),
        ("{}", ["--tolerance", "-1"], "--tolerance: got -1, expected a fraction from 0 to 10"),
        ("{}", ["small-dense"], "MODEL: cannot be combined with --check, which takes it from the report"),
        ("{}", ["--seconds", "1"], "--seconds: cannot be combined with --check"),
    ],
)
def test_bad_input_is_exit_code_2(
    content: str, arguments: list[str], message: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    assert main(["compare", *arguments, "--check", str(path), "--models", str(models)]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_model_that_is_gone_is_exit_code_2(
    raw: Raw, tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = changed(raw)
    copy["models"][0]["model"] = "gone"
    assert check(models, copy, tmp_path) == 2
    assert "model: got 'gone', expected one of: heavy" in capsys.readouterr().err
    assert main(["compare", "--check", str(tmp_path / "none.json"), "--models", str(models)]) == 2
    assert "none.json cannot be read: No such file or directory" in capsys.readouterr().err
    assert main(["compare", *TWIN, "--absolute", "--models", str(models)]) == 2
    assert "--absolute: needs --check REPORT" in capsys.readouterr().err
