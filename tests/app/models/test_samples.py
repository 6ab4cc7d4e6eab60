import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from app.http.responses import Json
from app.models.samples import MAX_SAMPLES_BYTES, SamplesError, read_column_samples, read_samples
from tests.app.archives import HOSTILE_HEADERS, damaged, encrypted, header, packed_files

INPUTS = np.random.default_rng(0).random((5, 2, 3)).astype(np.float32)
LABELS = np.arange(5)


def write(path: Path, **arrays: Any) -> Path:
    given: dict[str, Any] = {"inputs": INPUTS, "labels": LABELS} | arrays
    np.savez_compressed(path, **given)
    return path


def test_round_trip(tmp_path: Path) -> None:
    samples = read_samples(write(tmp_path / "samples.npz"), (2, 3))
    np.testing.assert_array_equal(samples.inputs, INPUTS)
    np.testing.assert_array_equal(samples.labels, LABELS)
    assert len(samples) == 5


def test_several_targets_are_read(tmp_path: Path) -> None:
    targets = np.arange(10, dtype=np.float32).reshape(5, 2)
    samples = read_samples(write(tmp_path / "samples.npz", labels=targets), (2, 3))
    np.testing.assert_array_equal(samples.labels, targets)
    assert len(samples) == 5


def test_arrays_in_column_order_become_contiguous_for_json(tmp_path: Path) -> None:
    columns = np.ascontiguousarray(INPUTS.reshape(5, 6).T).T
    assert not columns.flags.c_contiguous
    samples = read_samples(write(tmp_path / "samples.npz", inputs=columns, labels=np.arange(10)[::2]), (6,))
    np.testing.assert_array_equal(samples.inputs, columns)
    written = orjson.loads(Json(list(samples.inputs[1:3])).body)
    np.testing.assert_array_equal(np.array(written, np.float32), columns[1:3])


SIZES = np.array([[1.5], [np.nan], [3.0]])
NAMES = np.array([["flat"], [""], ["house"]])
TEXTS = {"size": False, "labels": True}  # a column may have the name of another array


def write_columns(path: Path, **arrays: Any) -> Path:
    given: dict[str, Any] = {"column_0": SIZES, "column_1": NAMES, "labels": np.arange(3)} | arrays
    np.savez_compressed(path, **given)
    return path


def test_samples_of_columns(tmp_path: Path) -> None:
    samples = read_column_samples(write_columns(tmp_path / "samples.npz"), TEXTS)
    assert len(samples) == 3
    assert list(samples.columns) == list(TEXTS)
    np.testing.assert_array_equal(samples.columns["size"], SIZES)
    np.testing.assert_array_equal(samples.columns["labels"], NAMES)
    np.testing.assert_array_equal(samples.labels, np.arange(3))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"column_0": SIZES.astype(np.float32)}, r"'size': got float32 \(3, 1\), expected float64 \(3, 1\)"),
        ({"column_1": SIZES}, r"'labels': got float64 \(3, 1\), expected texts \(3, 1\)"),
        ({"column_1": NAMES[:2]}, r"'labels': got <U5 \(2, 1\), expected texts \(3, 1\)"),
        ({"column_0": SIZES * np.inf}, "'size': got values that are not finite"),
        ({"column_1": NAMES.astype(object)}, "cannot be read: .*pickle"),
        ({"labels": np.zeros((3, 2), np.int64)}, r"labels: got int64 \(3, 2\), expected 3 numbers"),
        ({"labels": np.zeros((3, 2, 1))}, r"labels: got float64 \(3, 2, 1\), expected 3 numbers"),
        ({"labels": np.zeros((3, 0))}, r"labels: got float64 \(3, 0\), expected 3 numbers"),
        ({"labels": np.array(["a"] * 3)}, "labels: got <U1"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(SamplesError, match=message):
        read_column_samples(write_columns(tmp_path / "samples.npz", **arrays), TEXTS)


def test_columns_that_are_too_large_together_are_refused(tmp_path: Path) -> None:
    rows = MAX_SAMPLES_BYTES // 16 + 1
    half = np.zeros((rows, 1))
    path = write_columns(tmp_path / "samples.npz", column_0=half, column_1=half, labels=np.zeros(rows, np.int8))
    with pytest.raises(SamplesError, match=rf"column_1.npy: got {8 * rows} bytes, expected at most"):
        read_column_samples(path, {"a": False, "b": False})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": INPUTS.astype(np.float64)}, r"inputs: got float64 \(5, 2, 3\), expected float32 \('n', 2, 3\)"),
        ({"inputs": INPUTS[:, :1]}, r"inputs: got float32 \(5, 1, 3\)"),
        ({"labels": LABELS[:4]}, r"labels: got int64 \(4,\), expected 5 numbers"),
        ({"labels": np.array(list("abcde"))}, "labels: got <U1"),
        ({"labels": np.array([{}] * 5, dtype=object)}, "cannot be read: .*pickle"),
        ({"inputs": INPUTS * np.float32("nan")}, "not finite"),
    ],
)
def test_arrays_of_a_wrong_shape_or_dtype_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(SamplesError, match=message):
        read_samples(write(tmp_path / "samples.npz", **arrays), (2, 3))


def test_a_header_of_a_too_large_array_is_refused_before_allocation(tmp_path: Path) -> None:
    huge = header(f"({2**40}, 6)")
    (tmp_path / "samples.npz").write_bytes(packed_files({"inputs.npy": huge, "labels.npy": huge}))
    with pytest.raises(SamplesError, match=r"inputs\.npy: got 26388279066624 bytes, expected at most"):
        read_samples(tmp_path / "samples.npz", (6,))


def test_the_checked_member_is_the_one_that_is_read(tmp_path: Path) -> None:
    """`numpy.load` prefers a member whose name has no suffix."""
    path = write(tmp_path / "samples.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("inputs", header(f"({2**44}, 2, 3)"))
    np.testing.assert_array_equal(read_samples(path, (2, 3)).inputs, INPUTS)


@pytest.mark.parametrize("spoilt", HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS)
def test_malformed_headers_are_refused(tmp_path: Path, spoilt: bytes) -> None:
    (tmp_path / "samples.npz").write_bytes(packed_files({"inputs.npy": spoilt, "labels.npy": spoilt}))
    with pytest.raises(
        SamplesError, match=r"cannot be read: .|^inputs\.npy: got 71 bytes of values, expected 72 by its header$"
    ):
        read_samples(tmp_path / "samples.npz", (6,))


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip file at all"])
def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "samples.npz").write_bytes(content)
    with pytest.raises(SamplesError, match="cannot be read"):
        read_samples(tmp_path / "samples.npz", (6,))


@pytest.mark.parametrize("spoil", [damaged, encrypted])
def test_damaged_and_encrypted_archives_are_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path / "samples.npz", inputs=np.random.default_rng(1).random((50, 2, 3)).astype(np.float32))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(SamplesError, match="cannot be read"):
        read_samples(path, (2, 3))


def test_an_archive_without_labels_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "samples.npz", inputs=INPUTS)
    with pytest.raises(SamplesError, match=r"cannot be read: .*labels"):
        read_samples(tmp_path / "samples.npz", (2, 3))
