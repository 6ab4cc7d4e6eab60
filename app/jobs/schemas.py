"""JSON bodies that describe a job; the unit of a number is in its name."""

from typing import Any, Literal

from pydantic import Field

from app.schemas import ResponseModel

Kind = Literal["comparison", "sweep", "training"]


class Progress(ResponseModel):
    """Progress of a running job: `done` of `total` parts are complete."""

    stage: str = Field(examples=["memory mnist-dense"])
    done: int
    total: int


class JobSummary(ResponseModel):
    """A comparison, sweep or training that is running or has ended."""

    id: str
    kind: Kind
    status: Literal["running", "done", "failed"]
    created: str
    title: str = Field(examples=["mnist-kronecker, mnist-dense"])
    request: dict[str, Any]
    seconds: float | None = None
    progress: Progress | None = None
    headline: str | None = Field(default=None, description="the first sentence of the report")
    error: str | None = None
