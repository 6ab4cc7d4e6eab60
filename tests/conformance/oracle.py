"""The oracle: onnxruntime alone, in a process of its own, gives the outputs of a model for each request by itself."""

import ctypes
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.conformance.cases import Array, Case, Feeds

SECONDS = 300  # for all requests of one model
MAX_REPEATED_BYTES = 32 * 2**20  # of a model whose first request is repeated


@dataclass(frozen=True)
class Answer:
    """The oracle's outputs for one request, or why it has none.

    Args:
        outputs: tensors by name; sequences of maps as tensors of their values, in the order of their keys.
        error: onnxruntime's message.
    """

    outputs: Mapping[str, Array]
    error: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the oracle says of a model.

    Args:
        load_error: why onnxruntime does not load it; empty if it does.
        is_random: the same request gave different outputs, so that only types and shapes can be compared.
        answers: one for each request.
        labels: keys of the maps in each output that is a sequence of maps.
    """

    load_error: str = ""
    is_random: bool = False
    answers: Sequence[Answer] = ()
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class Oracle:
    """A child process that runs models; it is started again when a model crashes it."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._pipe: Connection | None = None

    def __enter__(self) -> "Oracle":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def ask(self, case: Case) -> Verdict:
        """Run all requests of a case, each by itself."""
        if self._pipe is None:
            self._pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
            self._pipe.recv()  # it runs: if it ends from now on, that was the model
        try:
            self._pipe.send((case.model, case.requests))
            if not self._pipe.poll(SECONDS):
                self._stop()
                return Verdict(load_error=f"onnxruntime took longer than {SECONDS} s")
            verdict: Verdict = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._stop()
            return Verdict(load_error="onnxruntime crashed")
        return verdict

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Connection) -> None:
    import onnxruntime  # noqa: F401

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # onnxruntime's warnings
    pipe.send("ready")
    while True:
        try:
            model, requests = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        pipe.send(_run(model, requests))


def _run(model: Path | bytes, requests: Sequence[Feeds]) -> Verdict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return Verdict(load_error=_line(error))
    labels: dict[str, Sequence[Any]] = {}
    answers = [_answer(session, feeds, labels) for feeds in requests]
    size = len(model) if isinstance(model, bytes) else model.stat().st_size
    is_random = False
    if size < MAX_REPEATED_BYTES and requests and not answers[0].error:
        # Twice: with a seed, the second run may be like the first.
        is_random = not all(_is_same(_answer(session, requests[0], {}), answers[0]) for _ in range(2))
    return Verdict(is_random=is_random, answers=answers, labels=labels)


def _is_same(one: Answer, other: Answer) -> bool:
    return not one.error and all(
        np.array_equal(one.outputs[name], values, equal_nan=values.dtype.kind == "f")
        for name, values in other.outputs.items()
    )


def _answer(session: Any, feeds: Feeds, labels: dict[str, Sequence[Any]]) -> Answer:
    types = {node.name: node.type for node in [*session.get_inputs(), *session.get_outputs()]}
    names = [node.name for node in session.get_outputs()]
    try:
        if "tensor(bfloat16)" in types.values():
            values = _run_with_bfloat16(session, names, feeds, types)
        else:
            values = session.run(names, dict(feeds))
    except Exception as error:
        return Answer({}, _line(error))
    outputs = {}
    for name, value in zip(names, values, strict=True):
        if isinstance(value, list) and value and isinstance(value[0], dict):  # ZipMap: a dict for each row
            labels[name] = list(value[0])
            value = np.array([[row[key] for key in labels[name]] for row in value], np.float32)  # noqa: PLW2901
        if isinstance(value, np.ndarray):
            outputs[name] = value
        elif isinstance(value, np.generic):
            outputs[name] = np.asarray(value)
    return Answer(outputs)


def _run_with_bfloat16(session: Any, names: Sequence[str], feeds: Feeds, types: Mapping[str, str]) -> list[Any]:
    """Run a session whose bfloat16 tensors are float32 arrays here: the upper half of their bits."""
    import onnxruntime

    values = {}
    for name, array in feeds.items():
        if types.get(name) == "tensor(bfloat16)":
            bits = (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)
            bits = bits.reshape(array.shape)
            values[name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx.TensorProto.BFLOAT16)
        else:
            values[name] = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    arrays = []
    for value in session.run_with_ort_values(names, values):
        if value.data_type() == "tensor(bfloat16)":
            shape = value.shape()
            raw = ctypes.string_at(value.data_ptr(), 2 * int(np.prod(shape)))
            bits32 = np.frombuffer(raw, np.uint16).astype(np.uint32) << 16
            arrays.append(bits32.view(np.float32).reshape(shape))
        else:
            arrays.append(value.numpy())
    return arrays


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
