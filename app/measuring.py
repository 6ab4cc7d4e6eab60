"""Jobs for measuring processes, with the errors that clients understand."""

from collections.abc import Callable, Mapping
from typing import Any

from app.children import ChildError, run_child
from app.errors import BadRequest, ComparisonError


async def measured(
    module: str, job: Mapping[str, object], on_message: Callable[[dict[str, Any]], None] = lambda message: None
) -> dict[str, Any]:
    """The result of one measuring process; what else it sends goes to `on_message`.

    Raises:
        ComparisonError: it failed.
        BadRequest: it refused the job.
    """
    answers: list[dict[str, Any]] = []

    def receive(message: dict[str, Any]) -> None:
        if "result" in message or "refused" in message:
            answers.append(message)
        else:
            on_message(message)

    try:
        await run_child(module, job, receive)
    except ChildError as error:
        raise ComparisonError(f"a measuring process failed: {error}") from None
    if len(answers) != 1:
        raise ComparisonError("a measuring process ended without a result")
    if "refused" in answers[0]:
        raise BadRequest(answers[0]["refused"])
    result: dict[str, Any] = answers[0]["result"]
    return result
