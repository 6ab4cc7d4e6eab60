"""Served models, their test samples, and shadow mode."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from app.http.responses import Json
from app.inference.datatypes import Tensor
from app.inference.devices import available_devices
from app.inference.placement import Placement
from app.models.model import Model
from app.models.schemas import ModelInfo, ModelList, SampleList
from app.oip.schemas import BatchingInfo, TensorInfo
from app.routes.dependencies import ERRORS, ServiceDep
from app.service import Service
from app.serving.schemas import ShadowReport
from app.system.cpus import available_cpus

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
    """Test inputs in the model's input format, with their true labels; an empty list for a model without samples."""
    found = service.repository.get(name)
    part = slice(offset, offset + limit)
    return Json(
        {
            "model": found.name,
            "version": found.version,
            "total": len(found.samples) if found.samples else 0,
            "offset": offset,
            "inputs": list(found.samples.inputs[part]) if found.samples else [],
            "labels": [found.label_of(label) for label in found.samples.labels[part]] if found.samples else [],
        }
    )


@router.get("/shadow", response_model=ShadowReport, summary="The shadow model's answers beside those that were sent")
async def shadow(service: ServiceDep) -> Response:
    """Disagreements and times of the shadow model since the start; `primary` is null where shadow mode is off."""
    found = service.shadow
    report = ShadowReport(primary=None, shadow=None, share=0.0) if found is None else found.report()
    return Json(report.model_dump(mode="json"))


def _info(service: Service, model: Model) -> dict[str, Any]:
    return model_info(model, service.scheduler.placement(model.engine))


def model_info(model: Model, placement: Placement | None) -> dict[str, Any]:
    """Describe a served model as `ModelInfo`; `card` and `dispatch` are there even where they are null.

    Args:
        model: to describe.
        placement: measured at warm-up; None where it was not.
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
