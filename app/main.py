"""The ASGI application: routes, middleware, error handlers and the life of the service."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import app.http.deferred  # noqa: F401  # before FastAPI

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
from app.http.openapi import document_keys
from app.http.responses import error as error_response
from app.http.responses import failure, internal_error
from app.routes import comparisons, health, models, pages, predict, sweeps, trainings, v2
from app.routes.infer import add_infer
from app.service import Service
from app.settings import Settings

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class App(FastAPI):
    """FastAPI behind `RequestMiddleware`, which answers before FastAPI's own layers where it can."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection; those over HTTP without a look at telemetry that nobody has set up."""
        if scope["type"] != "http" or self.middleware_stack is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """FastAPI's layers with ours around them; browsers' preflight requests have no key and come first."""
        service: Service = self.state.service
        front = RequestMiddleware(super().build_middleware_stack(), service=service)
        if not service.settings.cors_origins:
            return front
        return CORSMiddleware(
            front,
            allow_origins=service.settings.cors_origins,
            allow_methods=["DELETE", "GET", "POST"],
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
    """The service as an ASGI application.

    Args:
        settings: what it is told; by default what the environment says.
        on_loaded: called once loading the models has ended, well or not.
        shared: folder of all workers of this service; None where there is one only.
        up_when_loaded: it is up only once it can answer; by default it says meanwhile that it lives, and that it loads.

    Raises:
        StartupError: the environment holds a bad value.
    """
    settings = settings or Settings.read(os.environ)
    service = Service(settings, on_loaded, shared)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        if up_when_loaded:
            await service.loaded()
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
    pages.mount_page_files(app)
    add_infer(app)
    if service.keys:
        document_keys(app)
    _handle_errors(app, service)
    return app


def _handle_errors(app: FastAPI, service: Service) -> None:
    """Whatever goes wrong, the answer is `{"error": ...}` and a failure is counted."""

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
            404: f"no such path: {request.url.path[:200]}",
            405: f"method: got {request.method}, expected {headers.get('Allow')}",
        }
        return error_response(messages.get(error.status_code, error.detail), error.status_code, headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        return internal_error()  # `RequestMiddleware` counts and logs it; a traceback is not for the client


def _allowed(app: FastAPI, request: Request) -> str:
    """The methods of a path; Starlette names those of the first route that has it, and files name none."""
    path = request.url.path
    if path.startswith("/static/"):
        return "GET, HEAD"
    if path in (documented := app.openapi()["paths"]):  # another path's placeholder may stand for it, too
        return ", ".join(method for method in _METHODS if method.lower() in documented[path])
    found = [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.router.routes)
    ]
    return ", ".join(found)
