"""The Train view's list of a file's columns: what each becomes, and the kinds that the user gives them."""

import gzip
import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import FilePayload, Page, Route, expect

from tests.browser import tables
from tests.browser.conftest import Visitor
from tests.browser.looks import axe_violations
from tests.browser.service import Service

ROWS = [
    f"{number % 7 + 0.25},{'abc'[number % 3]},{1000 + number % 4},2024-0{number % 9 + 1}-11,note {number}"
    for number in range(90)
]
TABLE = "\n".join(["size,kind,zip,day,remark", *ROWS])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tables.write(tmp_path_factory.mktemp("models"))) as running:
        yield running


def choose(page: Page, name: str, content: bytes) -> None:
    file: FilePayload = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    page.get_by_role("combobox", name="Data", exact=True).select_option("Upload a file …")
    page.get_by_label(re.compile("^File")).set_input_files(file)


def become(page: Page, name: str) -> str:
    """Return what becomes of a column."""
    row = page.locator(".columns > div").filter(has=page.get_by_label(f"{name}: kind"))
    return row.locator("p").inner_text()


def test_columns_are_described_and_their_kinds_are_sent(service: Service, visitor: Visitor) -> None:
    visit = visitor(url=service.url)
    page = visit.at("train")
    expect(page.get_by_role("combobox", name="Recipe")).to_have_value("default")
    choose(page, "mine.csv.gz", gzip.compress(TABLE.encode()))
    target = page.get_by_role("combobox", name="Column to predict")
    expect(target).to_have_value("remark")
    described = page.locator(".data-description")
    expect(described).to_contain_text(
        "predicts a column that cannot be predicted: each of the 90 classes has one sample"
    )
    target.select_option("kind")
    expect(described).to_contain_text("90 rows, of which the network takes 7 numbers each; predicts one of 3 classes.")
    expect(page.get_by_label("kind: kind")).to_be_hidden()
    assert become(page, "size") == "standardised"
    assert become(page, "day").endswith("with sine and cosine of the year, week")
    assert become(page, "remark") == "free text or names: different in every row"
    expect(page.get_by_label("remark: kind")).to_have_value("")
    expect(page.get_by_label("zip: kind").locator("option").first).to_have_text("as read: number")
    page.get_by_label("zip: kind").select_option("category")
    expect(described).to_contain_text("takes 10 numbers each")
    assert become(page, "zip") == "4 categories, a one-hot column each"
    page.get_by_label("size: kind").select_option("left out")
    expect(described).to_contain_text("takes 9 numbers each")
    assert axe_violations(page) == []

    sent: list[str] = []

    def refuse(route: Route) -> None:
        sent.append((route.request.post_data_buffer or b"").decode(errors="replace"))
        route.fulfill(status=409, json={"error": "another training is running"})

    page.route("**/api/trainings", lambda route: refuse(route) if route.request.method == "POST" else route.continue_())
    page.get_by_role("button", name="Train both").click()
    expect(page.locator("form > .message")).to_contain_text("another training is running")
    part = re.search(r'name="request"\r\n\r\n(.*?)\r\n', sent[0])
    assert part is not None
    request = json.loads(part[1])
    assert {name: request.get(name) for name in ("data", "target", "drop", "categorical", "numeric", "date")} == {
        "data": None, "target": "kind", "drop": ["size"], "categorical": ["zip"], "numeric": None, "date": None,
    }  # fmt: skip
    visit.allow_problems("409")


def test_a_kind_that_does_not_fit_is_said(service: Service, visitor: Visitor) -> None:
    visit = visitor(url=service.url)
    page = visit.at("train")
    expect(page.get_by_role("combobox", name="Recipe")).to_have_value("default")
    choose(page, "mine.csv", TABLE.encode())
    page.get_by_role("combobox", name="Column to predict").select_option("kind")
    page.get_by_label("remark: kind").select_option("number")
    expect(page.locator(".data-description")).to_contain_text(
        "90 bad rows: line 2: column 'remark': got 'note 0', expected a finite number"
    )
    assert become(page, "size") == "standardised"
    page.get_by_role("button", name="Train both").click()
    expect(page.locator("form > .message")).to_contain_text("Data: some rows cannot be used")
    page.get_by_label("remark: kind").select_option("as read: left out")
    expect(page.locator(".data-description")).not_to_contain_text("bad rows")


def test_a_file_that_cannot_be_read_is_said(service: Service, visitor: Visitor) -> None:
    visit = visitor(url=service.url)
    page = visit.at("train")
    expect(page.get_by_role("combobox", name="Recipe")).to_have_value("default")
    choose(page, "mine.csv", b"1,2\n3,4\n")
    reason = "mine.csv begins with the numbers 1, 2, expected a header line with the columns' names."
    expect(page.locator(".data-description")).to_have_text(reason)
    page.get_by_role("button", name="Train both").click()
    expect(page.locator("form > .message")).to_have_text(f"Data: {reason}")
    visit.allow_problems("400")
