"""API keys: the page asks for a key when required, keeps it in the tab and sends it with all requests."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.access.keys import Role, make_key
from tests.browser import tables
from tests.browser.conftest import Visitor
from tests.browser.looks import axe_violations
from tests.browser.service import Service

KEYS, LINES = zip(*(make_key(role.name, role) for role in Role), strict=True)
KEY = dict(zip((role.name for role in Role), KEYS, strict=True))


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("locked")
    keys = folder / "keys"
    keys.write_text("\n".join(LINES))
    with Service(tables.write(folder / "models"), "--keys", str(keys)) as running:
        yield running


def asked(page: Page, why: str) -> None:
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()
    expect(page.locator("#key-why")).to_have_text(why)
    expect(page.locator("#key-input")).to_be_focused()


def enter(page: Page, key: str) -> None:
    page.locator("#key-input").fill(key)
    page.keyboard.press("Enter")


def fill_in(page: Page, last: str) -> None:
    """Enter a whole row, so that the models are called."""
    page.get_by_label("Or paste a row of CSV").fill(f"4,10,2,1,{last}")


def test_the_page_asks_for_a_key_with_the_required_role(locked: Service, visitor: Visitor, screenshots: Path) -> None:
    visit = visitor(url=locked.url)
    page = visit.page
    page.goto(locked.url)
    asked(page, "This service requires an API key.")
    assert axe_violations(page) == []
    page.screenshot(path=screenshots / "key-dialog.png")
    enter(page, "two words")
    expect(page.locator("#key-message")).to_contain_text("Not a valid key")
    enter(page, "no-such-key")
    asked(page, "The service does not know this API key.")
    enter(page, f" {KEY['read']} ")
    expect(page.locator("#answers .card[data-model]")).to_have_count(2)
    expect(page.locator(".sample")).to_have_count(7)

    fill_in(page, "6")
    asked(page, "The API key does not allow this: got a key for read, expected one for predict.")
    page.keyboard.press("Escape")
    expect(page.locator("#verdict")).to_contain_text("No answer: The API key does not allow this: got a key for read")
    fill_in(page, "7")  # the dialog does not open again for the same reason
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="API key").click()
    asked(page, "This tab uses an API key.")
    enter(page, KEY["predict"])
    expect(page.locator("#verdict")).to_contain_text("Kronecker predicts")

    page.get_by_role("link", name="Compare").click()
    page.get_by_label("Batch sizes").fill("1")
    page.get_by_label("Seconds").fill("0.2")
    page.get_by_label("through the queue").uncheck()
    page.get_by_label("over HTTP").uncheck()
    page.get_by_role("button", name="Run comparison").click()
    asked(page, "The API key does not allow this: got a key for predict, expected one for admin.")
    enter(page, KEY["admin"])
    expect(page.locator(".headline")).to_be_visible(timeout=240_000)  # followed with the key until the report
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download JSON").click()
    assert re.fullmatch(r"kronmodel-comparison-[0-9a-f]{32}\.json", downloading.value.suggested_filename)
    assert b'"pairs"' in Path(downloading.value.path()).read_bytes()

    page.reload()
    expect(page.locator(".headline")).to_be_visible()
    for request in visit.requests:
        assert not any(key in request.url for key in KEYS)
    assert not any(key in page.url for key in KEYS)
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    visit.allow_problems("401", "403")


def test_a_key_belongs_to_its_tab_and_can_be_forgotten(locked: Service, visitor: Visitor) -> None:
    visit = visitor(url=locked.url)
    page = visit.page
    page.goto(f"{locked.url}/#/models")
    asked(page, "This service requires an API key.")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".models-view .message")).to_have_text("No models: This service requires an API key.")
    page.get_by_role("button", name="Enter API key").click()
    enter(page, KEY["read"])
    expect(page.locator(".card.model")).to_have_count(4)
    other = page.context.new_page()
    other.goto(f"{locked.url}/#/models")
    asked(other, "This service requires an API key.")
    other.close()

    page.get_by_role("button", name="API key").click()
    page.get_by_role("button", name="Forget the key").click()
    asked(page, "This service requires an API key.")
    assert page.evaluate("sessionStorage.getItem('kronmodel.key')") is None
    page.keyboard.press("Escape")

    page.goto(f"{locked.url}/#/live")
    expect(page.locator(".live-view > .message")).to_contain_text("No metrics: This service requires an API key.")
    asking = sum("/api/models" in request.url for request in visit.requests)
    page.wait_for_timeout(2200)
    assert sum("/api/models" in request.url for request in visit.requests) == asking  # no requests until there is a key
    page.get_by_role("button", name="Enter API key").click()
    enter(page, KEY["read"])
    expect(page.locator(".live-view > .message")).to_contain_text("predictions and")
    visit.allow_problems("401")
