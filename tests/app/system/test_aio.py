"""Work that runs to completion, although its caller is cancelled."""

import asyncio
import threading

import pytest

from app.system.aio import run_in_thread_to_completion, run_to_completion


def test_the_result_is_returned_and_errors_are_raised() -> None:
    async def scenario() -> None:
        assert await run_to_completion(asyncio.sleep(0, "result")) == "result"
        assert await run_in_thread_to_completion(int, "12") == 12
        with pytest.raises(ValueError, match="invalid literal"):
            await run_in_thread_to_completion(int, "twelve")

    asyncio.run(scenario())


def test_a_caller_that_is_cancelled_twice_still_waits_for_the_end() -> None:
    async def scenario() -> None:
        release, ended = threading.Event(), []

        def work() -> None:
            release.wait(30)
            ended.append(True)

        caller = asyncio.create_task(run_in_thread_to_completion(work))
        for _ in range(2):
            await asyncio.sleep(0.05)
            caller.cancel()
        await asyncio.sleep(0.05)
        assert not caller.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert ended

    asyncio.run(scenario())
