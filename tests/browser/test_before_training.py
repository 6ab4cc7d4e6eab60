"""Sizes of networks and columns of files as the Train form computes them, compared with kronmodel."""

import csv
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page

from kronmodel.data.dataset import Dataset
from kronmodel.data.tables.reader import read_table
from kronmodel.data.target import raw_target, target_from_array
from kronmodel.errors import DataError
from kronmodel.nn.networks import build
from kronmodel.training.members import make_members
from kronmodel.training.recipes import RECIPES
from tests.browser import tables
from tests.browser.service import Service
from tests.browser.visit import DESKTOP, new_context

COUNT = """async (networks) => {
    const { twinSize } = await import("/static/js/views/train/network-size.js");
    return networks.map((network) => twinSize(network));
}"""
READ_HEAD = """async ([text, columns]) => {
    const { CsvHead } = await import("/static/js/views/train/csv-head.js");
    const head = await CsvHead.read(new File([text], "mine.csv"));
    return { columns: head.columns, rows: head.total, targets: columns.map((column) => head.target(column)) };
}"""
FIELDS = ("kind", "in_shape", "out_shape", "kernel", "rank", "parameters", "macs_per_sample")
RANDOM = 60


def network(features: int, outputs: int, hidden: Sequence[tuple[int, ...]], **more: Any) -> dict[str, Any]:
    """Make a network in the format of the page."""
    return {"features": features, "image": None, "outputs": outputs, "hidden": list(hidden), "rank": 1, **more}


def networks() -> list[dict[str, Any]]:
    """Make the networks of all recipes, edge cases, and random networks."""
    found = []
    for recipe in RECIPES.values():
        image = [3, 32, 32] if recipe.features else [28, 28]
        found.append(
            network(
                int(np.prod(image)),
                10,
                recipe.hidden,
                image=image,
                rank=recipe.rank,
                order=recipe.order,
                denseHidden=recipe.dense_hidden,
                channels=list(recipe.features),
            )
        )
    square = [(8, 8)]
    found += [network(width, outputs, square) for width in (1, 2, 3, 4, 9, 10, 784) for outputs in (1, 2, 7, 10)]
    found += [network(width, 3, square, pad=True) for width in (1, 3, 4, 7, 9, 10, 22, 97, 784)]
    found.append(network(28 * 20, 26, [(5, 40)], image=[28, 20], rank=3))
    draw = random.Random(7)
    for _ in range(RANDOM):
        hidden = [(draw.randint(4, 30), draw.randint(4, 30)) for _ in range(draw.randint(1, 4))]
        rank = draw.randint(1, 4)
        order = draw.choice(["left", "right", [draw.choice(["left", "right"]) for _ in range(rank)]])
        each = [draw.randint(1, 4) for _ in range(len(hidden) + 1)] if isinstance(order, str) else rank
        found.append(
            network(
                draw.choice([16, 30, 36, 64, 100, 102, 784]),
                draw.choice([4, 10, 12, 26]),
                hidden,
                rank=draw.choice([rank, each]),
                order=order,
                denseHidden=draw.choice([None, [draw.randint(1, 300) for _ in hidden]]),
            )
        )
    return found


def built(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes that kronmodel computes for a network."""
    classes, features = wanted["outputs"], wanted["features"]
    data = Dataset(
        name="any",
        x_train=np.zeros((1, features), np.float32),
        y_train=np.zeros((1, classes), np.float32),
        x_test=np.zeros((1, features), np.float32),
        y_test=np.zeros((1, classes), np.float32),
        task="regression",
        image_shape=None if wanted["image"] is None else tuple(wanted["image"]),
        preprocessing="none",
        origin="here",
    )
    rank, order, dense = wanted["rank"], wanted.get("order", "left"), wanted.get("denseHidden")
    recipe = replace(
        RECIPES["default"],
        hidden=tuple(wanted["hidden"]),
        dense_hidden=None if dense is None else tuple(dense),
        rank=tuple(rank) if isinstance(rank, list) else rank,
        order=tuple(order) if isinstance(order, list) else order,
        features=tuple(wanted.get("channels", ())),
    )
    members = make_members("any", data, "default", recipe, {}, pad=wanted.get("pad", False))
    result: dict[str, Any] = {}
    for role, member in members.items():
        with torch.device("meta"):  # sizes without values
            made = build(member.config)
        cards = [{name: card[name] for name in FIELDS if name in card} for card in made.layer_cards()]
        result[role] = {"layers": cards, "parameters": made.parameter_count, "macs": made.macs_per_sample}
    return result


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    repository = tables.write(tmp_path_factory.mktemp("models"))
    with Service(repository) as service, new_context(browser, DESKTOP) as context:
        made = context.new_page()
        made.goto(service.url)
        yield made


COLUMNS: dict[str, list[str]] = {
    "price": ["1.5", "2", "3e2", "-4", ".5", "6."],
    "class": ["0", "1", "2", "1", "0", "2"],
    "kind, of house": ["flat", "house", "flat", 'a "big" one', "house", "flat"],
    "number of words": ["1", "2", "x", "4", "5", "6"],
    "grade": ["a", "2", "b", "2", "c", "a"],
    "number": ["1", "2", "3", "4", "5", "6"],
    "name": ["a", "b", "c", "d", "e", "f"],
    "always": ["7", "7", "7", "7", "7", "7"],
}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_of_a_file_are_inferred_like_in_training(page: Page, tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "mine.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL)
        writer.writerows([list(COLUMNS), *zip(*COLUMNS.values(), strict=True)])
    seen = page.evaluate(READ_HEAD, [path.read_bytes().decode(), list(COLUMNS)])
    table = read_table(path)
    assert (seen["columns"], seen["rows"]) == (list(table.names), table.table.num_rows + len(table.short_rows))
    for name, guess in zip(COLUMNS, seen["targets"], strict=True):
        try:
            raw = raw_target(table.table.column(name), None, comma=table.file.decimal_comma)
            target = None if raw.wrong else target_from_array(raw.values, None)
        except DataError:
            target = None
        if target is None:
            assert guess is None, name
        else:
            assert guess == {"task": target.task, "outputs": len(target.labels) or target.y.shape[1]}, name


def test_sizes_equal_those_of_the_networks(page: Page) -> None:
    wanted = networks()
    counted = page.evaluate(COUNT, wanted)
    for one, got in zip(wanted, counted, strict=True):
        assert got == built(one), one
