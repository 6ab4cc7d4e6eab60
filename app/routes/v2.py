"""Open Inference Protocol v2 without inference: metadata, readiness, repository and statistics."""

from importlib.metadata import version as package_version
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.errors import BadRequest, NotReady, NotSupported
from app.http.compression import decode_body
from app.http.responses import Json
from app.models.model import Model
from app.oip.metadata import model_config, model_metadata, server_metadata
from app.oip.schemas import ModelConfig, ModelMetadata, ModelReady, ModelStatistics, RepositoryEntry, ServerMetadata
from app.parsing import parse_object
from app.routes.dependencies import ERRORS, ServiceDep
from app.routes.infer import served_model
from app.service import Service

router = APIRouter(prefix="/v2", tags=["inference"], responses=ERRORS)
repository_router = APIRouter(prefix="/v2/repository", tags=["repository"], responses=ERRORS)

_OVERRIDES = ("config", "file:")


@router.get("", response_model=ServerMetadata, summary="The server and its extensions")
async def server() -> Response:
    """Name, version and supported extensions of the protocol."""
    return Json(server_metadata(package_version("kronmodel")))


@router.get("/models/stats", response_model=ModelStatistics, summary="Statistics of all models")
async def all_statistics(service: ServiceDep) -> Response:
    """Cumulative counts and nanoseconds of each version since it was loaded, and memory; summed over all workers."""
    return Json({"model_stats": [_statistics(service, model) for model in service.repository.served]})


@router.get("/models/{name}", response_model=ModelMetadata, summary="A model's inputs and outputs")
@router.get("/models/{name}/versions/{version}", response_model=ModelMetadata, summary="A version's inputs and outputs")
async def metadata(service: ServiceDep, name: str, version: str | None = None) -> Response:
    """Served versions, inputs and outputs; -1 stands for a dimension of any size."""
    model = served_model(service, name, version)
    return Json(model_metadata(name, service.repository.versions(name), model.signature))


@router.get("/models/{name}/ready", response_model=ModelReady, summary="Is the model ready?")
@router.get("/models/{name}/versions/{version}/ready", response_model=ModelReady, summary="Is the version ready?")
async def ready(service: ServiceDep, name: str, version: str | None = None) -> Response:
    """200 if the model is loaded, 400 if it is not, 404 if there is no such model."""
    try:
        served_model(service, name, version)
    except NotReady as error:
        raise BadRequest(str(error)) from None
    return Json({"name": name, "ready": True})


@router.get("/models/{name}/config", response_model=ModelConfig, summary="A model's configuration")
@router.get("/models/{name}/versions/{version}/config", response_model=ModelConfig, summary="A version's configuration")
async def config(service: ServiceDep, name: str, version: str | None = None) -> Response:
    """The configuration in Triton's format; `dims` leave out the batch axis where `max_batch_size` is above 0."""
    model = served_model(service, name, version)
    return Json(model_config(name, service.repository.versions(name), model.signature))


@router.get("/models/{name}/stats", response_model=ModelStatistics, summary="Statistics of a model")
@router.get(
    "/models/{name}/versions/{version}/stats", response_model=ModelStatistics, summary="Statistics of a version"
)
async def statistics(service: ServiceDep, name: str, version: str | None = None) -> Response:
    """Cumulative counts and nanoseconds of each version since it was loaded, and memory; summed over all workers."""
    versions = service.repository.versions(name) if version is None else [version]
    models = [served_model(service, name, each) for each in versions] or [served_model(service, name)]
    return Json({"model_stats": [_statistics(service, model) for model in models]})


def _statistics(service: Service, model: Model) -> dict[str, Any]:
    dispatch = service.scheduler.placement(model.engine)
    return service.repository.statistics(model) | {
        "dispatch": None if dispatch is None else dispatch.to_dict(),
        "batching": model.engine.joining.to_dict(),
    }


@repository_router.post(
    "/index",
    response_model=list[RepositoryEntry],
    summary="The repository's models and versions",
    openapi_extra={
        "requestBody": {"content": {"application/json": {"schema": {"type": "object"}, "example": {"ready": True}}}}
    },
)
async def index(service: ServiceDep, request: Request) -> Response:
    """Every version and its state; with `{"ready": true}` only the served ones."""
    body = await _object(request, service.settings.max_body_bytes)
    only_ready = body.get("ready", False)
    if type(only_ready) is not bool:
        raise BadRequest(f"ready: got {only_ready!r:.40}, expected true or false")
    return Json(await service.repository.index(ready=only_ready))


@repository_router.post("/models/{name}/load", summary="Load or reload a model", response_class=Response)
async def load(service: ServiceDep, request: Request, name: str) -> Response:
    """Load and verify the model from its folder, warm it up, and swap it for the one that is served meanwhile."""
    for key in await _parameters(request, service.settings.max_body_bytes):
        if key.startswith(_OVERRIDES):
            raise NotSupported(f"load: parameter {key[:100]!r}: models are loaded as they lie in the repository")
        raise BadRequest(f"load: got the unknown parameter {key[:100]!r}, expected none")
    await service.repository.load_model(name)
    return Response()


@repository_router.post("/models/{name}/unload", summary="Unload a model", response_class=Response)
async def unload(service: ServiceDep, request: Request, name: str) -> Response:
    """Take the model out of service, wait for its running requests, and free its memory."""
    for key, value in (await _parameters(request, service.settings.max_body_bytes)).items():
        # No model depends on another one here, so the parameter has no effect.
        if key != "unload_dependents" or type(value) is not bool:
            raise BadRequest(
                f"unload: parameter {key[:100]!r}: got {value!r:.40}, expected a boolean unload_dependents"
            )
    await service.repository.unload_model(name)
    return Response()


async def _parameters(request: Request, max_bytes: int) -> dict[str, Any]:
    parameters = (await _object(request, max_bytes)).get("parameters") or {}
    if type(parameters) is not dict:
        raise BadRequest(f"parameters: got {parameters!r:.40}, expected an object")
    return parameters


async def _object(request: Request, max_bytes: int) -> dict[str, Any]:
    """Read the body as a JSON object; an empty body as an empty object."""
    encoding = request.headers.get("content-encoding", "").encode("latin-1")
    body = await decode_body(await request.body(), encoding, max_bytes=max_bytes)
    return parse_object(body) if body.strip() else {}


# What the service leaves out of the protocol: what it does instead, and the paths.
_UNSUPPORTED = {
    "shared memory": (
        "send tensors in the request, as binary data (binary_data_size, Inference-Header-Content-Length)",
        (
            "/systemsharedmemory/status",
            "/systemsharedmemory/unregister",
            "/systemsharedmemory/region/{region}/{action}",
            "/cudasharedmemory/status",
            "/cudasharedmemory/unregister",
            "/cudasharedmemory/region/{region}/{action}",
        ),
    ),
    "trace settings": ("start the service with --traces", ("/trace/setting", "/models/{name}/trace/setting")),
    "log settings": ("start the service with --log-level", ("/logging",)),
    "generate": (
        "send tensors to /v2/models/NAME/infer",
        (
            "/models/{name}/generate",
            "/models/{name}/generate_stream",
            "/models/{name}/versions/{version}/generate",
            "/models/{name}/versions/{version}/generate_stream",
        ),
    ),
}


def _refuse(message: str) -> Any:
    async def refuse() -> Response:
        raise NotSupported(message)

    return refuse


for _what, (_instead, _paths) in _UNSUPPORTED.items():
    for _path in _paths:
        _handler = _refuse(f"{_what}: not supported by this server; {_instead}")
        router.add_api_route(_path, _handler, methods=["GET", "POST"], include_in_schema=False)
