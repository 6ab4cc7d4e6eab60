"""Response models of the Open Inference Protocol's paths, for the OpenAPI document."""

from typing import Any, Literal

from pydantic import Field

from app.schemas import ResponseModel


class TensorInfo(ResponseModel):
    """An input or output of a model; -1 in the shape is a dimension of any size."""

    name: str
    datatype: str = Field(examples=["FP32"])
    shape: list[int] = Field(examples=[[-1, 784]])


class PlacementInfo(ResponseModel):
    """Where a model runs, event loop or threads, as measured by its warm-up."""

    run_us: float = Field(description="median microseconds of a request of one row on the event loop")
    threaded_us: float = Field(description="the same in a thread, with hand-over, waiting and batching")
    inline_rows: int = Field(description="most rows of a request that runs on the event loop; 0: all run in threads")


class BatchingInfo(ResponseModel):
    """Whether requests of several clients share runs of a model."""

    joined: bool
    max_rows: int = Field(description="most rows of a run that requests share; 0: each request runs alone")
    reason: str = Field(examples=["each row of every output depends on the same row of the inputs only"])


class ServerMetadata(ResponseModel):
    """Server metadata of the Open Inference Protocol."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(ResponseModel):
    """Model metadata of the Open Inference Protocol."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


class ModelReady(ResponseModel):
    """Readiness of a model."""

    name: str
    ready: bool


class TensorConfig(ResponseModel):
    """An input or output in a model's configuration; `dims` are its shape without the batch axis."""

    name: str
    data_type: str = Field(examples=["TYPE_FP32"])
    dims: list[int] = Field(examples=[[784]])


class ModelConfig(ResponseModel):
    """A model's configuration in Triton's format."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, Any]
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]
    default_model_filename: str


class RepositoryEntry(ResponseModel):
    """A version in the model repository; the version is empty for a model that has no usable one."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str


class StatisticDuration(ResponseModel):
    """Number of times and their total duration in nanoseconds."""

    count: int
    ns: int


class InferenceStatistics(ResponseModel):
    """Requests by outcome, and the durations of the successful ones by stage."""

    success: StatisticDuration
    fail: StatisticDuration
    queue: StatisticDuration
    compute_input: StatisticDuration
    compute_infer: StatisticDuration
    compute_output: StatisticDuration
    cache_hit: StatisticDuration
    cache_miss: StatisticDuration


class BatchStatistics(ResponseModel):
    """Statistics of the runs of one batch size."""

    batch_size: int
    compute_input: StatisticDuration
    compute_infer: StatisticDuration
    compute_output: StatisticDuration


class MemoryUsage(ResponseModel):
    """Memory usage of a version in all workers together."""

    type: Literal["CPU", "GPU"]
    id: int
    byte_size: int = Field(
        description="CPU: memory that loading and running it once added to a process of its smoke test, times the "
        "number of workers that serve it; GPU: the size of its weights, a lower bound"
    )


class VersionStatistics(ResponseModel):
    """Statistics of a version since it came into service, in all workers together."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since 1970; 0 if there was none")
    inference_count: int = Field(description="rows of all requests")
    execution_count: int = Field(description="runs of the model")
    inference_stats: InferenceStatistics
    response_stats: dict[str, Any]
    batch_stats: list[BatchStatistics]
    memory_usage: list[MemoryUsage]
    dispatch: PlacementInfo | None = Field(
        description="where it runs in the worker that answers, as measured by its warm-up; null: in threads"
    )
    batching: BatchingInfo


class ModelStatistics(ResponseModel):
    """Statistics of served model versions."""

    model_stats: list[VersionStatistics]
