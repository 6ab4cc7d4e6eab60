"""The Compare view: comparisons are started, followed, cancelled, stored and deleted."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from app.system.cpus import available_cpus
from tests.browser import tables
from tests.browser.conftest import Visitor
from tests.browser.service import Service

RUN = "Run comparison"


def start(page: Page, batches: str = "1, 8", seconds: str = "0.3", *, service_depths: bool = True) -> None:
    """Start a short comparison."""
    expect(page.get_by_role("checkbox", checked=True).first).to_be_visible()
    page.get_by_label("Batch sizes").fill(batches)
    page.get_by_label("Seconds").fill(seconds)
    if not service_depths:
        page.get_by_label("through the queue").uncheck()
        page.get_by_label("over HTTP").uncheck()
    page.get_by_role("button", name=RUN).click()
    expect(page).to_have_url(re.compile(r"#/compare/[0-9a-f]{32}$"))


def run_to_completion(page: Page) -> Locator:
    expect(page.locator(".headline")).to_be_visible(timeout=240_000)
    return page.locator(".report")


def row(page: Page, group: str, name: str) -> Locator:
    body = page.locator("table tbody").filter(has=page.get_by_role("rowheader", name=re.compile(f"^{group}")))
    return body.locator("tr").filter(has=page.get_by_role("rowheader", name=re.compile(f"^{name}"))).last


@pytest.mark.slow
def test_a_comparison_is_run_shown_and_stored(visitor: Visitor) -> None:
    page = visitor().at("compare")
    start(page)
    report = run_to_completion(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("mnist-kronecker, mnist-dense")
    expect(page).to_have_title("Compare: mnist-kronecker, mnist-dense · kronmodel")
    expect(page.locator(".running")).to_be_hidden()
    expect(page.locator(".headline")).to_contain_text("mnist-kronecker")
    expect(report.locator(".finding")).to_have_count(2)
    expect(report.locator(".finding").first).to_contain_text("95 % interval")

    for depth in ("The session alone", "Through the queue", "Over HTTP"):
        figure = report.locator("figure").filter(has_text=depth)
        chart = figure.get_by_role("img")
        expect(chart).to_have_attribute("aria-label", re.compile(r"Kronecker median .*\d.*; Dense median .*\d"))
        expect(chart.locator("circle.mark")).to_have_count(2)
        expect(chart.locator("rect.mark")).to_have_count(2)
    for title in ("Predicted and measured", "Process memory", "File size", "Quality", "Environment"):
        expect(report.get_by_role("heading", name=title)).to_be_visible()

    report.get_by_text("All figures").first.click()
    expect(page.get_by_role("region", name="All figures").locator("thead th")).to_have_text(
        ["mnist-kronecker", "mnist-dense", "Kronecker is"]
    )
    expect(row(page, "Network", "Weights")).to_contain_text("fewer")
    expect(row(page, "Network", "File")).to_contain_text("smaller")
    in_c = "As C code for a microcontroller"
    for name in ("Flash, weights", "Memory"):
        expect(row(page, in_c, name).locator("td").first).to_have_text(re.compile(r"^[\d.,]+$"))
    expect(row(page, in_c, "Flash, code")).to_have_count(0)  # no compiler measured it
    for group in ("One sample at a time, the session", "8 samples at a time, over HTTP"):
        for name in ("p50", "p95", "Samples per second", "Runs measured"):
            expect(row(page, group, name).locator("td").first).to_have_text(re.compile(r"^[\d.,]+$"))
    for name in ("Before loading", "Loaded", "Peak"):
        expect(row(page, "Process memory", name)).to_contain_text("MiB")

    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download JSON").click()
    assert re.fullmatch(r"kronmodel-comparison-[0-9a-f]{32}\.json", downloading.value.suggested_filename)
    report_file: dict[str, Any] = json.loads(Path(downloading.value.path()).read_text())
    assert [model["model"] for model in report_file["models"]] == ["mnist-kronecker", "mnist-dense"]
    shown = page.locator(".finding .figure-number").first.inner_text()
    ratio = max(report_file["pairs"][0]["ratio"], 1 / report_file["pairs"][0]["ratio"])
    if shown != "≈":
        assert float(shown.rstrip("×")) == pytest.approx(ratio, rel=0.06)

    address, headline = page.url, page.locator(".headline").inner_text()
    page.get_by_role("link", name="New comparison").click()
    item = page.locator(".job-list li").first
    expect(item).to_contain_text(headline)
    expect(item.get_by_role("link", name=re.compile("^JSON of"))).to_have_attribute("href", re.compile("download=1$"))
    other = visitor().page
    other.goto(address)
    run_to_completion(other)

    page.goto(address)
    page.get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile("#/compare$"))
    visit = visitor()
    visit.page.goto(address)
    expect(visit.page.get_by_role("heading", level=1)).to_have_text("No such comparison")
    visit.allow_problems("404")


@pytest.mark.slow
def test_a_running_comparison_survives_a_reload_and_is_cancelled(visitor: Visitor) -> None:
    first, second = visitor(), visitor()
    page = first.at("compare")
    start(page, seconds="30")
    expect(page.locator(".stage")).to_have_text(re.compile(r"\(\d+ of \d+\)$"))
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.reload()
    expect(page.locator(".stage")).to_have_text(re.compile(r"\(\d+ of \d+\)$"))

    second.at("compare")
    expect(second.page.locator(".job-list li").first).to_contain_text("running")
    second.page.get_by_role("button", name=RUN).click()
    expect(
        second.page.get_by_role("alert").filter(
            has_text="No comparison: another comparison, sweep or training is running"
        )
    ).to_be_visible()
    second.allow_problems("409")

    page.get_by_role("button", name="Cancel").click()
    expect(page).to_have_url(re.compile("#/compare$"))
    expect(page.locator(".job-list li").filter(has_text="running")).to_have_count(0)
    start(page, service_depths=False)
    run_to_completion(page)
    expect(page.locator("figcaption")).to_have_text(["The session alone"])


def test_invalid_fields_are_explained(visitor: Visitor) -> None:
    page = visitor().at("compare")
    message = page.locator("form .message")
    run = page.get_by_role("button", name=RUN)
    expect(page.get_by_role("checkbox", name=re.compile("^mnist-dense"))).to_be_checked()
    page.get_by_role("checkbox", name=re.compile("^mnist-dense")).uncheck()
    run.click()
    expect(message).to_have_text("Models: got 1, expected two to six.")
    page.get_by_role("checkbox", name=re.compile("^mnist-dense")).check()
    for label, text, error in [
        ("Batch sizes", "1, many", "Batch sizes: got “many”, expected whole numbers from 1 to 1024."),
        ("Batch sizes", "", "Batch sizes: got 0 numbers, expected 1 to 8."),
        ("Threads", "1.5", f"Threads: got “1.5”, expected a whole number from 1 to {available_cpus()}."),
        ("Seconds", "-1", "Seconds: got “-1”, expected a number from 0.1 to 600."),
    ]:
        page.get_by_label(label).fill(text)
        run.click()
        expect(message).to_have_text(error)
        page.get_by_label(label).fill("1" if label == "Batch sizes" else "")


def test_the_form_survives_a_reload(visitor: Visitor) -> None:
    page = visitor().at("compare")
    expect(page.get_by_role("checkbox", name=re.compile("^mnist-dense"))).to_be_checked()
    page.get_by_label("Batch sizes").fill("3, 5")
    page.get_by_label("over HTTP").uncheck()
    page.reload()
    expect(page.get_by_label("Batch sizes")).to_have_value("3, 5")
    expect(page.get_by_label("over HTTP")).not_to_be_checked()
    expect(page.get_by_role("checkbox", name=re.compile("^mnist-dense"))).to_be_checked()


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tables.write(tmp_path_factory.mktemp("houses"))) as running:
        yield running


def test_uploaded_inputs_are_measured(houses: Service, visitor: Visitor) -> None:
    page = visitor(url=houses.url).at("compare")
    lines = [",".join([*tables.NAMES, "label"])]
    lines += [
        ",".join(map(str, [*values, price]))
        for values, price in zip(tables.ROWS.tolist(), tables.PRICES.tolist(), strict=True)
    ]
    page.get_by_text("Uploaded inputs").click()
    page.get_by_label("Rows (.npy, .npz or .csv)").set_input_files(
        {"name": "mine.csv", "mimeType": "text/csv", "buffer": "\n".join(lines).encode()}
    )
    start(page, batches="1", service_depths=False)
    run_to_completion(page)
    quality = page.locator(".panel").filter(has=page.get_by_role("heading", name="Quality"))
    expected = np.sqrt(np.mean((tables.ROWS @ tables.WEIGHTS["kronecker"] - tables.PRICES[:, None]) ** 2))
    expect(quality).to_contain_text(f"houses-kronecker: RMSE {float(f'{expected:.3g}'):.10g}")
    expect(quality).to_contain_text("houses-dense: RMSE 3.00")


def test_the_button_is_enabled_once_the_models_are_loaded(visitor: Visitor) -> None:
    visit = visitor()
    held: list[Route] = []
    visit.page.route("**/api/models", lambda route: held.append(route))  # noqa: PLW0108  # the route handler's return value is used
    page = visit.at("compare")
    button = page.get_by_role("button", name=RUN)
    while not held:
        page.wait_for_timeout(20)
    expect(button).to_be_disabled()
    held[0].continue_()
    expect(button).to_be_enabled()
    expect(page.get_by_role("checkbox", name="mnist-kronecker")).to_be_checked()


def test_uploaded_inputs_of_another_width_are_rejected(houses: Service, visitor: Visitor) -> None:
    page = visitor(url=houses.url).at("compare")
    data = io.BytesIO()
    np.save(data, np.zeros((4, 9), np.float32))
    page.get_by_text("Uploaded inputs").click()
    page.get_by_label("Rows (.npy, .npz or .csv)").set_input_files(
        {"name": "wide.npy", "mimeType": "application/octet-stream", "buffer": data.getvalue()}
    )
    page.get_by_label("Batch sizes").fill("1")
    page.get_by_role("button", name=RUN).click()
    expect(page.locator(".job-page .message")).to_have_text("No report: inputs: got rows of 9 values, expected 5.")


def test_the_device_can_be_chosen_if_there_are_several(houses: Service, visitor: Visitor) -> None:
    visit = visitor(url=houses.url)
    page = visit.at("compare")
    expect(page.get_by_role("checkbox", checked=True).first).to_be_visible()
    expect(page.get_by_label("Device")).to_be_hidden()  # this machine has its CPU only

    def with_a_gpu(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"devices": ["cpu", "cuda"]})

    page.route("**/api/models", with_a_gpu)
    page.reload()
    page.get_by_label("Device").select_option("GPU (CUDA)")
    page.get_by_role("button", name=RUN).click()
    expect(page.locator("form .message")).to_have_text(
        re.compile(r"^No comparison: device: got 'cuda', expected one of: cpu \(")
    )
    visit.allow_problems("400")
    page.reload()
    expect(page.get_by_label("Device")).to_have_value("cuda")
    page.get_by_label("Device").select_option("CPU")
    page.get_by_label("Threads").fill("1")
    with page.expect_request("**/api/compare") as asking:
        start(page, batches="1", service_depths=False)
    wanted: dict[str, Any] = json.loads(asking.value.post_data or "")
    assert (wanted["device"], wanted["threads"]) == ("cpu", 1)
    expect(run_to_completion(page)).to_contain_text("CPUExecutionProvider, 1 thread")
