"""The scheduler with real models: batches, limits, deadlines, and each request's own rows."""

import asyncio
import gc
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from app.errors import InputsRefused, ModelError, Overloaded, TimedOut
from app.inference.batching import InferenceResult, batch_key
from app.inference.datatypes import Array
from app.inference.engine import Engine
from app.inference.scheduler import Scheduler
from tests.app.graphs import classifier, forward, model, publish, weights

LAYERS = weights([6, 8, 3])


class Recorded(Engine):
    """An engine that records the rows and the thread of each run, and runs only while its gate is open."""

    def __init__(self, path: Path) -> None:
        self.runs: list[int] = []
        self.ran_in: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(path, device="cpu", threads=1)

    def run(self, feeds: Any, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        self.ran_in.append(threading.get_ident())
        self.gate.wait(30)
        self.runs.append(len(next(iter(feeds.values()))))
        return super().run(feeds, outputs)


def doubling() -> Any:
    """A model with two outputs: the input times two and times three."""
    nodes = [helper.make_node("Mul", ["input", f"{name}_by"], [name]) for name in ("twice", "thrice")]
    tensors = [
        numpy_helper.from_array(np.array(by, np.float32), f"{name}_by") for name, by in (("twice", 2), ("thrice", 3))
    ]
    specs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("input", "twice", "thrice")
    ]
    return model(nodes, specs[0], specs[1:], tensors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scheduled")
    publish(folder, "doubling", doubling())
    publish(folder, "classifier", classifier(LAYERS))
    publish(folder, "fixed", classifier(LAYERS, batch=2))
    table = numpy_helper.from_array(np.arange(5, dtype=np.float32), "table")
    nodes = [
        helper.make_node("Cast", ["input"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["out"]),
    ]
    specs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in ("input", "out")]
    publish(folder, "lookup", model(nodes, specs[0], [specs[1]], [table]))
    return folder


def engine(folder: Path, name: str) -> Recorded:
    return Recorded(folder / name / "1" / "model.onnx")


def scheduler(**options: Any) -> Scheduler:
    return Scheduler(**{"instances": 1, "queue": 100, "max_batch": 64, "seconds": 30.0} | options)


def run(main: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(main())  # type: ignore[arg-type]


def rows(count: int, columns: int = 4, start: int = 0) -> Array:
    return (np.arange(count * columns, dtype=np.float32) + start).reshape(count, columns)


async def until(condition: Callable[[], object]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it did not happen in time")


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


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["twice", "thrice"])), min_size=1, max_size=12),
    max_batch=st.integers(1, 20),
    instances=st.integers(1, 3),
)
def test_each_request_gets_exactly_its_own_rows(
    folder: Path, sizes: list[tuple[int, str]], max_batch: int, instances: int
) -> None:
    async def main() -> None:
        scheduled, one = scheduler(instances=instances, max_batch=max_batch), engine(folder, "doubling")
        one.gate.clear()
        held = [asyncio.create_task(scheduled.infer(one, {"input": rows(1)}, ["twice"])) for _ in range(instances)]
        await until(lambda: len(one.ran_in) == instances)
        inputs = [rows(count, start=1000 * index) for index, (count, _) in enumerate(sizes)]
        tasks = [
            asyncio.create_task(scheduled.infer(one, {"input": part}, [output]))
            for part, (_, output) in zip(inputs, sizes, strict=True)
        ]
        await asyncio.sleep(0)
        one.gate.set()
        for part, (count, output), got in zip(inputs, sizes, await asyncio.gather(*tasks), strict=True):
            assert got.outputs.keys() == {output}
            np.testing.assert_array_equal(got.outputs[output], part * {"twice": 2, "thrice": 3}[output])
            assert count <= got.batch_size <= max(count, max_batch)
        await asyncio.gather(*held)
        assert sum(one.runs) == instances + sum(count for count, _ in sizes)
        if (
            instances == 1
            and len({output for _, output in sizes}) == 1
            and sum(count for count, _ in sizes) < max_batch
        ):
            assert len(one.runs) == 2  # all waiting requests ran as one batch
        scheduled.close()

    run(main)


def test_only_requests_for_equal_outputs_are_batched_in_order_of_arrival(folder: Path) -> None:
    async def main() -> None:
        scheduled, one = scheduler(), engine(folder, "doubling")
        one.gate.clear()
        held = asyncio.create_task(scheduled.infer(one, {"input": rows(1)}, ["twice"]))
        await until(lambda: one.ran_in)
        wanted = [(2, ["twice"]), (3, ["thrice"]), (1, ["twice", "thrice"]), (4, ["twice"]), (1, ["thrice"])]
        tasks = [
            asyncio.create_task(scheduled.infer(one, {"input": rows(count)}, outputs)) for count, outputs in wanted
        ]
        await asyncio.sleep(0)
        assert scheduled.waiting(one) == 5
        one.gate.set()
        answers = await asyncio.gather(*tasks)
        assert [answer.batch_size for answer in answers] == [6, 4, 1, 6, 4]
        assert one.runs == [1, 6, 4, 1]
        await held
        scheduled.close()

    run(main)


def test_batch_key_differs_for_other_shapes_dtypes_and_outputs() -> None:
    feeds: dict[str, Array] = {"b": np.zeros((2, 3), np.float32), "a": np.zeros((2, 5), np.int64)}
    same: dict[str, Array] = {"a": np.ones((7, 5), np.int64), "b": np.ones((7, 3), np.float32)}
    key = batch_key(feeds, ["out"])
    assert key is not None
    assert batch_key(same, ("out",)) == key
    others: list[dict[str, Array]] = [
        {"a": np.zeros((2, 6), np.int64)},
        {"a": np.zeros((2, 5), np.int32)},
        {"a": np.zeros((2, 5, 1), np.int64)},
    ]
    for other in others:
        assert batch_key(feeds | other, ["out"]) != key
    assert batch_key(feeds, ["out", "more"]) != key
    assert batch_key(feeds | {"a": np.zeros((3, 5), np.int64)}, ["out"]) is None
    assert batch_key({"a": np.zeros(()), "b": np.zeros((1, 2))}, ["out"]) is None


def test_requests_to_a_model_with_a_fixed_batch_are_not_batched(folder: Path) -> None:
    async def main() -> None:
        scheduled, fixed = scheduler(), engine(folder, "fixed")
        assert not fixed.batchable
        fixed.gate.clear()
        feeds = [{"input": rows(2, 6, start)} for start in range(4)]
        tasks = [asyncio.create_task(scheduled.infer(fixed, feed, ["logits"])) for feed in feeds]
        await until(lambda: fixed.ran_in)
        fixed.gate.set()
        for feed, got in zip(feeds, await asyncio.gather(*tasks), strict=True):
            np.testing.assert_allclose(got.outputs["logits"], forward(LAYERS, feed["input"]), rtol=1e-4)
        assert fixed.runs == [2, 2, 2, 2]
        scheduled.close()

    run(main)


def test_a_full_queue_refuses_requests_until_a_place_is_free(folder: Path) -> None:
    async def main() -> None:
        scheduled, one, other = scheduler(queue=2), engine(folder, "doubling"), engine(folder, "classifier")
        one.gate.clear()
        tasks = [asyncio.create_task(scheduled.infer(one, {"input": rows(1)}, ["twice"])) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=r"queue of this model is full: 2 requests wait already \(KRON_QUEUE\)"):
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


def test_one_failing_request_does_not_fail_the_others_of_its_batch(folder: Path) -> None:
    async def main() -> None:
        scheduled, lookup = scheduler(), engine(folder, "lookup")
        lookup.gate.clear()
        values = [[[1.0]], [[2.0], [4.0]], [[17.0]], [[3.0]]]
        feeds = [{"input": np.array(value, np.float32)} for value in [[[0.0]], *values]]
        tasks = [asyncio.create_task(scheduled.infer(lookup, feed, ["out"])) for feed in feeds]
        await until(lambda: lookup.ran_in)
        lookup.gate.set()
        _, first, second, bad, last = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(bad, ModelError)
        for got, value in ((first, values[0]), (second, values[1]), (last, values[3])):
            assert isinstance(got, InferenceResult)
            np.testing.assert_array_equal(got.outputs["out"], value)
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
