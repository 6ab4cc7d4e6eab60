"""Raw endpoints: frequent requests, answered without FastAPI's routing and dependencies, documented like all others.

One class reads, answers and counts the requests of one endpoint. Two drivers call it in the same order: `answer` here,
which awaits the scheduler, and `app.server.fast_path`, which runs short requests on the event loop at once.
"""

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.errors import KronError
from app.http import compression
from app.http.security_headers import RawHeaders
from app.inference.batching import InferenceResult, InferenceTask
from app.parsing import is_long
from app.service import Service

Headers: TypeAlias = Mapping[bytes, bytes]  # by name in lower case


class Answer(NamedTuple):
    """Body, media type and further headers of an answer with status 200."""

    body: bytes
    media_type: bytes = b"application/json"
    headers: RawHeaders = []  # noqa: RUF012 - never changed


class RawRequest(ABC):
    """Request to a raw endpoint: parses the body, lists the inference tasks to run, and writes the answer.

    A driver calls `prepare`, runs the `tasks` and calls `write` and `count`, or `finish` for both; where one of these
    steps fails, it may call `failed`. Statistics and metrics change in `count` and in `failed` only, so that a request
    that is abandoned before leaves no trace, and only on the event loop: `prepare` and `write` may run in a thread.

    Args:
        service: holds the models, statistics and metrics.
        path: of the request.
        headers: of the request.

    Raises:
        NotFound: the path names a model that is not served.
    """

    __slots__ = ("headers", "service", "started_ns", "tasks", "timeout_s")

    compressible: ClassVar[bool] = False  # whether Accept-Encoding is honoured
    tasks: Sequence[InferenceTask]  # the runs, in their order; empty until `prepare`
    timeout_s: float | None  # most seconds for all runs, waiting included; None for the scheduler's own limit

    def __init__(self, service: Service, path: str, headers: Headers) -> None:
        self.service = service
        self.headers = headers
        self.tasks = ()
        self.timeout_s = None
        self.started_ns = time.perf_counter_ns()

    @abstractmethod
    def may_run_inline(self) -> bool:
        """Whether the request may be short enough to run on the event loop; asked before the body is read."""

    def is_long(self, body: bytes) -> bool:
        """Whether `prepare` would keep the event loop waiting for long."""
        return is_long(body)

    @abstractmethod
    def prepare(self, body: bytes) -> None:
        """Parse and validate the body; sets `tasks` and `timeout_s`.

        Raises:
            KronError: the request is wrong.
        """

    def is_worth_compressing(self) -> bool:
        """Whether the answer may be long enough for compression."""
        return False

    @abstractmethod
    def has_long_answer(self, inferences: Sequence[InferenceResult]) -> bool:
        """Whether `write` would keep the event loop waiting for long."""

    @abstractmethod
    def write(self, inferences: Sequence[InferenceResult]) -> Answer:
        """Write the answer.

        Args:
            inferences: the results of `tasks`.

        Raises:
            BadRequest: the results cannot be written as requested.
        """

    @abstractmethod
    def count(self, inferences: Sequence[InferenceResult]) -> None:
        """Count the request as answered, after `write`."""

    def finish(self, inferences: Sequence[InferenceResult]) -> Answer:
        """Write the answer and count the request as answered.

        Raises:
            BadRequest: the results cannot be written as requested.
        """
        answer = self.write(inferences)
        self.count(inferences)
        return answer

    @abstractmethod
    def failed(self, error: BaseException) -> None:
        """Count the request as failed for each model that it is known to address."""


Endpoint: TypeAlias = type[RawRequest]


class RawRoutes:
    """Endpoints by method and path, or by method and a pattern of paths."""

    def __init__(self) -> None:
        self._paths: dict[tuple[str, str], Endpoint] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Endpoint]] = []

    def add(self, method: str, path: str | re.Pattern[str], endpoint: Endpoint) -> None:
        """Route the requests for a path, or for all paths that a pattern matches, to an endpoint."""
        if isinstance(path, str):
            self._paths[method, path] = endpoint
        else:
            self._patterns.append((method, path, endpoint))

    def find(self, method: str, path: str) -> Endpoint | None:
        """Find the endpoint for a request; None where there is none."""
        found = self._paths.get((method, path))
        if found is None:
            for its_method, pattern, endpoint in self._patterns:
                if method == its_method and pattern.fullmatch(path):
                    return endpoint
        return found


RAW_ROUTES = RawRoutes()  # the application's; the same for every service of a process


async def answer(endpoint: Endpoint, service: Service, path: str, headers: Headers, body: bytes) -> Answer:
    """Answer a request to a raw endpoint, running its tasks through the scheduler.

    Raises:
        KronError: the request is wrong or failed; by then it is counted.
    """
    request = endpoint(service, path, headers)
    in_thread = service.long_requests.run
    try:
        encoding = headers.get(b"content-encoding")
        if encoding is not None:
            body = await compression.decode_body(body, encoding, service.settings)
        if request.is_long(body):
            await in_thread(request.prepare, body)
        else:
            request.prepare(body)
        inferences = await _run(request)
        is_long = request.has_long_answer(inferences)
        answered = await in_thread(request.write, inferences) if is_long else request.write(inferences)
        request.count(inferences)
    except (KronError, asyncio.CancelledError) as error:
        request.failed(error)
        raise
    accepted = headers.get(b"accept-encoding") if endpoint.compressible else None
    if accepted is None or len(answered.body) < compression.MIN_BYTES:
        return answered
    return await _compressed(answered, compression.choose_encoding(accepted.decode("latin-1")))


async def _run(request: RawRequest) -> Sequence[InferenceResult]:
    """Run the tasks one after the other, within the time that the request allows for all of them."""
    remaining = request.timeout_s
    end = None if remaining is None else time.monotonic() + remaining
    inferences = []
    for task in request.tasks:
        inferences.append(
            await request.service.scheduler.infer(task.engine, task.feeds, task.outputs, timeout=remaining)
        )
        if end is not None:
            remaining = end - time.monotonic()
    return inferences


async def _compressed(answered: Answer, encoding: str) -> Answer:
    if encoding == compression.IDENTITY:
        return answered
    body = await asyncio.to_thread(compression.encode, answered.body, encoding)
    more = [(b"content-encoding", encoding.encode()), (b"vary", b"accept-encoding")]
    return Answer(body, answered.media_type, [*answered.headers, *more])


def handler(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Wrap an endpoint as Starlette and FastAPI expect it: their routes document it and know its method."""

    async def handle(request: Request) -> Response:
        service: Service = request.app.state.service
        headers = dict(request.scope["headers"])
        body, media_type, more = await answer(endpoint, service, request.scope["path"], headers, await request.body())
        response = Response(body, media_type=media_type.decode())
        response.raw_headers.extend(more)
        return response

    return handle


def add_raw_route(router: APIRouter, method: str, path: str, endpoint: Endpoint, **documentation: Any) -> None:
    """Add an endpoint to the raw routes, and to a router of FastAPI for the documentation."""
    router.add_api_route(path, handler(endpoint), methods=[method], **documentation)
    RAW_ROUTES.add(method, router.prefix + path, endpoint)
