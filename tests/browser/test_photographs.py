"""Synthetic photographs of digits: shading, shadow edges, ruled paper and specks are not ink."""

import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from kronmodel.data.file_options import FileOptions
from kronmodel.data.registry import load
from tests.browser.conftest import Visitor

PHOTOGRAPHS = 50
MIN_RIGHT = 0.95
MODEL = "mnist-kronecker"

Floats = NDArray[np.float64]

READ = """async (pictures) => {
    const { readInk } = await import("/static/js/views/try/picture.js");
    const { preprocess } = await import("/static/js/views/try/preprocessing.js");
    const task = { kind: "image", rows: 28, columns: 28, channels: 1, last: false, range: [0, 1], framed: true };
    const read = async (picture) => {
        const bytes = Uint8Array.from(atob(picture), (char) => char.charCodeAt(0));
        const paint = await readInk(new File([bytes], "photograph.jpg"));
        const context = new OffscreenCanvas(448, 448).getContext("2d");
        context.fillRect(0, 0, 448, 448);
        paint(context);
        const { data } = context.getImageData(0, 0, 448, 448);
        const values = Float32Array.from({ length: 448 * 448 }, (_, i) => data[4 * i] / 255);
        return Array.from(preprocess([{ values, width: 448, height: 448 }], task)[0]);
    };
    const found = [];
    for (const picture of pictures) found.push(await read(picture));
    return found;
}"""


def photograph(digit: Floats, rng: np.random.Generator) -> Image.Image:
    """Make a photograph of a digit (28, 28) on paper, with shading, and with two of: a shadow, ruled lines, specks."""
    width, height = 480, 600
    side = int(rng.integers(200, 300))
    ink = Image.new("L", (width, height))
    large = Image.fromarray((255 * digit).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    ink.paste(large, (int(rng.integers(40, width - side - 40)), int(rng.integers(40, height - side - 40))))
    cover = np.clip((np.asarray(ink.filter(ImageFilter.GaussianBlur(2)), float) / 255 - 0.35) / 0.3, 0, 1)
    y, x = np.mgrid[0:height, 0:width]
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.5)
    slope = (x * np.cos(angle) + y * np.sin(angle)) / np.hypot(width, height)
    paper = rng.uniform(0.8, 0.95) * (1 - strength * (slope - slope.min()) / np.ptp(slope))
    without = rng.integers(3)
    if without != 0:  # lines, paler than the ink
        lines = Image.new("L", (width, height))
        for line in range(int(rng.integers(20)), height, int(rng.integers(30, 60))):
            ImageDraw.Draw(lines).line([(0, line), (width, line + int(rng.integers(-2, 3)))], fill=255, width=2)
        paper = paper * (
            1 - rng.uniform(0.15, 0.3) * np.asarray(lines.filter(ImageFilter.GaussianBlur(0.7)), float) / 255
        )
    if without != 1:  # the edge of a shadow, straight across the picture
        turn = rng.uniform(0, 2 * np.pi)
        away = (x - width / 2) * np.cos(turn) + (y - height / 2) * np.sin(turn) - rng.uniform(-120, 120)
        paper = paper * (1 - rng.uniform(0.2, 0.45) / (1 + np.exp(-away / rng.uniform(1, 6))))
    if without != 2:
        for _ in range(6):
            at = rng.integers(15, width - 15), rng.integers(15, height - 15)
            paper = np.where(np.hypot(x - at[0], y - at[1]) < rng.uniform(1, 4), 0.25 * paper, paper)
    light = paper * (1 - rng.uniform(0.7, 0.9) * cover) + rng.normal(0, 0.012, paper.shape)
    return Image.fromarray((255 * np.clip(light, 0, 1)).astype(np.uint8)).convert("RGB")


def jpeg(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return base64.b64encode(data.getvalue()).decode()


@pytest.mark.slow
def test_photographs_are_read_where_the_clean_digits_are(visitor: Visitor) -> None:
    digits = load("mnist-5k", lambda line: None, FileOptions())
    rng = np.random.default_rng(3)
    chosen = rng.permutation(len(digits.x_test))[:PHOTOGRAPHS]
    page = visitor().open()

    def labels(rows: list[list[float]]) -> list[str]:
        answer = page.request.post(page.url.split("#")[0] + "api/predict", data={"inputs": rows, "models": [MODEL]})
        assert answer.ok, answer.text()
        return [output["label"] for output in answer.json()["results"][0]["outputs"]]

    clean = digits.x_test[chosen].astype(np.float64)
    pictures = [jpeg(photograph(digit.reshape(28, 28), rng)) for digit in clean]
    found = labels(page.evaluate(READ, pictures))
    wanted = digits.y_test[chosen].astype(str).tolist()
    read = [i for i, label in enumerate(labels(clean.tolist())) if label == wanted[i]]
    assert len(read) > 0.9 * PHOTOGRAPHS
    wrong = [(i, wanted[i], found[i]) for i in read if found[i] != wanted[i]]
    assert len(wrong) <= (1 - MIN_RIGHT) * len(read), wrong


@pytest.mark.parametrize("light", [False, True])
def test_dark_lines_and_shadows_at_the_border_are_left_out(visitor: Visitor, light: bool) -> None:
    picture = Image.new("L", (300, 400), 235)
    draw = ImageDraw.Draw(picture)
    for line in range(30, 400, 40):
        draw.line([(0, line), (300, line)], fill=30, width=3)
    draw.line([(150, 90), (150, 310)], fill=20, width=26)  # a one
    if light:
        picture = picture.point(lambda value: 255 - value)
    values = np.array(visitor().open().evaluate(READ, [jpeg(picture.convert("RGB"))])[0]).reshape(28, 28)
    rows, columns = np.flatnonzero((values > 0.3).any(1)), np.flatnonzero((values > 0.3).any(0))
    assert 18 <= np.ptp(rows) + 1 <= 21
    assert np.ptp(columns) + 1 <= 6  # without the lines
