"""A made-up CIFAR-10 archive in the official one's format, its pickles as Python 2 wrote them."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = "cifar-10-batches-py"
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def python_2_pickle(value: Any) -> bytes:
    """Protocol 2 with Python 2's byte strings and numpy's array as its __reduce__ gives it: what pickle.dumps can't."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(key) + _opcodes(each) for key, each in value.items()) + b"u"
    if isinstance(value, list | tuple):
        begin, end = (b"](", b"e") if isinstance(value, list) else (b"(", b"t")
        return begin + b"".join(map(_opcodes, value)) + end
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return b"J" + value.to_bytes(4, "little", signed=True)
    if isinstance(value, bytes):
        return b"T" + len(value).to_bytes(4, "little") + value
    dtype = (
        b"cnumpy\ndtype\n" + _opcodes((b"u1", 0, 1)) + b"R" + _opcodes((3, b"|", None, None, None, -1, -1, 0)) + b"b"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _opcodes((0,)) + _opcodes(b"b") + b"tR"
    state = b"(" + _opcodes(1) + _opcodes(value.shape) + dtype + _opcodes(False) + _opcodes(value.tobytes()) + b"t"
    return array + state + b"b"


def batch(images: NDArray[np.uint8], labels: list[int]) -> bytes:
    """One batch file; images ``(n, 3, 32, 32)``."""
    names = [b"made_up_s_%06d.png" % number for number in range(len(images))]
    flat = images.reshape(len(images), 3072)
    return python_2_pickle({b"batch_label": b"made up", b"labels": labels, b"data": flat, b"filenames": names})


def batches(each: int = 12) -> tuple[dict[str, bytes], dict[str, tuple[NDArray[np.uint8], list[int]]]]:
    """The six files, and what is in them."""
    rng = np.random.default_rng(10)
    truth = {}
    for name in BATCHES:
        images = rng.integers(0, 256, (each, 3, 32, 32), dtype=np.uint8)
        truth[name] = (images, rng.integers(0, 10, each).tolist())
    return {name: batch(*content) for name, content in truth.items()}, truth


def write_archive(path: Path, files: Mapping[str, bytes]) -> Path:
    """The archive, with a page of text in it as the official one has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {"readme.html": b"<p>made up</p>", **files}.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
