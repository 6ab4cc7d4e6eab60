"""Bytes of weights against accuracy: trains small networks with several seeds, and draws the results as a chart.

python -m benchmarks.bytes run RESULTS.json [NAME ...]   # hours on two cores; adds to the results that are there
python -m benchmarks.bytes draw RESULTS.json CHART.svg   # also prints the table of docs/quantization.md
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DENSE = ["--kind", "dense", "--bits", "4", "--epochs", "20", "--learning-rate", "0.005"]
COMMANDS: dict[str, list[str]] = {
    "tiny-8k": ["--kind", "kronecker", "--recipe", "tiny-8k"],
    "tiny": ["--kind", "kronecker", "--recipe", "tiny"],
    "accurate, 4 bits": [
        "--kind", "kronecker", "--recipe", "accurate", "--rank", "3,3,8", "--epochs", "20", "--bits", "4",
        "--bias-form", "row-column",
    ],
    "accurate, float": ["--kind", "kronecker", "--recipe", "accurate"],
    "dense 784-30-10, 4 bits": [*DENSE, "--hidden", "5x6"],
    "dense 784-12-10, 4 bits": [*DENSE, "--hidden", "3x4"],
}  # fmt: skip
SEEDS = (0, 1, 2)
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 360, 60, 50
COLOURS = {"kronecker": "#0b6e4f", "dense": "#b4530a"}


def run(results: Path, names: Sequence[str]) -> None:
    """Train what the results lack, one after the other, and write the results after each."""
    found: list[dict[str, Any]] = json.loads(results.read_text()) if results.exists() else []
    for name in names or COMMANDS:
        for seed in SEEDS:
            if any((each["name"], each["seed"]) == (name, seed) for each in found):
                continue
            with tempfile.TemporaryDirectory() as out:
                command = [sys.executable, "-m", "kronmodel", "train", *COMMANDS[name], "--seed", str(seed), "--json"]
                done = subprocess.run([*command, "--threads", "1", "--out", out], check=True, stdout=subprocess.PIPE)
            ((role, model),) = json.loads(done.stdout)["models"].items()
            kept = ("parameters", "weight_bytes", "macs_per_sample", "test_accuracy")
            found.append({"name": name, "seed": seed, "role": role, **{key: model[key] for key in kept}})
            results.write_text(json.dumps(found, indent=1) + "\n")


def draw(results: Path, chart: Path) -> None:
    """Draw the mean accuracies, with a line from the lowest to the highest seed, over the logarithm of the bytes."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(results.read_text()):
        grouped.setdefault(each["name"], []).append(each)
    rows = sorted(grouped.items(), key=lambda item: item[1][0]["weight_bytes"])
    sizes: list[float] = [math.log2(runs[0]["weight_bytes"]) for _, runs in rows]
    scores: list[float] = [100 * each["test_accuracy"] for _, runs in rows for each in runs]
    low_x, high_x = math.floor(min(sizes)), math.ceil(max(sizes))
    low_y, high_y = math.floor(min(scores)), math.ceil(max(scores))

    def x(size: float) -> float:
        return LEFT + (math.log2(size) - low_x) / (high_x - low_x) * (WIDTH - LEFT - 150)

    def y(score: float) -> float:
        return 20 + (high_y - score) / (high_y - low_y) * (HEIGHT - BOTTOM - 20)

    parts = []
    for power in range(low_x, high_x + 1):
        at = x(2**power)
        label = f"{2 ** (power - 10)} kB" if power >= 10 else f"{2**power} B"
        parts.append(f'<path d="M{at:.1f} 20V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>')
    for score in range(low_y, high_y + 1):
        parts.append(f'<path d="M{LEFT} {y(score):.1f}H{WIDTH - 150}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(score) + 4:.1f}" text-anchor="end">{score} %</text>')
    for name, runs in rows:
        values = [100 * each["test_accuracy"] for each in runs]
        at, mean, colour = x(runs[0]["weight_bytes"]), statistics.mean(values), COLOURS[runs[0]["role"]]
        parts.append(
            f'<path d="M{at:.1f} {y(min(values)):.1f}V{y(max(values)):.1f}" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<circle cx="{at:.1f}" cy="{y(mean):.1f}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{at + 8:.1f}" y="{y(mean) + 4:.1f}" fill="{colour}">{name}</text>')
        size, macs = runs[0]["weight_bytes"], runs[0]["macs_per_sample"]
        seeds = " ".join(f"{value:.2f}" for value in values)
        print(f"| {name} | {size:,} | {runs[0]['parameters']:,} | {macs:,} | {mean:.2f} % | {seeds} |")
    parts.append(f'<text x="{(LEFT + WIDTH - 150) / 2}" y="{HEIGHT - 8}" text-anchor="middle">bytes of weights</text>')
    body = "\n".join(parts)
    chart.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img"><title>Test accuracy on MNIST over bytes of weights</title>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    if len(sys.argv) >= 3 and sys.argv[1] == "run":
        run(Path(sys.argv[2]), sys.argv[3:])
    elif len(sys.argv) == 4 and sys.argv[1] == "draw":
        draw(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(__doc__)
