"""Finding, downloading, checking and reading data, with real files and a real HTTP server."""

import functools
import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kronmodel.data import idx
from kronmodel.data.dataset import Dataset
from kronmodel.data.registry import DATASETS, load
from kronmodel.errors import DataError


@pytest.fixture(scope="module")
def small() -> tuple[idx.Arrays, idx.Source, dict[str, bytes]]:
    """A data set in MNIST's format, cut from the 5,000 digits, with its table of checksums and its packed files."""
    x_train, y_train, x_test, y_test = idx.read_mnist_5k()
    arrays = (x_train[:60], y_train[:60], x_test[:20], y_test[:20])
    files, packed = [], {}
    for like, array in zip(idx.MNIST.files, arrays, strict=True):
        magic = bytes([0, 0, 8, array.ndim])
        content = magic + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()
        packed[like.name] = gzip.compress(content, mtime=0)
        digests = (hashlib.sha256(each).hexdigest() for each in (content, packed[like.name]))
        files.append(idx.File(like.name, array.shape, *digests))
    return arrays, replace(idx.MNIST, files=tuple(files)), packed


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the parent's name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def write(folder: Path, packed: dict[str, bytes], *, plain: bool = False) -> Path:
    folder.mkdir(parents=True)
    for name, content in packed.items():
        (folder / (name if plain else f"{name}.gz")).write_bytes(gzip.decompress(content) if plain else content)
    return folder


def assert_equal(got: idx.Arrays, want: idx.Arrays) -> None:
    for got_array, want_array in zip(got, want, strict=True):
        np.testing.assert_array_equal(got_array, want_array)


@pytest.mark.parametrize("plain", [False, True])
def test_files_are_found_under_the_data_folder_and_read(small, tmp_path, plain) -> None:  # type: ignore[no-untyped-def]
    arrays, source, packed = small
    folder = write(tmp_path / "mnist", packed, plain=plain)
    found = idx.find(source, pytest.fail, data_home=str(tmp_path), cache=tmp_path / "no", mirrors=())
    assert found == folder
    assert_equal(idx.read(folder, source), arrays)


def test_download_into_the_cache_and_found_there_the_next_time(small, tmp_path) -> None:  # type: ignore[no-untyped-def]
    arrays, source, packed = small
    notes: list[str] = []
    cache = tmp_path / "cache"
    with serving(write(tmp_path / "mirror", packed)) as mirror:
        dead = "http://127.0.0.1:9/"  # a mirror that can't be reached is not the last one
        found = idx.find(source, notes.append, data_home="", cache=cache, mirrors=(dead, mirror))
    assert found == cache
    assert_equal(idx.read(cache, source), arrays)
    assert notes == [
        f"downloading MNIST (11 MB) from {dead}",
        "that failed: ConnectionError",
        f"downloading MNIST (11 MB) from {mirror}",
    ]
    assert idx.find(source, pytest.fail, data_home="", cache=cache, mirrors=()) == cache


def test_a_download_with_another_checksum_is_refused_and_not_kept(small, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, source, packed = small
    cache = tmp_path / "cache"
    swapped = {**packed, source.files[1].name: packed[source.files[3].name]}
    with (
        serving(write(tmp_path / "mirror", swapped)) as mirror,
        pytest.raises(DataError, match=f"what {mirror} sent is not MNIST"),
    ):
        idx.find(source, lambda line: None, data_home="", cache=cache, mirrors=(mirror,))
    assert sorted(path.name for path in cache.iterdir()) == [f"{source.files[0].name}.gz"]


def test_nowhere_and_unreachable(tmp_path: Path) -> None:
    notes: list[str] = []
    home = str(tmp_path / "none")
    assert idx.find(idx.MNIST, notes.append, data_home=home, cache=tmp_path / "cache", mirrors=()) is None
    assert notes == [
        f"no MNIST in {home}/mnist (expected train-images-idx3-ubyte[.gz] and 3 more); looking elsewhere",
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-20], "can't be read"),
        (lambda content: content[:200] + bytes(8) + content[208:], "can't be read|is damaged"),
        (lambda content: b"not gzip", "can't be read"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-1] + b"x"), "is damaged or not MNIST's: got SHA-256"),
        (
            lambda content: gzip.compress(bytes(50_000_000)),
            "is damaged or not MNIST's",
        ),  # unpacked only as far as needed
        (None, "is missing"),
    ],
)
def test_damaged_files_are_refused_by_name(small, tmp_path, damage, message) -> None:  # type: ignore[no-untyped-def]
    _, source, packed = small
    folder = write(tmp_path / "mnist", packed)
    path = folder / f"{source.files[0].name}.gz"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(packed[source.files[0].name]))
    with pytest.raises(DataError, match=message) as caught:
        idx.read(folder, source)
    assert str(path).removesuffix(".gz") in str(caught.value)


def test_the_5000_digits_are_500_of_each_split_the_same_way_every_time(digits: Dataset) -> None:
    assert digits.x_train.shape == (4000, 784)
    assert digits.x_test.shape == (1000, 784)
    assert np.bincount(digits.y_train).tolist() == [400] * 10
    assert np.bincount(digits.y_test).tolist() == [100] * 10
    assert digits.x_train.dtype == np.float32
    assert (digits.x_train.min(), digits.x_train.max()) == (0, 1)
    again = load("mnist-5k", pytest.fail)
    assert again.sha256 == digits.sha256
    together = np.concatenate([digits.x_train, digits.x_test])
    assert len(np.unique(together, axis=0)) > 4990  # no sample is in both parts, but for the few that MNIST repeats


def test_digits_are_centred_by_mass_as_the_card_says(digits: Dataset) -> None:
    images = digits.x_test.reshape(-1, 28, 28)
    mass = images.sum((1, 2))
    for axis in (1, 2):
        centre = (images.sum(3 - axis) * np.arange(28)).sum(1) / mass
        assert np.abs(centre - 13.5).mean() < 0.6


def test_the_full_set_is_the_published_one(mnist_folder: Path | None) -> None:
    if mnist_folder is None:
        pytest.skip("the full MNIST is not on this machine")
    data = load("mnist", lambda line: None)
    assert (data.name, data.x_train.shape, data.x_test.shape) == ("mnist", (60000, 784), (10000, 784))
    assert np.bincount(data.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.x_train.mean() == pytest.approx(0.1307, abs=1e-4)  # the constants that everybody normalises with
    assert data.x_train.std() == pytest.approx(0.3081, abs=1e-4)


def test_fashion_mnist_is_read_from_where_debian_puts_it() -> None:
    source = idx.FASHION_MNIST
    folder = idx.locate(source)
    if folder is None:
        pytest.skip("Fashion-MNIST is not on this machine: apt-get install dataset-fashion-mnist")
    data = load("fashion-mnist", lambda line: None)
    assert (data.origin, data.x_train.shape, data.x_test.shape) == (str(folder), (60000, 784), (10000, 784))
    assert (len(data.labels), data.labels[0], data.labels[9]) == (10, "T-shirt/top", "Ankle boot")
    assert np.bincount(data.y_train.astype(int)).tolist() == [6000] * 10
    assert data.y_test[:5].tolist() == [9, 2, 1, 1, 6]  # the first that everybody sees: an ankle boot, a pullover, ...
    assert data.x_train.mean() == pytest.approx(0.2860, abs=1e-4)  # the constants that everybody normalises with
    assert data.x_train.std() == pytest.approx(0.3530, abs=1e-4)


def test_the_order_in_which_places_are_searched(small, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, source, packed = small
    packaged, cache, home = tmp_path / "packaged", tmp_path / "cache", tmp_path / "home"
    source = replace(source, packaged=(packaged,))
    assert idx.locate(source, data_home=str(home), cache=cache) is None
    for folder in (cache, packaged, home / "mnist"):
        write(folder, packed)
        assert idx.locate(source, data_home=str(home), cache=cache) == folder


def test_scikit_learns_digits() -> None:
    data = load("digits", pytest.fail)
    bunch = load_digits()
    together = np.concatenate([data.x_train, data.x_test])
    assert (data.image_shape, together.shape, len(data.x_test)) == ((8, 8), (1797, 64), 359)
    assert sorted((together * 16).tolist()) == sorted(bunch.data.tolist())
    assert np.bincount(data.y_test.astype(int)).min() >= 34
    assert load("digits", pytest.fail).sha256 == data.sha256


def test_unknown_data_set() -> None:
    with pytest.raises(DataError, match="no data set named 'mnits'; expected one of: mnist, mnist-5k"):
        load("mnits", pytest.fail)
    assert list(DATASETS) == ["mnist", "mnist-5k", "fashion-mnist", "cifar10", "digits"]
