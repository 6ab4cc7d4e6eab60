"""The Live view, and its parser of Prometheus' text format compared with the client library's."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.browser.conftest import Visitor
from tests.browser.service import Service

ROW = [0.0] * 784


def predict(page: Page, count: int = 1) -> None:
    for _ in range(count):
        answer = page.request.post(f"{page.url.split('#', maxsplit=1)[0]}api/predict", data={"inputs": [ROW]})
        assert answer.ok


def total(page: Page) -> int:
    text = page.locator(".live-view > .message").inner_text()
    match = re.match(r"([\d,]+) predictions", text)
    return int(match[1].replace(",", "")) if match else 0


def test_predictions_are_counted_as_they_come(visitor: Visitor) -> None:
    page = visitor().at("live")
    expect(page.locator(".live-view > .message")).to_contain_text("predictions and")
    before = total(page)
    predict(page, 5)
    expect(page.locator(".live-view > .message")).to_have_text(re.compile(f"^{before + 10:,} predictions"))
    tiles = page.locator(".tile")
    expect(tiles).to_have_count(4)
    expect(tiles.nth(1).locator(".figure-number")).to_have_text(re.compile(r"^[\d.,]+\s(µs|ms) / [\d.,]+\s(µs|ms)$"))
    expect(tiles.nth(2).locator(".figure-number")).to_have_text(re.compile(r"^\d+\sMiB$"))
    expect(tiles.nth(0).locator("svg")).to_have_attribute(
        "aria-label", re.compile("Predictions per second: now .*highest")
    )
    for model in ("mnist-kronecker", "mnist-dense"):
        row = page.get_by_role("row", name=model)
        expect(row.get_by_role("cell").nth(2)).to_have_text(re.compile("(µs|ms)$"))


def test_no_requests_while_another_view_is_shown(visitor: Visitor) -> None:
    visit = visitor()
    page = visit.at("live")
    expect(page.locator(".live-view > .message")).to_contain_text("predictions")
    page.get_by_role("link", name="Models").click()
    expect(page).to_have_title("Models · kronmodel")
    asked = sum("/metrics" in request.url for request in visit.requests)
    page.wait_for_timeout(2500)
    assert sum("/metrics" in request.url for request in visit.requests) == asked
    with page.expect_request("**/metrics"):
        page.go_back()


@pytest.mark.slow
def test_it_continues_after_a_restart_of_the_service(visitor: Visitor, twin_repository: Path) -> None:
    with Service(twin_repository) as service:
        visit = visitor(url=service.url)
        page = visit.at("live")
        predict(page, 3)
        expect(page.locator(".live-view > .message")).to_have_text(re.compile("^6 predictions"))
        service.stop()
        expect(page.locator("#gone")).to_be_visible()
        expect(page.locator(".live-view > .message")).to_have_text("No metrics: The service cannot be reached.")
        service.start()
        expect(page.locator("#gone")).to_be_hidden()
        predict(page)
        expect(page.locator(".live-view > .message")).to_have_text(re.compile("^2 predictions"))
        page.close()  # it would keep sending requests while the service stops
        visit.allow_problems("ERR_CONNECTION", "503")


def test_the_shadows_statistics_are_shown(visitor: Visitor, twin_repository: Path) -> None:
    with Service(twin_repository, "--shadow", "mnist-kronecker=mnist-dense", "--shadow-share", "1") as service:
        page = visitor(url=service.url).at("live")
        predict(page, 3)
        panel = page.locator(".panel").filter(has=page.get_by_role("heading", name="Shadow"))
        expect(panel).to_contain_text("mnist-kronecker answers. mnist-dense also scores 100\u202f% of its requests")
        expect(panel).to_contain_text("3 (3 rows)")
        expect(panel).to_contain_text(re.compile(r"disagreement rate(0.00|\d+\.\d\d)\s%"))
        expect(panel).to_contain_text(re.compile(r"median time of mnist-dense[\d.]+\s(µs|ms)"))
        page.close()  # it would keep sending requests while the service stops


@pytest.fixture
def page(visitor: Visitor) -> Page:
    return visitor().at("live")


def test_the_text_is_parsed_like_the_client_library(page: Page) -> None:
    registry = CollectorRegistry()
    odd = 'a "quoted" back\\slash\nand, a {comma} = sign'
    Counter("requests", "Requests.", ["model"], registry=registry).labels(odd).inc(3)
    Gauge("level", "A level.", registry=registry).set(float("inf"))
    times = Histogram("seconds", "Seconds.", ["model"], registry=registry, buckets=(0.001, 0.01))
    times.labels("x").observe(0.005)
    text = generate_latest(registry).decode()
    expected = [
        [sample.name, [list(item) for item in sorted(sample.labels.items())], sample.value]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    read = page.evaluate(
        """async (text) => {
            const { parseMetrics } = await import("/static/js/views/live/metrics.js");
            return parseMetrics(text).map(({ name, labels, value }) => [name, Object.entries(labels).sort(), value]);
        }""",
        text,
    )
    assert sorted(read) == sorted(expected)


def test_percentiles_are_exact_to_a_bucket(page: Page) -> None:
    rng = np.random.default_rng(1)
    bounds = np.geomspace(1e-5, 1, 26)
    early, late = rng.lognormal(-8, 1, 500), rng.lognormal(-6, 0.5, 2000)

    def cumulative(values: NDArray[np.float64]) -> list[list[float]]:
        return [[float(b), int((values <= b).sum())] for b in bounds] + [[1e9, len(values)]]

    before, after = cumulative(early), cumulative(np.concatenate([early, late]))
    for share in (0.5, 0.95, 0.99):
        got = page.evaluate(
            """async ([before, after, share]) => {
                const { percentile } = await import("/static/js/views/live/metrics.js");
                return percentile(new Map(before), new Map(after), share);
            }""",
            [before, after, share],
        )
        exact = float(np.percentile(late, 100 * share))
        step = bounds[1] / bounds[0]
        assert exact / step <= got <= exact * step
    nothing = page.evaluate(
        """async (before) => {
            const { percentile } = await import("/static/js/views/live/metrics.js");
            return percentile(new Map(before), new Map(before), 0.5);
        }""",
        before,
    )
    assert nothing is None
