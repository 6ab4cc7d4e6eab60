"""The ASGI application: routes, middleware, error handlers and the service's lifespan."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from app.http.openapi import document_keys  # before FastAPI, whose models it defers

# isort: split
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import KronError
from app.http.middleware import RequestMiddleware
from app.http.responses import error as error_response
from app.http.responses import failure, internal_error
from app.routes import comparisons, health, models, pages, predict, sweeps, trainings, v2
from app.routes.infer import add_infer
from app.service import Service
from app.settings import Settings

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class App(FastAPI):
    """FastAPI behind `RequestMiddleware`, which answers raw endpoints without FastAPI's own layers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection; HTTP requests skip FastAPI's own `__call__`, which adds nothing to them."""
        if scope["type"] != "http" or self.middleware_stack is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Put `RequestMiddleware` around FastAPI's layers, and CORS around that: preflight requests have no API key."""
        service: Service = self.state.service
        middleware = RequestMiddleware(super().build_middleware_stack(), service=service)
        if not service.settings.cors_origins:
            return middleware
        return CORSMiddleware(
            middleware,
            allow_origins=service.settings.cors_origins,
            allow_methods=["DELETE", "GET", "HEAD", "POST"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Inference-Header-Content-Length",
                "X-API-Key",
                "X-Request-ID",
            ],
            expose_headers=["Inference-Header-Content-Length", "Retry-After", "X-Request-ID"],
        )


def create_app(
    settings: Settings | None = None,
    on_loaded: Callable[[Service], None] | None = None,
    shared: Path | None = None,
    *,
    up_when_loaded: bool = False,
) -> FastAPI:
    """Create the service as an ASGI application.

    Args:
        settings: of the service; read from the environment by default.
        on_loaded: called once, when loading the models has ended or failed.
        shared: folder shared by all workers of this service; None for a single process.
        up_when_loaded: complete the lifespan's startup only when the models are loaded; by default at once, so that
            the health endpoints answer meanwhile.

    Raises:
        StartupError: the environment holds a bad value.
    """
    settings = settings or Settings.read(os.environ)
    service = Service(settings, on_loaded, shared)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        if up_when_loaded:
            await service.wait_until_loaded()
        yield
        await service.stop()

    app = App(
        title="kronmodel",
        summary="Kronecker networks and their dense twins, served and compared side by side.",
        version=version("kronmodel"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    jobs = (comparisons.router, sweeps.router, trainings.router)
    for router in (models.router, predict.router, *jobs, health.router, v2.router, v2.repository_router, pages.router):
        app.include_router(router)
    add_infer(app)
    if settings.keys is not None:
        document_keys(app)
    _handle_errors(app, service)
    return app


def _handle_errors(app: FastAPI, service: Service) -> None:
    """Answer every error with `{"error": ...}`, and count it."""

    @app.exception_handler(KronError)
    async def failed(request: Request, error: KronError) -> Response:
        return failure(service, request.scope, error)

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
        if error.status_code == 405:
            headers["Allow"] = _allowed(app, request)
        messages = {
            404: _no_such_path(request.url.path),
            405: f"method: got {request.method}, expected {headers.get('Allow')}",
        }
        return error_response(messages.get(error.status_code, error.detail), error.status_code, headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        return internal_error()  # counted and logged by `RequestMiddleware`; the client gets no traceback


def _no_such_path(path: str) -> str:
    message = f"no such path: {path[:200]}"
    if path.startswith("/v1/"):  # TensorFlow Serving's and KServe's first protocol
        message += "; this service speaks version 2 of the protocol: POST /v2/models/NAME/infer, or POST /api/predict"
    return message


def _allowed(app: FastAPI, request: Request) -> str:
    """List the methods of a path; Starlette names those of the first matching route only, and none for files."""
    path = request.url.path
    if path.startswith("/static/"):
        return "GET, HEAD"
    if path in (documented := app.openapi()["paths"]):  # else a placeholder of another path may match it, too
        found = [method for method in _METHODS if method.lower() in documented[path]]
    else:
        found = [
            method
            for method in _METHODS
            if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.router.routes)
        ]
    if "GET" in found:  # `RequestMiddleware` answers HEAD as a GET without its body
        found.insert(found.index("GET") + 1, "HEAD")
    return ", ".join(found)
