"""Fixtures of the browser tests: Chromium, the service with trained models, pages."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Playwright, ViewportSize, expect, sync_playwright

from tests.browser.service import Service
from tests.browser.visit import DESKTOP, Visit, new_context

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

expect.set_options(timeout=60_000)


# Ends with the browser tests: meanwhile this process has a running event loop, with which other tests would fail.
@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Launch Chromium from the PATH or Playwright's own. Without one the browser tests are skipped; in CI they fail."""
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    try:
        found = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
    except Error as error:
        reason = f"no Chromium on the PATH, and Playwright has none: {error.message.splitlines()[0]}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with found:
        yield found


@pytest.fixture(scope="session")
def service(twin_repository: Path) -> Iterator[Service]:
    with Service(twin_repository) as running:
        yield running


Visitor = Callable[..., Visit]


@pytest.fixture
def visitor(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Visitor]:
    """Return a function that opens a page, by default of the shared service; problems of all pages fail the test."""
    visits: list[Visit] = []

    def visit(
        viewport: ViewportSize = DESKTOP, *, touch: bool = False, dark: bool = False, url: str | None = None
    ) -> Visit:
        address = request.getfixturevalue("service").url if url is None else url
        made = Visit(new_context(browser, viewport, touch=touch, dark=dark).new_page(), address)
        visits.append(made)
        return made

    yield visit
    for made in visits:
        made.page.context.close()
    assert [problem for made in visits for problem in made.problems] == []


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Return the folder of screenshots, which git ignores."""
    folder = Path(__file__).parents[2] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
