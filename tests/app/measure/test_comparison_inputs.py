"""Comparisons of models with several inputs, by a real server and by the command line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from app.cli.main import main
from tests.app.conftest import serving
from tests.app.graphs import Array, publish
from tests.app.measure.inputs.test_uploaded import npz
from tests.app.oip_models import graph

RNG = np.random.default_rng(6)
WORDS: Array = RNG.standard_normal((300, 7)).astype(np.float32)
SCORES: Array = RNG.standard_normal((7, 4)).astype(np.float32)
IDS: Array = RNG.integers(0, 300, (5, 6))
STATE: Array = RNG.standard_normal((2, 5, 7)).astype(np.float32)
LABELS: Array = np.array([0, 3, 1, 1, 2])


def reader(digits: int) -> onnx.ModelProto:
    """Words (batch, sequence) and a state (2, batch, 7) to probabilities of 4 classes, with rounded weights."""
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["w"]),
        helper.make_node("ReduceMean", ["w", "axis_1"], ["mean"], keepdims=0),
        helper.make_node("ReduceSum", ["state", "axis_0"], ["s"], keepdims=0),
        helper.make_node("Add", ["mean", "s"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "scores"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"], axis=1),
        helper.make_node("ArgMax", ["z"], ["best"], axis=1, keepdims=0),
    ]
    return graph(
        nodes,
        [("ids", TensorProto.INT64, ["batch", "sequence"]), ("state", TensorProto.FLOAT, [2, "batch", 7])],
        [("hidden", TensorProto.FLOAT, ["batch", 7]), ("p", TensorProto.FLOAT, ["batch", 4]),
         ("best", TensorProto.INT64, ["batch"])],
        {"words": WORDS.round(digits), "scores": SCORES.round(digits), "axis_1": np.array([1]),
         "axis_0": np.array([0])},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("readers")
    publish(models, "full", reader(6))
    publish(models, "rounded", reader(0))
    return models


@pytest.fixture(scope="module")
def readers(folder: Path) -> Iterator[httpx.Client]:
    with serving(folder) as server:
        yield server.client


def outputs(folder: Path, name: str, feed: dict[str, Array]) -> list[Array]:
    session = onnxruntime.InferenceSession(folder / name / "1" / "model.onnx")
    found: list[Array] = session.run(["hidden", "p", "best"], feed)
    return found


def uploaded(client: httpx.Client, content: bytes, **request: Any) -> httpx.Response:
    body = json.dumps({"models": ["full", "rounded"], "batch_sizes": [1, 2], "seconds": 0.2} | request)
    return client.post("/api/compare", files={"inputs": ("rows.npz", content)}, data={"request": body})


@pytest.mark.slow
def test_arrays_for_each_input_are_measured_at_all_layers(
    readers: httpx.Client, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = npz(ids=IDS, state=STATE, labels=LABELS)
    answer = uploaded(readers, content, depths=["session", "queue", "http"])
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert report["inputs"] == {
        "source": "uploaded", "name": "rows.npz", "rows": 5,
        "notes": ["Queue and HTTP: measured by binary tensors to /v2; /api/predict takes rows of numbers only."],
    }  # fmt: skip
    for model in report["models"]:
        service = {(each["depth"], each["batch_size"]): each["p50_us"] for each in model["service_latency"]}
        assert set(service) == {(depth, size) for depth in ("queue", "http") for size in (1, 2)}
        assert all(0 < service["queue", size] < service["http", size] for size in (1, 2))

    feed = {"ids": IDS, "state": STATE}
    a, b = outputs(folder, "full", feed), outputs(folder, "rounded", feed)
    found = {each["output"]: each for each in report["differences"]}
    assert {(each["a"], each["b"], each["rows"]) for each in found.values()} == {("full", "rounded", 5)}
    for name, x, y in zip(("hidden", "p"), a, b, strict=False):
        cosines = (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        assert found[name]["largest"] == pytest.approx(np.abs(x - y).max(), rel=1e-4)
        assert found[name]["mean"] == pytest.approx(np.abs(x - y).mean(), rel=1e-4)
        assert found[name]["cosine"] == pytest.approx(cosines.mean(), rel=1e-4)
        assert found[name]["lowest_cosine"] == pytest.approx(cosines.min(), rel=1e-4)
    same = (a[2] == b[2]).mean()
    assert 0 < same < 1
    assert found["hidden"]["equal_top1"] is None
    assert found["p"]["equal_top1"] == found["best"]["equal"] == pytest.approx(same)

    quality = report["quality"]
    assert [model["accuracy"] for model in quality["models"]] == [(each[2] == LABELS).mean() for each in (a, b)]
    assert quality["pairs"][0]["agreement"] == pytest.approx(same)
    assert quality["pairs"][0]["largest_probability_drift"] == pytest.approx(np.abs(a[1] - b[1]).max(), rel=1e-4)

    kept = tmp_path / "report.json"
    kept.write_text(json.dumps(report | {"quality": None}))  # also without labels it is about the file
    assert main(["compare", "--models", str(folder), "--check", str(kept)]) == 2
    assert "was measured on uploaded inputs (rows.npz), which a report does not contain" in capsys.readouterr().err


def test_inputs_are_made_up_where_there_are_none(readers: httpx.Client, folder: Path) -> None:
    body = {"models": ["full", "rounded"], "batch_sizes": [3], "seconds": 0.1}
    report = readers.post("/api/compare", json=body).json()
    assert (
        report["settings"]["inputs"]
        == report["inputs"]["name"]
        == (
            "made up from the models' metadata: ids INT64 [batch, 128] random integers from 0 to 255 (seed 0); "
            "state FP32 [2, batch, 7] random numbers from 0 to 1 (seed 0)"
        )
    )
    assert (report["inputs"]["source"], report["inputs"]["rows"], report["quality"]) == ("generated", 8, None)
    assert [each["output"] for each in report["differences"]] == ["hidden", "p", "best"]
    assert report["differences"][0]["largest"] > 0.01


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": IDS}, "inputs: got the array ids without 'state', expected an array for each input: ids, state"),
        ({"ids": IDS[:4], "state": STATE}, "inputs: got rows in different numbers: 4 of ids, 5 of state; expected as"),
        ({"ids": IDS, "state": STATE, "labels": LABELS[:3]}, "labels: got 3, expected one for each of the 5 rows"),
        ({"ids": IDS + 300, "state": STATE}, "full: onnxruntime failed: "),
    ],
)
def test_arrays_that_do_not_fit_are_400(readers: httpx.Client, arrays: dict[str, Array], message: str) -> None:
    answer = uploaded(readers, npz(**arrays))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)


def encoder() -> onnx.ModelProto:
    """Words and a mask (batch, sequence) to a vector (batch, 3), as an encoder of sentences has them."""
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["w"]),
        helper.make_node("Gather", ["types", "token_type_ids"], ["t"]),
        helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["u"]),
        helper.make_node("Add", ["w", "t"], ["s"]),
        helper.make_node("Mul", ["s", "u"], ["masked"]),
        helper.make_node("ReduceMean", ["masked", "axis"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "scores"], ["embedding"]),
    ]
    names = ("input_ids", "attention_mask", "token_type_ids")
    return graph(
        nodes,
        [(name, TensorProto.INT64, ["batch", "sequence"]) for name in names],
        [("embedding", TensorProto.FLOAT, ["batch", 4])],
        {"words": WORDS, "types": WORDS[:2], "scores": SCORES, "last": np.array([2]), "axis": np.array([1])},
    )


def test_the_documented_quantisation_is_compared_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    documented = (Path(__file__).parents[3] / "docs" / "comparison.md").read_text()
    (code,) = re.findall(r"^```py\n(.*?)^```", documented, re.DOTALL | re.MULTILINE)
    rows = {"input_ids": IDS, "attention_mask": (IDS > 40).astype(np.int64), "token_type_ids": IDS % 2}
    publish(tmp_path / "models", "minilm", encoder())
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/comparison.md", "exec"), dict(rows))
    arguments = ["compare", "minilm", "minilm-int8", "--models", "models", "--seconds", "0.1", "--batch-sizes", "5"]
    assert main([*arguments, "--inputs", "rows.npz"]) == 0
    printed = capsys.readouterr().out
    sessions = [onnxruntime.InferenceSession(f"models/{name}/1/model.onnx") for name in ("minilm", "minilm-int8")]
    a, b = (session.run(None, rows)[0] for session in sessions)
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert "inputs: rows.npz" in printed
    (row,) = [line.split() for line in printed.splitlines() if line.strip().startswith("minilm, minilm-int8")]
    assert row[2] == "embedding"
    figures = [float(figure) for figure in row[3:]]
    assert figures == pytest.approx([np.abs(a - b).max(), np.abs(a - b).mean(), cosines.mean()], rel=1e-2)
    assert 0 < figures[0] < 0.2
