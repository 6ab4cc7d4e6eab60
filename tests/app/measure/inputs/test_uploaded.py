"""Uploaded rows and labels: parsed, refused, and measured on."""

import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.cli.main import main
from app.errors import BadRequest
from app.measure.inputs.uploaded import MAX_CSV_BYTES, UploadedInputs
from tests.app.archives import HOSTILE_HEADERS, damaged, encrypted, header, packed_files
from tests.app.conftest import DENSE, KRONECKER, ROWS
from tests.app.graphs import LABELS, Array, forward

TWIN = ["small-kronecker", "small-dense"]
TRUE: Array = (np.arange(len(ROWS)) * 7 + 1) % 3


def npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: Array) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **arrays)
    return file.getvalue()


def packed(inputs: Array) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, inputs=inputs)
    return file.getvalue()


def text(rows: Array, *, header: bool, labels: list[str] | None = None) -> bytes:
    names = [f"f{index}" for index in range(rows.shape[1])] + (["Label"] if labels else [])
    lines = [",".join(names)] if header else []
    for index, row in enumerate(rows):
        lines.append(",".join([*map(repr, row.tolist()), *([labels[index]] if labels else [])]))
    return "\n".join(lines).encode()


NAMES = [LABELS[label] for label in TRUE]


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [
        (("x.npy", npy(ROWS)), ("y.npy", npy(TRUE))),
        (("x.npy", npy(ROWS.astype(np.float64).reshape(-1, 2, 3))), ("y.csv", "\n".join(NAMES).encode())),
        (("x.npz", npz(inputs=ROWS, labels=np.array(NAMES))), None),
        (("x.csv", text(ROWS, header=True, labels=NAMES)), None),
        (("x.csv", text(ROWS, header=False)), ("y.csv", b"label\n" + "\n".join(map(str, TRUE)).encode())),
        (("x.csv", b"\xef\xbb\xbf" + text(ROWS, header=True)), ("y.npz", npz(labels=TRUE))),
    ],
)
def test_every_format_gives_the_same_rows(inputs: Any, labels: Any) -> None:
    uploaded = UploadedInputs.read(inputs, labels)
    (rows,) = uploaded.arrays.values()
    np.testing.assert_allclose(rows.reshape(ROWS.shape), ROWS, rtol=1e-6)
    assert rows.dtype == np.float32
    assert uploaded.labels is not None
    assert uploaded.labels.tolist() in (TRUE.tolist(), NAMES, [str(label) for label in TRUE])


OBJECT_ARRAY = np.array([[1], ["a"]], dtype=object)
OBJECTS = npy(OBJECT_ARRAY)
BROKEN = npy(ROWS).replace(b"), }", b"), ")


HUGE = header("(99999999, 9)")  # gigabytes


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (("x.npy", OBJECTS), None, "inputs: x.npy cannot be read: Object arrays cannot be loaded"),
        (("x.npy", npy(ROWS)[:90]), None, "inputs: x.npy cannot be read: "),
        (("x.npy", HUGE), None, "inputs: x.npy cannot be read: inputs: got 3599999964 bytes, expected at most"),
        (("x.npy", npy(ROWS)[:-7]), None, "inputs: x.npy cannot be read: inputs: got 953 bytes of values"),
        (("x.npy", BROKEN), None, "inputs: x.npy cannot be read: inputs: its header cannot be read: "),
        (("x.npy", b"1,2"), None, "inputs: x.npy is not a npy file"),
        (("x.npz", npz(labels=TRUE)), None, "inputs: x.npz cannot be read: got the arrays labels.npy, expected inputs"),
        (("x.npz", npz(a=ROWS, b=OBJECT_ARRAY)), None, "inputs: x.npz cannot be read: Object arrays cannot be loaded"),
        (("x.npz", npz(a=ROWS, b=ROWS[:0])), None, "inputs: b: got the shape (0, 6), expected an array that is not"),
        (("x.npz", npz(a=ROWS * np.array(1j))), None, "inputs: a: got complex128, expected numbers, booleans or text"),
        (
            ("x.npz", npz(a=np.array([[1.0], [np.inf]]))),
            None,
            "inputs: a[1]: got a value that is not finite in float32",
        ),
        (("x.npz", npz(a=np.array([b"\xff"]))), None, "inputs: a: got bytes that are not UTF-8, expected text"),
        (("x.npz", npz(**{f"a{i}": TRUE for i in range(65)})), None, "inputs: x.npz cannot be read: got 65 arrays"),
        (("x.npz", npz(a=ROWS, labels=TRUE[None])), None, "labels: got int64 (1, 40), expected an array of numbers"),
        (("x.npz", damaged(packed(ROWS))), None, "inputs: x.npz cannot be read: "),
        (("x.npz", encrypted(packed(ROWS))), None, "inputs: x.npz cannot be read: "),
        (("x.npz", b"PK\x03\x04" + b"x" * 50), None, "inputs: x.npz cannot be read: "),
        (("x.npy", npy(ROWS[0])), None, "inputs: got float32 (6,), expected rows of numbers"),
        (("x.npy", npy(ROWS[:0])), None, "inputs: got 0 rows, expected 1 to 100000"),
        (("x.npy", npy(np.array([["a"]]))), None, "inputs: got <U1 (1, 1), expected rows of numbers"),
        (("x.npy", npy(np.array([[1.0], [1e39]]))), None, "inputs[1]: got a value that is not finite in float32"),
        (("x.csv", b"1,2\n3"), None, "inputs[1]: x.csv: got 1 columns, expected 2"),
        (("x.csv", b"a,b\n1,2\n3,x"), None, "inputs[1]: x.csv: got 'x', expected a number"),
        (("x.csv", b"\n"), None, "inputs: x.csv is empty"),
        (("x.csv", b"a,b"), None, "inputs: got 0 rows"),
        (("x.png", b"\x89PNG\xff"), None, "inputs: x.png: got bytes that are not text, expected .npy, .npz or .csv"),
        (("x.csv", b"1" * (MAX_CSV_BYTES + 1)), None, "inputs: x.csv: got 4194305 bytes of text, expected at most"),
        (("x.npy", npy(ROWS)), ("y.npy", npy(TRUE[:3])), "labels: got int64 (3,), expected 40 numbers or names"),
        (("x.npy", npy(ROWS)), ("y.npy", npy(TRUE * np.nan)), "labels: got a value that is not finite"),
        (("x.npy", npy(ROWS)), ("y.npy", npy(np.array(["x" * 201] * 40))), "labels: got a name of more than 200"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(inputs: Any, labels: Any, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        UploadedInputs.read(inputs, labels)
    assert str(caught.value).startswith(message)


def test_a_zip_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(BadRequest, match="got 3599999964 bytes, expected at most"):
        UploadedInputs.read(("x.npz", packed_files({"inputs.npy": HUGE})))


@pytest.mark.parametrize("second", [npy(np.ones((7, 1000))), header(f"({2**44}, 3)")], ids=["large", "huge"])
def test_the_array_that_was_checked_is_the_one_that_is_read(second: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy.load would prefer a member whose name lacks the suffix."""
    monkeypatch.setattr("app.measure.inputs.uploaded.MAX_BYTES", 1000)
    uploaded = UploadedInputs.read(("x.npz", packed_files({"inputs.npy": npy(ROWS[:5]), "inputs": second})))
    np.testing.assert_array_equal(uploaded.arrays["inputs"], ROWS[:5])


@pytest.mark.parametrize("spoilt", HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS)
def test_a_hostile_header_is_not_an_internal_error(spoilt: bytes) -> None:
    for name, content in (("x.npy", spoilt), ("x.npz", packed_files({"inputs.npy": spoilt}))):
        with pytest.raises(BadRequest, match=rf"^inputs: {name} cannot be read: ."):
            UploadedInputs.read((name, content))


def test_the_size_of_rows_is_that_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.measure.inputs.uploaded.MAX_BYTES", 1000)
    assert UploadedInputs.read(("x.npy", npy(np.ones((5, 50), np.uint8)))).arrays["inputs"].shape == (5, 50)
    with pytest.raises(BadRequest, match=r"^inputs: got 1200 bytes in float32, expected at most 1000"):
        UploadedInputs.read(("x.npy", npy(np.ones((6, 50), np.uint8))))


def post(client: httpx.Client, files: dict[str, Any], **request: Any) -> httpx.Response:
    data = {"request": json.dumps({"seconds": 0.2, "models": TWIN, "batch_sizes": [2]} | request)}
    return client.post("/api/compare", files=files, data=data)


def test_the_report_is_about_the_upload(client: httpx.Client) -> None:
    answer = post(client, {"inputs": ("mine.npy", npy(ROWS)), "labels": ("y.npy", npy(TRUE))})
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert report["settings"]["inputs"] == "mine.npy"
    quality = report["quality"]
    assert (quality["source"], quality["name"], quality["rows"]) == ("uploaded", "mine.npy", len(ROWS))
    assert quality["sentence"].startswith("On the 40 rows of mine.npy: ")
    for model, layers in zip(quality["models"], (KRONECKER, DENSE), strict=True):
        best = forward(layers, ROWS).argmax(axis=1)
        assert model["accuracy"] == pytest.approx((best == TRUE).mean())
        assert np.sum(model["confusion"]) == len(ROWS)
        assert np.trace(model["confusion"]) == (best == TRUE).sum()


def test_an_upload_without_labels_gives_agreement_only(client: httpx.Client) -> None:
    quality = post(client, {"inputs": ("x.csv", text(ROWS, header=False))}).json()["quality"]
    assert quality["labelled"] is False
    assert [model["accuracy"] for model in quality["models"]] == [None, None]
    best = [forward(layers, ROWS).argmax(axis=1) for layers in (KRONECKER, DENSE)]
    assert quality["pairs"][0]["agreement"] == pytest.approx((best[0] == best[1]).mean())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"labels": ("y.npy", npy(TRUE))}, "inputs: missing, expected a file .npy, .npz or .csv"),
        ({"inputs": ("x.npy", npy(ROWS[:, :5]))}, "inputs: got rows of 5 values, expected 6"),
        ({"inputs": ("x.npy", npy(ROWS)), "other": ("z", b"1")}, "form: got the part 'other', expected request"),
        (
            {"inputs": ("x.npy", npy(ROWS)), "labels": ("y.npy", npy(TRUE + 1))},
            "labels[1]: got '3', expected one of zero, one, two, or 0 to 2: small-kronecker has these classes",
        ),
        (
            {"inputs": ("x.npy", npy(ROWS)), "labels": ("y.csv", "\n".join(["one", "four"] * 20).encode())},
            "labels[1]: got 'four', expected one of zero, one, two",
        ),
    ],
)
def test_a_bad_upload_is_400(client: httpx.Client, files: Any, message: str) -> None:
    answer = post(client, files)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)


def test_a_malformed_form_is_400(client: httpx.Client) -> None:
    answer = client.post("/api/compare", content=b"nonsense", headers={"Content-Type": "multipart/form-data"})
    assert answer.status_code == 400
    assert answer.json()["error"]
    answer = client.post("/api/compare", data={"inputs": "1,2"}, files={"request": ("r", b"{}")})
    assert (answer.status_code, answer.json()["error"]) == (400, "inputs: got text, expected a file .npy, .npz or .csv")
    answer = post(client, {"inputs": ("x.npy", npy(ROWS))}, threads=0)
    assert (answer.status_code, answer.json()["error"][:14]) == (400, "threads: got 0")


@pytest.mark.parametrize(
    ("charset", "part"),
    [
        ("unicode_escape", b'name="request"\r\n\r\n\\ud800'),
        ("unicode_escape", b'name="inputs"; filename="\\ud800"\r\n\r\n1,2'),
        ("unicode_escape", b'name="\\ud800"\r\n\r\n{}'),
        ("undefined", b'name="request"\r\n\r\n{}'),
    ],
)
def test_a_form_that_is_not_text_is_400(client: httpx.Client, charset: str, part: bytes) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    content = b"--x\r\nContent-Disposition: form-data; " + part + b"\r\n--x--\r\n"
    answer = client.post("/api/compare", content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("form: got ")


def test_the_command_line_takes_files(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.npy").write_bytes(npy(ROWS))
    (tmp_path / "y.csv").write_bytes("\n".join(NAMES).encode())
    common = ["compare", *TWIN, "--models", str(models), "--seconds", "0.2", "--batch-sizes", "1"]
    inputs = ["--inputs", str(tmp_path / "x.npy")]
    assert main([*common, *inputs, "--labels", str(tmp_path / "y.csv")]) == 0
    assert "On the 40 rows of x.npy: small-kronecker has an accuracy of " in capsys.readouterr().out
    for arguments, message in (
        (["--labels", str(tmp_path / "y.csv")], "--labels: needs --inputs FILE"),
        (["--inputs", str(tmp_path / "none")], f"--inputs: {tmp_path / 'none'} cannot be read: No such file"),
        ([*inputs, "--labels", str(tmp_path / "x.npy")], "labels: got float32 (40, 6), expected 40 numbers or names"),
        (["--depths", "wire"], "--depths: got 'wire', expected 'session', 'queue' or 'http'"),
    ):
        assert main([*common, *arguments]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"kronserve: {message}")
