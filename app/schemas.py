"""Requests and responses; the unit of a number is in its name."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.card import Card, TestMetric

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
    card: Card | None = Field(description="what the training wrote into the file")


class ModelList(_Response):
    """All served models, and those that answer where a request names none."""

    models: list[ModelInfo]
    default: list[str]


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
        default=None, min_length=1, max_length=16, description="default: the default twin"
    )


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
    queue_us: float = Field(description="waiting for a thread; the models of a request run one after the other in one")
    compute_us: float = Field(description="this model's run alone")


class PredictResponse(_Response):
    """The answers of all models."""

    results: list[Prediction]
    agreement: float | None = Field(description="share of rows to which all models give the same label")


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
