"""Health endpoints and Prometheus metrics."""

from fastapi import APIRouter
from starlette.responses import Response

from app.http.responses import Json
from app.routes.dependencies import ServiceDep

router = APIRouter(tags=["operation"])


@router.get("/v2/health/live", summary="Is the process alive?")
async def live() -> Response:
    """Liveness: 200 as soon as the process accepts connections."""
    return Json({"live": True})


@router.get("/v2/health/ready", summary="Is every model loaded and warmed up?")
async def ready(service: ServiceDep) -> Response:
    """Readiness: 200 once every model is loaded and warmed up; 503 before, while shutting down, or without a model."""
    reason = service.not_ready
    if reason is None:
        return Json({"ready": True})
    return Json({"ready": False, "error": reason}, status_code=503, headers={"Retry-After": "1"})


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(service: ServiceDep) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
