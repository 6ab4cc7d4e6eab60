"""Colour images: drawn, filled, uploaded and picked, in the channel order and value range of the card."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import FilePayload, Page, expect

from tests.browser import colours
from tests.browser.conftest import Visitor
from tests.browser.looks import axe_violations
from tests.browser.service import Service
from tests.browser.strokes import move_mouse

RGB = {"red": (0xD7, 0x26, 0x3D), "blue": (0x1F, 0x5F, 0xD6), "white": (255, 255, 255)}


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(colours.write(tmp_path_factory.mktemp("colours"))) as running:
        yield running


def opened(painted: Service, visitor: Visitor, name: str) -> Page:
    page = visitor(url=painted.url).at(f"try?models={name}")
    expect(page.locator(f'[data-model="{name}"]')).to_be_visible()
    expect(page.locator(".sample").first).to_be_visible()
    return page


def requested_image(page: Page, name: str, pixels: dict[tuple[int, int], str]) -> NDArray[np.float64]:
    """Wait for a request whose image has these pixels in these colours: rows, columns and channels, 0 to 1.

    Requests with earlier states of the drawing may come before it.
    """
    side = colours.SIDE
    for _ in range(200):
        row = np.array(page.evaluate("window.asked.at(-1)?.inputs[0] ?? []"))
        if row.size == 0:
            picture = np.full((side, side, 3), np.nan)
        elif name == "planes":
            picture = row.reshape(3, side, side).transpose(1, 2, 0)
        else:
            picture = (row.reshape(side, side, 3) + 1) / 2
        if row.size and all(
            np.allclose(picture[at], np.array(RGB[colour]) / 255, atol=0.01) for at, colour in pixels.items()
        ):
            return picture
        page.wait_for_timeout(100)
    pytest.fail(f"no request has {pixels}; the last one has { {at: picture[at].tolist() for at in pixels} }")


def listen(page: Page) -> None:
    page.evaluate(
        """() => {
            window.asked = [];
            const { fetch } = window;
            window.fetch = (path, init) => {
                if (path === "/api/predict") window.asked.push(JSON.parse(init.body));
                return fetch(path, init);
            };
        }"""
    )


@pytest.mark.parametrize("name", ["planes", "pixels"])
def test_inputs_have_the_cards_channel_order_and_range(painted: Service, visitor: Visitor, name: str) -> None:
    page = opened(painted, visitor, name)
    listen(page)
    label = page.locator(f'[data-model="{name}"] .label')

    page.get_by_role("radio", name="red").check()
    page.get_by_role("button", name="Fill").click()
    expect(label).to_have_text("red")
    picture = requested_image(page, name, {(0, 0): "red"})
    np.testing.assert_allclose(picture, np.broadcast_to(np.array(RGB["red"]) / 255, (32, 32, 3)), atol=1e-6)

    # By keyboard: arrow keys choose the colour; then a stroke from the middle to the left edge.
    page.get_by_role("radio", name="red").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="blue", exact=True)).to_be_checked()
    page.locator("#pad").focus()
    page.keyboard.press("Space")
    for _ in range(14):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    requested_image(page, name, {(16, 8): "blue", (16, 24): "red", (4, 8): "red"})

    page.get_by_role("button", name="Clear").click()
    move_mouse(page, [(0.5, 0.05), (0.5, 0.95)])
    requested_image(page, name, {(16, 2): "white", (16, 16): "blue"})  # not centred or scaled
    assert axe_violations(page) == []

    page.locator(".sample").first.click()
    expect(label).to_have_text("green")
    expect(page.locator(f'[data-model="{name}"] .truth')).to_have_text("right")
    shown = page.locator("#input-image").evaluate("image => [...image.getContext('2d').getImageData(9, 9, 1, 1).data]")
    assert shown == [51, 204, 102, 255]


def test_an_upload_is_cropped_and_keeps_its_colours(painted: Service, visitor: Visitor) -> None:
    page = opened(painted, visitor, "planes")
    listen(page)
    image = Image.new("RGB", (400, 200), RGB["white"])  # twice as wide as high: cropped to the middle
    image.paste(RGB["red"], (100, 0, 200, 200))
    image.paste(RGB["blue"], (200, 0, 300, 200))
    data = io.BytesIO()
    image.save(data, "PNG")
    file: FilePayload = {"name": "flag.png", "mimeType": "image/png", "buffer": data.getvalue()}
    page.get_by_label("Upload a picture").set_input_files(file)
    expect(page.locator('[data-model="planes"] .label')).not_to_have_text("–")
    picture = requested_image(page, "planes", {})
    np.testing.assert_allclose(picture[:, 1:15], np.broadcast_to(np.array(RGB["red"]) / 255, (32, 14, 3)), atol=0.02)
    np.testing.assert_allclose(picture[:, 17:31], np.broadcast_to(np.array(RGB["blue"]) / 255, (32, 14, 3)), atol=0.02)
    page.reload()
    expect(page.locator('[data-model="planes"] .label')).not_to_have_text("–")
    expect(page.get_by_role("group", name="Pen colour")).to_be_visible()
