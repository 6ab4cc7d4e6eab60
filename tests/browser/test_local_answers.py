"""The Try view computes answers in the browser: without requests, offline, and only as long as the service agrees."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from playwright.sync_api import Page, Route, expect

from tests.browser import colours
from tests.browser.conftest import Visitor
from tests.browser.looks import SCHEMES, SIZES
from tests.browser.service import Service
from tests.browser.strokes import DIGITS, draw, move_mouse
from tests.browser.visit import Visit

DURATION = re.compile(r"^[\d.,]+\s(µs|ms)$")
MODELS = ["mnist-kronecker", "mnist-dense"]


@pytest.fixture(scope="module")
def private(twin_repository: Path) -> Iterator[Service]:
    with Service(twin_repository) as running:
        yield running


def predictions(visit: Visit) -> int:
    return sum("/api/predict" in request.url for request in visit.requests)


def expect_times(page: Page) -> None:
    for model in MODELS:
        card = page.locator(f'[data-model="{model}"]')
        expect(card.locator(".browser-time")).to_have_text(DURATION)
        expect(card.locator(".time")).to_have_text(DURATION)


def test_answers_come_without_requests_and_offline(private: Service, visitor: Visitor, screenshots: Path) -> None:
    visit = visitor(url=private.url)
    page = visit.open()
    page.locator(".sample").first.click()  # loads the files
    expect_times(page)
    before = predictions(visit)
    for _ in range(5):
        move_mouse(page, DIGITS["1"][0], lift=False)
        expect(page.locator("#verdict")).to_have_text("Both read 1.")
        page.mouse.up()
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#verdict")).to_contain_text("Draw a number")
    assert predictions(visit) <= before + 5  # at most one for each drawing
    draw(page, "3")
    expect(page.locator("#verdict")).to_have_text("Both read 3.")
    expect_times(page)
    for width, height in SIZES:
        for scheme in SCHEMES:
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
            page.screenshot(path=screenshots / f"local-{width}-{scheme}.png")

    page.set_viewport_size({"width": 1280, "height": 800})
    private.stop()
    page.get_by_role("button", name="Clear").click()
    draw(page, "7")
    expect(page.locator("#verdict")).to_have_text("Both read 7.")
    expect(page.locator("#gone")).to_be_visible()
    expect(page.locator("#verdict")).to_have_text("Both read 7.")
    page.get_by_role("button", name="Clear").click()
    draw(page, "0")
    expect(page.locator("#verdict")).to_have_text("Both read 0.")
    page.screenshot(path=screenshots / "local-offline.png")
    private.start()
    expect(page.locator("#gone")).to_be_hidden()
    expect_times(page)
    visit.allow_problems("ERR_CONNECTION", "503")


def other_weights(path: Path) -> bytes:
    """Return a model file whose answers differ a little from the service's."""
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    changed = numpy_helper.to_array(weight) + np.float32(0.01)
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    return model.SerializeToString()


def test_the_service_answers_if_its_answers_differ(visitor: Visitor, twin_repository: Path) -> None:
    visit = visitor()
    file = other_weights(twin_repository / "mnist-kronecker" / "1" / "model.onnx")

    def fulfil(route: Route) -> None:
        route.fulfill(body=file, content_type="application/onnx")

    visit.page.route("**/mnist-kronecker/file*", fulfil)
    page = visit.open()
    page.locator(".sample").first.click()
    time = page.locator('[data-model="mnist-kronecker"] .browser-time')
    expect(time).to_have_attribute("title", re.compile("^The service answers: the browser's answer differs by .+"))
    expect(time).to_have_text("–")
    before = predictions(visit)
    draw(page, "1")
    expect(page.locator("#verdict")).to_have_text("Both read 1.")
    assert predictions(visit) > before
    expect(page.locator(".time").first).to_have_text(DURATION)


def test_the_service_answers_for_operators_that_the_browser_lacks(visitor: Visitor, tmp_path: Path) -> None:
    with Service(colours.write(tmp_path)) as service:
        page = visitor(url=service.url).at("try?models=planes")
        page.locator(".sample").first.click()
        expect(page.locator('[data-model="planes"] .label')).to_have_text("green")
        time = page.locator('[data-model="planes"] .browser-time')
        expect(time).to_have_attribute("title", "The service answers: the operator ReduceMean is not supported.")
        expect(page.locator(".time")).to_have_text(DURATION)
        expect(page.locator("#verdict")).to_have_text("It says green, which is right.")
