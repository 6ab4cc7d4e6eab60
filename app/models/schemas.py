"""Served models and their samples, as the API describes them."""

from typing import Any, Literal

from pydantic import Field

from app.models.card import Card
from app.oip.schemas import PlacementInfo, TensorInfo
from app.schemas import ResponseModel


class ModelInfo(ResponseModel):
    """A served model."""

    name: str
    version: str
    provider: str = Field(description="the onnxruntime provider really in use", examples=["CPUExecutionProvider"])
    threads: int
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    file_bytes: int
    initializer_bytes: int
    parameters: int = Field(description="from the card, else the number of initializer elements")
    unusable: str | None = Field(
        default=None,
        description="why `/api/predict` and `/api/compare` cannot use it; it is served at `/v2` all the same",
    )
    samples: int = Field(description="how many test inputs are to be had")
    dispatch: PlacementInfo | None = Field(default=None, description="None: not measured, it runs in threads")
    card: Card | None = Field(description="what the training wrote into the file")


class ModelList(ResponseModel):
    """All served models, and those that answer where a request names none."""

    models: list[ModelInfo]
    default: list[str]
    devices: list[Literal["cpu", "cuda"]] = Field(description="on which models can be measured here")
    cpus: int = Field(description="CPUs to be had here: the most threads that a measurement may ask for")


class SampleList(ResponseModel):
    """Test inputs, exactly as the graph takes them."""

    model: str
    version: str
    total: int
    offset: int
    inputs: list[Any]
    labels: list[str | float]
