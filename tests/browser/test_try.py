"""The Try view: drawings and test samples are answered by the models, with mouse, touch and keyboard."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visitor
from tests.browser.strokes import DIGITS, draw, move_mouse, on_screen
from tests.browser.visit import PHONE

MODELS = ["mnist-kronecker", "mnist-dense"]


def expect_label(page: Page, label: str | re.Pattern[str]) -> None:
    for model in MODELS:
        expect(page.locator(f'[data-model="{model}"] .label')).to_have_text(label)


@pytest.mark.parametrize("digit", DIGITS)
def test_both_models_classify_a_drawn_digit(visitor: Visitor, digit: str) -> None:
    visit = visitor()
    page = visit.open()
    draw(page, digit)
    expect_label(page, digit)
    expect(page.locator("#verdict")).to_have_text(f"Both read {digit}.")
    for model in MODELS:
        card = page.locator(f'[data-model="{model}"]')
        expect(card.locator(".top .bar-name")).to_have_text(digit)
        expect(card.locator(".time")).to_have_text(re.compile(r"^[\d.,]+\s(µs|ms)$"))
    expect(page.locator("#spoken")).to_have_text(f"Both read {digit}.")  # announced once it has not changed for a while


def test_answers_come_while_the_pen_is_down(visitor: Visitor) -> None:
    page = visitor().open()
    move_mouse(page, DIGITS["1"][0], lift=False)
    expect_label(page, "1")
    page.mouse.up()


def test_the_preprocessed_drawing_is_shown(visitor: Visitor) -> None:
    page = visitor().open()
    move_mouse(page, [(0.1, 0.1), (0.1, 0.3)])  # small, in a corner
    expect(page.locator("#pad-hint")).to_be_hidden()  # once it has been preprocessed
    rows = page.evaluate(
        """() => {
            const { data } = document.getElementById("input-image").getContext("2d").getImageData(0, 0, 28, 28);
            const level = (y) => (_, x) => data[4 * (28 * y + x)];
            return Array.from({ length: 28 }, (_, y) => Math.max(...Array.from({ length: 28 }, level(y))));
        }"""
    )
    inked = [y for y, level in enumerate(rows) if level > 0]
    assert inked in (list(range(4, 24)), list(range(5, 25)))  # soft edges decide which
    assert max(rows) == 255


def test_cards_show_the_models_facts(visitor: Visitor) -> None:
    page = visitor().open()
    cards = page.locator(".card")
    expect(cards).to_have_count(2)
    for index, (model, role) in enumerate(zip(MODELS, ["Kronecker", "Dense"], strict=True)):
        card = cards.nth(index)
        expect(card.locator("h2")).to_have_text(model)
        expect(card.locator("header")).to_contain_text(role)
        expect(card.locator(".bars li")).to_have_count(10)
        expect(card.locator(".facts")).to_have_text(
            re.compile(r"^weights[\d,]+bytes of weights[\d,]+multiply-adds.*file.*[kM]Btest accuracy[\d.]+\s%")
        )
    expect(page.locator("#structure-words")).to_have_text(re.compile(r"^\d+×fewer weights in the Kronecker network\.$"))
    expect(page.locator("#structure-figures svg")).to_have_count(2)


def test_answers_to_a_sample_are_compared_with_its_label(visitor: Visitor) -> None:
    page = visitor().open()
    right = 0
    for index in range(4):
        page.locator(".sample").nth(index).click()
        truth = page.locator(".sample span").nth(index).inner_text()
        results = [page.locator(f'[data-model="{model}"] .truth') for model in MODELS]
        for truths in results:
            expect(truths).to_have_text(re.compile("^(right|wrong)$"))
        expect(page.locator("#verdict")).to_have_text(re.compile(rf"is right\.$|the true label is {truth}\.$"))
        right += sum(truths.inner_text() == "right" for truths in results)
    assert right >= 5  # of 8 real digits
    with page.expect_response("**/samples?offset=10&limit=10"):
        page.get_by_role("button", name="Other samples").click()
    expect(page.locator(".sample")).to_have_count(10)


def test_drawing_on_a_sample_starts_a_new_drawing(visitor: Visitor) -> None:
    page = visitor().open()
    page.locator(".sample").nth(3).click()
    expect(page.locator(".truth").first).not_to_be_empty()
    draw(page, "7")
    expect_label(page, "7")
    expect(page.locator(".truth").first).to_be_empty()
    expect(page.locator(".sample input:checked")).to_have_count(0)


def test_clear_removes_drawing_and_answers(visitor: Visitor) -> None:
    page = visitor().open()
    draw(page, "0")
    expect_label(page, "0")
    page.get_by_role("button", name="Clear").click()
    expect_label(page, "–")
    expect(page.locator("#verdict")).to_have_text("Draw a number from 0 to 9, or pick a test sample.")
    expect(page.locator("#pad-hint")).to_be_visible()


def test_a_finger_draws_on_a_phone_without_scrolling_it(visitor: Visitor, screenshots: Path) -> None:
    page = visitor(PHONE, touch=True).open()
    touch = page.context.new_cdp_session(page)
    for stroke in DIGITS["3"]:
        first, *rest = on_screen(page, stroke)
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": first[0], "y": first[1]}]})
        for x, y in rest:
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect_label(page, "3")
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    label = page.locator(".label").first.bounding_box()
    assert label is not None
    assert label["y"] + label["height"] < PHONE["height"]  # the answer is visible while drawing
    page.screenshot(path=screenshots / "phone-touch.png")


def test_all_controls_and_the_pad_work_by_keyboard(visitor: Visitor) -> None:
    page = visitor().open()
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
    assert reached[0] == "skip"
    assert reached[8:13] == ["pad", "file", "clear", "sample", "more-samples"]

    page.locator("#pad").focus()
    for _ in range(9):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    for _ in range(18):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    expect_label(page, "1")
    page.keyboard.press("Delete")
    expect_label(page, "–")

    page.locator(".sample input").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".sample input").nth(1)).to_be_checked()
    expect_label(page, re.compile(r"^\d$"))


def test_the_layout_does_not_shift_when_models_and_answers_arrive(visitor: Visitor) -> None:
    visit = visitor()
    visit.page.add_init_script(
        """window.shifted = 0;
        new PerformanceObserver((list) => { for (const entry of list.getEntries()) window.shifted += entry.value; })
            .observe({ type: "layout-shift", buffered: true });"""
    )
    page = visit.open()
    draw(page, "7")
    expect_label(page, "7")
    page.locator(".sample").first.click()
    expect(page.locator(".truth").first).not_to_be_empty()
    assert page.evaluate("window.shifted") < 0.01


def test_the_first_view_is_small(visitor: Visitor) -> None:
    visit = visitor()
    visit.open()
    files = [request for request in visit.requests if not urlsplit(request.url).path.startswith("/api/")]
    sizes = {}
    for request in files:
        response = request.response()
        assert response is not None
        assert response.ok, request.url
        sizes[request.url] = len(response.body())
    assert sum(sizes.values()) < 100_000, sizes
