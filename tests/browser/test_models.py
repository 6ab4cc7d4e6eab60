"""The Models view: cards, and the page of each model."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import Visitor


def test_every_model_has_a_card_with_its_facts(visitor: Visitor) -> None:
    page = visitor().at("models")
    cards = page.locator(".card.model")
    expect(cards).to_have_count(2)
    expect(cards.locator("h2")).to_have_text(["mnist-kronecker", "mnist-dense"])
    for index in range(2):
        expect(cards.nth(index).locator(".facts")).to_have_text(
            re.compile(r"^weights[\d,]+bytes of weights[\d,]+multiply-adds[\d.]+.*file.*[kM]Btest accuracy[\d.]+\s%")
        )
        expect(cards.nth(index).locator(".thumbnails svg")).to_have_count(3)
    # The dashed outline is the matrix of a dense layer; dense networks have none.
    expect(cards.nth(0).locator(".outline")).to_have_count(3)
    expect(cards.nth(1).locator(".outline")).to_have_count(0)


def test_the_drawing_is_to_scale(visitor: Visitor) -> None:
    page = visitor().at("models/mnist-kronecker")
    first = page.locator(".layer svg").first
    areas = first.evaluate(
        """(svg) => {
            const area = (rect) => Number(rect.getAttribute("width")) * Number(rect.getAttribute("height"));
            const sum = (query) => [...svg.querySelectorAll(query)].map(area).reduce((a, b) => a + b, 0);
            return { outline: sum(".outline"), weight: sum(".weight"), count: svg.querySelectorAll(".weight").length };
        }"""
    )
    assert areas["count"] == 4  # two branches of two factors
    ratio = areas["outline"] / areas["weight"]
    assert abs(ratio - 784 * 784 / (4 * 28 * 28)) < 0.01 * ratio


def test_a_models_page_has_its_facts_and_links(visitor: Visitor) -> None:
    page = visitor().at("models")
    page.get_by_role("link", name="mnist-kronecker").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("mnist-kronecker")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page).to_have_title("mnist-kronecker · kronmodel")
    expect(page.locator(".layers")).to_contain_text("5,488 weights, 112× fewer than the 615,440 of a dense layer")
    for text in ["SHA-256", "learning rate", "kronmodel 0.", "input: FP32 [batch, 784]", "stored with the model"]:
        expect(page.locator(".panels")).to_contain_text(text)
    expect(page.locator(".details", has_text="Requests")).to_contain_text(
        "Requestsshare runs of up to 1,024 rows: each row of every output depends on the same row of the inputs only"
    )
    page.get_by_role("link", name="Compare with mnist-dense").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare")
    for name in ("mnist-kronecker", "mnist-dense"):
        expect(page.get_by_role("checkbox", name=re.compile(f"^{name}"))).to_be_checked()
    page.go_back()
    page.get_by_role("link", name="All models").click()
    expect(page.locator(".card.model")).to_have_count(2)


def test_an_unknown_model_is_reported(visitor: Visitor) -> None:
    page = visitor().at("models/no%20such")
    expect(page.get_by_role("heading", level=1)).to_have_text("no such")
    expect(page.locator(".models-view .message")).to_have_text("The service has no model “no such”.")
