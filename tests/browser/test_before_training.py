"""Sizes of networks and first parts of files as the Train form computes them, compared with kronmodel."""

import base64
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page

from kronmodel.data.dataset import Dataset
from kronmodel.nn.networks import build
from kronmodel.quantization.network import QuantizedNetwork
from kronmodel.training.members import make_members
from kronmodel.training.recipes import RECIPES
from tests.browser import tables
from tests.browser.service import Service
from tests.browser.visit import DESKTOP, new_context

COUNT = """async (networks) => {
    const { twinSize } = await import("/static/js/views/train/network-size.js");
    return networks.map((network) => twinSize(network));
}"""
HEAD = """async ([base64, name, most]) => {
    const { fileHead } = await import("/static/js/views/train/file-head.js");
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    const head = await fileHead(new File([bytes], name), most);
    return [...new Uint8Array(await head.arrayBuffer())];
}"""
FIELDS = ("kind", "in_shape", "out_shape", "kernel", "rank", "parameters", "weight_bytes", "macs_per_sample")
QUANTIZATION = ("bits", "bias_bits", "bias_form")
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
                **(
                    {}
                    if recipe.kronecker.quantization is None
                    else {name: getattr(recipe.kronecker, name) for name in QUANTIZATION}
                ),
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
                **draw.choice(
                    [
                        {},
                        {
                            "bits": draw.choice([2, 4, 8]),
                            "bias_bits": draw.choice([8, 32]),
                            "bias_form": draw.choice(["full", "row-column"]),
                        },
                    ]
                ),
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
    quantization = {name: wanted[name] for name in QUANTIZATION if name in wanted}
    members = make_members("any", data, "default", recipe, quantization, pad=wanted.get("pad", False))
    result: dict[str, Any] = {}
    for role, member in members.items():
        with torch.device("meta"):  # sizes without values
            made = build(member.config)
        if member.training.quantization is not None:
            made = QuantizedNetwork.of_shapes(made, member.training.quantization)
        cards = [
            {"weight_bytes": 4 * card["parameters"]} | {name: card[name] for name in FIELDS if name in card}
            for card in made.layer_cards()
        ]
        result[role] = {
            "layers": cards,
            "parameters": made.parameter_count,
            "bytes": made.weight_bytes,
            "macs": made.macs_per_sample,
        }
    return result


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    repository = tables.write(tmp_path_factory.mktemp("models"))
    with Service(repository) as service, new_context(browser, DESKTOP) as context:
        made = context.new_page()
        made.goto(service.url)
        yield made


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_the_first_part_of_a_text_file_is_whole_lines(page: Page, encoding: str) -> None:
    lines = [f"Zeile {number};größer Ċ;{number * 3}" for number in range(200)]
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    content = mark + "\r\n".join(lines).encode(encoding)
    for most in (2_000, 2_002, 5_001):
        head = bytes(page.evaluate(HEAD, [base64.b64encode(content).decode(), "mine.tsv", most]))
        text = head.removeprefix(mark).decode(encoding)
        kept = text.replace("\r", "").split("\n")
        assert most // 2 - 100 < len(head) <= most // 2
        assert kept == lines[: len(kept)]


def test_other_files_and_short_ones_are_sent_whole(page: Page) -> None:
    content = b"a,b\n1,2\n3,4"
    for name, most in (("a.parquet", 10), ("a.csv.gz", 10), ("a.csv", 22)):
        assert bytes(page.evaluate(HEAD, [base64.b64encode(content).decode(), name, most])) == content
    assert bytes(page.evaluate(HEAD, [base64.b64encode(content).decode(), "a.CSV", 18])) == b"a,b\n1,2"


def test_sizes_equal_those_of_the_networks(page: Page) -> None:
    wanted = networks()
    counted = page.evaluate(COUNT, wanted)
    for one, got in zip(wanted, counted, strict=True):
        assert got == built(one), one
