"""The reading of ONNX files without the `onnx` package, compared with what that package reads."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from app.inference.onnx_file import OnnxFile
from app.inference.wire_format import MalformedMessage, read_fields, write_field, write_varint
from tests.app.graphs import classifier, weights

MAPS = helper.make_sequence_type_proto(
    helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
)


def zip_map_classifier(external: int = 2) -> onnx.ModelProto:
    """A classifier that ends in ZipMap, with `external` of its weights in other files, the third used in branches."""
    made = classifier(weights([6, 4, 3]))
    graph = made.graph
    graph.initializer.append(numpy_helper.from_array(np.ones((1, 3), np.float32), "shift"))
    out = helper.make_tensor_value_info("branch", TensorProto.FLOAT, None)
    branches = [
        helper.make_graph([helper.make_node(kind, ["probabilities", "shift"], ["branch"])], kind, [], [out])
        for kind in ("Add", "Sub")
    ]
    graph.node.append(helper.make_node("If", ["yes"], ["scores"], then_branch=branches[0], else_branch=branches[1]))
    graph.node.append(
        helper.make_node("ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[-(2**40), 0, 300])
    )
    graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    graph.output.insert(1, helper.make_value_info("maps", MAPS))
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    for index, tensor in enumerate(graph.initializer[:external]):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", f"w{index}.bin"), ("offset", str(index * 128)), ("length", "64")):
            tensor.external_data.add(key=key, value=value)
    return made


def read(tmp_path: Path, content: bytes) -> OnnxFile:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    return OnnxFile.read(path)


def test_external_tensors_are_those_that_onnx_reads(tmp_path: Path) -> None:
    made = zip_map_classifier(external=3)
    file = read(tmp_path, made.SerializeToString())
    assert [tensor.name for tensor in file.external] == ["w0", "w1", "shift"]
    for tensor, proto in zip(file.external, made.graph.initializer, strict=False):
        entries = {entry.key: entry.value for entry in proto.external_data}
        assert (tensor.data_type, list(tensor.dims)) == (proto.data_type, list(proto.dims))
        assert (tensor.location, str(tensor.offset), str(tensor.length)) == tuple(entries.values())
    assert set(file.unused) == set()  # a branch uses the last one


def test_weights_that_no_node_uses_are_told_apart(tmp_path: Path) -> None:
    made = zip_map_classifier(external=3)
    made.graph.initializer[1].name = "nobody"
    assert set(read(tmp_path, made.SerializeToString()).unused) == {"nobody"}


def test_the_edited_graph_differs_in_the_output_alone(tmp_path: Path) -> None:
    """Compared with the same edit by `onnx`; the numbers of labels and bytes make lengths of one and of two bytes."""
    made = zip_map_classifier()
    file = read(tmp_path, made.SerializeToString())
    content = file.content
    assert isinstance(content, bytes)
    edited = onnx.ModelProto.FromString(content)
    expected = onnx.ModelProto.FromString(made.SerializeToString())
    expected.graph.node[-1].CopyFrom(helper.make_node("Identity", ["scores"], ["maps"]))
    expected.graph.output[1].CopyFrom(helper.make_tensor_value_info("maps", TensorProto.FLOAT, [None, 3]))
    assert edited == expected
    assert file.class_labels == {"maps": ["-1099511627776", "0", "300"]}
    assert file.path.read_bytes() == made.SerializeToString()


def test_labels_are_read_packed_and_unpacked(tmp_path: Path) -> None:
    """onnx writes repeated integers unpacked, other programs write them packed."""
    made = zip_map_classifier()
    attribute = made.graph.node[-1].attribute[0]
    plain = attribute.SerializeToString()
    varints = b"".join(write_varint(value % 2**64) for value in attribute.ints)
    packed = write_field(1, b"classlabels_int64s") + write_field(8, varints) + write_field(20, 7)
    node = made.graph.node.pop().SerializeToString()
    changed = node.replace(write_field(5, plain), write_field(5, packed))
    assert changed != node
    graph = made.graph.SerializeToString() + write_field(1, changed)
    made.ClearField("graph")
    file = read(tmp_path, made.SerializeToString() + write_field(7, graph))
    assert file.class_labels == {"maps": ["-1099511627776", "0", "300"]}
    assert isinstance(file.content, bytes)
    edited = onnx.ModelProto.FromString(file.content).graph
    assert [node.op_type for node in edited.node][-2:] == ["If", "Identity"]


def test_a_plain_file_is_given_to_onnxruntime_by_its_path(tmp_path: Path) -> None:
    file = read(tmp_path, classifier(weights([6, 3])).SerializeToString())
    assert (file.content, list(file.external), file.class_labels) == (str(tmp_path / "model.onnx"), [], {})


@given(data=st.data())
def test_any_bytes_are_read_without_an_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Flipped bytes and cut files; what is edited is still one message after another."""
    content = bytearray(zip_map_classifier().SerializeToString())
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    file = read(tmp_path_factory.getbasetemp(), cut)
    if file.edits:
        assert isinstance(file.content, bytes)
        list(read_fields(file.content, 0, len(file.content)))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x0a\x05abc", "cut off"),
        (b"\x08\xff", "cut off"),
        (b"\x08" + b"\xff" * 11, "too long"),
        (b"\x0b", "kind 3"),
        (b"\x0d\x00\x00", "cut off"),
    ],
)
def test_malformed_messages_are_refused(message: bytes, reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        list(read_fields(message, 0, len(message)))
