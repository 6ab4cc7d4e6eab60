"""The page of the running container in a browser: the key is asked for and used."""

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Visitor
from tests.image.container import Container


def test_the_page_asks_for_the_generated_key(models: Path, visitor: Visitor) -> None:
    with Container(models, host_network=True) as container:
        visit = visitor(url=container.url)
        page = visit.page
        page.goto(container.url)
        expect(page.get_by_role("dialog", name="API key")).to_be_visible()
        page.locator("#key-input").fill(container.key())
        page.keyboard.press("Enter")
        expect(page.locator(".card[data-model]")).to_have_count(2)
        page.locator(".sample").first.click()
        for card in page.locator(".card[data-model]").all():
            expect(card.locator(".time")).to_have_text(re.compile(r"^[\d.,]+\s(µs|ms)$"))
        visit.allow_problems("401")
        page.close()  # before the container ends: the page has the answers confirmed after a moment
