"""Models that take the columns of a table: a field for each column, answers of the service, test rows."""

import csv
import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from kronmodel.cli import main as cli
from tests.browser.conftest import Visitor
from tests.browser.service import Service

MODEL = "trips-kronecker"


def trips() -> list[dict[str, str]]:
    rng = np.random.default_rng(2)
    return [
        {
            "km": f"{rng.uniform(3, 90):.2f}", "surface": str(rng.choice(["road", "trail", "ice"])),
            "alone": str(rng.choice(["yes", "no"])), "day": f"2023-{n % 12 + 1:02}-{n % 28 + 1:02}",
            "start": f"{n % 24:02}:{n % 60:02}", "end": f"2023-{n % 12 + 1:02}-{n % 28 + 1:02} {n % 24:02}:30:00",
            "mood": str(rng.choice(["good", "bad"])),
        }
        for n in range(150)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("trips")
    with (folder / "trips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(trips()[0]))
        writer.writeheader()
        writer.writerows(trips())
    command = ["train", "--data", str(folder / "trips.csv"), "--target", "mood", "--epochs", "2", "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *_: None)
        assert cli.main([*command, "--out", str(folder / "models"), "--no-baselines", "--json"]) == 0
    with Service(folder / "models") as running:
        yield running


@pytest.fixture
def page(service: Service, visitor: Visitor) -> Page:
    return visitor(url=service.url).open()


def answer(service: Service, row: dict[str, Any]) -> str:
    body = {"rows": [row], "models": [MODEL]}
    label: str = httpx.post(f"{service.url}/api/predict", json=body).json()["results"][0]["outputs"][0]["label"]
    return label


def expect_answer(page: Page, service: Service, row: dict[str, Any]) -> None:
    expect(page.locator(f'[data-model="{MODEL}"] .label')).to_have_text(answer(service, row))


def test_each_column_has_a_field_that_suits_it(page: Page, service: Service) -> None:
    row: dict[str, Any] = {
        "km": 12.5, "surface": None, "alone": None, "day": None, "start": None, "end": None,
    }  # fmt: skip
    page.get_by_role("textbox", name="km").fill("12.5")
    expect(page.locator("#row-message")).to_have_text("Taken as not known: surface, alone, day, start and 1 more.")
    expect_answer(page, service, row)
    surface = page.get_by_role("combobox", name="surface")
    assert surface.locator("option").all_inner_texts() == ["not known", "ice", "road", "trail"]
    surface.select_option("trail")
    page.get_by_role("combobox", name="alone").select_option("yes")
    for name, kind, value in (
        ("day", "date", "2023-07-02"), ("start", "time", "17:45"), ("end", "datetime-local", "2023-07-02T19:30"),
    ):  # fmt: skip
        field = page.get_by_label(name, exact=True)
        expect(field).to_have_attribute("type", kind)
        field.fill(value)
    expect(page.locator("#row-message")).to_have_text("")
    full = {
        "km": 12.5,
        "surface": "trail",
        "alone": True,
        "day": "2023-07-02",
        "start": "17:45",
        "end": "2023-07-02T19:30",
    }
    expect_answer(page, service, full)
    expect(page.locator("#verdict")).to_have_text(re.compile("^(Both say|They disagree)"))
    page.reload()
    expect(page.get_by_label("start", exact=True)).to_have_value("17:45")
    expect(surface).to_have_value("trail")
    expect_answer(page, service, full)
    page.get_by_role("textbox", name="km").fill("far")
    expect(page.locator("#row-message")).to_have_text("km: got “far”, expected a number.")
    expect(page.locator(".label").first).to_have_text("–")
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_label("day", exact=True)).to_have_value("")
    expect(page.locator("#verdict")).to_have_text("Fill in the columns, or pick a test sample.")


def test_a_test_row_fills_the_fields(page: Page, service: Service) -> None:
    given = httpx.get(f"{service.url}/api/models/{MODEL}/samples").json()
    row, label = given["inputs"][3], given["labels"][3]
    page.locator(".sample").nth(3).click()
    expect(page.get_by_role("textbox", name="km")).to_have_value(f"{row['km']:g}")
    expect(page.get_by_role("combobox", name="surface")).to_have_value(row["surface"])
    expect(page.get_by_label("day", exact=True)).to_have_value(row["day"])
    expect(page.get_by_label("start", exact=True)).to_have_value(re.compile("^" + row["start"][11:16]))
    expect(page.locator("#row-message")).to_have_text("")
    expect_answer(page, service, row)
    expect(page.locator("#verdict")).to_have_text(re.compile(f"(right|the true label is {label})"))
