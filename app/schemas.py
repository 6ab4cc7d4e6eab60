"""Base classes of request and response bodies, and the error body that every endpoint shares."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

ModelName = Annotated[str, Field(min_length=1, max_length=100)]


class RequestModel(BaseModel):
    """Base of request bodies: unknown fields are refused, and no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ResponseModel(BaseModel):
    """Base of response bodies: immutable."""

    model_config = ConfigDict(frozen=True)


class Error(ResponseModel):
    """Every error of this service."""

    error: str = Field(examples=["inputs[0]: got 3 values, expected 784"])
