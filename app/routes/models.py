"""Served models, their test samples, and shadow mode."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from app.errors import NotFound
from app.http.responses import Json
from app.http.static_files import REVALIDATE_PRIVATELY
from app.inference.datatypes import Tensor
from app.inference.devices import available_devices
from app.inference.placement import Placement
from app.models.model import Model
from app.models.samples import Samples
from app.models.schemas import ModelInfo, ModelList, SampleList
from app.oip.schemas import BatchingInfo, TensorInfo
from app.routes.dependencies import ERRORS, ServiceDep
from app.service import Service
from app.serving.named_rows import rows_of
from app.serving.schemas import ShadowReport
from app.system.cpus import available_cpus

ONNX = "application/onnx"

router = APIRouter(prefix="/api", tags=["models"], responses=ERRORS)


@router.get("/models", response_model=ModelList, summary="All served models")
async def models(service: ServiceDep) -> Response:
    """All served models with their cards, the models used where a request names none, and the devices for measuring."""
    repository = service.repository
    return Json(
        {
            "models": [_info(service, model) for model in repository.models.values()],
            "default": list(repository.default),
            "devices": available_devices(),
            "cpus": available_cpus(),
        }
    )


@router.get("/models/{name}", response_model=ModelInfo, summary="One model")
async def model(service: ServiceDep, name: str) -> Response:
    """One served model with its card."""
    return Json(_info(service, service.repository.get(name)))


@router.get("/models/{name}/samples", response_model=SampleList, summary="Test inputs to try")
async def samples(
    service: ServiceDep,
    name: str,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """Test inputs in the model's input format, with their true labels; an empty list for a model without samples.

    Of a model that takes the columns of a table they are objects with a value for each column, as in `rows` of
    `/api/predict`.
    """
    found = service.repository.get(name)
    part = slice(offset, offset + limit)
    return Json(
        {
            "model": found.name,
            "version": found.version,
            "total": len(found.samples) if found.samples else 0,
            "offset": offset,
            "inputs": _inputs(found, part),
            "labels": [found.label_of(label) for label in found.samples.labels[part]] if found.samples else [],
        }
    )


def _inputs(model: Model, part: slice) -> list[Any]:
    """Samples of a model, as requests to `/api/predict` have them."""
    samples = model.samples
    if samples is None:
        return []
    if isinstance(samples, Samples):
        return list(samples.inputs[part])
    if model.columns is None:
        raise ValueError(f"{model.name} has samples of columns, but no columns")
    return rows_of({name: values[part] for name, values in samples.columns.items()}, model.columns)


@router.get(
    "/models/{name}/file",
    response_class=Response,
    responses={
        200: {"content": {ONNX: {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "The file has the ETag in `If-None-Match`."},
    },
    summary="The ONNX file",
)
async def file(
    service: ServiceDep,
    name: str,
    version: Annotated[str | None, Query(max_length=20)] = None,
    if_none_match: Annotated[str | None, Header(max_length=10_000)] = None,
) -> Response:
    """The ONNX file of a served model, so that a page computes the model itself; its ETag is the file's SHA-256.

    404 for a model whose file is larger than `max_download_bytes`, or whose weights are in other files.
    """
    artifact = service.repository.get(name, version).artifact
    if (reason := artifact.why_no_download(service.settings.max_download_bytes)) is not None:
        raise NotFound(f"{name}: the file cannot be downloaded: {reason}")
    headers = {"ETag": f'"{artifact.sha256}"', "Cache-Control": REVALIDATE_PRIVATELY}
    if headers["ETag"] in (if_none_match or ""):
        return Response(status_code=304, headers=headers)
    content = await asyncio.to_thread(artifact.read_unchanged)
    disposition = f'attachment; filename="{artifact.name}-{artifact.version}.onnx"'
    return Response(content, media_type=ONNX, headers={**headers, "Content-Disposition": disposition})


@router.get("/shadow", response_model=ShadowReport, summary="The shadow model's answers beside those that were sent")
async def shadow(service: ServiceDep) -> Response:
    """Disagreements and times of the shadow model since the start; `primary` is null where shadow mode is off."""
    found = service.shadow
    report = ShadowReport(primary=None, shadow=None, share=0.0) if found is None else found.report()
    return Json(report.model_dump(mode="json"))


def _info(service: Service, model: Model) -> dict[str, Any]:
    downloadable = model.artifact.why_no_download(service.settings.max_download_bytes) is None
    return model_info(model, service.scheduler.placement(model.engine), downloadable=downloadable)


def model_info(model: Model, placement: Placement | None, *, downloadable: bool) -> dict[str, Any]:
    """Describe a served model as `ModelInfo`; `card` and `dispatch` are there even where they are null.

    Args:
        model: to describe.
        placement: measured at warm-up; None where it was not.
        downloadable: whether callers may download the file.
    """
    artifact, engine = model.artifact, model.engine
    info = ModelInfo(
        name=model.name,
        version=model.version,
        provider=engine.provider,
        threads=engine.threads,
        inputs=[_tensor(tensor) for tensor in engine.inputs],
        outputs=[_tensor(tensor) for tensor in engine.outputs],
        file_bytes=artifact.file_bytes,
        initializer_bytes=artifact.initializer_bytes,
        parameters=artifact.parameters,
        labels=_uncarded_labels(model),
        unusable=model.unusable,
        samples=len(model.samples) if model.samples else 0,
        downloadable=downloadable,
        batching=BatchingInfo(**engine.joining.to_dict()),
        card=artifact.card,
    ).model_dump(mode="json", exclude_none=True)
    return info | {"card": info.get("card"), "dispatch": None if placement is None else placement.to_dict()}


def _uncarded_labels(model: Model) -> list[str] | None:
    """The names of the classes in the model's answers, where its card does not have them."""
    card = model.artifact.card
    if model.unusable is not None or (card is not None and card.labels is not None):
        return None
    labels = model.output_head.labels
    return None if labels is None else list(labels)


def _tensor(tensor: Tensor) -> TensorInfo:
    return TensorInfo(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))
