"""A model behind a service under test, timed as a client sees it: over one persistent connection."""

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.inference.datatypes import BYTES, DTYPES
from app.measure.inputs.arrays import Array, InputArrays
from app.measure.timing import Refused

HEADER_LENGTH = "Inference-Header-Content-Length"  # of the JSON before binary tensors


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """The body of a request.

    Args:
        body: JSON, perhaps followed by binary tensors.
        rows: number of rows.
        json_bytes: length of the JSON before binary tensors; None without those.
    """

    body: bytes
    rows: int
    json_bytes: int | None = None


class RemoteModel:
    """A model of the service under test, as its clients see it.

    Args:
        name: name of the model.
        connection: connection to the service, shared with other models.
        takes_rows: send rows in JSON to `/api/predict`; otherwise binary tensors to `/v2`.
    """

    def __init__(self, name: str, connection: http.client.HTTPConnection, *, takes_rows: bool) -> None:
        self.name = name
        self.takes_rows = takes_rows
        self._connection = connection
        self._queue_ns: dict[int, list[int]] = {}  # by batch size, one for each timed request
        self._inputs = model_info(name, connection)["inputs"]

    def feed(self, inputs: InputArrays, batch_size: int) -> InferenceRequest:
        """Encode the body of a request: rows repeated or cut to the batch size."""
        arrays = inputs.batch(batch_size)
        if self.takes_rows:
            rows = next(iter(arrays.values())).tolist()
            text = json.dumps({"inputs": rows, "models": [self.name]}, separators=(",", ":"))
            return InferenceRequest(text.encode(), batch_size)
        parts = [_encode(arrays[each["name"]], each["datatype"]) for each in self._inputs]
        tensors = [
            {"name": each["name"], "datatype": each["datatype"], "shape": list(arrays[each["name"]].shape),
             "parameters": {"binary_data_size": len(part)}}
            for each, part in zip(self._inputs, parts, strict=True)
        ]  # fmt: skip
        wanted = {"binary_data_output": True, "receipt": True}
        header = json.dumps({"inputs": tensors, "parameters": wanted}).encode()
        return InferenceRequest(header + b"".join(parts), batch_size, len(header))

    def run(self, feed: InferenceRequest) -> Mapping[str, Any]:
        """Send one request; the outputs are not returned, because those of the session were checked."""
        self._send(feed)
        return {}

    def time(self, feed: InferenceRequest, runs: int) -> list[int]:
        """Send `runs` requests and return the nanoseconds of each, from sending it to the end of its response."""
        clock, responses, times = time.perf_counter_ns, [], []
        if runs > 1:
            self._send(feed)  # not counted: brings the model back into the CPU's cache
        for _ in range(runs):
            start = clock()
            responses.append(self._send(feed))
            times.append(clock() - start)
        queue_ns = self._queue_ns.setdefault(feed.rows, [])
        for response in responses:  # parsed afterwards, which would otherwise evict the cache between requests
            queue_ns.append(round(1000 * _queue_us(*response)))
        return times

    def queue_times(self, batch_size: int, count: int) -> list[int]:
        """Queue time plus compute time in nanoseconds, as the service reported for the last `count` timed requests."""
        return self._queue_ns[batch_size][-count:]

    def _send(self, request: InferenceRequest) -> tuple[bytes, int | None]:
        """Send a request; the response, and the length of the JSON at its start if it has binary tensors, too."""
        if request.json_bytes is None:
            headers = {"Content-Type": "application/json"}
            return exchange(self._connection, self.name, "/api/predict", request.body, headers)
        headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(request.json_bytes)}
        return exchange(self._connection, self.name, f"/v2/models/{self.name}/infer", request.body, headers)


def model_info(name: str, connection: http.client.HTTPConnection) -> Any:
    """The description of a model by its service."""
    content, _ = exchange(connection, name, f"/api/models/{name}", None, {})
    return json.loads(content)


def exchange(
    connection: http.client.HTTPConnection, name: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> tuple[bytes, int | None]:
    """Send a request and read the response, and the length of the JSON at its start if it has binary tensors, too.

    Raises:
        Refused: the service responds with an error.
    """
    connection.request("GET" if body is None else "POST", path, body, headers)
    response = connection.getresponse()
    content = response.read()
    if response.status != http.client.OK:
        raise Refused(f"{name}: its service answers {response.status}: {content[:300].decode(errors='replace')}")
    length = response.getheader(HEADER_LENGTH)
    return content, None if length is None else int(length)


def _queue_us(content: bytes, json_bytes: int | None) -> float:
    """Microseconds in the queue and of the run, by the response of either endpoint."""
    answer = json.loads(content[:json_bytes])
    times = answer["results"][0] if "results" in answer else answer["parameters"]
    return float(times["queue_us"]) + float(times["compute_us"])


def _encode(array: Array, datatype: str) -> bytes:
    """The bytes of a tensor in the protocol's binary form."""
    if datatype != BYTES:
        return np.ascontiguousarray(array.astype(DTYPES[datatype])).tobytes()
    texts = [str(text).encode() for text in array.ravel().tolist()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
