"""What comparisons are asked for and what they say; the unit of a number is in its name."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.card import TestMetric
from app.schemas import ModelName


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True)


class Progress(_Response):
    """How far a job is."""

    stage: str = Field(examples=["memory mnist-dense"])
    done: int
    total: int


class JobSummary(_Response):
    """A comparison or sweep that runs, or that was kept."""

    id: str
    kind: Literal["comparison", "sweep"]
    status: Literal["running", "done", "failed"]
    created: str
    title: str = Field(examples=["mnist-kronecker, mnist-dense"])
    request: dict[str, Any]
    seconds: float | None = None
    progress: Progress | None = None
    headline: str | None = Field(default=None, description="the first sentence of the report")
    error: str | None = None


class CompareRequest(_Request):
    """What to compare."""

    models: list[ModelName] | None = Field(
        default=None, min_length=2, max_length=6, description="default: the default twin"
    )
    batch_sizes: list[Annotated[int, Field(ge=1)]] = Field(default=[1, 32], min_length=1, max_length=8)
    device: Literal["cpu", "cuda"] | None = Field(default=None, description="default: as served")
    threads: int | None = Field(default=None, ge=1, le=256, description="default: as served")


class Environment(_Response):
    """What the comparison ran on."""

    cpu: str
    cores: int = Field(description="CPUs that the process may use")
    platform: str
    python: str
    onnxruntime: str
    numpy: str
    provider: str
    threads: int
    arena: bool = Field(description="onnxruntime's memory arena")
    niceness: int = Field(description="the measuring processes give way to serving")


class CompareSettings(_Response):
    """How it was measured."""

    batch_sizes: list[int]
    device: str
    threads: int
    inputs: str = Field(description="samples of the model, or seeded random numbers")
    series: int = Field(description="times that all sessions were opened anew")
    seed: int
    practical_margin: float = Field(description="a difference of medians below this share is called none")
    confidence: float


class Memory(_Response):
    """Of a fresh process that imports numpy and onnxruntime only."""

    baseline_rss_bytes: int | None = Field(description="with an empty model loaded and run")
    loaded_rss_bytes: int | None = Field(description="with this model loaded besides")
    peak_rss_bytes: int | None = Field(description="the most it ever had, after running every batch size")
    device_bytes: int | None = None


class Latency(_Response):
    """One model at one batch size."""

    batch_size: int
    n: int = Field(description="timed runs")
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float | None = Field(description="only from 1000 runs on")
    samples_per_s: float
    unstable: bool = Field(description="the medians of the measurement's thirds differ by more than 10 %")


class ComparedModel(_Response):
    """One model of a comparison."""

    model: str
    version: str
    role: str | None
    provider: str
    parameters: int
    file_bytes: int
    initializer_bytes: int
    macs_per_sample: int | None
    test_metric: TestMetric | None
    load_ms: float
    first_run_ms: float
    memory: Memory
    latency: list[Latency]


class Pair(_Response):
    """Two models at one batch size."""

    a: str
    b: str
    batch_size: int
    ratio: float = Field(description="median of b / median of a: above 1, a is faster")
    low: float
    high: float
    verdict: Literal["faster", "slower", "not distinguishable"] = Field(description="of a")
    sentence: str


class Report(_Response):
    """A comparison."""

    id: str
    created: str
    seconds: float
    environment: Environment
    settings: CompareSettings
    models: list[ComparedModel]
    pairs: list[Pair]

    @property
    def headline(self) -> str:
        """The sentence about the first pair."""
        return self.pairs[0].sentence


class ComparisonList(_Response):
    """Comparisons, the newest first."""

    total: int
    offset: int
    comparisons: list[JobSummary]


class Comparison(JobSummary):
    """One comparison."""

    report: Report | None = Field(default=None, description="once it is done")
