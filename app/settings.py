"""Every option of the service: one frozen object, read from the environment once, at the edge."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.cpus import available_cpus, threads_each
from app.errors import StartupError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
Device = Literal["auto", "cpu", "cuda"]


class Settings(BaseModel):
    """What the service is told; each field is also `KRON_<FIELD>` and, at the command line, `--<field>`.

    Raises:
        StartupError: from `read`, one line that names the option, what was got and what was expected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    models: Path = Field(default=Path("models"), description="folder of models, <name>/<version>/model.onnx")
    host: str = Field(default="127.0.0.1", min_length=1, max_length=255, description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    device: Device = Field(default="auto", description="auto, cpu or cuda; auto takes a GPU where onnxruntime has one")
    threads: int | None = Field(
        default=None, ge=1, le=256, description="threads of one prediction; default: CPUs / workers, so 1"
    )
    workers: int | None = Field(
        default=None, ge=1, le=64, description="predictions computed at the same time; default: as many as CPUs"
    )
    queue: int = Field(default=64, ge=0, le=10_000, description="predictions that may wait for a worker")
    queue_seconds: float = Field(default=10, gt=0, le=600, description="longest wait for a worker")
    twin: str | None = Field(default=None, pattern=NAME_PATTERN, description="the twin that answers by default")
    max_batch: int = Field(default=1024, ge=1, le=1_000_000, description="most rows in one request")
    max_body_bytes: int = Field(default=16 * 2**20, ge=1024, le=2**31, description="longest request body")
    body_seconds: float = Field(default=30, gt=0, le=600, description="longest wait for a request body")
    max_models: int = Field(default=64, ge=1, le=1000, description="most models in the folder")
    max_model_bytes: int = Field(default=2**31, ge=1024, le=2**36, description="largest model file")
    load_seconds: float = Field(default=120, gt=0, le=3600, description="longest reading of the model files")
    compare_seconds: float = Field(default=60, gt=0, le=3600, description="longest comparison")
    sweep_seconds: float = Field(default=900, gt=0, le=86_400, description="longest sweep")
    reports: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="file that keeps reports, :memory: or off; default: .reports.sqlite3 in the folder of models",
    )
    max_reports: int = Field(default=200, ge=1, le=10_000, description="most reports kept; the oldest go")
    shadow: str | None = Field(
        default=None,
        pattern=rf"{NAME_PATTERN[:-1]}={NAME_PATTERN[1:]}",
        description="A=B: what model A answers is scored on model B too, off the request's path",
    )
    shadow_share: float = Field(default=0.1, gt=0, le=1, description="share of the requests scored on the shadow")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="what is logged")

    @property
    def workers_used(self) -> int:
        """Predictions computed at the same time."""
        return self.workers or available_cpus()

    @property
    def threads_used(self) -> int:
        """Threads of one prediction."""
        return self.threads or threads_each(self.workers_used)

    @field_validator("threads", "workers", "twin", "reports", "shadow", mode="before")
    @classmethod
    def _empty_is_default(cls, value: object) -> object:
        return None if value == "" else value

    @classmethod
    def read(cls, environ: Mapping[str, str], options: Mapping[str, str] | None = None) -> Self:
        """Settings from `KRON_...` variables, overridden by command-line options (by field name)."""
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
    """The command-line spelling of a field."""
    return "--" + field.replace("_", "-")


def explain(error: ValidationError) -> str:
    """The first problem of a failed validation as `got ..., expected ...`."""
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        return "not a known field"
    if first["type"] == "missing":
        return "missing"
    got = repr(first["input"])
    got = got if len(got) <= 80 else got[:77] + "..."
    message = first["msg"]
    for prefix in ("Input should be ", "Value error, "):
        message = message.removeprefix(prefix)
    return f"got {got}, expected {message}"
