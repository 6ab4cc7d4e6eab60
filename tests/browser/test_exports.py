"""Exported pages and modules in the real browser, opened as files with the network switched off, and in Node.js."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect

from kronmodel.cli import main as cli
from tests.browser import tables
from tests.browser.conftest import Visitor
from tests.browser.looks import check_appearance
from tests.browser.strokes import draw
from tests.browser.visit import PHONE, Visit

MAX_BYTES = 150_000  # of the page with the default twin's Kronecker network


def export(*arguments: str | Path) -> None:
    assert cli.main(["export", *map(str, arguments)]) == 0


def offline(visit: Visit) -> Page:
    visit.page.context.set_offline(True)
    page = visit.open()
    assert [request.url for request in visit.requests if not request.url.startswith("data:")] == [visit.url]
    return page


@pytest.fixture(scope="module")
def exported(twin_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    kronecker, dense = (twin_repository / f"mnist-{role}" / "1" / "model.onnx" for role in ("kronecker", "dense"))
    export(kronecker, "--to", "html", "--out", folder / "one.html")
    export(kronecker, "--to", "html", "--with", dense, "--samples", "30", "--out", folder / "twin.html")
    export(kronecker, "--to", "js", "--out", folder / "model.mjs")
    return folder


@pytest.fixture(scope="module")
def samples(twin_repository: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return samples, and the Kronecker network's probabilities by onnxruntime."""
    path = twin_repository / "mnist-kronecker" / "1" / "model.onnx"
    inputs = np.load(path.with_name("samples.npz"))["inputs"]
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    single = [session.run(["probabilities"], {"input": row[None]})[0][0] for row in inputs]
    return inputs, np.array(single, np.float32)


def test_a_page_works_as_a_file_without_a_network(
    visitor: Visitor, exported: Path, screenshots: Path, samples: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> None:
    assert (exported / "one.html").stat().st_size <= MAX_BYTES
    visit = visitor(PHONE, touch=True, url=(exported / "one.html").as_uri())
    page = offline(visit)
    expect(page.locator(".sample")).to_have_count(10)
    for i, probabilities in enumerate(samples[1][:3]):
        page.locator(".sample").nth(i).click()
        expect(page.locator(".label")).to_have_text(str(probabilities.argmax()))
        shown = page.locator(".bar-value").nth(int(probabilities.argmax())).inner_text()
        assert float(re.sub(r"[^\d.]", "", shown)) == pytest.approx(100 * probabilities.max(), abs=0.11)
        expect(page.locator(".truth")).to_have_text(re.compile("^(right|wrong)$"))
    draw(page, "3")
    expect(page.locator("#verdict")).to_have_text("It reads 3.")
    expect(page.locator(".browser-time")).to_have_text(re.compile(r"^[\d.]+\s(µs|ms)$"))
    expect(page.locator(".time")).to_have_count(0)
    page.screenshot(path=screenshots / "exported-phone.png")
    page.reload()
    expect(page.locator("#verdict")).to_have_text("It reads 3.")  # the drawing is kept


def test_a_page_with_both_networks(visitor: Visitor, exported: Path, screenshots: Path) -> None:
    visit = visitor(url=(exported / "twin.html").as_uri())
    page = offline(visit)
    page.get_by_role("button", name="Other samples").click()
    expect(page.get_by_label("Test sample 11,")).to_be_visible()
    draw(page, "7")
    expect(page.locator("#verdict")).to_have_text("Both read 7.")
    expect(page.locator("#structure-words")).to_have_text(re.compile(r"^\d+×fewer weights in the Kronecker network\.$"))
    assert [request.url for request in visit.requests if not request.url.startswith("data:")] == [visit.url]
    # The policy stops other scripts, styles and connections.
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.x = 1' }))"
    )
    assert page.evaluate("window.x") is None
    assert page.evaluate("fetch('https://example.com').then(() => 'sent', () => 'stopped')") == "stopped"
    visit.allow_problems("Content Security Policy", "violates")
    page.evaluate("() => { for (const each of document.querySelectorAll('script')) each.remove(); }")
    check_appearance(page, "exported", screenshots)


def test_a_page_for_rows_of_numbers(visitor: Visitor, tmp_path: Path) -> None:
    repository = tables.write(tmp_path / "models")
    paths = [repository / f"houses-{role}" / "1" / "model.onnx" for role in ("kronecker", "dense")]
    export(paths[0], "--to", "html", "--with", paths[1], "--out", tmp_path / "houses.html")
    page = offline(visitor(url=(tmp_path / "houses.html").as_uri()))
    page.get_by_label("Or paste a row of CSV").fill("4,10,2,1,6")
    row = np.array([4, 10, 2, 1, 6], np.float32)
    first, second = (float(row @ tables.WEIGHTS[role][:, 0]) for role in ("kronecker", "dense"))
    verdict = f"Kronecker predicts {first:.0f}, Dense predicts {second:.1f}."
    expect(page.locator("#verdict")).to_have_text(verdict)


PREDICT = """(module, rows) => ({
    name: module.name, shape: module.shape, labels: module.labels, role: module.card.role,
    answers: rows.map((row) => module.predict(row)),
})"""


@pytest.mark.parametrize("place", ["node", "browser"])
def test_a_module_predicts(
    request: pytest.FixtureRequest,
    exported: Path,
    samples: tuple[NDArray[np.float32], NDArray[np.float32]],
    place: str,
) -> None:
    inputs, expected = samples
    rows = inputs[:40].tolist()
    if place == "node":
        if shutil.which("node") is None:
            pytest.skip("Node.js is not installed")
        script = f"""import * as module from "{(exported / "model.mjs").as_uri()}";
            import {{ readFileSync }} from "node:fs";
            console.log(JSON.stringify(({PREDICT})(module, JSON.parse(readFileSync(0, "utf8")))));"""
        done = subprocess.run(
            ["node", "--input-type=module", "--eval", script],
            input=json.dumps(rows), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
    else:
        visitor: Visitor = request.getfixturevalue("visitor")
        page = visitor(url="http://module.test/").page
        page.route(
            "http://module.test/", lambda route: route.fulfill(body="<title>x</title>", content_type="text/html")
        )
        module = (exported / "model.mjs").read_text()
        page.route("**/model.mjs", lambda route: route.fulfill(body=module, content_type="text/javascript"))
        page.goto("http://module.test/")
        found = page.evaluate(f"async (rows) => ({PREDICT})(await import('/model.mjs'), rows)", rows)
    assert (found["name"], found["shape"], found["role"]) == ("mnist-kronecker", [784], "kronecker")
    np.testing.assert_allclose([each["probabilities"] for each in found["answers"]], expected[:40], atol=1e-5)
    assert [each["label"] for each in found["answers"]] == [str(each.argmax()) for each in expected[:40]]
