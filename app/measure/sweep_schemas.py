"""Request and report of a sweep; the unit of a number is in its name."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.jobs.schemas import JobSummary
from app.measure.bootstrap import Verdict
from app.measure.comparison_schemas import Environment
from app.schemas import ResponseModel

_SQUARES: list[JsonValue] = [root**2 for root in range(4, 91)]
_UNIQUE: dict[str, JsonValue] = {"uniqueItems": True}
Width = Annotated[int, Field(ge=16, le=8100, json_schema_extra={"enum": _SQUARES})]
Rank = Annotated[int, Field(ge=1, le=64)]
BatchSize = Annotated[int, Field(ge=1)]
ThreadCount = Annotated[int, Field(ge=1, le=256)]


class SweepRequest(BaseModel):
    """The synthetic networks to measure, and how to measure them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    widths: list[Width] = Field(
        default=[64, 256, 784, 1024, 2304],
        min_length=1,
        max_length=12,
        description="features of each layer: square numbers, since the two factors are square matrices of their root",
        json_schema_extra=_UNIQUE,
    )
    ranks: list[Rank] = Field(default=[1, 2], min_length=1, max_length=6, json_schema_extra=_UNIQUE)
    batch_sizes: list[BatchSize] = Field(default=[1, 32], min_length=1, max_length=6, json_schema_extra=_UNIQUE)
    threads: list[ThreadCount] = Field(default=[1], min_length=1, max_length=4, json_schema_extra=_UNIQUE)
    layers: int = Field(default=2, ge=1, le=4)
    device: Literal["cpu", "cuda"] | None = Field(default=None, description="default: as the service runs models")
    seconds: float = Field(
        default=30,
        ge=0.1,
        le=3600,
        strict=False,
        allow_inf_nan=False,
        description="approximate limit of all timed runs together, without the time for opening sessions",
    )


class SweepSettings(ResponseModel):
    """Configuration that a sweep was measured with."""

    widths: list[int]
    ranks: list[int]
    batch_sizes: list[int]
    threads: list[int]
    layers: int
    device: str
    seconds: float
    seed: int
    practical_margin: float = Field(description="differences of medians below this fraction give no verdict")
    confidence: float


class Cell(ResponseModel):
    """Times of a Kronecker network and of the dense network of the same width."""

    width: int
    rank: int
    batch_size: int
    threads: int
    dense_p50_us: float
    kronecker_p50_us: float
    ratio: float = Field(description="median of dense / median of Kronecker: above 1, Kronecker is faster")
    low: float
    high: float
    verdict: Verdict = Field(description="whether Kronecker is faster")
    n: int = Field(description="number of timed runs of the Kronecker network")
    unstable: bool
    macs_ratio: float = Field(description="predicted ratio: multiply-adds of dense / multiply-adds of Kronecker")


class Crossover(ResponseModel):
    """Width from which a Kronecker network is faster than a dense one, at one rank, batch size and thread count."""

    rank: int
    batch_size: int
    threads: int
    width: int | None = Field(
        description="the smallest measured width from which every verdict is faster; null where there is none"
    )
    estimate: float | None = Field(description="interpolated width at which the ratio passes 1; null where it does not")
    sentence: str


class SweepReport(ResponseModel):
    """The report of a sweep."""

    id: str
    created: str
    seconds: float
    environment: Environment
    settings: SweepSettings
    cells: list[Cell]
    crossovers: list[Crossover]

    @property
    def headline(self) -> str:
        """The report's first conclusion, shown in lists."""
        return self.crossovers[0].sentence


class SweepList(ResponseModel):
    """Sweeps, newest first."""

    total: int
    offset: int
    sweeps: list[JobSummary]


class SweepJob(JobSummary):
    """A sweep that is running or has ended."""

    report: SweepReport | None = Field(default=None, description="null until the sweep is done")
