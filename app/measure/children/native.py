"""Measuring process: kronmodel's native code beside onnxruntime (`python -m app.measure.children.native`).

The only module of the service's package that imports kronmodel. Only `kronserve compare --native` starts it, and as a
process of its own: the service loads no native code.
"""

import gc
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.measure import bootstrap, timing
from app.measure.inputs.arrays import InputArrays
from app.measure.timed_session import TimedSession
from app.measure.timing import Opener, Refused

PRECISIONS: tuple[Literal["float32", "int8"], ...] = ("float32", "int8")
THREADS = 1  # of native code, and so of onnxruntime


def main() -> None:
    """Receive a job, time the models in both runtimes in turns, and send the result."""
    gc.disable()
    timing.run_job(measure)


class NativeModel:
    """A model in native code, as a `TimedModel`.

    Args:
        name: name in messages.
        path: the ONNX file, whose samples for int8 lie beside it; or a library of its C code.
        precision: float32 or int8; a library has its own.

    Raises:
        Refused: native code cannot be used on this machine, or not for this model.
    """

    def __init__(self, name: str, path: str, precision: Literal["float32", "int8"] = "float32") -> None:
        try:
            import kronmodel.native
            from kronmodel.errors import KronmodelError
        except ImportError as error:
            raise Refused(f"--native needs the package kronmodel, which cannot be imported: {error}") from None
        self.name = name
        try:
            self._predictor = kronmodel.native.load(path, precision)
        except (KronmodelError, ValueError) as error:
            raise Refused(f"{name}: {error}") from None

    @property
    def sha256(self) -> str:
        """Checksum of the ONNX file that a library was exported from; empty if this is none."""
        return str(getattr(self._predictor, "sha256", ""))

    def feed(self, inputs: InputArrays, batch_size: int) -> NDArray[np.float32]:
        """The rows of the model's only input."""
        return np.ascontiguousarray(inputs.batch(batch_size)[self._predictor.input_name], np.float32)

    def run(self, feed: NDArray[np.float32]) -> Mapping[str, Any]:
        """Run the model once and return all outputs by name."""
        return self._predictor(feed)

    def time(self, feed: NDArray[np.float32], runs: int) -> list[int]:
        """Run the model `runs` times and return the nanoseconds of each run, as `TimedSession.time` does."""
        run, clock = self._predictor, time.perf_counter_ns
        if runs > 1:
            run(feed)
        times = []
        for _ in range(runs):
            start = clock()
            run(feed)
            times.append(clock() - start)
        return times


def measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """Time every model in onnxruntime and, where it can be read, in native code.

    Args:
        job: the models, batch sizes, folder of the inputs, seconds and seed.

    Returns:
        `runs`: model, runtime, latency by batch size, times as fast as the same model in onnxruntime, largest
        difference from its outputs, and fraction of rows with the same class; `notes`: what native code cannot run.

    Raises:
        Refused: native code runs none of the models, or a library is of none of them.
    """
    inputs = InputArrays.load(Path(job["inputs"]))
    openers: list[Opener] = []
    names: list[tuple[str, str]] = []
    notes: list[str] = []
    compiled = _libraries(job)
    for model in job["models"]:
        openers.append(partial(TimedSession, model["name"], model["path"], device="cpu", threads=THREADS))
        names.append((model["name"], "onnxruntime"))
        for precision in PRECISIONS:
            opener = partial(NativeModel, model["name"], model["path"], precision)
            try:
                opener()
            except Refused as error:
                if str(error) not in notes:
                    notes.append(str(error))
            else:
                openers.append(opener)
                names.append((model["name"], f"native {precision}"))
        for path in compiled[model["name"]]:
            openers.append(partial(NativeModel, model["name"], path))
            names.append((model["name"], f"C, {Path(path).name}"))
    if all(runtime == "onnxruntime" for _, runtime in names):
        raise Refused(f"--native: {notes[0]}")
    sizes, seed = job["batch_sizes"], job["seed"]
    times = timing.time_models(
        openers, inputs, sizes, seconds_per_cell=job["seconds_per_cell"], max_seconds=job["max_seconds"], seed=seed
    )
    latencies, pairs = bootstrap.latencies_and_ratios(times, sizes, seed)
    runs = []
    for index, (name, runtime) in enumerate(names):
        reference = names.index((name, "onnxruntime"))
        ratios = [pair["ratio"] for pair in pairs if (pair["a"], pair["b"]) == (reference, index)]
        run: dict[str, Any] = {"model": name, "runtime": runtime, "latency": latencies[index]}
        if index != reference:
            run["speedup"] = [round(1 / ratio, 3) for ratio in ratios]
            run |= _differences(openers[reference](), openers[index](), inputs)
        runs.append(run)
    return {"runs": runs, "notes": notes, "threads": THREADS}


def _libraries(job: Mapping[str, Any]) -> dict[str, list[str]]:
    """Find the model that each library is of, by the checksum of the ONNX file; return the libraries by model.

    Raises:
        Refused: a library cannot be loaded, or is of none of the models.
    """
    found: dict[str, list[str]] = {model["name"]: [] for model in job["models"]}
    for path in job["libraries"]:
        sha256 = NativeModel("--library", path).sha256
        of = [model["name"] for model in job["models"] if model["sha256"] == sha256]
        if not of:
            raise Refused(
                f"--library {path} was exported from another file than {' or '.join(found)}: "
                "export it again with `kronmodel export --to c --shared`"
            )
        for name in of:
            found[name].append(path)
    return found


def _differences(reference: Any, other: Any, inputs: InputArrays) -> dict[str, float]:
    """Compare the outputs of two runtimes on all rows."""
    outputs = [model.run(model.feed(inputs, inputs.rows)) for model in (reference, other)]
    names = outputs[0].keys() & outputs[1].keys()  # C code has no logits where there are probabilities
    pairs: Sequence[tuple[Any, Any]] = [(outputs[0][name], outputs[1][name]) for name in names]
    largest = max(float(np.abs(a - b).max()) for a, b in pairs)
    same = min(float(np.mean(a.argmax(-1) == b.argmax(-1))) for a, b in pairs)
    return {"largest_difference": largest, "same_class": same}


if __name__ == "__main__":
    main()
