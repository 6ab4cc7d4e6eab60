"""Addresses of views: links, the back button, titles, focus, and state after a reload."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visitor
from tests.browser.strokes import draw

VIEWS = ["Try", "Compare", "Train", "Models", "Live"]


def current(page: Page) -> list[str]:
    texts: list[str] = page.locator("#navigation a[aria-current=page]").all_inner_texts()
    return texts


@pytest.mark.parametrize("name", VIEWS)
def test_a_deep_link_opens_its_view(visitor: Visitor, name: str) -> None:
    page = visitor().at(name.lower())
    expect(page).to_have_title(f"{name} · kronmodel")
    assert current(page) == [name]


def test_links_the_back_button_and_the_focus(visitor: Visitor) -> None:
    page = visitor().open()
    for name in VIEWS[1:]:
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(page).to_have_title(f"{name} · kronmodel")
        expect(page.locator("main h1:visible")).to_be_focused()
        assert current(page) == [name]
    for name in reversed(VIEWS[:-1]):
        page.go_back()
        expect(page).to_have_title(f"{name} · kronmodel")
        expect(page.locator("main h1:visible")).to_be_focused()
    expect(page.locator("#answers .card[data-model]")).to_have_count(2)


def test_an_unknown_address_shows_the_first_view(visitor: Visitor) -> None:
    page = visitor().at("nothing/of%E0the%20kind")
    expect(page).to_have_title("Try · kronmodel")
    expect(page).to_have_url(re.compile("#/try$"))


def test_the_skip_link_skips_the_navigation(visitor: Visitor) -> None:
    page = visitor().open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#lead")).to_be_focused()
    assert "#main" not in page.url
    page.keyboard.press("Tab")
    expect(page.locator("#pad")).to_be_focused()


def test_a_drawing_survives_a_reload_and_other_views(visitor: Visitor) -> None:
    page = visitor().open()
    draw(page, "7")
    expect(page.locator("#verdict")).to_have_text("Both read 7.")
    page.get_by_role("link", name="Models").click()
    page.get_by_role("link", name="Try", exact=True).click()
    expect(page.locator("#verdict")).to_have_text("Both read 7.")
    page.reload()
    expect(page.locator("#verdict")).to_have_text("Both read 7.")
    expect(page.locator("#pad-hint")).to_be_hidden()


def test_a_sample_and_the_chosen_models_survive_a_reload(visitor: Visitor) -> None:
    page = visitor().open()
    page.get_by_role("button", name="Other samples").click()
    page.get_by_label(re.compile("^Test sample 13,")).click()
    expect(page.locator(".truth").first).not_to_be_empty()
    page.goto(page.url.split("#", maxsplit=1)[0] + "#/try?models=mnist-dense")
    page.reload()
    expect(page.locator("#answers .card[data-model]")).to_have_count(1)
    expect(page.locator('[data-model="mnist-dense"] .truth')).to_have_text(re.compile("^(right|wrong)$"))
    expect(page.get_by_label(re.compile("^Test sample 13,"))).to_be_checked()


def test_invalid_stored_values_are_ignored(visitor: Visitor) -> None:
    page = visitor().open()
    page.evaluate(
        """() => {
            const keys = ["try.models", "try.question", "compare.form"];
            for (const key of keys) sessionStorage.setItem(`kronmodel.${key}`, "{[");
        }"""
    )
    page.reload()
    expect(page.locator("#answers .card[data-model]")).to_have_count(2)
    page.evaluate(
        """() => {
            sessionStorage.setItem("kronmodel.try.models", "[1, \\"gone\\"]");
            sessionStorage.setItem("kronmodel.try.question", "{\\"key\\": 1, \\"row\\": \\"x\\"}");
            sessionStorage.setItem("kronmodel.compare.form", "{\\"texts\\": 3, \\"models\\": {}}");
        }"""
    )
    page.reload()
    expect(page.locator("#answers .card[data-model]")).to_have_count(2)
    page.get_by_role("link", name="Compare").click()
    expect(page.get_by_role("checkbox", name=re.compile("^mnist-kronecker"))).to_be_checked()
