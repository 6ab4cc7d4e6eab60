"""The Sweep view: charts that grow while a sweep runs, and crossover widths in words."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import Visitor


def test_a_sweep_is_run_and_shown(visitor: Visitor) -> None:
    visit = visitor()
    page = visit.at("sweep")
    page.get_by_label(re.compile("^Widths")).fill("16, 64, 100")
    page.get_by_role("button", name="Run sweep").click()
    expect(page.locator("form .message")).to_be_hidden()
    page.get_by_role("button", name="Cancel").click()
    expect(page).to_have_url(re.compile("#/sweep$"))
    expect(page.get_by_label(re.compile("^Widths"))).to_have_value("16, 64, 100")

    page.get_by_label("Batch sizes").fill("1, 4")
    page.get_by_label("Seconds").fill("1")
    page.get_by_role("button", name="Run sweep").click()
    expect(page.locator(".crossovers li")).to_have_count(4)
    expect(page.locator(".crossovers li").first).to_contain_text("Rank 1, batch size 1, 1 thread")
    charts = page.get_by_role("img")
    expect(charts).to_have_count(2)
    for index in range(2):
        expect(charts.nth(index)).to_have_attribute(
            "aria-label", re.compile(r"rank 1: 16 wide [\d.]+×, 64 wide .* rank 2:")
        )
        expect(charts.nth(index).locator(".mark")).to_have_count(6)
    page.get_by_text("All figures").first.click()
    expect(page.locator("tbody tr")).to_have_count(12)
    page.reload()
    expect(page.locator(".crossovers li")).to_have_count(4)
    page.get_by_role("link", name="New sweep").click()
    expect(page.locator(".job-list li").first.get_by_role("link").first).to_be_visible()


def test_a_width_that_is_not_a_square_is_rejected(visitor: Visitor) -> None:
    page = visitor().at("sweep")
    page.get_by_label(re.compile("^Widths")).fill("64, 800")
    page.get_by_role("button", name="Run sweep").click()
    expect(page.locator("form .message")).to_have_text(
        "Widths: got 800, expected square numbers, whose roots are the factor sizes, such as 784."
    )
