"""Comparison of kronmodel's native code with onnxruntime on the same models; for the command line only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.measure.children import inputs as inputs_child
from app.measure.comparison import (
    LIMIT_FRACTION,
    SEED,
    OnProgress,
    model_job,
    seconds_per_cell,
    temporary_folder,
)
from app.measure.comparison_schemas import NICENESS, CompareRequest
from app.measure.inputs.uploaded import UploadedInputs
from app.measure.timing import SERIES
from app.models.scan import Artifact
from app.processes.parent import run_measuring_process
from app.settings import Settings

NATIVE_CHILD = "app.measure.children.native"  # not imported: it is the only module that loads kronmodel


async def compare_native(
    artifacts: Sequence[Artifact],
    request: CompareRequest,
    settings: Settings,
    progress: OnProgress,
    *,
    uploaded: UploadedInputs | None,
    libraries: Sequence[Path] = (),
) -> dict[str, Any]:
    """Time models in native code and in onnxruntime, in turns, on one thread.

    Args:
        artifacts: the models, as for `comparison.compare`.
        request: as for `comparison.compare`.
        settings: as for `comparison.compare`.
        progress: as for `comparison.compare`.
        uploaded: as for `comparison.compare`.
        libraries: C code of some of the models, compiled by `kronmodel export --to c --shared`.

    Returns:
        What `app.measure.children.native.measure` returns.

    Raises:
        ComparisonError: a measuring process failed.
        BadRequest: native code cannot be used on this machine, or for none of the models.
    """
    async with temporary_folder() as folder:
        job: dict[str, Any] = {
            "device": "cpu", "threads": 1, "batch_sizes": request.batch_sizes, "seed": SEED, "niceness": NICENESS,
            "seconds_per_cell": seconds_per_cell(artifacts, request, settings),
            "max_seconds": LIMIT_FRACTION * settings.compare_seconds,
            "uploaded": None, "inputs": str(folder / "inputs"),
            "models": [model_job(each) | {"sha256": each.sha256} for each in artifacts],
            "libraries": [str(path.absolute()) for path in libraries],
        }  # fmt: skip
        if uploaded is not None:
            uploaded.save(folder / "uploaded.npz")
            job["uploaded"] = {"name": uploaded.name, "path": str(folder / "uploaded.npz")}
        found = await run_measuring_process(inputs_child.__name__, job)
        job["batch_sizes"] = found["batch_sizes"]
        total, done = SERIES * len(found["batch_sizes"]), 0

        def advance(message: dict[str, Any]) -> None:
            nonlocal done
            progress(f"native code, {message['progress']}", min(done, total - 1), total)
            done += 1

        return await run_measuring_process(NATIVE_CHILD, job, advance)
