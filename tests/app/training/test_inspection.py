"""Descriptions of uploaded data files: what kronmodel says, refusals, and no leftovers."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from app.errors import BadRequest, TimedOut
from app.settings import Settings
from app.training import inspection
from app.training.schemas import ColumnKinds, TrainRequest
from app.training.uploaded import UploadedData
from tests.app.trainings import leftovers

TABLE = {
    "a, b": [1.5, 2.5, 4.0, 7.0] * 5,
    "town": ["x", "y", "z", "x"] * 5,
    "id": list(range(20)),
}


def describe(client: httpx.Client, name: str, content: bytes, kinds: dict[str, Any] | None = None) -> httpx.Response:
    data = {"request": json.dumps(kinds)} if kinds else {}
    return client.post("/api/trainings/data", files={"data": (name, content)}, data=data, timeout=60)


def table_bytes() -> bytes:
    written = io.BytesIO()
    parquet.write_table(pa.table(TABLE), written)
    return written.getvalue()


def test_a_table_is_described_column_by_column(client: httpx.Client, models: Path) -> None:
    kinds = {"categorical": ["a, b"], "numeric": ["id"]}
    answer = describe(client, "../mine.PARQUET", table_bytes(), kinds)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["rows"], found["bad_rows"], found["notes"], found["features"]) == (20, None, [], None)
    assert [[each[name] for name in ("name", "kind", "width", "task", "outputs")] for each in found["columns"]] == [
        ["a, b", "category", 4, "regression", 1],
        ["town", "category", 3, "classification", 3],
        ["id", "number", 1, None, None],
    ]
    assert found["columns"][0]["done"] == "4 categories, a one-hot column each"
    assert "one sample only" in found["columns"][2]["reason"]
    assert leftovers(models) == []


def test_arrays_are_described_by_their_sizes(client: httpx.Client) -> None:
    written = io.BytesIO()
    np.savez(
        written, x=np.zeros((30, 4, 5), np.uint8) + np.arange(30, dtype=np.uint8)[:, None, None], y=np.arange(30) % 3
    )
    found = describe(client, "digits.npz", written.getvalue()).json()
    assert (found["rows"], found["features"], found["image"], found["outputs"]) == (30, 20, [4, 5], 3)
    assert (found["task"], found["columns"]) == ("classification", [])


@pytest.mark.parametrize(
    ("name", "content", "kinds", "message"),
    [
        ("a.exe", b"x", {}, "data: got the file 'a.exe', expected one whose name ends in .csv, .tsv"),
        ("a.npz.gz", b"x", {}, "data: got the file 'a.npz.gz', expected one whose name ends in"),
        ("a.csv", b"a,b\n", {}, "data: a.csv has no rows that can be used"),
        ("a.csv", b"a,b\n1,2\n", {"drop": ["c"]}, "data: drop: a.csv has no column 'c'; it has a, b"),
        ("a.csv", b"a,b\n1,2\n", {"drop": ["a"], "date": ["a"]}, "data: date: 'a' is named by another option, too"),
        ("a.parquet", b"PAR1", {}, "data: a.parquet can't be read: "),
        ("a.csv", b"a,b\n1,2\n", {"target": "a"}, "body: got the unknown key 'target'"),
        ("a.csv", b"a,b\n1,2\n", {"drop": "a"}, "drop: got 'a', expected a valid list"),
    ],
)
def test_a_file_that_cannot_be_described_is_400(
    client: httpx.Client, name: str, content: bytes, kinds: dict[str, Any], message: str
) -> None:
    answer = describe(client, name, content, kinds)
    assert (answer.status_code, answer.json()["error"][: len(message)]) == (400, message)


def test_a_form_with_a_file_is_needed(client: httpx.Client) -> None:
    for answer in (
        client.post("/api/trainings/data", json={}),
        client.post("/api/trainings/data", files={"request": (None, "{}")}),
    ):
        assert (answer.status_code, "expected a f" in answer.json()["error"]) == (400, True)


def test_time_and_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def described(settings: Settings) -> None:
        await inspection.DataInspector(settings).describe(ColumnKinds(), UploadedData("a.csv", b"a,b\n1,2\n"))

    with pytest.raises(BadRequest, match="more than 1048576 bytes of memory"):
        asyncio.run(described(Settings(models=tmp_path, train_memory_bytes=2**20)))
    monkeypatch.setattr(inspection, "INSPECTION_SECONDS", 0.05)
    with pytest.raises(TimedOut, match="data: not read within"):
        asyncio.run(described(Settings(models=tmp_path)))
    assert leftovers(tmp_path) == []


def test_kinds_become_options_of_kronmodel() -> None:
    kinds = TrainRequest(data="x", drop=['say "a"', "b, c"], date=["--out=/tmp"])
    assert kinds.arguments() == ['--drop="say ""a""","b, c"', "--date=--out=/tmp"]
