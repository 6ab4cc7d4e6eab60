"""Requests for predictions and their answers; the unit of a number is in its name."""

from typing import Any

from pydantic import Field

from app.schemas import ModelName, RequestModel, ResponseModel


class PredictRequest(RequestModel):
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


class Receipt(ResponseModel):
    """Where an answer comes from."""

    model_sha256: str = Field(description="of the file that was loaded")
    provider: str
    threads: int
    queue_us: float
    compute_us: float
    batch_size: int = Field(description="rows of the run, other requests' included")


class Answer(ResponseModel):
    """The answer for one row: of a classifier, label and probabilities in the order of the card's labels."""

    label: str | None = None
    probabilities: list[float] | None = None
    value: float | list[float] | None = None


class Prediction(ResponseModel):
    """The answers of one model."""

    model: str
    version: str
    provider: str
    outputs: list[Answer]
    queue_us: float = Field(description="waiting for a thread; 0 for a run on the event loop")
    compute_us: float = Field(description="the run, which may have been for rows of other requests too")
    receipt: Receipt | None = Field(default=None, description="where it was asked for")


class PredictResponse(ResponseModel):
    """The answers of all models."""

    results: list[Prediction]
    agreement: float | None = Field(description="share of rows to which all models give the same label")
