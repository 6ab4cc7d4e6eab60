"""Which graphs keep rows apart, and the reasons of those that do not."""

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, parser
from torch import nn

from app.models.row_independence.verdict import Verdict, judge
from kronmodel import KroneckerDual, KroneckerLinear, to_onnx
from tests.app import oip_models
from tests.app.graphs import classifier, weights

APART = "each row of every output depends on the same row of the inputs only"


def of(text: str, *, opset: int = 20) -> Verdict:
    """The verdict on a graph in onnx's text format."""
    header = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1, "ai.onnx.ml": 3]>\n'
    return judge(parser.parse_model(header + text))


BRANCHES = (
    "<then_branch = t () => (float[n,4] a) { a = Relu (x) }, else_branch = e () => (float[n,4] b) { b = Neg (x) }>"
)
FLATTENED = """g (float[n,s,2] x) => (float[n,s,2] y)
    <int64[1] flat = {-1}, int64 zero = {0}, int64 one = {1}, int64[1] at1 = {1}, int64[1] two = {2}> {
    all = Shape (x) n = Gather (all, zero) s = Gather (all, one) len = Gather (all, at1)
    shape = Concat <axis = 0> (flat, two) f = Reshape (x, shape)
    i = Range (zero, n, one) i1 = Unsqueeze (i, at1) j = Range (zero, s, one) k = Range (one, s, one)
    start = Mul (i1, %s) both = Add (start, %s) y = Gather (f, both) }"""
X4 = "g (float[n,4] x) => (float[n,4] y)"


@pytest.mark.parametrize(
    "text",
    [
        X4 + " { y = Relu (x) }",
        X4 + " <float[4] b = {1,2,3,4}> { y = Add (x, b) }",
        X4 + " <int64 a = {1}> { y = CumSum (x, a) }",
        X4 + " { y = Softmax <axis = 1> (x) }",
        # the batch moves, and comes back
        """g (float[n,3,4] x) => (float[n,4,3] y) {
           t = Transpose <perm = [2,0,1]> (x) y = Transpose <perm = [1,0,2]> (t) }""",
        # the batch is merged with another axis, and split again by a computed shape
        """g (float[n,s,4] x) => (float[n,s,2] y) <int64[2] flat = {-1, 4}, int64[1] two = {2}, int64[2] first = {0, 1},
           float[4,2] w = {1,2,3,4,5,6,7,8}> {
           f = Reshape (x, flat) p = MatMul (f, w) all = Shape (x) ns = Gather (all, first)
           shape = Concat <axis = 0> (ns, two) y = Reshape (p, shape) }""",
        # a table that is looked up by the rows
        "g (int64[n,3] x) => (float[n,3,2] y) <float[2,2] t = {1,2,3,4}> { y = Gather (t, x) }",
        # zeros for each row, as for the first state of a recurrent layer
        """g (float[n,4] x) => (float[n,8] y) <int64[1] four = {4}, int64[1] zero = {0}> {
           s = Shape (x) n = Gather (s, zero) shape = Concat <axis = 0> (n, four) z = ConstantOfShape (shape)
           y = Concat <axis = 1> (x, z) }""",
        # an entry of each row, by the number of the row
        """g (float[n,5,2] x, int64[n,1] i) => (float[n,1,2] y)
           <int64 zero = {0}, int64 one = {1}, int64[1] last = {1}, int64[1] two = {2}> {
           s = Shape (x) n = Gather (s, zero) r = Range (zero, n, one) c = Unsqueeze (r, last)
           c2 = Unsqueeze (c, two) i2 = Unsqueeze (i, two) both = Concat <axis = -1> (c2, i2)
           y = GatherND (x, both) }""",
        # an entry of each row, by the number of the row times its length, as TorchScript writes it
        FLATTENED % ("len", "j"),
        # a loop that does not look at the rows
        """g (float[n,4] x) => (float[n,4] y) <int64 three = {3}, bool yes = {1}> {
           y = Loop (three, yes, x) <body = b (int64 i, bool go, float[n,4] a) => (bool on, float[n,4] c) {
           on = Identity (go) c = Add (a, x) }> }""",
        X4 + " <bool yes = {1}> { y = If (yes) " + BRANCHES + " }",
    ],
)
def test_graphs_that_keep_rows_apart(text: str) -> None:
    assert of(text) == Verdict(True, APART)


@pytest.mark.parametrize(
    ("text", "reason", "certain"),
    [
        (X4 + " <int64 a = {0}> { y = CumSum (x, a) }", "CumSum 'y' sums over the rows before each row", True),
        (X4 + " <int64 a = {-2}> { y = CumSum (x, a) }", "CumSum 'y' sums over the rows before each row", True),
        (X4 + " { m = ReduceMax <keepdims = 0> (x) y = Div (x, m) }", "ReduceMax 'm' reduces over all rows", True),
        (X4 + " { y = Softmax <axis = 0> (x) }", "Softmax 'y' normalizes over all rows", True),
        (
            "g (float[n,4] x) => (uint8[n,4] y) { y, s, z = DynamicQuantizeLinear (x) }",
            "DynamicQuantizeLinear 'y' computes its scale over all rows",
            True,
        ),
        (
            X4 + " <int64[1] k = {1}> { y, i = TopK <axis = 0> (x, k) }",
            "TopK 'y' sorts all rows",
            True,
        ),
        ("g (float[n,4] x) => (int64[2,m] y) { y = NonZero (x) }", "NonZero 'y' returns the positions", True),
        (
            "g (float[n,4] x, float[n,4] z) => (float[n,n] y) { t = Transpose <perm = [1,0]> (z) y = MatMul (x, t) }",
            "MatMul 'y' combines",
            True,
        ),
        (X4 + " { y = RandomNormalLike (x) }", "RandomNormalLike 'y' draws random numbers", True),
        (X4 + " <bool t = {1}, float r = {0.5}> { y = Dropout (x, r, t) }", "Dropout 'y' may draw random", True),
        (
            """g (float[n,2,4] x) => (float[n,2,4] y) <float[2] s = {1,2}> {
               y, m, v = BatchNormalization <training_mode = 1> (x, s, s, s, s) }""",
            "BatchNormalization 'y' computes its statistics over all rows",
            True,
        ),
        (X4 + " { y = com.microsoft.Unheard (x) }", "com.microsoft.Unheard 'y' is not known to keep rows apart", False),
        (
            "g (float[n,3,4] x) => (float[n,12] y) <int64[2] s = {1,12}> { y = Reshape (x, s) }",
            "Reshape 'y' reshapes so that no axis",
            False,
        ),
        (
            "g (float[n,4] x) => (float[n,4] y) <float[3,1] c = {1,2,3}> { y = Add (x, c) }",
            "Add 'y' combines each row with each entry of another value",
            False,
        ),
        (
            X4 + " <float z = {0}> { s = ReduceSum <keepdims = 0> (x) c = Greater (s, z) y = If (c) " + BRANCHES + " }",
            "ReduceSum 's' reduces over all rows",
            True,
        ),
        (
            "g (float[n,1] x) => (float[n,1] y) { s = Shape (x) f = Cast <to = 1> (s) y = Add (x, f) }",
            "Add 'y' computes with the number of rows",
            True,
        ),
        ("g (float[n,4] x) => (float[4] y) <float[4] c = {1,2,3,4}> { y = Identity (c) }", "output 'y' does not", True),
        (
            "g (float[n,4] x) => (float[4,n] y) { y = Transpose <perm = [1,0]> (x) }",
            "output 'y' does not have the rows on its first axis",
            True,
        ),
        (
            "g (float[n,n] x) => (float[n,n] y) { y = Relu (x) }",
            "the graph has the input 'x', of which two axes have the number of rows",
            True,
        ),
        (FLATTENED % ("two", "j"), "Range 'i' numbers the rows", True),  # rows of another length
        (FLATTENED % ("len", "k"), "Range 'i' numbers the rows", True),  # not certain to be below the length
        (X4 + " { y = Squeeze (x) }", "Squeeze 'y' removes every axis of size 1", True),
        (
            "g (string[n,1] x) => (string[n,1,w] y, int64[n,1] c) { y, c = StringSplit (x) }",
            "StringSplit 'y' pads every row to the longest one",
            True,
        ),
    ],
)
def test_graphs_that_mix_rows_say_which_operator_does(text: str, reason: str, certain: bool) -> None:
    verdict = of(text)
    assert not verdict.independent
    assert reason in verdict.reason
    assert verdict.certain == certain


def test_an_operator_that_stands_behind_its_user_in_the_file_is_not_taken_for_a_constant() -> None:
    """onnxruntime sorts the operators."""
    made = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]>\n' + X4 + " { m = ReduceMax <keepdims = 0> (x) y = Div (x, m) }"
    )
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    verdict = judge(made)
    assert (verdict.independent, verdict.certain) == (False, False)
    assert verdict.reason == "the graph uses a value before the operator that computes it"


@pytest.mark.parametrize(
    ("made", "independent"),
    [
        (oip_models.two(), True),
        (oip_models.halved(), True),
        (oip_models.centred(), False),
        (oip_models.outer(), False),
        (classifier(weights([6, 8, 3])), True),
        (classifier(weights([6, 8, 3]), batch=4), False),
    ],
)
def test_models_of_the_other_tests(made: onnx.ModelProto, independent: bool) -> None:
    assert judge(made).independent == independent


def test_functions_of_the_file_are_analysed() -> None:
    def calling(op: str) -> onnx.ModelProto:
        attributes: dict[str, Any] = {"axis": 0} if op == "Softmax" else {}
        inner = helper.make_node(op, ["a"], ["b"], **attributes)
        function = helper.make_function("own", "f", ["a"], ["b"], [inner], [helper.make_opsetid("", 20)])
        specs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("f", ["x"], ["y"], domain="own")], "g", specs[:1], specs[1:])
        sets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
        return helper.make_model(graph, functions=[function], opset_imports=sets, ir_version=10)

    assert judge(calling("Relu")).independent
    assert "normalizes over all rows" in judge(calling("Softmax")).reason


def test_stated_shapes_of_an_example_input_are_not_believed() -> None:
    """Exporters leave the sizes of their example input: here a batch of 1, by which any reshape would fit."""
    made = oip_models.graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Reshape", ["r", "shape"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", 3, 4])],
        [("y", TensorProto.FLOAT, [None, None])],
        {"shape": np.array([1, -1])},
    )
    made.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 3, 4]))
    assert not judge(made).independent


def test_kronmodels_own_exports_keep_rows_apart() -> None:
    layers = KroneckerDual((4, 6), (3, 5)), nn.ReLU(), KroneckerLinear((3, 5), (2, 2)), nn.Softmax(-1)
    assert judge(to_onnx(nn.Sequential(*layers), torch.zeros(2, 24))).independent


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = nn.functional.max_pool2d(x + self.second(x), 2)
        return torch.as_tensor(self.last(x.view(x.size(0), -1)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.encoder(self.table(ids)).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.lstm(x)[0][:, -1])


class Centred(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)


@pytest.mark.parametrize(
    ("made", "example", "independent"),
    [
        (Convolutions, lambda: torch.zeros(3, 3, 8, 8), True),
        (Encoder, lambda: torch.zeros(3, 7, dtype=torch.long), True),
        (Recurrent, lambda: torch.zeros(3, 5, 6), True),
        (Centred, lambda: torch.zeros(3, 4), False),
    ],
)
def test_exports_of_torch_script(made: type[nn.Module], example: Callable[[], torch.Tensor], independent: bool) -> None:
    file: Any = io.BytesIO()  # which torch's exporter takes, but for its types
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls this exporter deprecated; its files are everywhere
        torch.onnx.export(
            made().eval(),
            (example(),),
            file,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
            dynamo=False,
        )
    assert judge(onnx.load_from_string(file.getvalue())).independent == independent


def test_a_branch_that_a_row_takes_is_one_that_all_rows_take() -> None:
    """The condition looks at the first row only, so that no reduction mixes the rows before."""
    verdict = of(
        X4 + " <int64[1] zero = {0}, float z = {0}> { c = Greater (x, z) s = Slice (c, zero, zero, zero) "
        "f = Squeeze (s) y = If (f) " + BRANCHES + " }"
    )
    assert (verdict.independent, verdict.certain) == (False, True)
    assert "Slice 's' takes some of the rows" in verdict.reason
