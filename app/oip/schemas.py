"""What the Open Inference Protocol's paths answer, for the OpenAPI document."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas import DispatchInfo, TensorInfo


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True)


class ServerMetadata(_Response):
    """The server, as the Open Inference Protocol has it."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(_Response):
    """A model, as the Open Inference Protocol has it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


class ModelReady(_Response):
    """A model that is ready."""

    name: str
    ready: bool


class TensorConfig(_Response):
    """An input or output in a configuration."""

    name: str
    data_type: str = Field(examples=["TYPE_FP32"])
    dims: list[int] = Field(examples=[[784]])


class ModelConfig(_Response):
    """A model's configuration, as Triton would write it."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, Any]
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]
    default_model_filename: str


class RepositoryEntry(_Response):
    """One version in the repository; an empty version stands for a model without a usable one."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str


class StatisticDuration(_Response):
    """How often and how long in all."""

    count: int
    ns: int


class InferenceStatistics(_Response):
    """Requests by outcome, and what the successful ones took in each stage."""

    success: StatisticDuration
    fail: StatisticDuration
    queue: StatisticDuration
    compute_input: StatisticDuration
    compute_infer: StatisticDuration
    compute_output: StatisticDuration
    cache_hit: StatisticDuration
    cache_miss: StatisticDuration


class BatchStatistics(_Response):
    """Runs of one batch size."""

    batch_size: int
    compute_input: StatisticDuration
    compute_infer: StatisticDuration
    compute_output: StatisticDuration


class MemoryUsage(_Response):
    """What one version takes, in all workers together."""

    type: Literal["CPU", "GPU"]
    id: int
    byte_size: int = Field(
        description="CPU: resident memory that loading and running it once added to a process of its own, times the "
        "workers that have it; GPU: its weights, so the least that it takes"
    )


class VersionStatistics(_Response):
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
    dispatch: DispatchInfo | None = Field(
        description="where it runs in the worker that answers, and why: measured when it was loaded; null: in threads"
    )


class ModelStatistics(_Response):
    """What models have done."""

    model_stats: list[VersionStatistics]
