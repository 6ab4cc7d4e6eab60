"""OpenTelemetry traces: a span per request, and inside it a span per run. Needs the extra `otel`."""

import asyncio
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from starlette.types import Scope

from app.errors import StartupError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

FLUSH_SECONDS = 5


class Traces:
    """Exporter of spans by OTLP over HTTP, configured by the environment variables `OTEL_...`.

    Raises:
        StartupError: the extra `otel` is not installed.
    """

    def __init__(self) -> None:
        try:
            from opentelemetry import context, propagate, trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise StartupError(
                f"--traces (KRON_TRACES): {error}; install the extra: pip install 'kronmodel[otel]'"
            ) from None
        resource = Resource.create({"service.version": version("kronmodel")})
        if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "kronserve"}))
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("kronmodel")
        self._trace, self._context, self._propagate = trace, context, propagate
        self._names: WeakKeyDictionary[object, dict[str, str]] = WeakKeyDictionary()

    def add_model(self, engine: object, name: str, version: str) -> None:
        """Set the attributes of a model version's spans; `engine` identifies it in `ran`, held by a weak reference."""
        self._names[engine] = {"kron.model.name": name, "kron.model.version": version}

    def begin(self, scope: Scope, request_id: str) -> "Span":
        """Start the span of a request, and make it the parent of later spans of this task.

        Its own parent is the client's span, if the request's headers name one.
        """
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        attributes: dict[str, Any] = {
            "http.request.method": scope["method"],
            "url.path": scope["path"][:500],
            "kron.request_id": request_id,
        }
        span = self._tracer.start_span(
            f"{scope['method']} {scope['path'][:100]}",
            context=self._propagate.extract(headers),
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes,
        )
        self._context.attach(self._trace.set_span_in_context(span))
        return span

    def end(self, span: "Span", status: int) -> None:
        """End the span of a request that was answered with an HTTP status."""
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def ran(self, engine: object, *, batch_size: int, queue_ns: int, compute_ns: int) -> None:
        """Record the run that answered this task's request, as a span that ends now.

        Args:
            engine: the model version, as given to `add_model`.
            batch_size: rows of the run, which may have answered other requests, too.
            queue_ns: nanoseconds from the request to the start of the run.
            compute_ns: nanoseconds of the run.
        """
        end = time.time_ns()
        attributes: dict[str, Any] = {
            "kron.batch_size": batch_size,
            "kron.queue_us": queue_ns / 1000,
            **self._names.get(engine, {}),
        }
        span = self._tracer.start_span("run", start_time=end - compute_ns, attributes=attributes)
        span.end(end)

    async def close(self) -> None:
        """Export the remaining spans, for at most `FLUSH_SECONDS`."""
        closing = asyncio.get_running_loop().run_in_executor(None, self._provider.shutdown)
        await asyncio.wait([closing], timeout=FLUSH_SECONDS)
