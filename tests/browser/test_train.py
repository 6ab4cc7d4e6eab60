"""The Train view: sizes are counted in the form, progress is shown, the trained models are served."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.browser import tables
from tests.browser.conftest import Visitor
from tests.browser.looks import axe_violations, check_appearance
from tests.browser.service import Service

RUN = "Train both"
ADDRESS = re.compile(r"#/train/[0-9a-f]{32}$")
EPOCHS = 80
MAX_UPLOAD = 100_000


def csv_file(rows: int = 600, *, name: str = "petals of mine.csv", spoilt: int | None = None) -> FilePayload:
    """Make a table of seven columns and one of three classes."""
    draw = np.random.default_rng(3)
    kinds = np.arange(rows) % 3
    values = draw.normal(0, 1, (rows, 7)) + 1.2 * draw.normal(0, 1, (3, 7))[kinds]
    header = ",".join([*(f"size {index}" for index in range(7)), "kind"])
    lines = [",".join([*(f"{each:.3f}" for each in row), "abc"[kind]]) for row, kind in zip(values, kinds, strict=True)]
    if spoilt is not None:
        lines[spoilt] = lines[spoilt].replace(lines[spoilt].split(",")[2], "broken")
    return {"name": name, "mimeType": "text/csv", "buffer": "\n".join([header, *lines]).encode()}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve a repository of its own, to which the trainings add models."""
    with Service(tables.write(tmp_path_factory.mktemp("trained")), "--max-body-bytes", str(MAX_UPLOAD)) as running:
        yield running


def opened(page: Page) -> Page:
    expect(page.get_by_role("combobox", name="Recipe")).to_have_value("default")
    return page


def data(page: Page) -> Locator:
    return page.get_by_role("combobox", name="Data", exact=True)


def choose_file(page: Page, file: FilePayload) -> None:
    data(page).select_option("Upload a file …")
    page.get_by_label(re.compile("^File")).set_input_files(file)


def sizes(page: Page, column: str) -> list[str]:
    """Return the sizes of both networks in the form, and their ratio."""
    index = ["Weights", "Bytes", "Multiply-adds"].index(column)
    rows = page.locator(".sizes tbody tr").all()
    return [row.get_by_role("cell").nth(index).inner_text() for row in rows]


def member(page: Page, name: str) -> Locator:
    return page.locator(".member").filter(has_text=re.compile(f"^{name}"))


def test_weights_are_counted_as_the_form_changes(trainer: Service, visitor: Visitor) -> None:
    page = opened(visitor(url=trainer.url).at("train"))
    data(page).select_option("mnist-5k")
    assert sizes(page, "Weights") == ["11,490", "1,238,730", "108× fewer"]
    assert sizes(page, "Multiply-adds") == ["179,312", "1,237,152", "6.9× fewer"]
    assert sizes(page, "Bytes") == ["45,960", "4,954,920", "108× fewer"]
    page.get_by_role("combobox", name="Recipe").select_option("tiny-8k")
    assert sizes(page, "Bytes")[0] == "3,936"  # as its model card
    page.get_by_role("combobox", name="Recipe").select_option("default")
    expect(page.get_by_role("img", name="kronecker, layer by layer: 2 × (28×28 ⊗ 28×28)")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^A 2 by 2 matrix ⊗ a 3 by 3 matrix"))).to_be_visible()
    slider = page.get_by_label("Rank slider")
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Rank", exact=True)).to_have_value("3")
    assert sizes(page, "Weights")[0] == "16,446"
    page.get_by_label("Rank", exact=True).fill("65")
    expect(page.locator(".sizes .message")).to_have_text("Rank: got “65”, expected a whole number from 1 to 64.")
    page.get_by_label("Rank", exact=True).fill("1")
    page.get_by_role("button", name="Add a layer").click()
    expect(page.get_by_label("Hidden layer 3, first factor")).to_be_focused()
    page.get_by_role("button", name="All hidden layers 20 by 20").click()
    assert sizes(page, "Weights")[:2] == ["5,470", "638,810"]
    page.get_by_role("button", name="Remove hidden layer 1").click()
    page.get_by_label("Hidden layer 2, second factor").fill("900")
    expect(page.locator(".sizes .message")).to_have_text(
        "Hidden layer 2: got 20 × 900 = 18,000, expected a width of at most 4,096."
    )
    page.get_by_role("combobox", name="Recipe").select_option("accurate")
    expect(page.locator("#rank-words")).to_have_text("The recipe’s ranks by layer: 2, 2, 8.")
    expect(page.get_by_text("Hidden layers of the dense network, from the recipe: 784 and 784 wide")).to_be_visible()
    page.reload()
    expect(page.get_by_role("combobox", name="Recipe")).to_have_value("accurate")
    expect(page.get_by_label("Hidden layer 2, second factor")).to_have_value("40")


def follow_links(page: Page) -> None:
    """Follow the links of a finished training to its models in every view."""
    page.get_by_role("link", name="Try both models").click()
    expect(page.locator("#answers .card[data-model]")).to_have_count(2)
    page.get_by_label("Or paste a row of CSV").fill("1, 2, 3, 4, 5, 6, 7")
    expect(page.locator('[data-model="petals-dense"] .label')).to_have_text(re.compile("^[abc]$"))
    page.go_back()
    expect(page.locator(".headline")).to_contain_text("petals-kronecker")
    page.get_by_role("link", name="Compare both models").click()
    expect(page.get_by_role("checkbox", name=re.compile("^petals-dense"))).to_be_checked()
    page.go_back()
    page.get_by_role("link", name="petals-kronecker, version 1").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("petals-kronecker")
    page.get_by_role("navigation").get_by_role("link", name="Train").click()
    expect(page.locator(".job-list li").first).to_contain_text("petals-dense version 1: accuracy")


def test_the_layout_does_not_shift_when_the_form_is_loaded(trainer: Service, visitor: Visitor) -> None:
    page = visitor(url=trainer.url).page
    page.add_init_script(
        """window.shifted = 0;
        new PerformanceObserver((list) => { for (const entry of list.getEntries()) window.shifted += entry.value; })
            .observe({ type: "layout-shift", buffered: true });"""
    )
    page.goto(f"{trainer.url}/#/train")
    opened(page)
    expect(page.locator(".preview .figures figure")).to_have_count(2)
    assert page.evaluate("window.shifted") < 0.02


@pytest.mark.slow
def test_a_training_is_followed_reloaded_and_served(trainer: Service, visitor: Visitor, screenshots: Path) -> None:
    page = opened(visitor(url=trainer.url).at("train"))
    choose_file(page, csv_file())
    expect(page.get_by_role("combobox", name="Column to predict")).to_have_value("kind")
    expect(page.locator(".data-description")).to_have_text(
        "Choose the column to predict; the last one is only proposed. "
        "600 rows, of which the network takes 7 numbers each; predicts one of 3 classes. "
        "For the Kronecker network, rows are padded with zeros to 2×4."
    )
    expect(page.get_by_role("combobox", name="Recipe")).to_have_value("small-table")
    counted = [sizes(page, name) for name in ("Weights", "Multiply-adds")]
    page.get_by_label("Epochs").fill(str(EPOCHS))
    page.get_by_label("Name").fill("petals")
    page.get_by_text("More options").click()
    page.get_by_label("Batch size").fill("4")  # many steps, long enough to be observed
    check_appearance(page, "train", screenshots)
    page.set_viewport_size({"width": 1280, "height": 800})

    page.get_by_role("button", name=RUN).click()
    expect(page).to_have_url(ADDRESS)
    expect(page.get_by_role("heading", level=1)).to_have_text("petals on petals-of-mine.csv")
    expect(member(page, "Kronecker")).to_contain_text(f"{counted[0][0]} weights")
    expect(member(page, "Kronecker")).to_contain_text(re.compile(rf"epoch \d+ of {EPOCHS} · [\d.]+\s% accuracy .*left"))
    score = page.get_by_role("img", name=re.compile("^Test accuracy by training time in seconds"))
    expect(score).to_have_attribute("aria-label", re.compile(r"Kronecker: .* after (\d+) epochs.*Dense: no epoch yet"))

    page.reload()
    expect(page.locator(".stage")).to_have_text(re.compile("^Training the (Kronecker|Dense) network …$"))
    page.screenshot(path=screenshots / "train-running.png", full_page=True)
    assert axe_violations(page) == []
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    expect(page.get_by_role("progressbar", name="Training of the Dense network")).to_be_visible()
    page.get_by_label("by epoch").check()
    expect(member(page, "Kronecker")).to_contain_text(f"epoch {EPOCHS} of {EPOCHS}", timeout=120_000)

    ended = re.compile("petals-kronecker version 1: accuracy .*petals-dense")
    expect(page.locator(".headline")).to_contain_text(ended, timeout=120_000)
    expect(page.locator(".running")).to_be_hidden()
    expect(
        page.get_by_role("img", name=re.compile(f"^Test accuracy by epoch.*Dense: .* after {EPOCHS} epochs"))
    ).to_be_visible()
    both = page.get_by_role("region", name="Both networks side by side")
    for (kronecker, dense, _), name in zip(counted, ("Weights", "Multiply-adds per sample"), strict=True):
        expect(both.get_by_role("row", name=name).get_by_role("cell").nth(0)).to_have_text(kronecker)
        expect(both.get_by_role("row", name=name).get_by_role("cell").nth(1)).to_have_text(dense)
    expect(both.get_by_role("row", name="Time per step")).to_contain_text("as fast")
    page.get_by_text("All epochs").first.click()
    expect(page.get_by_role("region", name="All epochs").locator("tbody tr")).to_have_count(EPOCHS)
    page.get_by_text("All epochs").first.click()
    check_appearance(page, "trained", screenshots)
    page.set_viewport_size({"width": 1280, "height": 800})

    follow_links(page)


@pytest.mark.slow
def test_a_single_training_runs_and_can_be_cancelled(trainer: Service, visitor: Visitor) -> None:
    visits = [visitor(url=trainer.url) for _ in range(2)]
    first, second = (opened(visit.at("train")) for visit in visits)
    for page in (first, second):
        data(page).select_option("digits")
        page.get_by_label("Epochs").fill("100")
    first.get_by_role("button", name=RUN).click()
    expect(first).to_have_url(ADDRESS)
    second.get_by_role("button", name=RUN).click()
    refusal = second.locator("form > .message")
    expect(refusal).to_contain_text("No training: another")
    expect(second.locator(".job-list li").first).to_contain_text("running")
    refusal.get_by_role("link", name="Running: digits").click()
    expect(second).to_have_url(first.url)
    for page in (first, second):
        expect(page.locator(".running")).to_be_visible()
    second.get_by_role("button", name="Cancel").click()
    expect(second).to_have_url(re.compile("#/train$"))
    expect(first.locator(".job-page .message")).to_have_text("No report: the training was cancelled.")
    expect(first.locator(".running")).to_be_hidden()
    expect(second.locator(".job-list li").filter(has_text="running")).to_have_count(0)
    visits[1].allow_problems("409")


def test_invalid_trainings_are_rejected(trainer: Service, visitor: Visitor) -> None:
    visit = visitor(url=trainer.url)
    page = opened(visit.at("train"))
    message = page.locator("form > .message")
    run = page.get_by_role("button", name=RUN)
    data(page).select_option("Upload a file …")
    run.click()
    expect(message).to_have_text("Data: choose a file, or one of the data sets.")
    page.get_by_label(re.compile("^File")).set_input_files(csv_file(3_000))
    run.click()
    expect(message).to_have_text(
        re.compile(r"^Data: petals of mine\.csv has \d+\skB, expected at most 100\skB: the service takes")
    )
    expect(page.locator(".data-description")).to_have_text(
        re.compile(r"^petals of mine\.csv has \d+\skB, expected at most")
    )
    page.get_by_label(re.compile("^File")).set_input_files(
        {"name": "mine.npz", "mimeType": "application/zip", "buffer": b"no archive"}
    )
    expect(page.locator(".data-description")).to_contain_text("mine.npz is not a .npz file")
    expect(page.locator(".sizes .message")).to_contain_text("known once the service has read the data")
    run.click()
    expect(message).to_contain_text("Data: mine.npz is not")
    page.get_by_label(re.compile("^File")).set_input_files(csv_file())
    expect(page.get_by_role("combobox", name="Column to predict")).to_have_value("kind")
    page.get_by_label("Epochs").fill("1000")
    run.click()
    expect(message).to_have_text("Epochs: got “1000”, expected a whole number from 1 to 100.")
    page.get_by_label("Epochs").fill("2")
    page.get_by_label("Name").fill("no/name")
    run.click()
    expect(message).to_contain_text("No training: name")

    page.get_by_label("Name").fill("")
    page.get_by_label(re.compile("^File")).set_input_files(csv_file(spoilt=40))
    expect(page.locator(".data-description")).to_contain_text(
        "1 bad row: line 42: column 'size 2': got 'broken', expected a finite number."
    )
    run.click()
    expect(message).to_have_text("Data: some rows cannot be used. Correct the file, or choose to leave them out.")
    page.get_by_label(re.compile("^File")).set_input_files(csv_file(1_500, spoilt=1_400))  # beyond the first part
    expect(page.locator(".data-description")).to_contain_text(re.compile(r"only proposed\. About 1,[45]\d\d rows"))
    run.click()
    expect(page.locator(".job-page .message")).to_contain_text(
        "No report: the training failed: petals-of-mine.csv has 1 bad row: line 1402"
    )
    page.get_by_role("link", name="New training").click()
    failed = page.locator(".job-list li.failed").first
    expect(failed).to_contain_text("1 bad row: line 1402: column 'size 2': got 'broken', expected a finite number")
    expect(failed).to_contain_text("leave them out with skip_bad_rows")
    failed.get_by_role("link").click()
    expect(page.get_by_role("link", name="Download JSON")).to_be_hidden()
    page.get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile("#/train$"))
    expect(page.locator(".job-list li.failed")).to_have_count(0)
    visit.allow_problems("400")


def test_a_service_that_cannot_train_says_why(visitor: Visitor, tmp_path: Path) -> None:
    with Service(tables.write(tmp_path), "--host", "0.0.0.0", "--insecure-no-keys") as service:
        page = visitor(url=service.url).at("train")
        expect(page.locator(".unavailable")).to_have_text(re.compile("^Training is not available: .*needs --keys"))
        expect(page.get_by_role("button", name=RUN)).to_be_hidden()
        expect(page.get_by_role("heading", name="Earlier trainings")).to_be_visible()
