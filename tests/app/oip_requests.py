"""Signatures, and a request that fits the first of them."""

import json
from typing import Any

from app.inference.datatypes import Tensor
from app.oip.infer_request import InferRequest
from app.oip.request import read_request
from app.oip.signature import Signature

SIGNATURE = Signature(
    inputs={"a": Tensor("a", "FP32", (-1, 2)), "b": Tensor("b", "INT64", (-1,))},
    outputs={"y": Tensor("y", "FP32", (-1, 3)), "h": Tensor("h", "FP16", (-1,)), "s": Tensor("s", "BYTES", (-1,))},
    batchable=True,
    max_batch=8,
)


def one(datatype: str, shape: tuple[int, ...], *, batchable: bool = True) -> Signature:
    """A signature with the input and output `x`."""
    tensor = {"x": Tensor("x", datatype, shape)}
    return Signature(inputs=tensor, outputs=tensor, batchable=batchable, max_batch=100)


def document(**changes: Any) -> dict[str, Any]:
    """A request that fits `SIGNATURE`, with changes; those of an input have its name, and `...` removes a key."""
    inputs = [
        {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [1.5, 2, 3, 4]} | changes.pop("a", {}),
        {"name": "b", "shape": [2], "datatype": "INT64", "data": [-5, 2**62]} | changes.pop("b", {}),
    ]
    inputs = [{key: value for key, value in entry.items() if value is not ...} for entry in inputs]
    return {"inputs": inputs, "outputs": [{"name": "y"}], "model_name": "whatever", **changes}


def read(value: Any, blob: bytes = b"", signature: Signature = SIGNATURE) -> InferRequest:
    """Read a request with its binary data."""
    head = json.dumps(value).encode()
    return read_request(head + blob, len(head) if blob else None, signature)
