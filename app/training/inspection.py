"""Description of an uploaded data file by `kronmodel data`, before a training: what each column would become."""

import asyncio
import re
from pathlib import Path
from typing import Any

from app.errors import BadRequest, TimedOut
from app.measure.comparison_schemas import NICENESS
from app.processes.parent import ChildError, MemoryLimitExceeded, run_child_for_result
from app.settings import Settings
from app.system.aio import run_in_thread_to_completion
from app.training import child
from app.training.folder import TrainingFolder
from app.training.schemas import ColumnKinds, DataDescription
from app.training.uploaded import UploadedData

INSPECTION_SECONDS = 30.0
ERROR_PREFIX = "kronmodel: error: "
_OPTION = re.compile(r"(?<!\S)--[a-z]+(-[a-z]+)*")


class DataInspector:
    """Describes uploaded files, one at a time, each in a child process.

    Args:
        settings: the settings of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()

    async def describe(self, request: ColumnKinds, uploaded: UploadedData) -> DataDescription:
        """Describe a file, or the first part of a text file.

        Raises:
            BadRequest: the file cannot be read, or the kinds of columns do not fit it.
            TimedOut: reading took too long, or others were read meanwhile.
            TrainingError: the file cannot be kept meanwhile.
        """
        table = uploaded.is_table
        try:
            async with asyncio.timeout(INSPECTION_SECONDS), self._lock:
                described = await self._run(request, uploaded)
        except TimeoutError:
            raise TimedOut(f"data: not read within {INSPECTION_SECONDS:.0f} s; a smaller part tells as much") from None
        return DataDescription.model_validate(described) if table else _of_arrays(described)

    async def _run(self, request: ColumnKinds, uploaded: UploadedData) -> dict[str, Any]:
        folder = TrainingFolder(self._settings.models)
        most = self._settings.train_memory_bytes
        try:
            await run_in_thread_to_completion(folder.make)
            path = await run_in_thread_to_completion(uploaded.save, folder.path)
            job = {
                "arguments": ["data", str(path.absolute()), "--json", *request.arguments()],
                "folder": str(folder.path),
                "niceness": NICENESS,
            }
            return await run_child_for_result(child.__name__, job, max_memory_bytes=most)
        except MemoryLimitExceeded:
            text = f"data: reading it takes more than {most} bytes of memory (KRON_TRAIN_MEMORY_BYTES)"
            raise BadRequest(text) from None
        except ChildError as error:
            raise BadRequest(f"data: {reason_of(error, folder.path.absolute())}") from None
        finally:
            await run_in_thread_to_completion(folder.remove, None)


def reason_of(error: ChildError, folder: Path) -> str:
    """Why `kronmodel` failed, with fields of requests in place of its options, and without the temporary folder."""
    reason = str(error).removeprefix(ERROR_PREFIX).replace(f"{folder}/", "")
    return _OPTION.sub(lambda found: found[0].removeprefix("--").replace("-", "_"), reason)


def _of_arrays(described: dict[str, Any]) -> DataDescription:
    return DataDescription(
        rows=described["train_samples"] + described["test_samples"],
        task=described["task"],
        features=described["features"],
        image=described.get("image_shape"),
        outputs=described.get("outputs") or len(described["labels"]),
    )
