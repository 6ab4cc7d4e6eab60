"""Requests and responses; the unit of a number is in its name."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.card import Card

ModelName = Annotated[str, Field(min_length=1, max_length=100)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True)


class Error(_Response):
    """Every error of this service."""

    error: str = Field(examples=["inputs[0]: got 3 values, expected 784"])


class TensorInfo(_Response):
    """An input or output of a graph; -1 is a dimension of any size."""

    name: str
    datatype: str = Field(examples=["FP32"])
    shape: list[int] = Field(examples=[[-1, 784]])


class ModelInfo(_Response):
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
    samples: int = Field(description="how many test inputs are to be had")
    card: Card | None = Field(description="what the training wrote into the file")


class ModelList(_Response):
    """All served models, and those that answer where a request names none."""

    models: list[ModelInfo]
    default: list[str]


class SampleList(_Response):
    """Test inputs, exactly as the graph takes them."""

    model: str
    version: str
    total: int
    offset: int
    inputs: list[Any]
    labels: list[str | float]


class PredictRequest(_Request):
    """Rows to predict."""

    inputs: list[Any] = Field(description="rows, each flat or in the shape of the input (28 lists of 28 pixels)")
    models: list[ModelName] | None = Field(
        default=None, min_length=1, max_length=16, description="default: the default twin"
    )


class Answer(_Response):
    """The answer for one row: of a classifier, label and probabilities in the order of the card's labels."""

    label: str | None = None
    probabilities: list[float] | None = None
    value: float | list[float] | None = None


class Prediction(_Response):
    """The answers of one model."""

    model: str
    version: str
    provider: str
    outputs: list[Answer]
    queue_us: float = Field(description="waiting for a thread; the models of a request run one after the other in one")
    compute_us: float = Field(description="this model's run alone")


class PredictResponse(_Response):
    """The answers of all models."""

    results: list[Prediction]
    agreement: float | None = Field(description="share of rows to which all models give the same label")
