"""Batches of concurrent requests: which share a run, and that each gets its own rows."""

import asyncio
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ModelError
from app.inference.batching import InferenceResult, batch_key
from app.inference.datatypes import Array
from app.inference.joining import Joining
from tests.app.graphs import forward
from tests.app.scheduling import LAYERS, engine, rows, run, scheduler, until


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


def test_a_run_has_no_more_rows_than_worked_in_the_smoke_test(folder: Path) -> None:
    async def main() -> None:
        scheduled, bounded = scheduler(), engine(folder, "classifier")
        bounded.joining = Joining(4, "5 rows together fail")
        bounded.gate.clear()
        feeds = [{"input": rows(count, 6, start)} for start, count in enumerate([1, 2, 2, 1, 7, 1])]
        tasks = [asyncio.create_task(scheduled.infer(bounded, feed, ["logits"])) for feed in feeds]
        await until(lambda: bounded.ran_in)
        bounded.gate.set()
        for feed, got in zip(feeds, await asyncio.gather(*tasks), strict=True):
            np.testing.assert_allclose(got.outputs["logits"], forward(LAYERS, feed["input"]), rtol=1e-4)
        assert sum(bounded.runs) == 14
        # A request of more rows runs alone.
        assert max(run for run in bounded.runs if run != 7) <= 4
        assert 7 in bounded.runs
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
