"""What comparisons are asked for and what they say; the unit of a number is in its name."""

from typing import Annotated, Literal

from pydantic import Field

from app.jobs.schemas import JobSummary
from app.models.card import TestMetric
from app.schemas import ModelName, RequestModel, ResponseModel

Depth = Literal["session", "queue", "http"]


class CompareRequest(RequestModel):
    """What to compare, and how."""

    models: list[ModelName] | None = Field(
        default=None,
        min_length=2,
        max_length=6,
        description="default: the default twin",
        json_schema_extra={"uniqueItems": True},
    )
    batch_sizes: list[Annotated[int, Field(ge=1)]] = Field(
        default=[1, 32], min_length=1, max_length=8, json_schema_extra={"uniqueItems": True}
    )
    device: Literal["cpu", "cuda"] | None = Field(default=None, description="default: as served")
    threads: int | None = Field(default=None, ge=1, le=256, description="default: as served")
    seconds: float | None = Field(
        default=None,
        ge=0.1,
        le=3600,
        strict=False,
        allow_inf_nan=False,
        description="at most about how long latencies are timed in all; default: 1 s for each model and batch size, "
        "and half of that again for the service",
    )
    depths: list[Depth] = Field(
        default=["session"],
        min_length=1,
        max_length=3,
        description="where latency is measured; the session always is. The others start a service of their own, a few "
        "times, which takes seconds",
    )


class Environment(ResponseModel):
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


class CompareSettings(ResponseModel):
    """How it was measured."""

    batch_sizes: list[int]
    device: str
    threads: int
    inputs: str = Field(description="samples of the model, or seeded random numbers")
    series: int = Field(description="times that all sessions were opened anew")
    service_series: int | None = Field(
        default=None, description="times that a service of these models was started anew"
    )
    seconds_per_cell: float | None = Field(
        default=None, description="of timed runs, for one model at one batch size at the session"
    )
    depths: list[Depth] = Field(default=["session"])
    seed: int
    practical_margin: float = Field(description="a difference of medians below this share is called none")
    confidence: float


class Memory(ResponseModel):
    """Of a fresh process that imports numpy and onnxruntime only; resident memory, so what the system really gave."""

    baseline_rss_bytes: int | None = Field(
        description="the runtime: Python, numpy, onnxruntime and the session of an empty model, before this model is "
        "loaded; no compression reduces it"
    )
    loaded_rss_bytes: int | None = Field(description="with this model loaded besides")
    settled_rss_bytes: int | None = Field(
        default=None, description="after running every batch size twice, inputs and outputs given back"
    )
    peak_rss_bytes: int | None = Field(
        description="the most it ever had (VmHWM): reading the file may take more than the session keeps"
    )
    session_bytes: int | None = Field(
        default=None,
        description="loaded - baseline: the graph, the initialisers and the copies of them that are arranged anew",
    )
    arena_bytes: int | None = Field(
        default=None,
        description="settled - loaded: what the session keeps after runs, mostly onnxruntime's arena of activations",
    )
    device_bytes: int | None = Field(
        default=None,
        description="GPU memory of this process by NVML, the CUDA context included; null without a GPU or without "
        "pynvml, or where a container hides the process's number",
    )


class Latency(ResponseModel):
    """One model at one batch size."""

    depth: Depth = Field(
        default="session",
        description="session: onnxruntime's run alone. queue: what the service says a request waited and computed. "
        "http: from sending a request of JSON to having read the answer, over one kept connection on the loopback; "
        "the client's own encoding and decoding are not in it",
    )
    batch_size: int
    n: int = Field(description="timed runs")
    p50_us: float
    p50_low_us: float | None = Field(default=None, description="of the 95 % bootstrap interval of the median")
    p50_high_us: float | None = None
    p90_us: float
    p95_us: float
    p99_us: float | None = Field(description="only from 1000 runs on")
    samples_per_s: float
    unstable: bool = Field(description="the medians of the measurement's thirds differ by more than 10 %")


class ComparedModel(ResponseModel):
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
    service_latency: list[Latency] = Field(default=[], description="through the queue, and over HTTP")


class Pair(ResponseModel):
    """Two models at one batch size."""

    depth: Depth = "session"
    a: str
    b: str
    batch_size: int
    ratio: float = Field(description="median of b / median of a: above 1, a is faster")
    low: float
    high: float
    verdict: Literal["faster", "slower", "not distinguishable"] = Field(description="of a")
    sentence: str


class PredictedTime(ResponseModel):
    """What multiply-adds promise, and what came of it, b / a."""

    batch_size: int
    predicted_ratio: float | None
    measured_ratio: float


class PredictedMemory(ResponseModel):
    """What the bytes of the initialisers promise, and what loading really added, b / a."""

    predicted_ratio: float
    measured_ratio: float | None = Field(description="null where one of them adds too little to tell")


class Prediction(ResponseModel):
    """Two models by what their sizes promise; ratios are b / a: above 1, a is better."""

    a: str
    b: str
    macs_ratio: float | None
    initializer_bytes_ratio: float
    time: list[PredictedTime]
    memory: PredictedMemory
    sentences: list[str]


class ModelQuality(ResponseModel):
    """How well one model did."""

    model: str
    accuracy: float | None = None
    accuracy_low: float | None = Field(default=None, description="of Wilson's 95 % interval")
    accuracy_high: float | None = None
    confusion: list[list[int]] | None = Field(
        default=None, description="rows: the true class, columns: the predicted one; null beyond 100 classes"
    )
    rmse: float | None = Field(default=None, description="of a regression")


class QualityPair(ResponseModel):
    """How alike the answers of two models are."""

    a: str
    b: str
    agreement: float | None = Field(default=None, description="share of rows that get the same label")
    largest_probability_drift: float | None = Field(
        default=None, description="the most that one probability of one row differs"
    )
    largest_difference: float | None = Field(default=None, description="of two values, in a regression")


class Quality(ResponseModel):
    """What the models say to the same rows."""

    source: Literal["samples", "uploaded"]
    name: str
    rows: int
    labelled: bool
    sentence: str
    labels: list[str] | None
    models: list[ModelQuality]
    pairs: list[QualityPair]


class Report(ResponseModel):
    """A comparison."""

    id: str
    created: str
    seconds: float
    environment: Environment
    settings: CompareSettings
    models: list[ComparedModel]
    pairs: list[Pair]
    service_pairs: list[Pair] = Field(default=[])
    memory_sentence: str | None = Field(default=None, description="and what of it compression cannot reduce")
    predictions: list[Prediction] = Field(default=[])
    quality: Quality | None = None

    @property
    def headline(self) -> str:
        """The sentence about the first pair."""
        return self.pairs[0].sentence


class ComparisonList(ResponseModel):
    """Comparisons, the newest first."""

    total: int
    offset: int
    comparisons: list[JobSummary]


class ComparisonJob(JobSummary):
    """One comparison."""

    report: Report | None = Field(default=None, description="once it is done")
