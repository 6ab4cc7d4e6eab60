"""A comparison's report: the samples behind a cell of a confusion matrix, and rows of figures that differ."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.app.graphs import CARD, LABELS, classifier, forward, publish, weights
from tests.browser.conftest import Visitor
from tests.browser.looks import axe_violations
from tests.browser.service import Service
from tests.browser.test_compare import run_to_completion, start

SHAPE = (5, 4)
ROWS = np.random.default_rng(2).uniform(0, 1, (60, 20)).astype(np.float32)
NETWORKS = {"kronecker": weights([20, 7, 3], 1), "dense": weights([20, 9, 3], 2)}
TRUE = np.arange(len(ROWS)) % 3


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("guessing")
    for role, layers in NETWORKS.items():
        name = f"guess-{role}"
        card = {**CARD, "name": name, "twin": "guess", "role": role, "input": {"kind": "image", "shape": list(SHAPE)}}
        path = publish(folder, name, classifier(layers, card=card))
        np.savez_compressed(path.parent / "samples.npz", inputs=ROWS, labels=TRUE)
    with Service(folder) as running:
        yield running


def cell(role: str) -> tuple[int, int, list[int]]:
    """Return the largest cell of wrong predictions of a network: true class, predicted class, samples."""
    best = forward(NETWORKS[role], ROWS).argmax(axis=1)
    cells = [(i, j, np.flatnonzero((i == TRUE) & (j == best)).tolist()) for i in range(3) for j in range(3) if i != j]
    return max(cells, key=lambda each: len(each[2]))


@pytest.mark.slow
def test_the_samples_behind_a_cell_are_shown_and_tried(service: Service, visitor: Visitor, screenshots: Path) -> None:
    page = visitor(url=service.url).at("compare")
    start(page, batches="1", service_depths=False)
    run_to_completion(page)
    page.set_viewport_size({"width": 1024, "height": 800})
    panels = [panel.bounding_box() for panel in page.locator(".panels > *").all()]
    assert len(panels) == 4
    for left, right in zip(panels[::2], panels[1::2], strict=True):  # without holes
        assert left is not None
        assert right is not None
        assert (left["y"], left["height"], left["width"]) == (right["y"], right["height"], right["width"])
        assert right["x"] - left["x"] - left["width"] == 16
    true, predicted, rows = cell("dense")
    assert len(rows) > 12
    page.get_by_role("heading", name="Confusion matrix").click()
    name = f"{len(rows)}: {LABELS[true]} taken for {LABELS[predicted]} by guess-dense"
    button = page.get_by_role("button", name=name)
    button.focus()
    page.keyboard.press("Enter")
    behind = page.locator(".behind")
    expect(behind.locator("p").first).to_have_text(
        f"{LABELS[true]} taken for {LABELS[predicted]} by guess-dense: {len(rows)} samples, of which the first 12."
    )
    expect(behind.get_by_role("link")).to_have_text([str(row + 1) for row in rows[:12]])
    expect(behind.locator("canvas")).to_have_count(12)
    assert axe_violations(page) == []
    page.screenshot(path=screenshots / "behind.png", full_page=True)

    page.get_by_role("heading", name="Time of each node").click()
    nodes = page.get_by_role("region", name="Time of each node")
    expect(nodes.get_by_role("table")).to_have_count(2)
    for table in nodes.get_by_role("table").all():
        operators = table.get_by_role("rowheader").all_inner_texts()
        assert operators == ["MatMul", "Relu", "MatMul", "Identity", "Softmax"]
    assert axe_violations(page) == []
    nodes.screenshot(path=screenshots / "nodes.png")

    page.get_by_text("All figures").first.click()
    region = page.get_by_role("region", name="All figures")
    box = region.get_by_label("Show differences only")
    same = region.get_by_role("row", name=re.compile("^Test accuracy"))
    other = region.get_by_role("row", name=re.compile("^File"))
    expect(same.get_by_role("cell").last).to_have_text("the same")
    box.check()
    expect(same).to_be_hidden()
    expect(other).to_be_visible()
    box.uncheck()
    expect(same).to_be_visible()

    behind.get_by_role("link", name=f"Try sample {rows[11] + 1}").click()
    expect(page.get_by_label(f"Test sample {rows[11] + 1}, labelled {LABELS[true]}")).to_be_checked()
    expect(page.locator('[data-model="guess-dense"] .label')).to_have_text(LABELS[predicted])
