"""All views at several sizes and colour schemes: no overflow, no accessibility violations; saves screenshots."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Visitor
from tests.browser.looks import SCHEMES, check_appearance
from tests.browser.service import Service
from tests.browser.strokes import draw
from tests.browser.visit import DESKTOP, Visit, new_context

pytestmark = pytest.mark.slow


def a_drawing(page: Page) -> None:
    expect(page.locator(".sample").first).to_be_visible()
    draw(page, "3")
    expect(page.locator(".card:not(.empty)")).to_have_count(2)


def some_load(page: Page) -> None:
    for _ in range(3):
        assert page.request.post(page.url.replace("/#/live", "/api/predict"), data={"inputs": [[0.0] * 784] * 2}).ok
        page.wait_for_timeout(600)
    expect(page.get_by_role("row", name="mnist-dense").get_by_role("cell").nth(2)).to_have_text(re.compile("(µs|ms)$"))


def unfolded(page: Page) -> None:
    expect(page.locator(".headline")).to_be_visible()
    page.locator("details.panel").evaluate_all("all => all.forEach((each) => { each.open = true; })")


VIEWS: dict[str, tuple[str, Callable[[Page], object]]] = {
    "try": ("try", a_drawing),
    "compare": ("compare", lambda page: expect(page.locator(".job-list a").first).to_be_visible()),
    "report": ("compare/{comparison}", lambda page: expect(page.locator(".headline")).to_be_visible()),
    "figures": ("compare/{comparison}", unfolded),
    "sweep": ("sweep", lambda page: expect(page.locator(".job-list a").first).to_be_visible()),
    "crossover": ("sweep/{sweep}", lambda page: expect(page.locator(".crossovers li").first).to_be_visible()),
    "models": ("models", lambda page: expect(page.locator(".card.model")).to_have_count(2)),
    "model": ("models/mnist-kronecker", lambda page: expect(page.locator(".layer")).to_have_count(3)),
    "live": ("live", some_load),
}


@pytest.fixture(scope="module")
def kept(browser: Browser, service: Service) -> Iterator[dict[str, str]]:
    """Return the ids of a short comparison and a short sweep."""
    with new_context(browser, DESKTOP) as context:
        ask = context.request
        settings = {
            "models": ["mnist-kronecker", "mnist-dense"],
            "seconds": 0.4,
            "depths": ["session", "queue", "http"],
        }
        report = ask.post(f"{service.url}/api/compare", data=settings, timeout=240_000)
        assert report.ok, report.text()
        sweep = ask.post(
            f"{service.url}/api/sweeps", data={"widths": [16, 64, 256, 784], "ranks": [1, 2], "seconds": 1}
        )
        assert sweep.status == 202, sweep.text()
        address = f"{service.url}/api/sweeps/{sweep.json()['id']}"
        page = context.new_page()
        while (state := ask.get(address).json())["status"] == "running":
            page.wait_for_timeout(300)
        assert state["status"] == "done", state["error"]
        yield {"comparison": report.json()["id"], "sweep": sweep.json()["id"]}


def shown(visit: Visit, name: str, kept: dict[str, str]) -> Page:
    address, ready = VIEWS[name]
    page = visit.at(address.format(**kept))
    ready(page)
    return page


@pytest.mark.parametrize("name", VIEWS)
def test_no_overflow_and_no_accessibility_violations(
    visitor: Visitor, kept: dict[str, str], screenshots: Path, name: str
) -> None:
    check_appearance(shown(visitor(), name, kept), name, screenshots)


def test_charts_follow_the_colour_scheme(visitor: Visitor, kept: dict[str, str]) -> None:
    page = shown(visitor(), "report", kept)
    colours = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        colours.append(page.locator(".mark").first.evaluate("mark => getComputedStyle(mark).fill"))
    assert colours[0] != colours[1]
