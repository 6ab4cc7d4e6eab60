"""Classifiers that end in ZipMap, as scikit-learn's and LightGBM's converters write them by default."""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from app.inference.onnx_file import OnnxFile
from app.inference.session import open_session
from app.models.output_head import OutputHead
from tests.app.conftest import Serving, serving
from tests.app.graphs import Array, publish
from tests.app.oip_calls import infer, tensor, values_of
from tests.app.versions import repository_of

FLOWERS, SPECIES = load_iris(return_X_y=True)
FLOWERS = FLOWERS.astype(np.float32)
NAMES = load_iris().target_names
ROWS: Array = FLOWERS[::17]
NUMBERS = [-3, 7, 11]
COLOURS: Array = np.array([["red"], ["blue"], ["red"], ["green"]] * 6, object)
WIDTHS: Array = (np.arange(24, dtype=np.float32) % 7 / 3).reshape(-1, 1)
TABLE: Array = np.hstack([COLOURS, WIDTHS])


def logistic() -> Any:
    return LogisticRegression(max_iter=500).fit(FLOWERS, NAMES[SPECIES])


def forest() -> Any:
    return RandomForestClassifier(5, random_state=0).fit(FLOWERS, np.array(NUMBERS)[SPECIES])


def pipeline() -> Any:
    columns = ColumnTransformer([("words", OneHotEncoder(), [0]), ("numbers", StandardScaler(), [1])])
    return make_pipeline(columns, LogisticRegression()).fit(TABLE, np.arange(24) % 3 == 0)


def boosted_trees() -> onnx.ModelProto:
    """The structure of LightGBM's exports: labels of a wrong shape, probabilities by ZipMap, and ONNX-ML alone."""
    trees = helper.make_node(
        "TreeEnsembleClassifier",
        ["input"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        classlabels_int64s=[4, 9],
        class_ids=[0, 0],
        class_nodeids=[1, 2],
        class_treeids=[0, 0],
        class_weights=[0.25, 0.625],
        nodes_falsenodeids=[2, 0, 0],
        nodes_featureids=[1, 0, 0],
        nodes_hitrates=[1.0, 1.0, 1.0],
        nodes_missing_value_tracks_true=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_nodeids=[0, 1, 2],
        nodes_treeids=[0, 0, 0],
        nodes_truenodeids=[1, 0, 0],
        nodes_values=[2.9, 0.0, 0.0],
    )
    zip_map = helper.make_node(
        "ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[4, 9], name="ZipMap"
    )
    kinds = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    graph = helper.make_graph(
        [trees, zip_map],
        "trees",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 4])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [1]),
            helper.make_value_info("probabilities", kinds),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 1)], ir_version=8)


def sequence_beside_tensor() -> onnx.ModelProto:
    """A tensor, and a sequence of tensors that no ZipMap makes."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["input"], ["out"]), helper.make_node("SequenceConstruct", ["out"], ["list"])],
        "sequence",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 4])],
        [
            helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 4]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def by_onnxruntime(made: onnx.ModelProto, feeds: dict[str, Array]) -> tuple[Array, list[dict[Any, float]]]:
    """The labels and the maps of probabilities that onnxruntime itself gives."""
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    labels, maps = session.run(None, feeds)
    return labels, maps


@pytest.fixture(scope="module")
def exports() -> dict[str, onnx.ModelProto]:
    columns = [("colour", StringTensorType([None, 1])), ("width", FloatTensorType([None, 1]))]
    return {
        "logistic": to_onnx(logistic(), FLOWERS[:1]),
        "forest": to_onnx(forest(), FLOWERS[:1]),
        "pipeline": to_onnx(pipeline(), initial_types=columns),
        "trees": boosted_trees(),
    }


@pytest.fixture(scope="module")
def server(exports: dict[str, onnx.ModelProto], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("classifiers")
    for name, made in exports.items():
        publish(folder, name, made)
    with serving(folder, reports="off") as server:
        yield server


@pytest.fixture
def client(server: Serving) -> httpx.Client:
    return server.client


@pytest.mark.parametrize(("name", "made"), [("logistic", logistic), ("forest", forest)])
def test_predictions_are_those_of_scikit_learn(client: httpx.Client, name: str, made: Any) -> None:
    answer = client.post("/api/predict", json={"inputs": ROWS.tolist(), "models": [name]}).json()
    model = made()
    outputs = answer["results"][0]["outputs"]
    np.testing.assert_allclose([row["probabilities"] for row in outputs], model.predict_proba(ROWS), atol=1e-6)
    assert [row["label"] for row in outputs] == [str(label) for label in model.predict(ROWS)]
    (info,) = [each for each in client.get("/api/models").json()["models"] if each["name"] == name]
    assert info["labels"] == [str(label) for label in model.classes_]


@pytest.mark.parametrize("name", ["logistic", "forest", "trees"])
def test_the_protocol_serves_labels_and_probabilities_of_onnxruntime(
    client: httpx.Client, exports: dict[str, onnx.ModelProto], name: str
) -> None:
    made = exports[name]
    feed, (label, probabilities) = made.graph.input[0].name, [each.name for each in made.graph.output]
    labels, maps = by_onnxruntime(made, {feed: ROWS})
    outputs = infer(client, name, tensor(feed, ROWS, "FP32"))
    assert list(outputs) == [label, probabilities]
    assert outputs[label]["data"] == labels.tolist()
    assert outputs[probabilities]["datatype"] == "FP32"
    np.testing.assert_array_equal(
        values_of(outputs[probabilities]).astype(np.float32), np.array([list(row.values()) for row in maps], np.float32)
    )
    metadata = client.get(f"/v2/models/{name}").json()["outputs"]
    assert metadata[0]["shape"] == [-1]
    assert metadata[1] == {"name": probabilities, "datatype": "FP32", "shape": [-1, len(maps[0])]}
    asked = [{"name": probabilities, "parameters": {"classification": 1}}]
    best = infer(client, name, tensor(feed, ROWS, "FP32"), outputs=asked)[probabilities]["data"]
    assert [text.rpartition(":")[2] for text in best] == [str(max(row, key=row.__getitem__)) for row in maps]


def test_a_pipeline_of_text_and_numbers_is_served(client: httpx.Client) -> None:
    outputs = infer(
        client,
        "pipeline",
        tensor("colour", COLOURS, "BYTES"),
        tensor("width", WIDTHS, "FP32"),
    )
    got = values_of(outputs["output_probability"])
    np.testing.assert_allclose(got, pipeline().predict_proba(TABLE), atol=1e-6)


def test_the_file_is_untouched_and_its_checksum_is_true(
    exports: dict[str, onnx.ModelProto], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = exports["logistic"].SerializeToString()
    path = publish(tmp_path, "m", content)
    served = repository_of(tmp_path).get("m")
    assert path.read_bytes() == content
    assert served.artifact.sha256 == hashlib.sha256(content).hexdigest()
    assert served.artifact.file_bytes == len(content)
    assert served.engine.unserved == {}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_probabilities_of_weights_in_another_file_are_served(tmp_path: Path) -> None:
    """Both at once: the rewritten graph is given to onnxruntime as bytes, and its weights are beside the file."""
    weights = np.random.default_rng(4).random((4, 3), np.float32)
    zip_map = helper.make_node(
        "ZipMap", ["scores"], ["out"], domain="ai.onnx.ml", classlabels_strings=["a", "b", "ü"], name="z"
    )
    kinds = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weights"], ["scores"]), zip_map],
        "beside",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 4])],
        [helper.make_value_info("out", kinds)],
        [numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path = tmp_path / "m" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(made, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    served = repository_of(tmp_path).get("m")
    values = served.engine.run({"input": ROWS})["out"]
    np.testing.assert_allclose(values, ROWS @ weights, rtol=1e-6)
    assert served.output_head == OutputHead("out", ["a", "b", "ü"])


def test_other_sequences_are_named_in_the_log_and_in_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(tmp_path, "m", sequence_beside_tensor())
    served = repository_of(tmp_path).get("m")
    assert [tensor.name for tensor in served.engine.outputs] == ["out"]
    assert "m: output 'list' is not served: got seq(tensor(float)), expected a tensor" in caplog.text
    with serving(tmp_path, reports="off") as server:
        body = {"inputs": [tensor("input", ROWS, "FP32")], "outputs": [{"name": "list"}]}
        answer = server.client.post("/v2/models/m/infer", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"] == (
        "outputs: got 'list', a seq(tensor(float)) that the protocol has no datatype for, expected 'out'"
    )


@pytest.mark.parametrize(("rows", "labels"), [("N", [None]), (1, [1])])
def test_the_number_of_labels_is_open_where_the_batch_is(tmp_path: Path, rows: str | int, labels: list[object]) -> None:
    made = boosted_trees()
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("input", TensorProto.FLOAT, [rows, 4]))
    session = open_session(str(publish(tmp_path, "m", made)), device="cpu", threads=1)
    assert [output.shape for output in session.get_outputs()] == [labels, [None, 2]]


def test_a_zip_map_that_other_nodes_use_stays(tmp_path: Path) -> None:
    """Its maps are an input of another node, so they cannot become a tensor."""
    made = boosted_trees()
    made.graph.node.append(helper.make_node("SequenceLength", ["probabilities"], ["length"]))
    made.graph.output.append(helper.make_tensor_value_info("length", TensorProto.INT64, []))
    made.opset_import.append(helper.make_opsetid("", 17))
    file = OnnxFile.read(publish(tmp_path, "m", made))
    assert (file.class_labels, file.edits, file.content) == ({}, [], str(file.path))
