"""Inference responses: encoded, and read back as requests."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.errors import BadRequest
from app.inference.datatypes import BINARY_ONLY, DTYPES
from app.oip.infer_request import InferRequest, RequestedOutput
from app.oip.request import read_request
from app.oip.response import write_response
from tests.app.graphs import Array
from tests.app.oip_requests import one


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, Array]:
    name = draw(st.sampled_from(sorted({*DTYPES, "BF16"})))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if name == "BF16":  # unknown to hypothesis
        return name, draw(arrays.arrays(np.int16, shape)).astype(DTYPES[name])
    elements = arrays.from_dtype(DTYPES[name], allow_nan=False, allow_infinity=False)
    return name, draw(arrays.arrays(DTYPES[name], shape, elements=elements))


@settings(max_examples=200)
@given(tensors(), st.booleans())
def test_every_datatype_round_trips(tensor: tuple[str, Array], binary: bool) -> None:
    """A response read as a request has the same array, as binary data and, except for FP16 and BF16, as JSON."""
    datatype, values = tensor
    request = InferRequest({}, [RequestedOutput("x", datatype, binary or datatype in BINARY_ONLY)], rows=1, id="7")
    body, length = write_response(request, {"x": values}, name="m", version="3", labels=None, batched=False)
    head = json.loads(body[:length])
    assert (head["model_name"], head["model_version"], head["id"]) == ("m", "3", "7")
    assert head["outputs"][0]["shape"] == list(values.shape)
    assert (length is None) == (not request.outputs[0].binary)
    again = json.dumps({"inputs": head["outputs"], "parameters": {"binary_data_output": True}}).encode()
    signature = one(datatype, (-1,) * values.ndim, batchable=False)
    back = read_request(again + body[length or len(body) :], len(again), signature).feeds["x"]
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)


def test_non_finite_values_are_refused_in_json() -> None:
    def answer(values: Array) -> None:
        request = InferRequest({}, [RequestedOutput("y", "FP32", binary=False)], 1)
        write_response(request, {"y": values}, name="m", version="1", labels=None, batched=True)

    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(BadRequest, match="output 'y': some values are not finite, which JSON cannot express"):
            answer(np.array([1, value], np.float32))


def test_null_in_a_name_or_string_is_not_taken_for_a_non_finite_value() -> None:
    request = InferRequest(
        {}, [RequestedOutput("null", "FP32", binary=False), RequestedOutput("s", "BYTES", binary=False)], 1, id="null"
    )
    outputs = {"null": np.array([1.5], np.float32), "s": np.array(["null"], object)}
    body, _ = write_response(request, outputs, name="m", version="1", labels=None, batched=True)
    document = json.loads(body)
    assert (document["id"], [output["data"] for output in document["outputs"]]) == ("null", [[1.5], ["null"]])
