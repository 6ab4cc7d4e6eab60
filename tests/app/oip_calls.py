"""Inference requests of the Open Inference Protocol as JSON."""

from typing import Any

import httpx
import numpy as np

from tests.app.graphs import Array

ROWS: Array = np.random.default_rng(5).random((4, 6)).astype(np.float32)


LENGTH = "Inference-Header-Content-Length"


def tensor(name: str, values: Array, datatype: str) -> dict[str, Any]:
    data = [value.item() if hasattr(value, "item") else value for value in values.ravel()]
    return {"name": name, "shape": list(values.shape), "datatype": datatype, "data": data}


def infer(client: httpx.Client, model: str, *inputs: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """Send an inference request; the response's outputs by name."""
    answer = client.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **rest})
    assert answer.status_code == 200, answer.text
    return {output["name"]: output for output in answer.json()["outputs"]}


def values_of(output: dict[str, Any]) -> Array:
    return np.array(output["data"]).reshape(output["shape"])
