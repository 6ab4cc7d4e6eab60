"""Requests and responses; the unit of a number is in its name."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.models.card import Card

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


class DispatchInfo(_Response):
    """Where the model runs, as measured when it was warmed up."""

    run_us: float = Field(description="median run of one row on the event loop")
    threaded_us: float = Field(description="the same by way of a thread, with hand-over, waiting and batching")
    inline_rows: int = Field(description="most rows that run on the event loop, without a hand-over; 0: none do")


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
    unusable: str | None = Field(
        default=None,
        description="why `/api/predict` and `/api/compare` cannot use it; it is served at `/v2` all the same",
    )
    samples: int = Field(description="how many test inputs are to be had")
    dispatch: DispatchInfo | None = Field(default=None, description="None: not measured, it runs in threads")
    card: Card | None = Field(description="what the training wrote into the file")


class ModelList(_Response):
    """All served models, and those that answer where a request names none."""

    models: list[ModelInfo]
    default: list[str]
    devices: list[Literal["cpu", "cuda"]] = Field(description="on which models can be measured here")
    cpus: int = Field(description="CPUs to be had here: the most threads that a measurement may ask for")


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
        default=None,
        min_length=1,
        max_length=16,
        description="default: the default twin",
        json_schema_extra={"uniqueItems": True},
    )
    receipt: bool = Field(default=False, description="say where each answer comes from")


class Receipt(_Response):
    """Where an answer comes from."""

    model_sha256: str = Field(description="of the file that was loaded")
    provider: str
    threads: int
    queue_us: float
    compute_us: float
    batch_size: int = Field(description="rows of the run, other requests' included")


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
    queue_us: float = Field(description="waiting for a thread; 0 for a run on the event loop")
    compute_us: float = Field(description="the run, which may have been for rows of other requests too")
    receipt: Receipt | None = Field(default=None, description="where it was asked for")


class PredictResponse(_Response):
    """The answers of all models."""

    results: list[Prediction]
    agreement: float | None = Field(description="share of rows to which all models give the same label")
