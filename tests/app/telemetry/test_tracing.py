"""Spans that a server exports to an OpenTelemetry collector."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.app.conftest import serving
from tests.app.graphs import classifier, publish, weights


@contextmanager
def collector(received: list[Any]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_requests_and_runs_are_spans_of_the_clients_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, "plain", classifier(weights([6, 3])))
    received: list[Any] = []
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with collector(received) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        with serving(tmp_path, traces=True) as server:
            body = {"inputs": [[0.5] * 6] * 2}
            headers = {"traceparent": f"00-{trace}-{parent}-01", "X-Request-ID": "mine"}
            assert server.client.post("/api/predict", json=body, headers=headers).is_success
            server.client.get("/no/such/path")
    assert {path for path, _ in received} == {"/v1/traces"}
    resources = [resource for _, sent in received for resource in sent.resource_spans]
    named = {attribute.key: attribute.value.string_value for attribute in resources[0].resource.attributes}
    assert named["service.name"] == "kronserve"
    spans = {span.name: span for resource in resources for scope in resource.scope_spans for span in scope.spans}
    request, run = spans["POST /api/predict"], spans["run"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (trace, parent)
    assert (run.trace_id, run.parent_span_id) == (request.trace_id, request.span_id)
    attributes = {attribute.key: attribute.value for span in (request, run) for attribute in span.attributes}
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["kron.request_id"].string_value == "mine"
    assert attributes["kron.model.name"].string_value == "plain"
    assert attributes["kron.batch_size"].int_value == 2
    assert (
        request.start_time_unix_nano <= run.start_time_unix_nano <= run.end_time_unix_nano <= request.end_time_unix_nano
    )
    missing = {attribute.key: attribute.value for attribute in spans["GET /no/such/path"].attributes}
    assert missing["http.response.status_code"].int_value == 404
