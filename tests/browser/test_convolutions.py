"""The page with networks whose graphs take images as channels of rows."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from kronmodel.cli import main as cli
from tests.browser.conftest import Visitor
from tests.browser.service import Service
from tests.browser.strokes import draw


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    repository = tmp_path_factory.mktemp("convolutions")
    options = ["--features", "4,8", "--hidden", "8x8", "--epochs", "1", "--batch-size", "500", "--json"]
    assert cli.main(["train", "--data", "mnist-5k", "--name", "conv", *options, "--out", str(repository)]) == 0
    with Service(repository) as running:
        yield running


def test_samples_and_drawings_are_answered_and_kernels_are_drawn(convolutions: Service, visitor: Visitor) -> None:
    page = visitor(url=convolutions.url).open()
    page.locator(".sample").nth(3).click()
    for role in ("kronecker", "dense"):
        expect(page.locator(f'[data-model="conv-{role}"] .truth')).to_have_text(re.compile("^(right|wrong)$"))
    draw(page, "1")
    for role in ("kronecker", "dense"):
        expect(page.locator(f'[data-model="conv-{role}"] .label')).to_have_text(re.compile(r"^\d$"))
    names = page.locator("#structure-figures .layer-names")
    expect(names.nth(0)).to_have_text("4×98×362 × (8×14 ⊗ 8×28)2 × (2×8 ⊗ 5×8)")
    expect(names.nth(1)).to_have_text("4×98×3664×39210×64")
