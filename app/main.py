"""The ASGI application: routes, middleware, error handlers and the life of the service."""

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.body_limit import BodyLimit
from app.errors import KronError, RequestError
from app.responses import error as error_response
from app.routes import api, comparisons, ops, pages, sweeps
from app.security_headers import SecurityHeaders
from app.service import Service
from app.settings import Settings

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, on_loaded: Callable[[Service], None] | None = None) -> FastAPI:
    """The service as an ASGI application.

    Args:
        settings: what it is told; by default what the environment says.
        on_loaded: called once loading the models has ended, well or not.

    Raises:
        StartupError: the environment holds a bad value.
    """
    settings = settings or Settings.read(os.environ)
    service = Service(settings, on_loaded)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="kronmodel",
        summary="Kronecker networks and their dense twins, served and compared side by side.",
        version=version("kronmodel"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
    app.add_middleware(SecurityHeaders)
    for router in (api.router, comparisons.router, sweeps.router, ops.router, pages.router):
        app.include_router(router)
    pages.mount_page_files(app)
    _handle_errors(app, service)
    return app


def _handle_errors(app: FastAPI, service: Service) -> None:
    """Whatever goes wrong, the answer is `{"error": ...}` and a failure is counted."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        service.metrics.failed(type(error).__name__)
        return error_response(str(error), error.status, error.headers)

    @app.exception_handler(KronError)
    async def failed(request: Request, error: KronError) -> Response:
        service.metrics.failed(type(error).__name__)
        log.error("%s %s: %s", request.method, request.url.path, error)
        return error_response(str(error), 500)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        service.metrics.failed("BadRequest")
        first = error.errors()[0]
        message = first["msg"].removeprefix("Input should be ")
        return error_response(f"{first['loc'][-1]}: got {str(first.get('input'))[:100]!r}, expected {message}", 400)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        service.metrics.failed(f"Http{error.status_code}")
        headers = dict(error.headers or {})
        messages = {
            404: f"no such path: {request.url.path[:200]}",
            405: f"method: got {request.method}, expected {headers.get('Allow', headers.get('allow', 'another'))}",
        }
        return error_response(messages.get(error.status_code, error.detail), error.status_code, headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        # The traceback is logged by the server; it is not for the client.
        service.metrics.failed("InternalError")
        return error_response("internal error; the service's log says more", 500)
