"""The table and the chart of bytes against accuracy: from the stored results, with the sizes of the present code."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bytes import COMMANDS, NAMES, draw
from benchmarks.structured import NETWORKS, describe

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "bytes.json"
STORED: list[dict[str, Any]] = json.loads(RESULTS.read_text())


def test_the_documents_have_the_table_and_the_chart_of_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = tmp_path / "chart.svg"
    draw(RESULTS, chart)
    assert chart.read_text() == (ROOT / "docs" / "bytes.svg").read_text()
    table = capsys.readouterr().out
    assert len(table.splitlines()) == len({each["name"] for each in STORED})
    assert table in (ROOT / "docs" / "quantization.md").read_text()


def test_every_network_has_a_result() -> None:
    assert {each["name"] for each in STORED} == {*NAMES} == {*COMMANDS, *NETWORKS}


@pytest.mark.parametrize("name", NETWORKS)
def test_results_have_the_sizes_of_the_present_networks(name: str) -> None:
    sizes = describe(name)
    assert sizes["weight_bytes"] < sizes["parameters"]
    for each in STORED:
        if each["name"] == name:
            assert {key: each[key] for key in sizes} == sizes
