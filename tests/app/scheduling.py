"""A scheduler with models that record their runs."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from onnx import TensorProto, helper, numpy_helper

from app.inference.datatypes import Array
from app.inference.engine import Engine
from app.inference.joining import Joining
from app.inference.scheduler import Scheduler
from tests.app.graphs import classifier, model, publish, weights

LAYERS = weights([6, 8, 3])


class Recorded(Engine):
    """An engine that records the rows and the thread of each run, and runs only while its gate is open."""

    def __init__(self, path: Path) -> None:
        self.runs: list[int] = []
        self.ran_in: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(path, device="cpu", threads=1)
        if self.has_batch_axis:
            self.joining = Joining(1024, "for this test")

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


def publish_models(folder: Path) -> None:
    """Write the models: `doubling`, `classifier`, `fixed` of two rows, and `lookup`, which fails beyond its table."""
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


def engine(folder: Path, name: str) -> Recorded:
    """Load one of the models."""
    return Recorded(folder / name / "1" / "model.onnx")


def scheduler(**options: Any) -> Scheduler:
    """A scheduler of one thread, or with other options."""
    return Scheduler(**{"instances": 1, "queue": 100, "max_batch": 64, "seconds": 30.0} | options)


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test on uvloop."""
    uvloop.run(main())  # type: ignore[arg-type]


def rows(count: int, columns: int = 4, start: int = 0) -> Array:
    """Rows of consecutive numbers."""
    return (np.arange(count * columns, dtype=np.float32) + start).reshape(count, columns)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, at most 15 seconds."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it did not happen in time")
