"""Inference by the Open Inference Protocol: a real server with models of every datatype and shape."""

import gzip
import hashlib
import json
import zlib
from typing import Any

import httpx
import numpy as np
import pytest

from app.inference.datatypes import BINARY_ONLY, DTYPES
from tests.app.graphs import LABELS, Array, classifier, forward, probabilities
from tests.app.oip_calls import LENGTH, ROWS, infer, tensor, values_of
from tests.app.oip_models import DIGITS, LAYERS, TYPES

SAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False, True],
    "FP16": [0.5, -2.0, 65504.0],
    "BF16": [0.5, -2.0, 3.3895e38],
    "FP32": [0.1, -3.4e38, 1e-45],
    "FP64": [0.1, -1.7e308, 5e-324],
    "BYTES": ["", "grün", "\u0000\U0001f600"],
}


def sample(datatype: str) -> Array:
    """One row of three that has the extremes of its type."""
    if datatype == "BYTES":
        return np.array([SAMPLES[datatype]], object)
    dtype = DTYPES[datatype]
    if datatype in SAMPLES:
        return np.array([SAMPLES[datatype]], dtype)
    return np.array([[np.iinfo(dtype).min, 7, np.iinfo(dtype).max]], dtype)


@pytest.mark.parametrize("datatype", [datatype for datatype in TYPES if datatype not in BINARY_ONLY])
def test_every_datatype_by_json(oip: httpx.Client, datatype: str) -> None:
    values = sample(datatype)
    output = infer(oip, f"echo-{datatype}", tensor("x", values, datatype))["y"]
    assert (output["datatype"], output["shape"]) == (datatype, [1, 3])
    np.testing.assert_array_equal(np.array(output["data"], values.dtype), values[0])


def blob_of(values: Array, datatype: str) -> bytes:
    if datatype != "BYTES":
        return values.tobytes()
    texts = [text.encode() for text in values.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


@pytest.mark.parametrize("datatype", TYPES)
def test_every_datatype_by_binary_data(oip: httpx.Client, datatype: str) -> None:
    values = sample(datatype)
    blob = blob_of(values, datatype)
    entry = {"name": "x", "shape": [1, 3], "datatype": datatype, "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    path = f"/v2/models/echo-{datatype}/infer"
    answer = oip.post(path, content=head + blob, headers={LENGTH: str(len(head))})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers[LENGTH])
    output = json.loads(answer.content[:length])["outputs"][0]
    assert output == {
        "name": "y",
        "datatype": datatype,
        "shape": [1, 3],
        "parameters": {"binary_data_size": len(blob)},
    }
    assert answer.content[length:] == blob


@pytest.mark.parametrize("datatype", sorted(BINARY_ONLY))
def test_half_precision_is_for_binary_data_only(oip: httpx.Client, datatype: str) -> None:
    data = {"name": "x", "shape": [1, 3], "datatype": datatype, "data": [0.5, 1, 2]}
    for body in (
        {"inputs": [data], "parameters": {"binary_data_output": True}},
        {"inputs": [{"name": "x", "shape": [1, 3], "datatype": datatype, "parameters": {"binary_data_size": 6}}]},
    ):
        answer = oip.post(f"/v2/models/echo-{datatype}/infer", content=json.dumps(body))
        assert answer.status_code == 400
        reason = answer.json()["error"]
        assert f"{datatype} has no JSON form" in reason or "bytes of binary data" in reason


def test_several_inputs_and_outputs_in_the_requested_order(oip: httpx.Client) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[3, -4, 5], [6, 7, -8]])
    inputs = [tensor("b", b, "INT64"), tensor("a", a, "FP32")]
    outputs = infer(oip, "two", *inputs)
    np.testing.assert_array_equal(values_of(outputs["sum"]), a + b)
    np.testing.assert_array_equal(values_of(outputs["product"]), a * b)
    assert list(outputs) == ["sum", "product"]
    assert list(infer(oip, "two", *inputs, outputs=[{"name": "product"}, {"name": "sum"}])) == ["product", "sum"]
    assert list(infer(oip, "two", *inputs, outputs=[{"name": "product"}])) == ["product"]


def test_binary_and_json_side_by_side(oip: httpx.Client) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[3, -4, 5], [6, 7, -8]])
    entry = {"name": "b", "shape": [2, 3], "datatype": "INT64", "parameters": {"binary_data_size": b.nbytes}}
    outputs = [{"name": "sum"}, {"name": "product", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor("a", a, "FP32"), entry], "outputs": outputs}).encode()
    answer = oip.post("/v2/models/two/infer", content=head + b.tobytes(), headers={LENGTH: str(len(head))})
    length = int(answer.headers[LENGTH])
    by_json, binary = json.loads(answer.content[:length])["outputs"]
    np.testing.assert_array_equal(values_of(by_json), a + b)
    assert binary["parameters"] == {"binary_data_size": 24}
    np.testing.assert_array_equal(np.frombuffer(answer.content[length:], np.float32).reshape(2, 3), a * b)


def test_models_without_a_batch_axis_or_with_a_fixed_one(oip: httpx.Client) -> None:
    fixed = infer(oip, "fixed", tensor("input", ROWS, "FP32"))["probabilities"]
    np.testing.assert_allclose(values_of(fixed), probabilities(LAYERS, ROWS), atol=1e-5)
    vector = infer(oip, "vector", tensor("x", np.arange(5.0), "FP32"))["y"]
    assert (vector["shape"], vector["data"]) == ([5], [0, 1, 2, 3, 4])
    scalar = infer(oip, "scalar", {"name": "x", "shape": [], "datatype": "INT32", "data": [-7]})["y"]
    assert (scalar["shape"], scalar["data"]) == ([], [-7])
    outer = infer(oip, "outer", tensor("x", ROWS[:3, :4], "FP32"), tensor("y", ROWS[:2, :4], "FP32"))["out"]
    np.testing.assert_allclose(values_of(outer), ROWS[:3, :4] @ ROWS[:2, :4].T, rtol=1e-5)
    centred = infer(oip, "centred", tensor("x", ROWS[:, :2], "FP32"))["y"]
    np.testing.assert_allclose(values_of(centred), ROWS[:, :2] - ROWS[:, :2].mean(axis=0), atol=1e-6)
    ragged = infer(oip, "ragged", tensor("x", ROWS, "FP32"))["y"]
    np.testing.assert_array_equal(values_of(ragged).astype(np.float32), ROWS)
    empty = infer(oip, "ragged", {"name": "x", "shape": [2, 0], "datatype": "FP32", "data": [[], []]})["y"]
    assert (empty["shape"], empty["data"]) == ([2, 0], [])


def test_raw_mode(oip: httpx.Client) -> None:
    answer = oip.post("/v2/models/digits/infer", content=ROWS[0].tobytes(), headers={LENGTH: "0"})
    length = int(answer.headers[LENGTH])
    outputs = json.loads(answer.content[:length])["outputs"]
    assert [output["shape"] for output in outputs] == [[1, 3], [1, 3]]
    values = np.frombuffer(answer.content[length:], np.float32)
    np.testing.assert_allclose(values[:3], forward(LAYERS, ROWS[:1])[0], atol=1e-5)
    answer = oip.post("/v2/models/word/infer", content="grün".encode(), headers={LENGTH: "0"})
    assert answer.content.endswith(b"\5\0\0\0" + "grün".encode())
    answer = oip.post("/v2/models/two/infer", content=b"1234", headers={LENGTH: "0"})
    assert (answer.status_code, "expected one" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_compression_both_ways(oip: httpx.Client, name: str) -> None:
    rows = np.tile(ROWS, (50, 1))
    blob = rows.tobytes()
    entry = {"name": "input", "shape": [200, 6], "datatype": "FP32", "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    compress = gzip.compress if name == "gzip" else zlib.compress
    headers = {LENGTH: str(len(head)), "Content-Encoding": name, "Accept-Encoding": name}
    answer = oip.post("/v2/models/plain/infer", content=compress(head + blob), headers=headers)
    assert answer.headers["content-encoding"] == name
    assert int(answer.headers["content-length"]) < len(answer.content)
    logits = np.frombuffer(answer.content[int(answer.headers[LENGTH]) :], np.float32).reshape(200, 3)
    np.testing.assert_allclose(logits, forward(LAYERS, rows), atol=1e-5)
    small = oip.post(
        "/v2/models/plain/infer",
        json={"inputs": [tensor("input", ROWS, "FP32")]},
        headers={"Accept-Encoding": name},
    )
    assert "content-encoding" not in small.headers  # too short to be compressed


def test_classification_with_the_cards_labels_and_without(oip: httpx.Client) -> None:
    wanted = {"name": "probabilities", "parameters": {"classification": 2}}
    output = infer(oip, "digits", tensor("input", ROWS, "FP32"), outputs=[wanted])["probabilities"]
    expected = probabilities(LAYERS, ROWS)
    assert (output["datatype"], output["shape"]) == ("BYTES", [4, 2])
    for row, classes in zip(expected, np.array(output["data"]).reshape(4, 2), strict=True):
        best = row.argsort()[::-1][:2]
        for element, index in zip(classes, best, strict=True):
            value, its_index, label = element.split(":")
            assert (int(its_index), label) == (index, LABELS[index])
            assert float(value) == pytest.approx(row[index], abs=1e-5)
    wanted = {"name": "logits", "parameters": {"classification": 99}}
    output = infer(oip, "plain", tensor("input", ROWS[:1], "FP32"), outputs=[wanted])["logits"]
    assert output["shape"] == [1, 3]
    assert all(element.count(":") == 1 for element in output["data"])
    wanted = {"name": "y", "parameters": {"classification": 2}}
    output = infer(oip, "vector", tensor("x", np.array([0.5, 4, 2, 3, 1]), "FP32"), outputs=[wanted])["y"]
    assert (output["shape"], output["data"]) == ([2], ["4.0:1", "3.0:3"])


def test_a_receipt_has_the_provenance_of_the_answer(oip: httpx.Client) -> None:
    body = {"inputs": [tensor("input", ROWS, "FP32")], "parameters": {"receipt": True}}
    answer = oip.post("/v2/models/digits/infer", json=body).json()
    receipt = answer["parameters"]
    assert receipt["model_sha256"] == hashlib.sha256(classifier(LAYERS, card=DIGITS).SerializeToString()).hexdigest()
    assert (receipt["provider"], receipt["batch_size"]) == ("CPUExecutionProvider", 4)
    assert receipt["threads"] >= 1
    assert receipt["queue_us"] >= 0
    assert receipt["compute_us"] > 0
    body = body | {"parameters": {"receipt": 1}}
    answer = oip.post("/v2/models/digits/infer", json=body)
    assert answer.json() == {"error": "request: receipt: got 1, expected true or false"}
