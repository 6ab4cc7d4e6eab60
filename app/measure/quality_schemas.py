"""The part of a comparison's report about the outputs: quality against labels, and differences between models."""

from typing import Literal

from pydantic import Field

from app.schemas import ResponseModel


class WrongRows(ResponseModel):
    """Rows of one class for which another one is predicted."""

    true: int = Field(description="position of the true class")
    predicted: int = Field(description="position of the predicted class")
    rows: list[int] = Field(description="the first of these rows, counted from 0, at most 12")


class ModelQuality(ResponseModel):
    """Quality of the outputs of one model."""

    model: str
    accuracy: float | None = None
    accuracy_low: float | None = Field(default=None, description="lower end of Wilson's 95 % interval")
    accuracy_high: float | None = None
    confusion: list[list[int]] | None = Field(
        default=None,
        description="confusion matrix: a row for each true class, a column for each predicted one; null for "
        "more than 100 classes",
    )
    wrong: list[WrongRows] | None = Field(
        default=None, description="rows behind the cells of the confusion matrix that count wrong predictions"
    )
    rmse: float | None = Field(default=None, description="root mean square error of a regression")


class QualityPair(ResponseModel):
    """Agreement of the outputs of two models."""

    a: str
    b: str
    agreement: float | None = Field(default=None, description="fraction of rows with the same predicted label")
    largest_probability_drift: float | None = Field(
        default=None, description="largest absolute difference of a probability of a row"
    )
    largest_difference: float | None = Field(
        default=None, description="largest absolute difference of the values of a regression"
    )


class Quality(ResponseModel):
    """Quality of the outputs of all models on the same rows."""

    source: Literal["samples", "uploaded"]
    name: str
    rows: int
    labelled: bool
    sentence: str
    labels: list[str] | None
    models: list[ModelQuality]
    pairs: list[QualityPair]


class OutputDifference(ResponseModel):
    """How far one output of two models is apart on the same rows."""

    a: str
    b: str
    output: str = Field(description="name of the output, of the first model where the names differ")
    rows: int
    largest: float | None = Field(default=None, description="largest absolute difference of two numbers")
    mean: float | None = Field(default=None, description="mean absolute difference")
    cosine: float | None = Field(
        default=None, description="mean cosine similarity of the rows, or of the whole output if it has no axis of rows"
    )
    lowest_cosine: float | None = Field(default=None, description="cosine similarity of the row that differs most")
    equal_top1: float | None = Field(
        default=None, description="fraction with the same most probable class, of an output with scores of classes"
    )
    equal: float | None = Field(default=None, description="fraction of equal elements, of integers, booleans and text")
    sentence: str
