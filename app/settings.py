"""Settings of the service: one immutable object, read from options and environment once, when a command starts."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.errors import StartupError
from app.parsing import explain
from app.system.cpus import available_cpus, threads_per_run
from app.system.net import read_network

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
VERSIONS_PATTERN = r"^(all|latest:[1-9][0-9]{0,2}|specific:[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*)$"
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,255}$")]
Origin = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]{1,255}$")]


def _check_device(device: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", device) is None:
        raise ValueError("auto, cpu, cuda or cuda:N")
    return device


Device = Annotated[str, AfterValidator(_check_device)]
ModelName = Annotated[str, Field(pattern=NAME_PATTERN)]


class Settings(BaseModel):
    """Settings of the service; each field is also the variable `KRON_<FIELD>` and the option `--<field>`."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    models: Path = Field(
        default=Path("models"), description="model repository: a folder with <name>/<version>/model.onnx"
    )
    host: str = Field(default="127.0.0.1", min_length=1, max_length=255, description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free port")
    device: Device = Field(
        default="auto",
        description="auto, cpu, cuda or cuda:N; auto takes a GPU if onnxruntime can use one, otherwise the CPU",
    )
    model_devices: Mapping[ModelName, Device] = Field(
        default={}, max_length=1000, description="devices of individual models: NAME=DEVICE, separated by commas"
    )
    workers: int = Field(default=1, ge=1, le=64, description="worker processes, which share the port")
    threads: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="threads of one run; default: CPUs / workers / instances, which is 1 unless --instances is set",
    )
    instances: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="concurrent runs in one worker, of all models together; default: CPUs / workers",
    )
    queue: int = Field(default=512, ge=0, le=10_000, description="most requests that wait for one model")
    predict_seconds: float = Field(
        default=10, gt=0, le=600, description="longest time of a prediction, waiting and running together"
    )
    max_requests: int = Field(
        default=2048, ge=1, le=100_000, description="most concurrent requests of all kinds in one worker"
    )
    client_requests: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="most concurrent requests of one client (API key or address); default: not limited",
    )
    keys: Path | None = Field(
        default=None,
        description="file of API keys, `name role sha256:<hex>`, read again when changed; default: none needed",
    )
    generate_key: Path | None = Field(
        default=None,
        description="key file that is created with one admin key, which is printed once, "
        "where neither --keys nor --insecure-no-keys is given",
    )
    insecure_no_keys: bool = Field(
        default=False, description="allow other addresses than the loopback without API keys"
    )
    allowed_hosts: tuple[HostName, ...] = Field(
        default=(),
        max_length=100,
        description="host names besides localhost that a service without API keys answers to, separated by commas",
    )
    cors_origins: tuple[Origin, ...] = Field(
        default=(),
        max_length=100,
        description="origins of other sites' pages that may call this service, separated by commas",
    )
    twin: str | None = Field(
        default=None,
        pattern=NAME_PATTERN,
        description="twin that answers requests that name no model; default: mnist, or the first one by name",
    )
    max_batch: int = Field(default=1024, ge=1, le=1_000_000, description="most rows in one request")
    max_body_bytes: int = Field(default=16 * 2**20, ge=1024, le=2**31, description="largest request body")
    max_inflation: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="most bytes that each byte of a compressed request body may inflate to, beyond 8 MiB in all",
    )
    body_seconds: float = Field(default=30, gt=0, le=600, description="longest wait for a request body")
    head_seconds: float = Field(default=10, gt=0, le=600, description="longest wait for the headers of a request")
    max_head_bytes: int = Field(
        default=32 * 1024, ge=1024, le=2**20, description="largest request line and headers together"
    )
    keep_alive_seconds: float = Field(
        default=5, gt=0, le=3600, description="longest wait for the next request on a connection"
    )
    send_seconds: float = Field(
        default=30, gt=0, le=3600, description="longest wait for a client to read more of its answer"
    )
    http: Literal["fast", "standard"] = Field(
        default="fast",
        description="fast: with limits on connections; standard: plain uvicorn, for use behind a reverse proxy",
    )
    max_connections: int = Field(
        default=2048, ge=1, le=100_000, description="most concurrent connections in one worker"
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(),
        max_length=100,
        description="addresses and networks of proxies whose X-Forwarded-For is trusted, separated by commas",
    )
    version_policy: str = Field(
        default="latest:1",
        pattern=VERSIONS_PATTERN,
        description="versions of each model to serve: latest:N, specific:N,N,... or all",
    )
    max_models: int = Field(default=64, ge=1, le=1000, description="most models in the repository")
    max_model_bytes: int = Field(
        default=2**33, ge=1024, le=2**36, description="largest model: its ONNX file and those of its weights together"
    )
    max_download_bytes: int = Field(
        default=8_000_000,
        ge=0,
        le=2**31,
        description="largest ONNX file that callers may download, so that the page computes answers itself; 0: none",
    )
    load_seconds: float = Field(
        default=120, gt=0, le=3600, description="longest time to verify all model files together"
    )
    trial_seconds: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="longest smoke test of one model file in its sandbox: reading, loading and first run",
    )
    trial_bytes: int = Field(
        default=4 * 2**30,
        ge=2**26,
        le=2**44,
        description="most memory of the smoke test of one model file, in addition to 6 times the file's size",
    )
    compare_seconds: float = Field(default=60, gt=0, le=3600, description="longest time of a comparison")
    sweep_seconds: float = Field(default=900, gt=0, le=86_400, description="longest time of a sweep")
    train_seconds: float = Field(default=3600, gt=0, le=604_800, description="longest time of a training")
    train_memory_bytes: int = Field(
        default=4 * 2**30, ge=2**20, le=2**44, description="most resident memory of a training; on Linux"
    )
    reports: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="file to keep reports in, or :memory:, or off; default: .reports.sqlite3 in the model repository",
    )
    max_reports: int = Field(
        default=200, ge=1, le=10_000, description="most reports that are kept; the oldest are deleted"
    )
    shadow: str | None = Field(
        default=None,
        pattern=rf"{NAME_PATTERN[:-1]}={NAME_PATTERN[1:]}",
        description="A=B: score requests that model A answers on model B, too, without delaying the answers",
    )
    shadow_share: float = Field(
        default=0.1, gt=0, le=1, description="fraction of the requests that are scored on the shadow model"
    )
    drain_seconds: float = Field(
        default=1,
        ge=0,
        le=600,
        description="time from SIGTERM, which ends readiness, until new connections are refused",
    )
    grace_seconds: float = Field(
        default=30,
        gt=0,
        le=600,
        description="longest wait for accepted requests to end, once new connections are refused",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="lowest level that is logged"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="text, or one JSON object per line")
    traces: bool = Field(
        default=False, description="send OpenTelemetry traces to `$OTEL_EXPORTER_OTLP_ENDPOINT`; needs the extra `otel`"
    )
    access_log: bool = Field(default=False, description="log each request")

    @property
    def instances_used(self) -> int:
        """Concurrent runs of one worker: `instances`, or its default."""
        return self.instances or max(1, available_cpus() // self.workers)

    @property
    def threads_used(self) -> int:
        """Threads of one run: `threads`, or its default."""
        return self.threads or threads_per_run(self.workers * self.instances_used)

    def device_of(self, name: str) -> str:
        """Device to run a model on, by the model's name."""
        return self.model_devices.get(name, self.device)

    @property
    def devices(self) -> set[str]:
        """All devices that models may run on."""
        return {self.device, *self.model_devices.values()}

    def choose_versions(self, versions: Sequence[str]) -> list[str]:
        """Select the versions that `version_policy` serves, in the order given, which is newest first."""
        kind, _, argument = self.version_policy.partition(":")
        if kind == "latest":
            return list(versions[: int(argument)])
        selected = set(argument.split(","))
        return [version for version in versions if kind == "all" or version in selected]

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                read_network(text)
            except ValueError as error:
                raise ValueError(f"addresses or networks such as 10.0.0.0/8: {error}") from None
        return value

    @field_validator("allowed_hosts", "cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("model_devices", mode="before")
    @classmethod
    def _split_pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=")[::2] for part in value.split(",") if part.strip()]
        return {name.strip(): device.strip() for name, device in pairs}

    @field_validator(
        "threads", "instances", "client_requests", "keys", "generate_key", "twin", "reports", "shadow", mode="before"
    )
    @classmethod
    def _empty_means_default(cls, value: object) -> object:
        return None if value == "" else value

    @classmethod
    def read(cls, environ: Mapping[str, str], options: Mapping[str, str] | None = None) -> Self:
        """Read settings from `KRON_...` variables and from command-line options, which take precedence.

        Args:
            environ: the environment.
            options: values by field name.

        Raises:
            StartupError: a value is invalid; the message names the option or variable that it came from.
        """
        options = options or {}
        found = {
            field: environ[f"KRON_{field.upper()}"] for field in cls.model_fields if f"KRON_{field.upper()}" in environ
        }
        try:
            return cls.model_validate(found | dict(options))
        except ValidationError as error:
            field = str(error.errors()[0]["loc"][0])
            source = option(field) if field in options else f"KRON_{field.upper()}"
            raise StartupError(f"{source}: {explain(error)}") from None


def option(field: str) -> str:
    """Command-line option of a field."""
    return "--" + field.replace("_", "-")
