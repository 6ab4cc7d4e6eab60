"""The fields about batches in Triton's config.pbtxt, compared with protobuf's own parser of its text format."""

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from app.models.triton_config import MAX_BYTES, TritonConfig, parse_config, read_config

USUAL = """
name: "resnet"  # a comment with { and "
platform: 'onnxruntime_onnx'
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, -1, 224 ] }, { name: "z" dims: 1, dims: 2 } ]
output < name: "y"; dims: 10 >
dynamic_batching {
  preferred_batch_size: [4, 8]
  default_queue_policy { timeout_action: REJECT }
}
instance_group [ { count: 2 kind: KIND_CPU } ]
parameters: { key: "note" value: { string_value: "a } \\" {" "and more" } }
"""


def protobufs_reading(text: str) -> TritonConfig | None:
    """The same fields by protobuf; None if it refuses the text."""
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="t", syntax="proto3")
    inner = file.message_type.add(name="Batching")
    inner.field.add(name="preserve_ordering", number=1, type=8, label=1)
    outer = file.message_type.add(name="Config")
    outer.field.add(name="max_batch_size", number=4, type=5, label=1, proto3_optional=True, oneof_index=0)
    outer.oneof_decl.add(name="_max_batch_size")
    outer.field.add(name="dynamic_batching", number=11, type=11, type_name=".t.Batching", label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Config"))()
    try:
        text_format.Parse(text, message, allow_unknown_field=True)
    except text_format.ParseError:
        return None
    size = getattr(message, "max_batch_size") if message.HasField("max_batch_size") else None  # noqa: B009
    return TritonConfig(size, message.HasField("dynamic_batching"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "max_batch_size: 0",
        "max_batch_size:0x10 dynamic_batching<>",
        "dynamic_batching: { }",
        "dynamic_batching { preserve_ordering: true }; max_batch_size: 1,",
        'name: "max_batch_size: 9"',
        "input { max_batch_size: 9 }",
    ],
)
def test_the_fields_are_read_as_protobuf_reads_them(text: str) -> None:
    assert parse_config(text) == protobufs_reading(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "name: 'x'\nmax_batch_size: many",
            "line 2: max_batch_size: got 'many', expected an integer from 0 to 2147483647",
        ),
        ("max_batch_size: -1", "line 1: max_batch_size: got '-1', expected an integer from 0 to 2147483647"),
        ("max_batch_size: 99999999999", "line 1: max_batch_size: got '99999999999'"),
        ("max_batch_size: 1\n\nmax_batch_size: 2", "line 3: got max_batch_size twice, expected it once"),
        ("dynamic_batching: true", "line 1: dynamic_batching: got 'true', expected { }"),
        ("input [\n{ name: 'x' }\n", "line 3: the file ends, expected ']'"),
        ("input { ]", "line 1: got ']', expected another bracket"),
        ("}", "line 1: got '}', expected the name of a field"),
        ("name: 'x\ny'", 'line 1: got "\'", expected a field'),
        ("max_batch_size 8", "line 1: max_batch_size: got '8', expected a value"),
        ("name:", "line 1: name: got '', expected a value"),
        ("{" * 60_000, "line 1: got '{', expected the name of a field"),
        ("a" + "{" * 60_000, "line 1: the file ends, expected '}'"),
    ],
)
def test_errors_name_the_line(text: str, error: str) -> None:
    assert protobufs_reading(text[:100]) in {None, TritonConfig(-1)}
    found = parse_config(text)
    assert (found.error or "").startswith(error)
    assert (found.why_alone() or "").startswith("config.pbtxt cannot be read: line ")
    assert found.batch_axis is None


def test_a_usual_file_with_lists_of_messages() -> None:
    """Protobuf reads such lists only of fields that it knows."""
    assert parse_config(USUAL) == TritonConfig(8, True)
    example = Path(__file__).parents[3] / "deploy" / "triton"
    assert read_config(example) == TritonConfig(1024, True)


def test_files_that_are_missing_too_large_or_not_text(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    assert read_config(tmp_path) == TritonConfig()
    path.write_text(USUAL)
    assert read_config(tmp_path) == TritonConfig(8, True)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    assert read_config(tmp_path).error == f"got more than {MAX_BYTES} bytes"
    path.write_bytes(b"name: 'x'\nname: '\xff'")
    assert read_config(tmp_path).error == "line 2: not UTF-8"
    path.unlink()
    path.mkdir()
    assert read_config(tmp_path).error == "Is a directory"
