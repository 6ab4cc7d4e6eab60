"""ONNX's backend cases with a free first axis: joined by the verdict, rows have the same outputs together and alone."""

import importlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.backend.test.case import node as cases

from app.inference.trial import equal_but_rounding
from app.models.row_independence.verdict import judge
from tests.app.graphs import Array

# Some of each kind: the cases of all operators take a minute.
OPERATORS = (
    "add argmax concat cumsum flatten gather gathernd gemm matmul nonzero pad reducemax reshape reversesequence "
    "scatterelements slice softmax split squeeze topk transpose trilu unsqueeze where"
)


def freed(model: onnx.ModelProto, constants: Sequence[Array]) -> onnx.ModelProto:
    """The model with a free first axis of its inputs and outputs, and with its last inputs as constants."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    inputs = list(graph.input)
    first = len(inputs) - len(constants)
    graph.initializer.extend(
        numpy_helper.from_array(values, each.name) for values, each in zip(constants, inputs[first:], strict=True)
    )
    del graph.input[first:]
    for each in (*graph.input, *graph.output):
        if each.type.tensor_type.shape.dim:
            each.type.tensor_type.shape.dim[0].Clear()
            each.type.tensor_type.shape.dim[0].dim_param = "rows"
    return made


def load() -> Iterator[tuple[str, onnx.ModelProto, dict[str, Array]]]:
    """The cases with several rows: name, model and inputs; also with all inputs but the first as constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the arithmetic on extreme numbers
        for operator in OPERATORS.split():
            importlib.import_module(f"onnx.backend.test.case.node.{operator}")
    for case in cases._NodeTestCases:
        data = [np.asarray(values) for values in case.data_sets[0][0]]
        for count in {len(data), 1}:
            feeds = {each.name: values for each, values in zip(case.model.graph.input, data[:count], strict=False)}
            rows = {values.shape[:1] for values in feeds.values()}
            if len(rows) == 1 and rows != {()} and rows.pop()[0] > 1:
                yield case.name, freed(case.model, data[count:]), feeds


def test_rows_of_backend_cases() -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    compared: Counter[bool] = Counter()
    for name, model, feeds in load():
        verdict = judge(model)
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
            together = session.run(None, feeds)
        except Exception:  # an operator or a datatype that onnxruntime lacks, or constants of a fixed number of rows
            continue
        compared[verdict.independent] += 1
        rows = len(next(iter(feeds.values()))) if verdict.independent else 0
        for row in range(rows):
            alone = session.run(None, {key: values[row : row + 1] for key, values in feeds.items()})
            for whole, single in zip(together, alone, strict=True):
                assert len(whole) == rows, name
                assert equal_but_rounding(whole[row : row + 1], single), name
    assert compared[True] > 80
    assert compared[False] > 50
