"""The page with an unreachable service, missing models and models without cards."""

import re
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from playwright.sync_api import expect

from tests.browser.conftest import Visitor
from tests.browser.service import Service
from tests.browser.strokes import draw


def write_plain_model(folder: Path) -> None:
    """Save a model without a card, with three features and one output."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["prediction"])],
        "plain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor("weight", TensorProto.FLOAT, [3, 1], [1.0, 2.0, 3.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")


@pytest.mark.slow
def test_the_page_resumes_after_a_restart_of_the_service(
    visitor: Visitor, twin_repository: Path, screenshots: Path
) -> None:
    with Service(twin_repository) as service:
        visit = visitor(url=service.url)
        page = visit.open()
        draw(page, "1")
        expect(page.locator("#verdict")).to_have_text("Both read 1.")
        for time in page.locator(".card[data-model] .browser-time").all():  # the browser has both networks
            expect(time).to_have_text(re.compile(r"\d"))
        service.stop()
        page.get_by_role("button", name="Clear").click()
        draw(page, "7")
        expect(page.locator("#verdict")).to_have_text("Both read 7.")  # by the browser
        expect(page.locator("#gone")).to_be_visible()
        expect(page.get_by_role("alert")).to_have_text("The service cannot be reached.")
        page.screenshot(path=screenshots / "service-gone.png")

        page.get_by_role("button", name="Try now").click()
        expect(page.locator("#gone .countdown")).to_have_text(re.compile("^Next try in"))  # still unreachable
        service.start()
        expect(page.locator("#verdict")).to_have_text("Both read 7.")  # the drawing made meanwhile
        expect(page.locator("#gone")).to_be_hidden()
        page.close()  # it would ask the service for its times while it stops
        visit.allow_problems("ERR_CONNECTION", "503")


@pytest.mark.slow
def test_the_page_reconnects_without_a_click(visitor: Visitor, twin_repository: Path) -> None:
    with Service(twin_repository) as service:
        visit = visitor(url=service.url)
        page = visit.open()
        service.stop()
        draw(page, "7")
        expect(page.locator("#gone")).to_be_visible()
        service.start()
        expect(page.locator("#gone")).to_be_hidden()
        expect(page.locator("#verdict")).to_have_text("Both read 7.")
        page.close()  # it would ask the service for its times while it stops
        visit.allow_problems("ERR_CONNECTION", "503")


@pytest.mark.slow
def test_a_view_that_cannot_be_fetched_is_shown_after_reconnecting(visitor: Visitor, twin_repository: Path) -> None:
    with Service(twin_repository) as service:
        visit = visitor(url=service.url)
        page = visit.open()
        service.stop()
        page.get_by_role("link", name="Models").click()
        expect(page.locator("main > .failed")).to_have_text("This view cannot be shown: The service cannot be reached.")
        expect(page.locator("#view-try")).to_be_hidden()
        service.start()
        expect(page.locator("#gone")).to_be_hidden()
        expect(page.locator(".card.model")).to_have_count(2)
        visit.allow_problems("ERR_CONNECTION", "503")


@pytest.mark.slow
def test_the_service_stops_during_a_comparison(visitor: Visitor, twin_repository: Path) -> None:
    with Service(twin_repository) as service:
        visit = visitor(url=service.url)
        page = visit.at("compare")
        expect(page.get_by_role("checkbox", checked=True).first).to_be_visible()
        page.get_by_label("Seconds").fill("30")
        page.get_by_role("button", name="Run comparison").click()
        expect(page.locator(".stage")).to_have_text(re.compile(r"\(\d+ of \d+\)$"))
        service.stop()
        expect(page.locator(".job-page .message")).to_have_text(re.compile("^No (report|comparison): .+"))
        expect(page.locator(".running")).to_be_hidden()
        page.get_by_role("link", name="New comparison").click()
        expect(page.locator("form .message")).to_have_text("No models: The service cannot be reached.")
        expect(page.locator("#gone")).to_be_visible()
        service.start()
        expect(page.locator("#gone")).to_be_hidden()
        expect(page.locator(".job-list li").first).to_contain_text("mnist-kronecker, mnist-dense")
        visit.allow_problems("net::ERR_", "503")


def test_a_model_without_a_card_gets_a_form(visitor: Visitor, tmp_path: Path, screenshots: Path) -> None:
    write_plain_model(tmp_path / "plain" / "1")
    with Service(tmp_path) as service:
        page = visitor(url=service.url).load()
        expect(page.get_by_label("feature 3")).to_be_visible()
        expect(page.locator("#pad")).to_be_hidden()
        expect(page.locator(".card")).to_contain_text("plain")
        expect(page.locator("#structure")).to_be_hidden()
        page.screenshot(path=screenshots / "no-card.png")
        page.get_by_role("link", name="Compare").click()
        page.get_by_role("button", name="Run comparison").click()
        expect(page.locator("form .message")).to_have_text("A comparison needs two models; the service has fewer.")
