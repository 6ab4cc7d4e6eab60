"""Inference requests and responses as Triton's stock Python client writes and reads them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from tests.conformance.cases import BINARY_ONLY, NUMPY_TYPES, Array, Feeds


def write_request(
    feeds: Feeds, datatypes: Mapping[str, str], *, outputs: Sequence[str] | None, binary: bool
) -> tuple[bytes, int | None]:
    """Encode a request.

    Args:
        feeds: arrays by name.
        datatypes: of the inputs and outputs.
        outputs: names of the outputs to ask for; None for all, as binary data.
        binary: as binary data; otherwise as JSON, but for datatypes that have no JSON form.

    Returns:
        The body, and the length of its JSON; None if all of it is JSON.
    """
    inputs = []
    for name, values in feeds.items():
        datatype = datatypes[name]
        tensor = InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, binary_data=binary or datatype in BINARY_ONLY)
        inputs.append(tensor)
    requested = None
    if outputs is not None:
        requested = [
            InferRequestedOutput(name, binary_data=binary or datatypes[name] in BINARY_ONLY) for name in outputs
        ]
    return InferenceServerClient.generate_request_body(inputs, outputs=requested, parameters={"receipt": True})  # type: ignore[no-any-return]


class Response:
    """A response with status 200.

    Args:
        headers: by name in lower case.
        body: the body.
    """

    def __init__(self, headers: Mapping[str, str], body: bytes) -> None:
        length = headers.get("inference-header-content-length")
        self._result: InferResult = InferenceServerClient.parse_response_body(
            body, header_length=None if length is None else int(length)
        )
        self._document: dict[str, Any] = self._result.get_response()

    @property
    def outputs(self) -> Mapping[str, str]:
        """Datatypes of the outputs by name."""
        return {output["name"]: output["datatype"] for output in self._document["outputs"]}

    @property
    def rows_of_run(self) -> int:
        """Rows of the run that answered this request, those of other requests included."""
        return int(_find(self._document["parameters"], "batch_size"))

    def array(self, name: str) -> Array:
        """An output; strings as str, bfloat16 as float32."""
        values: Array = self._result.as_numpy(name)
        dtype = NUMPY_TYPES[self.outputs[name]]
        if dtype is object:
            decoded = [value.decode() if isinstance(value, bytes) else value for value in values.reshape(-1)]
            values = np.array([*decoded, None], object)[:-1].reshape(values.shape)
        return values.astype(dtype) if not values.size else values


def _find(parameters: Any, key: str) -> Any:
    """A value in a parameter, which may be an object or its text."""
    for value in [parameters, *parameters.values()]:
        found = json.loads(value) if isinstance(value, str) and value.startswith("{") else value
        if isinstance(found, dict) and key in found:
            return found[key]
    raise KeyError(f"no {key} in {parameters}")
