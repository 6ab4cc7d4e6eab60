"""CIFAR-10's archive, made up in the official format, and archives that mean no good."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kronmodel.cli import main as cli
from kronmodel.data import cifar10
from kronmodel.data.registry import load
from kronmodel.errors import DataError
from tests.kronmodel.data.cifar_archive import BATCHES, FOLDER, batch, batches, write_archive


@pytest.mark.parametrize("form", ["archive", "folder", "bare files"])
def test_the_users_copy_is_found_and_read(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, truth = batches()
    home = tmp_path / "cifar10"
    if form == "archive":
        expected = write_archive(home / "cifar-10-binary.tar.gz", files)
    else:
        expected = home / FOLDER if form == "folder" else home
        expected.mkdir(parents=True)
        for name, content in files.items():
            (expected / name).write_bytes(content)
    monkeypatch.setenv("KRONMODEL_DATA", str(tmp_path))
    notes: list[str] = []
    data = load("cifar10", notes.append)
    assert data.origin == str(expected)
    assert (data.image_shape, data.x_train.shape, data.x_test.shape) == ((3, 32, 32), (60, 3072), (12, 3072))
    assert data.labels[0] == "airplane"
    assert data.labels[9] == "truck"
    images = np.concatenate([truth[name][0] for name in BATCHES[:5]])
    np.testing.assert_array_equal(data.x_train.reshape(-1, 3, 32, 32), images.astype(np.float32) / 255)
    assert data.y_train.tolist() == [label for name in BATCHES[:5] for label in truth[name][1]]
    assert data.y_test.tolist() == truth["test_batch.bin"][1]
    (warning,) = notes
    assert ("is not the official archive" if form == "archive" else "differ from the official CIFAR-10") in warning


def test_a_network_trained_on_it_says_that_it_takes_colour_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_archive(tmp_path / "cifar10" / "cifar-10-binary.tar.gz", batches(40)[0])
    monkeypatch.setenv("KRONMODEL_DATA", str(tmp_path))
    options = ["--kind", "kronecker", "--hidden", "8x8", "--epochs", "1", "--out", str(tmp_path / "models"), "--json"]
    assert cli.main(["train", "--data", "cifar10", *options]) == 0
    path = json.loads(capsys.readouterr().out)["models"]["kronecker"]["path"]
    assert cli.main(["info", path, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert card["input"] == {"kind": "image", "shape": [3, 32, 32], "range": [0.0, 1.0]}
    assert card["labels"] == list(cifar10.LABELS)
    assert card["layers"][0]["in_shape"] == [48, 64]


def test_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONMODEL_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"expected cifar-10-binary\.tar\.gz or cifar-10-batches-bin in .*/cifar10 or"):
        load("cifar10", pytest.fail)


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (member(f"{FOLDER}/data_batch_1.bin", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
        (member(f"{FOLDER}/data_batch_1.bin", type=tarfile.LNKTYPE, linkname="../../secret"), "is a link"),
        (member(f"{FOLDER}/data_batch_1.bin", type=tarfile.FIFOTYPE), "is a link, a special file"),
        (member(f"../../{FOLDER}/data_batch_1.bin", type=tarfile.DIRTYPE), "is a link, a special file"),
        (member(f"{FOLDER}/data_batch_1.bin", size=1 << 40), r"has 1,099,511,627,776 bytes or more, expected at most"),
        (member("zeros", size=1 << 29), "unpacks to more than"),
    ],
)
def test_archives_that_mean_no_good(extra: tarfile.TarInfo, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.addfile(extra, Zeros() if extra.name == "zeros" else None)
    with pytest.raises(DataError, match=message):
        cifar10.read(path, lambda line: None)
    assert list(tmp_path.iterdir()) == [path]


class Zeros(io.RawIOBase):
    """Endlessly many, without holding them."""

    def read(self, size: int = -1, /) -> bytes:
        return bytes(size)


def test_a_name_that_climbs_out_is_only_a_name(tmp_path: Path) -> None:
    """Nothing is written: a member is told by the end of its name and read in memory."""
    files, truth = batches(2)
    path = tmp_path / "deep" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            archive.addfile(member(f"../../{FOLDER}/{name}", size=len(content)), io.BytesIO(content))
    _, y_train, _, _ = cifar10.read(path, lambda line: None)
    assert y_train.tolist() == [label for name in BATCHES[:5] for label in truth[name][1]]
    assert sorted(tmp_path.rglob("*")) == [path.parent, path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes, expected records of 3,073 bytes"),
        (b"not a record", "has 12 bytes, expected records of 3,073 bytes"),
        (batch(np.zeros((2, 3, 32, 32), np.uint8), [1, 1])[:-1], "has 6,145 bytes, expected records of 3,073 bytes"),
        (batch(np.zeros((2, 3, 32, 32), np.uint8), [9, 10]), "got the label 10, expected 0 to 9"),
        (bytes(10_001 * 3073), r"has 30,733,073 bytes or more, expected at most 30,730,000"),
    ],
    ids=["empty", "text", "cut off", "label", "too many"],
)
def test_batches_of_another_form(content: bytes, message: str, tmp_path: Path) -> None:
    files, _ = batches(1)
    path = write_archive(tmp_path / "cifar-10-binary.tar.gz", {**files, "data_batch_3.bin": content})
    with pytest.raises(DataError, match=f"data_batch_3\\.bin.*({message})"):
        cifar10.read(path, lambda line: None)


def test_missing_and_broken(tmp_path: Path) -> None:
    files, _ = batches(1)
    del files["data_batch_2.bin"]
    path = write_archive(tmp_path / "cifar-10-binary.tar.gz", files)
    with pytest.raises(DataError, match=r"has no data_batch_2\.bin; expected data_batch_1\.bin, "):
        cifar10.read(path, lambda line: None)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match="can't be read"):
        cifar10.read(path, lambda line: None)
