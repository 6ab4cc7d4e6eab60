"""The page is whole, needs nothing from elsewhere, and is really drawn."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kronmodel.cli.pages import check_page
from kronmodel.cli.report import write_report
from kronmodel.errors import ExportError
from kronmodel.training.baselines import Baseline
from kronmodel.training.history import Epoch

SUMMARY: dict[str, Any] = {
    "version": "1",
    "parameters": 11_490,
    "parameters_with_branch_biases": 13_068,
    "weight_bytes": 45_960,
    "c": {"bits": 32, "weight_bytes": 45_960, "scratch_bytes": 6_496},
    "macs_per_sample": 179_312,
    "test_metric": {"name": "accuracy", "value": 0.98},
    "train_seconds": 10.0,
    "ms_per_step": 2.0,
}


def write(
    path: Path,
    name: str,
    roles: tuple[str, ...] = ("kronecker", "dense"),
    *,
    validation: bool = False,
    baselines: Sequence[Baseline] = (),
) -> None:
    models = {role: {**SUMMARY, "name": f"{name}-{role}"} for role in roles}
    models[roles[-1]] |= {"parameters": 1_238_730, "parameters_with_branch_biases": 1_238_730}
    models[roles[-1]] |= {"c": {"bits": 32, "weight_bytes": 91_920, "scratch_bytes": 12_992}}
    data = {"name": "mnist", "train_samples": 60_000, "test_samples": 10_000}
    cards = {role: {"name": f"{name}-{role}", "data": data, "created": "2026-01-01"} for role in roles}
    history = [
        Epoch(
            epoch=number,
            seconds=1.0 * number,
            ms_per_step=2,
            loss=1 / number,
            validation=0.8 if validation else None,
            test=0.9,
        )
        for number in (1, 2, 3)
    ]
    write_report(path, name, models, dict.fromkeys(roles, history), cards, baselines=baselines)


def figures(page: str) -> Any:
    return json.loads(re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page)[0])


class Addresses(HTMLParser):
    """What a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]


def test_curves_of_both_and_the_table(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("an older report")
    write(path, "toy", validation=True)
    page = path.read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    reader = Addresses()
    reader.feed(page)
    assert (reader.found, reader.scripts) == (["data:,"], 3)
    assert "<td>107.81×</td>" in page
    assert "<td>98.00%</td>" in page
    assert re.search(r"as C: memory</th>\s*<td>6,496</td>\s*<td>12,992</td>\s*<td>2.00×</td>", page)
    drawn = figures(page)
    assert [line["name"] for line in drawn["score"]["data"]] == [
        "toy-kronecker",
        "toy-kronecker, validation",
        "toy-dense",
        "toy-dense, validation",
    ]
    assert drawn["loss"]["data"][1]["y"] == [1, 1 / 2, 1 / 3]
    assert drawn["seconds"]["data"][0]["x"] == [1, 2, 3]


@pytest.mark.parametrize(("accuracy", "better"), [(0.97, False), (0.985, True)])
def test_baselines_beside_the_networks(tmp_path: Path, accuracy: float, better: bool) -> None:
    path = tmp_path / "report.html"
    scores = {"accuracy": accuracy, "balanced_accuracy": 0.5}
    found = [Baseline(name="gradient <boosting>", scores=scores, train_rows=100, seconds=1.0)]
    write(path, "toy", baselines=found)
    page = path.read_text().split("<script")[0]
    assert "<h2>On the same test rows</h2>" in page
    assert '<th scope="col">balanced accuracy</th>' in page
    row = '<tr><th scope="row">gradient &lt;boosting&gt;</th>'
    assert f"{row}<td>{100 * accuracy:.2f}%</td><td>50.00%</td></tr>" in page
    assert '<tr><th scope="row">toy-dense</th><td>98.00%</td><td></td></tr>' in page
    assert ("use it instead.</p>" in page) is better
    write(path, "toy")
    assert "On the same test rows" not in path.read_text()


def test_one_network_and_a_name_that_would_be_markup(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write(path, "</script><b>", ("dense",))
    page = path.read_text()
    assert "</script><b>" not in page
    assert len(figures(page)["score"]["data"]) == 1
    assert "÷" not in page.split("<script")[0]


def test_where_it_cannot_be_written_is_told_before_training(tmp_path: Path) -> None:
    check_page(None)
    check_page(tmp_path / "new.html")
    assert list(tmp_path.iterdir()) == []
    for path in (tmp_path, tmp_path / "no" / "report.html"):
        with pytest.raises(ExportError, match="can't write the report"):
            check_page(path)
    with pytest.raises(ExportError, match=r"can't write the report .*: No such file or directory"):
        write(tmp_path / "no" / "report.html", "toy")
