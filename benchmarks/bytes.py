"""Bytes of weights against accuracy: trains small networks with several seeds, and draws the results as a chart.

python -m benchmarks.bytes run RESULTS.json [NAME ...] [--seeds 0 1 2]   # hours; adds to the results that are there
python -m benchmarks.bytes draw RESULTS.json CHART.svg                   # also prints the table of docs/quantization.md
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.structured import NETWORKS, train_and_describe
from kronmodel.data.registry import load

DENSE = ["--kind", "dense", "--bits", "4", "--epochs", "20", "--learning-rate", "0.005"]
SMALL_IMAGES = "mnist-16x16.npz"
COMMANDS: dict[str, list[str]] = {
    "tiny-8k": ["--kind", "kronecker", "--recipe", "tiny-8k"],
    "tiny": ["--kind", "kronecker", "--recipe", "tiny"],
    "dense 784-30-10": [*DENSE, "--hidden", "5x6"],
    "dense 784-9-10": [*DENSE, "--hidden", "3x3"],
    # The form of BitNetMCU's network: images of 16x16 pixels, three hidden layers of 64, 4 bits, relu, 60 epochs.
    "dense 256-64-64-64-10": [
        *DENSE, "--data", SMALL_IMAGES, "--activation", "relu", "--epochs", "60", "--hidden", "8x8,8x8,8x8",
    ],
}  # fmt: skip
NAMES = [*COMMANDS, *NETWORKS]
KEPT = ("parameters", "weight_bytes", "macs_per_sample", "test_accuracy")
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 360, 60, 50
COLOURS = {"kronecker": "#0b6e4f", "dense": "#b4530a", "low-rank": "#7a3e9d", "monarch": "#1f5fa8"}
LABEL = 13  # pixels between two lines of text


def run(results: Path, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Train what the results lack, one after the other, and write the results after each."""
    for name in names or NAMES:
        for seed in seeds:
            if any((each["name"], each["seed"]) == (name, seed) for each in _found(results)):
                continue
            trained = train_and_describe(name, seed) if name in NETWORKS else _train_by_command(COMMANDS[name], seed)
            found = [*_found(results), {"name": name, "seed": seed, **trained}]  # with those of other processes
            results.write_text(json.dumps(found, indent=1) + "\n")


def _found(results: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(results.read_text()) if results.exists() else []
    return found


def _train_by_command(options: Sequence[str], seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, SMALL_IMAGES)
        if SMALL_IMAGES in options:
            _write_small_images(images)
        given = [str(images) if each == SMALL_IMAGES else each for each in (*options, "--seed", str(seed))]
        command = [sys.executable, "-m", "kronmodel", "train", *given, "--threads", "1", "--out", folder, "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    ((role, model),) = json.loads(done.stdout)["models"].items()
    return {"role": role, **{key: model[key] for key in KEPT}}


def _write_small_images(path: Path) -> None:
    """Write MNIST with images of 16x16 pixels, as bytes, each the mean of the pixels that it covers."""
    data = load("mnist", lambda line: None)
    images = {
        name: functional
        .interpolate(torch.from_numpy(x).view(-1, 1, 28, 28), (16, 16), mode="bilinear", antialias=True)
        .mul(255).round().byte().squeeze(1).numpy()
        for name, x in (("x_train", data.x_train), ("x_test", data.x_test))
    }  # fmt: skip
    np.savez(path, x_train=images["x_train"], x_test=images["x_test"], y_train=data.y_train, y_test=data.y_test)


def draw(results: Path, chart: Path) -> None:
    """Draw the mean accuracies, with a line from the lowest to the highest seed, over the bytes.

    Both axes are logarithmic, the vertical one of the error rate.
    """
    grouped: dict[str, list[dict[str, Any]]] = {}
    for each in _found(results):
        grouped.setdefault(each["name"], []).append(each)
    rows = sorted(grouped.items(), key=lambda item: item[1][0]["weight_bytes"])
    sizes: list[float] = [math.log2(runs[0]["weight_bytes"]) for _, runs in rows]
    errors: list[float] = [math.log2(100 - 100 * each["test_accuracy"]) for _, runs in rows for each in runs]
    low_x, high_x = math.floor(min(sizes)), math.ceil(max(sizes))
    low_y, high_y = math.floor(min(errors)), math.ceil(max(errors))

    def x(size: float) -> float:
        return LEFT + (math.log2(size) - low_x) / (high_x - low_x) * (WIDTH - LEFT - 150)

    def y(score: float) -> float:
        return 20 + (math.log2(100 - score) - low_y) / (high_y - low_y) * (HEIGHT - BOTTOM - 20)

    parts = []
    for power in range(low_x, high_x + 1):
        at = x(2**power)
        label = f"{2 ** (power - 10)} kB" if power >= 10 else f"{2**power} B"
        parts.append(f'<path d="M{at:.1f} 20V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>')
    for score in (100 - 2**power for power in range(low_y, high_y + 1)):
        parts.append(f'<path d="M{LEFT} {y(score):.1f}H{WIDTH - 150}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(score) + 4:.1f}" text-anchor="end">{score:g} %</text>')
    for name, runs in rows:
        values = [100 * each["test_accuracy"] for each in runs]
        at, mean, colour = x(runs[0]["weight_bytes"]), statistics.mean(values), COLOURS[runs[0]["role"]]
        parts.append(
            f'<path d="M{at:.1f} {y(min(values)):.1f}V{y(max(values)):.1f}" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<circle cx="{at:.1f}" cy="{y(mean):.1f}" r="4" fill="{colour}"/>')
        size, macs = runs[0]["weight_bytes"], runs[0]["macs_per_sample"]
        seeds = " ".join(f"{value:.2f}" for value in values)
        print(f"| {name} | {size:,} | {runs[0]['parameters']:,} | {macs:,} | {mean:.2f} % | {seeds} |")
    parts += _labels(
        [
            (
                x(runs[0]["weight_bytes"]),
                y(100 * statistics.mean(each["test_accuracy"] for each in runs)),
                name,
                runs[0],
            )
            for name, runs in rows
        ]
    )
    parts.append(f'<text x="{(LEFT + WIDTH - 150) / 2}" y="{HEIGHT - 8}" text-anchor="middle">bytes of weights</text>')
    body = "\n".join(parts)
    chart.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img"><title>Test accuracy on MNIST over bytes of weights</title>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _labels(points: Sequence[tuple[float, float, str, dict[str, Any]]]) -> list[str]:
    """Write names to the right of points, from top to bottom, each below the points and names it would overlap."""
    parts = []
    written = [(at - 5, at + 5, height + 4) for at, height, _, _ in points]  # left end, right end and line of each
    for at, height, name, run in sorted(points, key=lambda point: point[1]):
        left, right, line = at + 18, at + 18 + 6.5 * len(name), height + 4
        while any(left < end and start < right and abs(line - other) < LABEL for start, end, other in written):
            line += 1
        written.append((left, right, line))
        colour = COLOURS[run["role"]]
        parts.append(f'<path d="M{at + 5:.1f} {height:.1f}L{left - 2:.1f} {line - 4:.1f}" stroke="{colour}"/>')
        parts.append(f'<text x="{left:.1f}" y="{line:.1f}" fill="{colour}">{name}</text>')
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("run")
    training.add_argument("results", type=Path)
    training.add_argument("names", nargs="*", metavar="NAME", help="; ".join(NAMES))
    training.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    drawing = commands.add_parser("draw")
    drawing.add_argument("results", type=Path)
    drawing.add_argument("chart", type=Path)
    args = parser.parse_args()
    if args.command == "run":
        if unknown := set(args.names) - set(NAMES):
            parser.error(f"expected some of {'; '.join(NAMES)}, got {', '.join(sorted(unknown))}")
        run(args.results, args.names, args.seeds)
    else:
        draw(args.results, args.chart)


if __name__ == "__main__":
    main()
