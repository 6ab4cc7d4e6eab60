"""Bodies of prediction requests and responses, and of the shadow report; the unit of a number is in its name."""

from typing import Any

from pydantic import Field

from app.schemas import ModelName, RequestModel, ResponseModel


class PredictRequest(RequestModel):
    """Request to run one or more models on rows of inputs."""

    inputs: list[Any] | None = Field(
        default=None, description="rows, each flat or nested as the model's input (28 lists of 28 pixels)"
    )
    rows: list[dict[str, Any]] | None = Field(
        default=None,
        description="instead of `inputs`, for models of tables: rows with a value for each column by its name; null is "
        "a missing value, a date is a text such as 2024-05-31T12:00",
    )
    models: list[ModelName] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="default: the default twin",
        json_schema_extra={"uniqueItems": True},
    )
    receipt: bool = Field(default=False, description="add the provenance of each model's answer")
    novelty: bool = Field(
        default=False, description="tell for each image whether it is unlike the training images, as `unlike`"
    )


class Provenance(ResponseModel):
    """Provenance of a model's answer: file, provider, times and batch size."""

    model_sha256: str = Field(description="checksum of the model file, or of the list of checksums of its files")
    provider: str
    threads: int
    queue_us: float
    compute_us: float
    batch_size: int = Field(description="rows of the run, including those of other requests")


class RowPrediction(ResponseModel):
    """The answer to one row: label and probabilities in the order of the card's labels, or the value in regression."""

    label: str | None = None
    probabilities: list[float] | None = None
    value: float | list[float] | None = None
    unlike: bool | None = Field(
        default=None,
        description="whether the image is unlike the training images, so that the label means little; only if the "
        "request asked for `novelty` and the model has a detector",
    )


class ModelPrediction(ResponseModel):
    """One model's answers to the rows of a request."""

    model: str
    version: str
    provider: str
    outputs: list[RowPrediction]
    queue_us: float = Field(description="time of waiting for a thread, near 0 for a run on the event loop")
    compute_us: float = Field(description="time of the run, which may include rows of other requests")
    receipt: Provenance | None = Field(default=None, description="only if the request asked for it")


class PredictResponse(ResponseModel):
    """The answers of all models to the rows of a request."""

    results: list[ModelPrediction]
    agreement: float | None = Field(description="fraction of rows to which all models give the same label")


class ShadowReport(ResponseModel):
    """Comparison of the shadow model with the model that answers, since the start; by one worker, if there are many."""

    primary: str | None = Field(description="the model that answers; null where shadow mode is off")
    shadow: str | None = Field(description="the model that is scored")
    share: float = Field(description="fraction of the requests that are scored")
    requests: int = Field(default=0, description="scored requests")
    rows: int = Field(default=0, description="scored rows")
    dropped: int = Field(default=0, description="sampled requests not scored because too many were waiting")
    failed: int = Field(default=0, description="sampled requests on which the shadow model failed")
    disagreements: int | None = Field(default=None, description="rows to which the models gave different labels")
    disagreement_rate: float | None = Field(default=None, description="disagreements / rows")
    largest_probability_drift: float | None = Field(
        default=None, description="largest difference of one probability of one row, of classifiers"
    )
    largest_difference: float | None = Field(
        default=None, description="largest difference of two values, in regression"
    )
    primary_p50_us: float | None = Field(default=None, description="median run of the last 1,000 scored requests")
    shadow_p50_us: float | None = Field(
        default=None, description="of the same requests, run in a thread of the shadow model's own"
    )
    difference_p50_us: float | None = Field(default=None, description="shadow - primary, median over those requests")
