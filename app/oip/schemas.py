"""What the Open Inference Protocol's paths answer, for the OpenAPI document."""

from typing import Any, Literal

from pydantic import Field

from app.schemas import ResponseModel


class TensorInfo(ResponseModel):
    """An input or output of a graph; -1 is a dimension of any size."""

    name: str
    datatype: str = Field(examples=["FP32"])
    shape: list[int] = Field(examples=[[-1, 784]])


class PlacementInfo(ResponseModel):
    """Where the model runs, as measured when it was warmed up."""

    run_us: float = Field(description="median run of one row on the event loop")
    threaded_us: float = Field(description="the same by way of a thread, with hand-over, waiting and batching")
    inline_rows: int = Field(description="most rows that run on the event loop, without a hand-over; 0: none do")


class ServerMetadata(ResponseModel):
    """The server, as the Open Inference Protocol has it."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(ResponseModel):
    """A model, as the Open Inference Protocol has it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


class ModelReady(ResponseModel):
    """A model that is ready."""

    name: str
    ready: bool


class TensorConfig(ResponseModel):
    """An input or output in a configuration."""

    name: str
    data_type: str = Field(examples=["TYPE_FP32"])
    dims: list[int] = Field(examples=[[784]])


class ModelConfig(ResponseModel):
    """A model's configuration, as Triton would write it."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, Any]
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]
    default_model_filename: str


class RepositoryEntry(ResponseModel):
    """One version in the repository; an empty version stands for a model without a usable one."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str


class StatisticDuration(ResponseModel):
    """How often and how long in all."""

    count: int
    ns: int


class InferenceStatistics(ResponseModel):
    """Requests by outcome, and what the successful ones took in each stage."""

    success: StatisticDuration
    fail: StatisticDuration
    queue: StatisticDuration
    compute_input: StatisticDuration
    compute_infer: StatisticDuration
    compute_output: StatisticDuration
    cache_hit: StatisticDuration
    cache_miss: StatisticDuration


class BatchStatistics(ResponseModel):
    """Runs of one batch size."""

    batch_size: int
    compute_input: StatisticDuration
    compute_infer: StatisticDuration
    compute_output: StatisticDuration


class MemoryUsage(ResponseModel):
    """What one version takes, in all workers together."""

    type: Literal["CPU", "GPU"]
    id: int
    byte_size: int = Field(
        description="CPU: resident memory that loading and running it once added to a process of its own, times the "
        "workers that have it; GPU: its weights, so the least that it takes"
    )


class VersionStatistics(ResponseModel):
    """What one version has done since it came into service, in all workers together."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since 1970; 0 for never")
    inference_count: int = Field(description="rows of all requests")
    execution_count: int = Field(description="runs of the model")
    inference_stats: InferenceStatistics
    response_stats: dict[str, Any]
    batch_stats: list[BatchStatistics]
    memory_usage: list[MemoryUsage]
    dispatch: PlacementInfo | None = Field(
        description="where it runs in the worker that answers, and why: measured when it was loaded; null: in threads"
    )


class ModelStatistics(ResponseModel):
    """What models have done."""

    model_stats: list[VersionStatistics]
