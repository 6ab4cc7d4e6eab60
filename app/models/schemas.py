"""Response models of the served models and their samples."""

from typing import Any, Literal

from pydantic import Field

from app.models.card import Card
from app.oip.schemas import BatchingInfo, PlacementInfo, TensorInfo
from app.schemas import ResponseModel


class ModelInfo(ResponseModel):
    """A served model: its file, tensors, execution provider and card."""

    name: str
    version: str
    provider: str = Field(description="onnxruntime's execution provider in use", examples=["CPUExecutionProvider"])
    threads: int
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    file_bytes: int
    initializer_bytes: int = Field(
        description="size of the weights: initializers, constants, and numbers in attributes of `ai.onnx.ml` operators"
    )
    parameters: int = Field(description="from the card, else the number of elements of the weights")
    labels: list[str] | None = Field(
        default=None, description="names of the classes by the graph, or their positions, where the card has none"
    )
    unusable: str | None = Field(
        default=None,
        description="why `/api/predict` cannot use it, although it is served at `/v2` and can be compared",
    )
    samples: int = Field(description="number of test inputs beside the model")
    downloadable: bool = Field(description="whether `/api/models/{name}/file` has the ONNX file")
    dispatch: PlacementInfo | None = Field(default=None, description="null: not measured, it runs in threads")
    batching: BatchingInfo
    card: Card | None = Field(description="written into the file by the training")


class ModelList(ResponseModel):
    """All served models, and the default models of requests that name none."""

    models: list[ModelInfo]
    default: list[str]
    devices: list[Literal["cpu", "cuda"]] = Field(description="devices that models can be measured on here")
    cpus: int = Field(description="CPUs available here: the most threads that a measurement may ask for")


class SampleList(ResponseModel):
    """Test inputs in the shape of the graph's input, or as objects with the columns' values; with their labels."""

    model: str
    version: str
    total: int
    offset: int
    inputs: list[Any]
    labels: list[str | float | list[float]]
