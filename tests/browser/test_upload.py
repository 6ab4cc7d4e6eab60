"""Uploaded pictures: the ink is separated from its background, preprocessed and classified."""

import io
import re
from collections.abc import Callable

import pytest
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import FilePayload, Page, expect

from tests.browser.conftest import Visitor
from tests.browser.strokes import DIGITS

Colour = str | tuple[int, ...]
MODELS = ["mnist-kronecker", "mnist-dense"]


def drawn(
    size: tuple[int, int], paper: Colour, ink: Colour, mode: str = "RGB", place: tuple[float, float] = (0.5, 0.5)
) -> Image.Image:
    """Draw a seven at a place in fractions of the image."""
    image = Image.new(mode, size, paper)
    side = 0.6 * min(size)
    left, top = place[0] * size[0] - side / 2, place[1] * size[1] - side / 2
    for stroke in DIGITS["7"]:
        points = [(left + x * side, top + y * side) for x, y in stroke]
        ImageDraw.Draw(image).line(points, fill=ink, width=round(side / 12), joint="curve")
    return image


def photograph() -> Image.Image:
    """Draw in grey on unevenly lit paper with noise, like a photograph."""
    image = drawn((900, 640), (214, 208, 196), (60, 62, 80), place=(0.35, 0.6)).filter(ImageFilter.GaussianBlur(1.5))
    shade = Image.linear_gradient("L").resize(image.size).point(lambda v: 225 + v // 9)
    noise = Image.effect_noise(image.size, 12).convert("L")
    shaded = Image.composite(image, Image.new("RGB", image.size, (120, 116, 110)), shade)
    return Image.blend(shaded, Image.merge("RGB", [noise] * 3), 0.06)


PICTURES: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "black on white": (lambda: drawn((300, 420), "white", "black", place=(0.3, 0.3)), "PNG"),
    "white on black": (lambda: drawn((64, 64), "black", "white"), "PNG"),
    "dark on transparent": (lambda: drawn((200, 200), (0, 0, 0, 0), (30, 30, 60, 255), "RGBA"), "PNG"),
    "light on transparent": (lambda: drawn((200, 200), (0, 0, 0, 0), (250, 240, 230, 255), "RGBA"), "PNG"),
    "red on yellow": (lambda: drawn((250, 250), (255, 240, 120), (190, 20, 20)), "PNG"),
    "a photograph": (photograph, "JPEG"),
}


def payload(image: Image.Image, kind: str) -> FilePayload:
    data = io.BytesIO()
    image.save(data, kind)
    return {"name": f"seven.{kind.lower()}", "mimeType": f"image/{kind.lower()}", "buffer": data.getvalue()}


def upload(page: Page, file: FilePayload) -> None:
    page.get_by_label("Upload a picture").set_input_files(file)


@pytest.mark.parametrize("name", PICTURES)
def test_both_models_classify_an_uploaded_digit(visitor: Visitor, name: str) -> None:
    make, kind = PICTURES[name]
    page = visitor().open()
    upload(page, payload(make(), kind))
    for model in MODELS:
        expect(page.locator(f'[data-model="{model}"] .label')).to_have_text("7")
    rows = page.evaluate(
        """() => {
            const { data } = document.getElementById("input-image").getContext("2d").getImageData(0, 0, 28, 28);
            const level = (y) => (_, x) => data[4 * (28 * y + x)];
            return Array.from({ length: 28 }, (_, y) => Math.max(...Array.from({ length: 28 }, level(y))));
        }"""
    )
    inked = [y for y, level in enumerate(rows) if level > 40]
    assert 18 <= len(inked) <= 20  # as high as MNIST's: no paper was mistaken for ink


def test_an_unusable_picture_is_reported(visitor: Visitor) -> None:
    page = visitor().open()
    upload(page, {"name": "notes.png", "mimeType": "image/png", "buffer": b"not a picture"})
    expect(page.locator("#file-message")).to_have_text("notes.png is not a picture that this browser can decode.")
    upload(page, payload(Image.new("RGB", (50, 50), "white"), "PNG"))
    expect(page.locator("#file-message")).to_have_text("seven.png cannot be used: it has a single colour.")
    upload(page, payload(drawn((64, 64), "black", "white"), "PNG"))
    expect(page.locator("#file-message")).to_be_empty()
    expect(page.locator("#verdict")).to_have_text(re.compile("read 7"))
