import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Visitor
from tests.browser.strokes import draw
from tests.browser.visit import PHONE, PLOTLY

BATCH_ROWS = ["One sample at a time", "32 samples at a time"]


def compare(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^Run")).click()
    expect(page.locator("#report")).to_be_visible()
    expect(page.locator("#charts .main-svg").first).to_be_visible()


def row(page: Page, group: str, name: str) -> Locator:
    body = page.locator("#table tbody").filter(has=page.get_by_role("rowheader", name=re.compile(f"^{group}")))
    return body.locator("tr").filter(has=page.get_by_role("rowheader", name=re.compile(f"^{name}"))).last


def test_a_comparison_is_run_and_shown(visitor: Visitor) -> None:
    visit = visitor()
    page = visit.open()
    assert not visit.asked_for(PLOTLY)
    page.get_by_role("button", name="Run the comparison").click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.locator("#stage")).to_have_text(re.compile(r"\(\d+ of \d+\)$"))
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    draw(page, "7")  # serving goes on meanwhile
    expect(page.locator(".label").first).to_have_text("7")

    expect(page.locator("#report")).to_be_visible()
    expect(page.locator("#running")).to_be_hidden()
    expect(page.locator("#headline")).to_contain_text("mnist-kronecker")
    expect(page.locator(".finding")).to_have_count(2)
    expect(page.locator(".finding").first).to_contain_text("95 % interval")
    expect(page.locator("thead th")).to_have_text(["mnist-kronecker", "mnist-dense", "Kronecker is"])
    expect(row(page, "Network", "Weights")).to_contain_text("fewer")
    expect(row(page, "Network", "File")).to_contain_text("smaller")
    for group in BATCH_ROWS:
        for name in ["p50", "p95", "Samples a second", "Runs measured"]:
            expect(row(page, group, name).locator("td").first).to_have_text(re.compile(r"^[\d.,]+$"))
        expect(row(page, group, "p50").locator(".ratio")).to_have_text(
            re.compile(r"^([\d.]+× as fast|not distinguishable)$")
        )
    for name in ["Before loading", "Loaded", "Peak"]:
        expect(row(page, "Memory", name)).to_contain_text("MB")
    expect(page.locator(".ran-on")).to_contain_text("onnxruntime")

    for chart in ["latency", "memory", "file"]:
        place = page.locator(f'[data-chart="{chart}"]')
        expect(place.locator(".main-svg").first).to_be_visible()
        expect(place).to_have_attribute("aria-label", re.compile("mnist-dense: .*[0-9]"))
    expect(page.locator('[data-chart="latency"] .point')).to_have_count(4)
    assert visit.asked_for(PLOTLY)


def test_a_comparison_is_cancelled_and_can_be_run_again(visitor: Visitor) -> None:
    page = visitor().open()
    page.get_by_role("button", name="Run the comparison").click()
    expect(page.locator("#stage")).to_have_text(re.compile(r"\(\d+ of \d+\)$"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#compare-message")).to_have_text("Cancelled.")
    expect(page.locator("#report")).to_be_hidden()
    run = page.get_by_role("button", name="Run the comparison")
    expect(run).to_be_focused()
    # The service may take a moment to notice that nobody waits for the first one any more.
    for _ in range(20):
        run.click()
        expect(
            page.locator("#compare-message, #stage").filter(has_text=re.compile(r"No comparison|of \d+\)$")).first
        ).to_be_visible()
        if page.locator("#running").is_visible():
            break
        page.wait_for_timeout(500)
    expect(page.locator("#report")).to_be_visible()


def test_a_second_comparison_is_told_to_wait(visitor: Visitor) -> None:
    first, second = visitor(), visitor()
    first.open()
    second.open()
    first.page.get_by_role("button", name="Run the comparison").click()
    expect(first.page.locator("#stage")).to_have_text(re.compile(r"\(\d+ of \d+\)$"))
    second.page.get_by_role("button", name="Run the comparison").click()
    expect(second.page.locator("#compare-message")).to_have_text(re.compile("^No comparison: .+"))
    assert [problem for problem in second.problems if "409" not in problem] == []
    second.problems.clear()  # Chromium itself logs the refusal
    expect(first.page.locator("#report")).to_be_visible()


def test_it_looks_right_in_every_size_and_light(visitor: Visitor, screenshots: Path) -> None:
    """Keeps pictures to be looked at, and checks what can be checked: nothing sticks out, charts follow the scheme."""
    page = visitor().open()
    draw(page, "3")
    expect(page.locator(".card:not(.empty)")).to_have_count(2)
    compare(page)
    ink = {}
    for width, height in [(1280, 800), (1600, 1000), (1024, 768), (PHONE["width"], PHONE["height"])]:
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ["light", "dark"]:
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
            tick = page.locator('[data-chart="latency"] .xtick text').first
            expect(tick).to_have_css("fill", page.evaluate("getComputedStyle(document.body).color"))
            page.evaluate("scrollTo(0, 0)")
            page.wait_for_timeout(300)  # Plotly follows the size of the window after a pause of its own
            assert page.evaluate("document.documentElement.scrollWidth") == width
            page.screenshot(path=screenshots / f"try-{width}-{scheme}.png")
            page.screenshot(path=screenshots / f"page-{width}-{scheme}.png", full_page=True)
            ink[scheme] = tick.evaluate("element => getComputedStyle(element).fill")
    assert ink["light"] != ink["dark"]
