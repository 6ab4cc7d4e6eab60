"""Request and report of a comparison; the unit of a number is in its name."""

import platform
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import onnxruntime
from pydantic import Field

from app.inference.session import CPU_ARENA
from app.jobs.schemas import JobSummary
from app.measure.bootstrap import Verdict
from app.measure.quality_schemas import OutputDifference, Quality
from app.models.card import CCode, TestMetric
from app.schemas import ModelName, RequestModel, ResponseModel
from app.system.cpus import available_cpus

NICENESS = 10  # of measuring and training processes

MeasuredLayer = Literal["session", "queue", "http"]


class CompareRequest(RequestModel):
    """The models to compare, and how to measure them."""

    models: list[ModelName] | None = Field(
        default=None,
        min_length=2,
        max_length=6,
        description="2 to 6 names; default: the default twin",
        json_schema_extra={"uniqueItems": True},
    )
    batch_sizes: list[Annotated[int, Field(ge=1)]] = Field(
        default=[1, 32], min_length=1, max_length=8, json_schema_extra={"uniqueItems": True}
    )
    device: Literal["cpu", "cuda"] | None = Field(default=None, description="default: as the service runs models")
    threads: int | None = Field(default=None, ge=1, le=256, description="default: as the service runs models")
    seconds: float | None = Field(
        default=None,
        ge=0.1,
        le=3600,
        strict=False,
        allow_inf_nan=False,
        description="approximate limit of all timed runs together; default: 1 s for each model and batch size, and "
        "half of that in addition for the service",
    )
    nodes: bool = Field(default=False, description="measure also the time of each node, at the largest batch size")
    depths: list[MeasuredLayer] = Field(
        default=["session"],
        min_length=1,
        max_length=3,
        description="layers at which latency is measured, always including the session. For `queue` and `http` a "
        "separate service of these models is started a few times, which takes seconds",
    )


class Environment(ResponseModel):
    """The machine, the versions and the configuration that a measurement ran on."""

    cpu: str
    cores: int = Field(description="CPUs that the service may use")
    platform: str
    python: str
    onnxruntime: str
    numpy: str
    provider: str
    threads: int
    arena: bool = Field(description="whether onnxruntime's memory arena is enabled")
    niceness: int = Field(description="scheduling priority of the measuring processes, below that of the service")

    @classmethod
    def current(cls, provider: str, threads: int) -> Self:
        """Describe this machine and the configuration of a measurement.

        Args:
            provider: onnxruntime execution provider of the measured sessions.
            threads: intra-op threads of one run.
        """
        return cls(
            cpu=_cpu_name(),
            cores=available_cpus(),
            platform=platform.platform(),
            python=platform.python_version(),
            onnxruntime=onnxruntime.__version__,
            numpy=np.__version__,
            provider=provider,
            threads=threads,
            arena=CPU_ARENA,
            niceness=NICENESS,
        )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


class CompareSettings(ResponseModel):
    """Configuration that a comparison was measured with."""

    batch_sizes: list[int]
    device: str
    threads: int
    inputs: str = Field(description="source of the inputs: a file, samples of a model, or made up from the metadata")
    series: int = Field(description="number of times that all sessions were opened anew")
    service_series: int | None = Field(
        default=None, description="number of times that the service of these models was started anew"
    )
    seconds_per_cell: float | None = Field(
        default=None, description="time of timed runs of one model at one batch size, at the session"
    )
    depths: list[MeasuredLayer] = Field(default=["session"])
    seed: int
    practical_margin: float = Field(description="differences of medians below this fraction give no verdict")
    confidence: float


class Memory(ResponseModel):
    """Resident memory of a fresh process that imports numpy and onnxruntime only."""

    baseline_rss_bytes: int | None = Field(
        description="Python, numpy, onnxruntime and the session of an empty model, before this model is loaded; "
        "compression of the model does not reduce it"
    )
    loaded_rss_bytes: int | None = Field(description="after loading this model")
    settled_rss_bytes: int | None = Field(
        default=None, description="after running every batch size twice and freeing inputs and outputs"
    )
    peak_rss_bytes: int | None = Field(
        description="the peak (VmHWM): reading the file may take more than the session keeps"
    )
    session_bytes: int | None = Field(
        default=None,
        description="loaded - baseline: the graph, the initialisers and the copies of them that onnxruntime rearranges",
    )
    arena_bytes: int | None = Field(
        default=None,
        description="settled - loaded: memory kept after runs, mostly onnxruntime's arena of activations",
    )
    device_bytes: int | None = Field(
        default=None,
        description="GPU memory of this process according to NVML, including the CUDA context; null without a GPU or "
        "pynvml, or where a container hides the process id",
    )


class Latency(ResponseModel):
    """Latency of one model at one batch size."""

    depth: MeasuredLayer = Field(
        default="session",
        description="layer that is measured. session: onnxruntime's run alone. queue: waiting and computing of a "
        "request, as the service reports them. http: from sending a JSON request to having read the response, over "
        "one persistent loopback connection, without the client's own encoding and decoding",
    )
    batch_size: int
    n: int = Field(description="number of timed runs")
    p50_us: float
    p50_low_us: float | None = Field(default=None, description="lower end of the 95 % bootstrap interval of the median")
    p50_high_us: float | None = None
    p90_us: float
    p95_us: float
    p99_us: float | None = Field(description="null below 1000 runs")
    samples_per_s: float
    unstable: bool = Field(description="the medians of the thirds of the measurement differ by more than 10 %")


class ComparedModel(ResponseModel):
    """Sizes, memory and latency of one model."""

    model: str
    version: str
    role: str | None
    provider: str
    parameters: int
    file_bytes: int
    initializer_bytes: int = Field(
        description="size of the weights: initializers, constants, and numbers in attributes of `ai.onnx.ml` operators"
    )
    weight_bytes: int = Field(
        default=0, description="of weights, biases and step sizes by the card; without a card, `initializer_bytes`"
    )
    c: CCode | None = Field(default=None, description="sizes of the model as C code for a microcontroller, by the card")
    macs_per_sample: int | None
    test_metric: TestMetric | None
    load_ms: float
    first_run_ms: float
    memory: Memory
    latency: list[Latency]
    service_latency: list[Latency] = Field(default=[], description="at the layers `queue` and `http`")


class Pair(ResponseModel):
    """Which of two models is faster at one batch size."""

    depth: MeasuredLayer = "session"
    a: str
    b: str
    batch_size: int
    ratio: float = Field(description="median of b / median of a: above 1, a is faster")
    low: float
    high: float
    verdict: Verdict = Field(description="whether a is faster")
    sentence: str


class PredictedTime(ResponseModel):
    """Predicted and measured ratio of times b / a at one batch size."""

    batch_size: int
    predicted_ratio: float | None = Field(description="ratio of multiply-adds")
    measured_ratio: float = Field(description="ratio of medians")


class PredictedMemory(ResponseModel):
    """Predicted and measured ratio of the memory that loading adds, b / a."""

    predicted_ratio: float | None = Field(description="ratio of the bytes of the weights")
    measured_ratio: float | None = Field(description="null where one of the models adds too little memory to compare")


class PredictedRatios(ResponseModel):
    """Ratios of two models predicted from their sizes, beside the measured ones; b / a: above 1, a is better."""

    a: str
    b: str
    macs_ratio: float | None
    initializer_bytes_ratio: float | None = Field(description="null where a file has no weights that can be counted")
    time: list[PredictedTime]
    memory: PredictedMemory
    sentences: list[str]


class NodeTime(ResponseModel):
    """Time of one node of an optimised graph."""

    name: str
    op: str = Field(description="its operator; empty for all nodes that are not listed")
    us: float = Field(description="microseconds in a run, without the fastest and the slowest fifth of the runs")


class ModelNodes(ResponseModel):
    """Time of each node of a model, by onnxruntime's profile, which slows runs down and counts whole microseconds."""

    model: str
    batch_size: int
    runs: int
    us: float = Field(description="of all nodes together")
    nodes: list[NodeTime] = Field(description="in the order of the graph, at most 61")


class MeasuredInputs(ResponseModel):
    """The inputs that all models ran on."""

    source: Literal["samples", "uploaded", "generated"] = Field(
        description="samples that came with a model, an upload, or made up from the models' metadata"
    )
    name: str = Field(description="samples or file by name; of generated inputs the datatype, shape and values of each")
    rows: int
    notes: list[str] = Field(default=[], description="batch sizes that were not measured, and why")


class Report(ResponseModel):
    """The report of a comparison."""

    id: str
    created: str
    seconds: float
    environment: Environment
    settings: CompareSettings
    models: list[ComparedModel]
    pairs: list[Pair]
    service_pairs: list[Pair] = Field(default=[])
    memory_sentence: str | None = Field(
        default=None, description="memory of a process with each model, and the part that compression cannot reduce"
    )
    predictions: list[PredictedRatios] = Field(default=[])
    quality: Quality | None = Field(default=None, description="null for generated inputs")
    inputs: MeasuredInputs | None = Field(default=None, description="null in reports of earlier versions")
    nodes: list[ModelNodes] = Field(default=[], description="time of each node, where requested")
    differences: list[OutputDifference] = Field(
        default=[], description="how far the outputs of each pair of models are apart on the same rows"
    )

    @property
    def headline(self) -> str:
        """The sentence about the first pair, shown in lists."""
        return self.pairs[0].sentence

    @property
    def uploaded_file(self) -> str | None:
        """The name of the file of inputs that it was measured on; None for other inputs."""
        source = self.inputs or self.quality
        return source.name if source is not None and source.source == "uploaded" else None


class ComparisonList(ResponseModel):
    """Comparisons, newest first."""

    total: int
    offset: int
    comparisons: list[JobSummary]


class ComparisonJob(JobSummary):
    """A comparison that is running or has ended."""

    report: Report | None = Field(default=None, description="null until the comparison is done")
