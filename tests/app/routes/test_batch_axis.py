"""A real server with models whose first axis is no batch, or whose rows depend on each other."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

from app.inference.datatypes import DTYPES
from tests.app.conftest import serving
from tests.app.graphs import Array, publish
from tests.app.oip_calls import LENGTH, infer, tensor, values_of
from tests.app.oip_models import echo, graph

CLIENTS = 12


def of(text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')


# Two products of 1,500 x 1,500 weights make runs long enough that requests wait for each other.
WORK = """
    wa = ConstantOfShape <value: tensor = float[1] v {0.01}> (wa_s)
    wb = ConstantOfShape <value: tensor = float[1] v {0.01}> (wb_s)
    f = Cast <to = 1> (y) h0 = MatMul (f, wa) h1 = MatMul (h0, wb)
    work = ReduceMean <axes = [1], keepdims = 1> (h1) }"""
SIZES = "int64[2] wa_s = {4,1500}, int64[2] wb_s = {1500,1500}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("axes")
    steps = {
        "cumulative": ("int64", "int64 a = {0}, ", "y = CumSum (x, a)"),
        "scaled": (
            "float",
            "float one = {1}, float k = {255}, ",
            "m = ReduceMax <keepdims = 0> (x) b = Greater (m, one) d = Div (x, k) y = Where (b, d, x)",
        ),
        "doubled": ("float", "", "y = Add (x, x)"),
    }
    for name, (kind, constants, nodes) in steps.items():
        tensors = f"({kind}[n,4] x) => ({kind}[n,4] y, float[n,1] work)"
        publish(folder, name, of(f"g {tensors} <{constants}{SIZES}> {{ {nodes} {WORK}"))
    publish(folder, "waveform", echo(TensorProto.FLOAT, ["samples"]))
    pair: list[tuple[str, int, list[int | str | None]]] = [(name, TensorProto.FLOAT, ["batch", 3]) for name in "abc"]
    publish(folder, "sum", graph([helper.make_node("Add", ["a", "b"], ["c"])], pair[:2], pair[2:]))
    wide: list[int | str | None] = ["batch", 6]
    concat = graph([helper.make_node("Concat", ["a", "b"], ["c"], axis=1)], pair[:2], [("c", TensorProto.FLOAT, wide)])
    publish(folder, "concat", concat)
    publish(folder, "no-inputs", of("g () => (float[3] y) { y = Constant <value = float[3] {1,2,3}> () }"))
    publish(folder, "no-nodes", of("g (float[n,5] y) => (float[n,5] y) { }"))
    publish(folder, "any-rank", of("g (float[] x) => (float[] y) { y = Relu (x) }"))
    publish(folder, "scalar", echo(TensorProto.BFLOAT16, []))
    indices = "l = Mul (x, k) i = Cast <to = 7> (l) y = Gather (t, i)"  # beyond the table for made-up inputs
    publish(
        folder,
        "far",
        of(f"g (float[n,2] x) => (float[n,2] y) <float k = {{1000}}, float[2] t = {{7,8}}> {{ {indices} }}"),
    )
    publish(folder, "unnamed", echo(TensorProto.FLOAT, [None, 4]))
    with serving(folder, reports=":memory:") as running:
        yield running.client


def alone(client: httpx.Client, model: str, rows: Array, datatype: str) -> dict[str, Any]:
    return infer(client, model, tensor("x", rows, datatype))


@pytest.mark.parametrize(
    ("model", "datatype", "joined"),
    [("cumulative", "INT64", False), ("scaled", "FP32", False), ("doubled", "FP32", True)],
)
def test_clients_that_ask_at_the_same_time_get_the_answers_that_they_get_alone(
    server: httpx.Client, model: str, datatype: str, joined: bool
) -> None:
    requests = [(np.arange(4)[None] + 100 * client).astype(DTYPES[datatype]) for client in range(CLIENTS)]
    requests[0] = np.full((1, 4), 0.5).astype(DTYPES[datatype])  # not above 1, unlike the others
    expected = [values_of(alone(server, model, rows, datatype)["y"]) for rows in requests]
    with ThreadPoolExecutor(CLIENTS) as threads:
        for _ in range(3):
            found = list(threads.map(lambda rows: values_of(alone(server, model, rows, datatype)["y"]), requests))
            np.testing.assert_array_equal(found, expected)
    (stats,) = server.get(f"/v2/models/{model}/stats").json()["model_stats"]
    assert stats["batching"]["joined"] is joined
    assert max(each["batch_size"] for each in stats["batch_stats"]) > 1 or not joined
    assert joined or [each["batch_size"] for each in stats["batch_stats"]] == [1]


def test_statistics_and_models_show_whether_requests_share_runs_and_why(server: httpx.Client) -> None:
    (stats,) = server.get("/v2/models/scaled/stats").json()["model_stats"]
    reason = "operator ReduceMax 'm' reduces over all rows"
    assert stats["batching"] == {"joined": False, "max_rows": 0, "reason": reason}
    assert server.get("/api/models/scaled").json()["batching"] == stats["batching"]
    batching = server.get("/api/models/unnamed").json()["batching"]
    assert (batching["joined"], batching["max_rows"]) == (True, 1024)


def test_a_single_axis_is_not_a_batch_of_rows(server: httpx.Client) -> None:
    samples = np.arange(5000, dtype=np.float32)  # more than KRON_MAX_BATCH
    np.testing.assert_array_equal(values_of(infer(server, "waveform", tensor("x", samples, "FP32"))["y"]), samples)
    assert server.get("/v2/models/waveform/config").json()["max_batch_size"] == 0
    best = {"name": "y", "parameters": {"classification": 2}}
    assert infer(server, "waveform", tensor("x", samples[:3], "FP32"), outputs=[best])["y"]["data"] == [
        "2.0:2",
        "1.0:1",
    ]


def test_an_input_of_one_row_is_broadcast(server: httpx.Client) -> None:
    many, one = np.arange(9, dtype=np.float32).reshape(3, 3), np.array([[10, 20, 30]], np.float32)
    inputs = tensor("a", many, "FP32"), tensor("b", one, "FP32")
    np.testing.assert_array_equal(values_of(infer(server, "sum", *inputs)["c"]), many + one)
    answer = server.post("/v2/models/sum/infer", json={"inputs": [inputs[0], tensor("b", many[:2], "FP32")]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("inputs: got batches of 3, 2 rows, expected equal ones: ")
    answer = server.post("/v2/models/concat/infer", json={"inputs": list(inputs)})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("inputs: got batches of 3, 1 rows, expected equal ones: ")


def test_graphs_without_inputs_or_nodes_answer(server: httpx.Client) -> None:
    for body in (b"{}", b'{"inputs": []}'):
        answer = server.post("/v2/models/no-inputs/infer", content=body)
        assert answer.json()["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [3], "data": [1.0, 2.0, 3.0]}]
    answer = server.post("/v2/models/no-inputs/infer", content=b"", headers={LENGTH: "0"})
    assert answer.status_code == 400
    rows = np.arange(10, dtype=np.float32).reshape(2, 5)
    np.testing.assert_array_equal(values_of(infer(server, "no-nodes", tensor("y", rows, "FP32"))["y"]), rows)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 1, 3)])
def test_an_input_of_unknown_rank_takes_any_shape(server: httpx.Client, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    output = infer(server, "any-rank", tensor("x", values, "FP32"))["y"]
    assert output["shape"] == list(shape)
    np.testing.assert_array_equal(values_of(output), values)
    assert server.get("/v2/models/any-rank").json()["inputs"][0]["shape"] == [-1]


def test_a_bfloat16_scalar_keeps_its_rank(server: httpx.Client) -> None:
    header = b'{"inputs":[{"name":"x","shape":[],"datatype":"BF16","parameters":{"binary_data_size":2}}],'
    header += b'"outputs":[{"name":"y","parameters":{"binary_data":true}}]}'
    answer = server.post("/v2/models/scalar/infer", content=header + b"\x80\x3f", headers={LENGTH: str(len(header))})
    assert answer.status_code == 200, answer.text
    assert b'"shape":[]' in answer.content
    assert answer.content.endswith(b"\x80\x3f")


@pytest.mark.parametrize("model", ["unnamed", "scaled"])
def test_classification_ranks_each_row_of_a_free_first_axis(server: httpx.Client, model: str) -> None:
    """Also where it has no name, and where rows depend on each other."""
    rows = np.array([[0.1, 0.4, 0.2, 0.3], [0.9, 0.1, 0.1, 0.2]], np.float32)
    best = {"name": "y", "parameters": {"classification": 1}}
    output = infer(server, model, tensor("x", rows, "FP32"), outputs=[best])["y"]
    assert (output["shape"], [text.split(":")[1] for text in output["data"]]) == ([2, 1], ["1", "0"])
    assert server.get(f"/v2/models/{model}/config").json()["max_batch_size"] == 1024


def test_classification_ranks_each_row_of_a_model_that_fails_on_made_up_inputs(server: httpx.Client) -> None:
    rows = np.array([[0, 0.001], [0.001, 0]], np.float32)
    best = {"name": "y", "parameters": {"classification": 1}}
    output = infer(server, "far", tensor("x", rows, "FP32"), outputs=[best])["y"]
    assert (output["shape"], output["data"]) == ([2, 1], ["8.0:1", "8.0:0"])
    assert server.get("/api/models/far").json()["batching"]["reason"].startswith("its run on made-up inputs failed: ")
