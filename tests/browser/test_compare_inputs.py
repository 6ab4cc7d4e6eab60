"""The Compare view with models of several inputs: chosen, measured on arrays by name, and on made-up inputs."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from playwright.sync_api import Page, expect

from tests.app.graphs import publish
from tests.app.measure.inputs.test_uploaded import npz
from tests.app.measure.test_comparison_inputs import IDS, STATE, reader
from tests.browser.conftest import Visitor
from tests.browser.looks import check_appearance
from tests.browser.service import Service
from tests.browser.test_compare import run_to_completion, start


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("readers")
    publish(folder, "full", reader(6))
    publish(folder, "rounded", reader(0))
    with Service(folder) as running:
        yield running


def choose(page: Page) -> None:
    group = page.get_by_role("group", name="takes ids INT64, state FP32")
    for name in ("full", "rounded"):
        group.get_by_role("checkbox", name=re.compile(f"^{name}")).check()


def test_arrays_for_each_input_are_measured(readers: Service, visitor: Visitor, screenshots: Path) -> None:
    page = visitor(url=readers.url).at("compare")
    choose(page)
    page.get_by_text("Uploaded inputs").click()
    page.get_by_label("Rows (.npy, .npz or .csv)").set_input_files(
        {"name": "rows.npz", "mimeType": "application/zip", "buffer": npz(ids=IDS, state=STATE)}
    )
    start(page, batches="1, 2", service_depths=False)
    report = run_to_completion(page)
    inputs = report.locator(".panel").filter(has=page.get_by_role("heading", name="Inputs"))
    expect(inputs).to_contain_text("5 rows, the same for all models.File rows.npz")
    feed = {"ids": IDS, "state": STATE}
    full, rounded = (
        onnxruntime.InferenceSession(readers.models / name / "1" / "model.onnx").run(None, feed)
        for name in ("full", "rounded")
    )
    table = report.get_by_role("region", name="Differences of the outputs")
    expect(table.get_by_role("columnheader")).to_have_text(
        ["output", "largest", "mean", "cosine similarity", "lowest of a row", "same class", "equal"]
    )
    same = f"{100 * (full[2] == rounded[2]).mean():.1f}\u202f%"
    row = table.get_by_role("row").filter(has=page.get_by_role("rowheader", name="p", exact=True))
    cells = row.get_by_role("cell").all_inner_texts()
    assert float(cells[0]) == pytest.approx(np.abs(full[1] - rounded[1]).max(), rel=0.01)
    assert cells[4:] == [same, ""]
    row = table.get_by_role("row").filter(has=page.get_by_role("rowheader", name="best"))
    assert row.get_by_role("cell").all_inner_texts()[2:] == ["", "", "", same]
    check_appearance(page, "differences", screenshots)


def test_made_up_inputs_are_described(readers: Service, visitor: Visitor) -> None:
    page = visitor(url=readers.url).at("compare")
    choose(page)
    start(page, batches="1", service_depths=False)
    report = run_to_completion(page)
    inputs = report.locator(".panel").filter(has=page.get_by_role("heading", name="Inputs"))
    expect(inputs).to_contain_text(
        "Made up from the models' metadata: ids INT64 [batch, 128] random integers from 0 to 255 (seed 0); "
        "state FP32 [2, batch, 7] random numbers from 0 to 1 (seed 0)"
    )
