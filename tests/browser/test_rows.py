"""Models that take rows: fields named by the card, pasted CSV, predicted numbers."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import tables
from tests.browser.conftest import Visitor
from tests.browser.service import Service


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tables.write(tmp_path_factory.mktemp("houses"))) as running:
        yield running


@pytest.fixture
def page(houses: Service, visitor: Visitor) -> Page:
    return visitor(url=houses.url).open()


def price(role: str, row: list[float]) -> float:
    return float(sum(a * b for a, b in zip(row, tables.WEIGHTS[role][:, 0].tolist(), strict=True)))


def expect_prices(page: Page, row: list[float]) -> None:
    """Expect three significant digits, or all digits of a larger whole number."""
    for role in ("kronecker", "dense"):
        expected = price(role, row)
        shown = (
            f"{expected:.0f}"
            if abs(expected) >= 100
            else re.escape(f"{expected:.{2 - len(str(abs(int(expected)))) + 1}f}")
        )
        expect(page.locator(f'[data-model="houses-{role}"] .label')).to_have_text(re.compile(f"^{shown}$"))


def test_the_fields_have_the_cards_names_and_answers_are_numbers(page: Page) -> None:
    expect(page.locator("#pad")).to_be_hidden()
    row = [4.0, 10.0, 2.0, 1.0, 6.0]
    for name, value in zip(tables.NAMES, row, strict=True):
        page.get_by_label(name, exact=True).fill(str(value))
        if name == "distance":
            expect(page.locator("#row-message")).to_have_text("Missing: garden, floor.")
    expect_prices(page, row)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^Kronecker predicts [\d.]+, Dense predicts [\d.]+\.$"))
    page.get_by_label("age", exact=True).fill("old")
    expect(page.locator("#row-message")).to_have_text("age: got “old”, expected a number.")
    expect(page.locator(".label").first).to_have_text("–")


@pytest.mark.parametrize("text", ["4,10,2.25,1,6", "4;10;2,25;1;6", " 4\t10\t2.25\t1\t6 \n", "4 10 2.25 1 6"])
def test_a_row_of_csv_is_pasted(page: Page, text: str) -> None:
    page.get_by_label("Or paste a row of CSV").fill(text)
    expect(page.get_by_label("distance", exact=True)).to_have_value("2.25")
    expect_prices(page, [4, 10, 2.25, 1, 6])


def test_errors_in_a_pasted_row_are_explained(page: Page) -> None:
    paste = page.get_by_label("Or paste a row of CSV")
    paste.fill("1,2,3")
    expect(page.locator("#row-message")).to_have_text("Got 3 values, expected 5.")
    paste.fill("1,2,three,4,5")
    expect(page.locator("#row-message")).to_have_text("Value 3: got “three”, expected a number.")
    expect(page.locator(".label").first).to_have_text("–")


def test_a_test_row_is_entered_and_its_error_shown(page: Page) -> None:
    page.locator(".sample").nth(2).click()
    row = tables.ROWS[2].tolist()
    expect(page.get_by_label("rooms", exact=True)).to_have_value(re.compile(r"^-?\d"))
    expect_prices(page, row)
    expect(page.locator('[data-model="houses-dense"] .truth')).to_have_text("off by 3.00")
    expect(page.locator("#verdict")).to_contain_text("; the true value is ")


def test_a_row_survives_a_reload(page: Page) -> None:
    page.get_by_label("Or paste a row of CSV").fill("4,10,2.25,1,6")
    expect_prices(page, [4, 10, 2.25, 1, 6])
    page.reload()
    expect(page.get_by_label("distance", exact=True)).to_have_value("2.25")
    expect_prices(page, [4, 10, 2.25, 1, 6])


def test_features_of_a_model_without_a_card_are_numbered(page: Page) -> None:
    page.locator("#chooser summary").click()
    page.get_by_role("checkbox", name=re.compile("^plain")).check()
    expect(page.get_by_role("checkbox", name=re.compile("^houses-dense"))).not_to_be_checked()
    for k, value in enumerate(("1.5", "2", "-4"), start=1):
        page.get_by_label(f"feature {k}").fill(value)
    expect(page.locator('[data-model="plain"] .label')).to_have_text("-0.500")
    expect(page.locator("#samples")).to_have_text("This model has no test samples.")


def test_labels_of_a_classifier_without_a_card_are_those_of_its_file(page: Page) -> None:
    page.locator("#chooser summary").click()
    page.get_by_role("checkbox", name=re.compile("^fruit")).check()
    for k, value in enumerate(("8.5", "1.5"), start=1):
        page.get_by_label(f"feature {k}").fill(value)
    card = page.locator('[data-model="fruit"]')
    expect(card.locator(".label")).to_have_text("pear")
    expect(card.locator(".bar-name")).to_have_text(["apple", "pear", "plum"])
    page.goto(page.url.split("#")[0] + "#/models/fruit")
    expect(page.locator("dl.details", has_text="Labels")).to_contain_text("apple, pear, plum")


def test_no_overflow_on_a_phone(houses: Service, visitor: Visitor, screenshots: Path) -> None:
    page = visitor({"width": 390, "height": 844}, url=houses.url).open()
    page.locator(".sample").first.click()
    expect(page.locator(".truth").first).to_contain_text("off by")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.screenshot(path=screenshots / "rows-390-light.png", full_page=True)
