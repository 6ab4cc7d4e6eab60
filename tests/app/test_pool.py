import asyncio
import threading
import time

import pytest

from app.errors import Overloaded
from app.pool import Pool


def test_result_and_waiting_time() -> None:
    async def main() -> None:
        pool = Pool(workers=1, queue=4, queue_seconds=30)
        gate = threading.Event()
        first = asyncio.create_task(pool.run(gate.wait))
        second = asyncio.create_task(pool.run(threading.get_ident))
        await asyncio.sleep(0.05)
        gate.set()
        assert (await first)[0] is True
        ident, queue_us = await second
        assert ident != threading.get_ident()
        assert queue_us >= 40_000  # it waited for the first one
        pool.close()

    asyncio.run(main())


def test_what_does_not_fit_is_refused_at_once_and_a_place_is_free_again_afterwards() -> None:
    async def main() -> None:
        pool = Pool(workers=1, queue=1, queue_seconds=30)
        gate = threading.Event()
        tasks = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="too many predictions"):
            await pool.run(time.time)
        gate.set()
        await asyncio.gather(*tasks)
        await pool.run(time.time)
        pool.close()

    asyncio.run(main())


def test_waiting_is_bounded_and_what_waits_no_more_never_runs() -> None:
    async def main() -> None:
        pool = Pool(workers=1, queue=5, queue_seconds=0.05)
        gate, ran = threading.Event(), threading.Event()
        first = asyncio.create_task(pool.run(gate.wait))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=r"no thread was free for 0.05 s"):
            await pool.run(ran.set)
        gate.set()
        assert (await first)[0] is True  # what runs is not bounded by the time for waiting
        await pool.run(time.time)
        assert not ran.is_set()
        pool.close()

    asyncio.run(main())


def test_a_cancelled_request_gives_its_place_back_when_its_job_ends() -> None:
    async def main() -> None:
        pool = Pool(workers=1, queue=0, queue_seconds=30)
        gate = threading.Event()
        task = asyncio.create_task(pool.run(gate.wait))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Overloaded):
            await pool.run(time.time)  # the thread is still busy
        gate.set()
        for _ in range(500):
            await asyncio.sleep(0.01)
            try:
                await pool.run(time.time)
                break
            except Overloaded:
                continue
        else:
            pytest.fail("the place never came back")
        pool.close()

    asyncio.run(main())


def test_errors_reach_the_caller() -> None:
    async def main() -> None:
        pool = Pool(workers=1, queue=0, queue_seconds=30)
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 // 0)
        pool.close()

    asyncio.run(main())
