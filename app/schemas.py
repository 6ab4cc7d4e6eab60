"""Base classes of request and response bodies, and the error body that all endpoints share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

ModelName = Annotated[str, Field(min_length=1, max_length=100)]


class RequestModel(BaseModel):
    """Base class of request bodies: unknown fields are refused, and values are not converted to other types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ResponseModel(BaseModel):
    """Base class of response bodies: immutable."""

    model_config = ConfigDict(frozen=True)


class Error(ResponseModel):
    """Body of every error response."""

    error: str = Field(examples=["inputs[0]: got 3 values, expected 784"])
