"""Work in a thread: in order, one at a time, with limits of number and time."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from app.errors import BadRequest, Overloaded, TimedOut
from app.system.serial_thread import SerialThread


@pytest.fixture
def thread() -> Iterator[SerialThread]:
    made = SerialThread("test", most=3, seconds=60)
    yield made
    made.close()


def _fail() -> None:
    raise BadRequest("wrong")


def test_work_is_done_in_order_and_alone(thread: SerialThread) -> None:
    async def check() -> None:
        running = threading.Lock()
        order: list[int] = []

        def work(index: int) -> int:
            assert running.acquire(blocking=False)
            order.append(index)
            running.release()
            return -index

        assert await asyncio.gather(*[thread.run(work, index) for index in range(3)]) == [0, -1, -2]
        assert order == [0, 1, 2]
        with pytest.raises(BadRequest, match="wrong"):
            await thread.run(_fail)

    asyncio.run(check())


def test_too_much_work_is_refused_until_some_has_ended(thread: SerialThread) -> None:
    async def check() -> None:
        go = threading.Event()
        tasks = [asyncio.create_task(thread.run(go.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="got 4 long requests at the same time, expected at most 3"):
            await thread.run(go.wait)
        go.set()
        assert await asyncio.gather(*tasks) == [True] * 3
        assert await thread.run(go.wait)

    asyncio.run(check())


def test_a_wait_ends_in_time_and_waiting_work_is_dropped() -> None:
    async def check() -> None:
        thread = SerialThread("test", most=3, seconds=0.05)
        go, begun, done = threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            go.wait()

        running = asyncio.create_task(thread.run(work))
        await asyncio.to_thread(begun.wait)
        with pytest.raises(TimedOut, match=r"no answer within 0.05 s \(KRON_PREDICT_SECONDS\)"):
            await thread.run(done.set)
        with pytest.raises(TimedOut):
            await running
        cancelled = asyncio.create_task(thread.run(done.set))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        go.set()
        await asyncio.to_thread(thread._executor.submit(int).result)  # comes after all others
        assert not done.is_set()
        thread.close()

    asyncio.run(check())


def test_closing_refuses_new_and_waiting_work() -> None:
    async def check() -> None:
        thread = SerialThread("test", most=3, seconds=60)
        go, begun = threading.Event(), threading.Event()

        def work() -> str:
            begun.set()
            go.wait()
            return "done"

        running = asyncio.create_task(thread.run(work))
        await asyncio.to_thread(begun.wait)
        waiting = asyncio.create_task(thread.run(work))
        await asyncio.sleep(0)
        thread.close()
        with pytest.raises(Overloaded, match="shutting down"):
            await waiting
        with pytest.raises(Overloaded, match="shutting down"):
            await thread.run(work)
        go.set()
        assert await running == "done"

    asyncio.run(check())
