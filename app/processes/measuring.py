"""Children that answer with one result, and the errors that clients understand."""

from collections.abc import Callable, Mapping
from typing import Any

from app.errors import BadRequest, ComparisonError
from app.processes.parent import ChildError, run_child

OnMessage = Callable[[dict[str, Any]], None]


async def measured(
    module: str, job: Mapping[str, object], on_message: OnMessage = lambda message: None
) -> dict[str, Any]:
    """The result of one measuring process; what else it sends goes to `on_message`.

    Raises:
        ComparisonError: it failed.
        BadRequest: it refused the job.
    """
    try:
        return await answered(module, job, on_message)
    except ChildError as error:
        raise ComparisonError(f"a measuring process failed: {error}") from None


async def answered(
    module: str,
    job: Mapping[str, object],
    on_message: OnMessage = lambda message: None,
    *,
    max_memory_bytes: int | None = None,
) -> dict[str, Any]:
    """The result of one child; what else it sends goes to `on_message`.

    Raises:
        ChildError: it failed.
        BadRequest: it refused the job.
    """
    answers: list[dict[str, Any]] = []

    def receive(message: dict[str, Any]) -> None:
        if "result" in message or "refused" in message:
            answers.append(message)
        else:
            on_message(message)

    await run_child(module, job, receive, max_memory_bytes=max_memory_bytes)
    if len(answers) != 1:
        raise ChildError("it ended without a result")
    if "refused" in answers[0]:
        raise BadRequest(answers[0]["refused"])
    result: dict[str, Any] = answers[0]["result"]
    return result
