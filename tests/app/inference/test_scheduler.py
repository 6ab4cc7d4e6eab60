"""The scheduler with real models: limits, deadlines, cancellation, order, placement and memory."""

import asyncio
import gc
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from app.errors import InputsRefused, ModelError, Overloaded, TimedOut
from app.inference.batching import InferenceResult
from app.inference.engine import Engine
from app.inference.scheduler import Scheduler
from tests.app.graphs import classifier, forward, publish, weights
from tests.app.scheduling import LAYERS, Recorded, engine, rows, run, scheduler, until


def test_a_single_request_runs_at_once_in_a_thread(folder: Path) -> None:
    async def main() -> None:
        scheduled, one = scheduler(), engine(folder, "classifier")
        feeds = {"input": np.random.default_rng(0).random((5, 6)).astype(np.float32)}
        got = await scheduled.infer(one, feeds, ["logits"])
        np.testing.assert_allclose(got.outputs["logits"], forward(LAYERS, feeds["input"]), atol=1e-5)
        assert got.outputs.keys() == {"logits"}
        assert (got.batch_size, one.runs) == (5, [5])
        assert got.queue_ns >= 0
        assert got.compute_ns > 0
        assert one.ran_in[0] != threading.get_ident()
        scheduled.close()

    run(main)


def test_a_full_queue_refuses_requests_until_a_place_is_free(folder: Path) -> None:
    async def main() -> None:
        scheduled, one, other = scheduler(queue=2), engine(folder, "doubling"), engine(folder, "classifier")
        one.gate.clear()
        tasks = [asyncio.create_task(scheduled.infer(one, {"input": rows(1)}, ["twice"])) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(
            Overloaded, match=r"^got 3 waiting requests for this model, expected at most 2 \(KRON_QUEUE\)"
        ):
            await scheduled.infer(one, {"input": rows(1)}, ["twice"])
        another = asyncio.create_task(scheduled.infer(other, {"input": rows(1, 6)}, ["logits"]))  # a queue of its own
        tasks[2].cancel()
        await asyncio.sleep(0)
        tasks[2] = asyncio.create_task(scheduled.infer(one, {"input": rows(3)}, ["twice"]))
        await asyncio.sleep(0)
        one.gate.set()
        await asyncio.gather(*tasks, another)
        assert one.runs == [1, 4]
        scheduled.close()

    run(main)


def test_with_a_queue_of_zero_requests_run_only_in_idle_threads(folder: Path) -> None:
    async def main() -> None:
        scheduled, one = scheduler(instances=2, queue=0), engine(folder, "doubling")
        one.gate.clear()
        tasks = [asyncio.create_task(scheduled.infer(one, {"input": rows(1)}, ["twice"])) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await scheduled.infer(one, {"input": rows(1)}, ["twice"])
        one.gate.set()
        await asyncio.gather(*tasks)
        scheduled.close()

    run(main)


def test_a_request_that_times_out_in_the_queue_does_not_run(folder: Path) -> None:
    async def main() -> None:
        scheduled, one = scheduler(seconds=20.0), engine(folder, "doubling")
        one.gate.clear()
        running = asyncio.create_task(scheduled.infer(one, {"input": rows(1)}, ["twice"], timeout=99))
        await until(lambda: one.ran_in)
        for timeout, said in ((0.02, "0.02"), (-1.0, "0")):
            with pytest.raises(TimedOut, match=rf"no answer within {said} s \(KRON_PREDICT_SECONDS\)"):
                await scheduled.infer(one, {"input": rows(2)}, ["twice"], timeout=timeout)
        assert scheduled.waiting(one) == 0
        one.gate.set()
        assert (await running).batch_size == 1
        assert one.runs == [1]
        scheduled.close()

    run(main)


def test_a_run_that_times_out_frees_its_thread_when_it_ends(folder: Path) -> None:
    async def main() -> None:
        scheduled, one = scheduler(), engine(folder, "doubling")
        one.gate.clear()
        with pytest.raises(TimedOut):
            await scheduled.infer(one, {"input": rows(1)}, ["twice"], timeout=0.05)
        one.gate.set()
        await until(lambda: one.runs)
        assert (await scheduled.infer(one, {"input": rows(2)}, ["twice"])).batch_size == 2
        scheduled.close()

    run(main)


def test_a_cancelled_request_does_not_run(folder: Path) -> None:
    async def main() -> None:
        changes: list[int] = []
        scheduled, one = scheduler(on_queue=lambda _, requests: changes.append(requests)), engine(folder, "doubling")
        one.gate.clear()
        tasks = [asyncio.create_task(scheduled.infer(one, {"input": rows(n)}, ["twice"])) for n in (1, 2, 4, 8)]
        await until(lambda: one.ran_in)
        tasks[0].cancel()  # it is running: the run finishes, its result is dropped
        tasks[2].cancel()
        await asyncio.sleep(0)
        assert scheduled.waiting(one) == sum(changes) == 2
        one.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert scheduled.waiting(one) == sum(changes) == 0
        assert [type(answer) for answer in answers] == [asyncio.CancelledError, InferenceResult] * 2
        assert one.runs == [1, 10]
        scheduled.close()

    run(main)


def test_models_run_round_robin(folder: Path) -> None:
    async def main() -> None:
        scheduled, busy, rare = scheduler(max_batch=1), engine(folder, "doubling"), engine(folder, "classifier")
        busy.gate.clear()
        done: list[str] = []

        async def ask(name: str, one: Recorded, columns: int, output: str) -> None:
            await scheduled.infer(one, {"input": rows(1, columns)}, [output])
            done.append(name)

        tasks = [asyncio.create_task(ask("busy", busy, 4, "twice")) for _ in range(10)]
        tasks.append(asyncio.create_task(ask("rare", rare, 6, "logits")))
        await until(lambda: busy.ran_in)
        busy.gate.set()
        await asyncio.gather(*tasks)
        assert done.index("rare") <= 2
        scheduled.close()

    run(main)


def test_hundreds_of_concurrent_requests_to_two_models_some_with_errors(folder: Path) -> None:
    async def main() -> None:
        scheduled = scheduler(instances=2, queue=1000, max_batch=16)
        one, lookup = engine(folder, "classifier"), engine(folder, "lookup")
        rng = np.random.default_rng(5)

        async def ask(index: int) -> None:
            await asyncio.sleep(rng.random() / 50)
            if index % 3:
                part = rng.random((1 + index % 7, 6)).astype(np.float32)
                got = await scheduled.infer(one, {"input": part}, ["logits"])
                np.testing.assert_allclose(got.outputs["logits"], forward(LAYERS, part), atol=1e-5)
            elif index % 5:
                got = await scheduled.infer(lookup, {"input": np.full((2, 1), index % 5, np.float32)}, ["out"])
                np.testing.assert_array_equal(got.outputs["out"], np.full((2, 1), index % 5))
            else:
                with pytest.raises(ModelError):
                    await scheduled.infer(lookup, {"input": np.full((1, 1), 99, np.float32)}, ["out"])

        await asyncio.gather(*[ask(index) for index in range(400)])
        assert scheduled.waiting(one) == scheduled.waiting(lookup) == 0
        scheduled.close()

    run(main)


@pytest.mark.alone
def test_requests_run_where_the_warm_up_measured_them_to_be_faster(folder: Path, tmp_path: Path) -> None:
    large = Recorded(publish(tmp_path, "large", classifier(weights([6, 3000, 3000, 3]))))

    async def main() -> None:
        scheduled, tiny = scheduler(), engine(folder, "doubling")
        assert scheduled.placement(tiny) is None
        found = await scheduled.warm_up(tiny)
        assert scheduled.placement(tiny) == found
        assert found.run_us > 0
        assert (found.max_inline_rows > 0) == (found.run_us <= found.threaded_us)
        for count in (1, found.max_inline_rows, found.max_inline_rows + 1):
            await scheduled.infer(tiny, {"input": rows(count)}, ["twice"])
            assert (tiny.ran_in[-1] == threading.get_ident()) == (count <= found.max_inline_rows)
        assert (await scheduled.warm_up(large)).max_inline_rows == 0
        scheduled.close()

    run(main)


def test_close_refuses_new_and_waiting_requests(folder: Path) -> None:
    async def main() -> None:
        scheduled, one = scheduler(), engine(folder, "doubling")
        one.gate.clear()
        tasks = [asyncio.create_task(scheduled.infer(one, {"input": rows(n)}, ["twice"])) for n in (1, 2)]
        await until(lambda: one.ran_in)
        scheduled.close()
        one.gate.set()
        first, second = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(first, InferenceResult)
        assert isinstance(second, Overloaded)
        with pytest.raises(Overloaded, match="shutting down"):
            await scheduled.infer(one, {"input": rows(1)}, ["twice"])
        assert one.runs == [1]

    run(main)


def test_the_queue_of_a_freed_model_is_freed(folder: Path) -> None:
    async def main() -> None:
        scheduled, one = scheduler(), engine(folder, "doubling")
        await scheduled.infer(one, {"input": rows(1)}, ["twice"])
        assert len(scheduled._queues) == 1
        del one
        await until(lambda: not scheduled._queues)
        scheduled.close()

    run(main)


@pytest.mark.parametrize("max_inline_rows", [0, 8])
def test_a_failed_request_keeps_no_reference_to_its_model(folder: Path, max_inline_rows: int) -> None:
    """The garbage collector is off: a reference cycle would delay the unload of a model until it runs."""

    async def fail(scheduled: Scheduler, one: Engine, count: int) -> None:
        bad = [scheduled.infer(one, {"input": rows(2, 1, start=100)}, ["out"]) for _ in range(count)]
        for answer in await asyncio.gather(*bad, return_exceptions=True):
            assert isinstance(answer, InputsRefused)

    async def main() -> None:
        scheduled, one = scheduler(), engine(folder, "lookup")
        queue = scheduled._queue_of(one)
        queue.max_inline_rows = max_inline_rows
        before = sys.getrefcount(one)
        for count in (1, 3):
            await fail(scheduled, one, count)
            await until(lambda: sys.getrefcount(one) == before)
        scheduled.close()

    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()
