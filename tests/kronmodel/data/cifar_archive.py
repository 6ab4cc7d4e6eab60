"""A small CIFAR-10 archive in the format of the official binary version."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = "cifar-10-batches-bin"
BATCHES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")


def batch(images: NDArray[np.uint8], labels: list[int]) -> bytes:
    """One batch file: for each image ``(3, 32, 32)`` the byte of its label, then its pixels."""
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))


def batches(each: int = 12) -> tuple[dict[str, bytes], dict[str, tuple[NDArray[np.uint8], list[int]]]]:
    """The six files, and what is in them."""
    rng = np.random.default_rng(10)
    truth = {}
    for name in BATCHES:
        images = rng.integers(0, 256, (each, 3, 32, 32), dtype=np.uint8)
        truth[name] = (images, rng.integers(0, 10, each).tolist())
    return {name: batch(*content) for name, content in truth.items()}, truth


def write_archive(path: Path, files: Mapping[str, bytes]) -> Path:
    """The archive, with the page and the names of the classes in it as the official one has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = {"readme.html": b"<p>made up</p>", "batches.meta.txt": b"airplane\nautomobile\n"}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {**texts, **files}.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
