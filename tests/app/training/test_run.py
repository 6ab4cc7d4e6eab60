"""Trainings by a real server: events, published models, and leftovers."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.models.repository import Repository
from app.settings import Settings
from app.training.folder import TrainingFolder
from app.training.run import serve
from tests.app.conftest import Serving, serving, wait_until
from tests.app.graphs import classifier, publish, weights
from tests.app.trainings import Events, flowers, follow, leftovers

pytestmark = pytest.mark.slow

WORKERS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainings")
    publish(folder, "one", classifier(weights([6, 3])))
    return folder


@pytest.fixture(scope="module")
def workers(folder: Path) -> Iterator[Serving]:
    with serving(folder, workers=WORKERS) as running:
        yield running


@pytest.fixture(scope="module")
def trained(workers: Serving, folder: Path) -> tuple[str, list[Events], list[int]]:
    """A training on an uploaded file: its URL, the events of its followers, and statuses of predictions meanwhile."""
    files = {"data": ("../../Some flowers.CSV", flowers(), "text/csv")}
    wanted = {"target": "the kind", "hidden": [[4, 4]], "rank": 1, "epochs": 3, "seed": 1, "recipe": "default"}
    answer = httpx.post(
        f"{workers.address}/api/trainings", files=files, data={"request": json.dumps(wanted)}, timeout=60
    )
    assert answer.status_code == 202, answer.text
    place = answer.headers["location"]
    assert place == f"/api/trainings/{answer.json()['id']}"
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.1):
            answer = httpx.post(f"{workers.address}/api/predict", json={"inputs": [[0] * 6], "models": ["one"]})
            statuses.append(answer.status_code)

    with ThreadPoolExecutor(8) as pool:
        asking = pool.submit(ask)
        seen = list(pool.map(lambda _: follow(workers.address, place), range(6)))
        over.set()
        asking.result()
    return place, seen, statuses


def test_every_follower_sees_the_plan_and_each_epoch_in_order_then_the_report(
    trained: tuple[str, list[Events], list[int]],
) -> None:
    published: list[Events] = []
    for seen in trained[1]:
        names = [name for name, _ in seen]
        assert names[0] == "started"
        assert names[-1] == "report", seen[-1]
        published.append([event for event in seen if event[0] in {"plan", "epoch", "report"}])
    assert all(each == published[0] for each in published)
    (_, plan), *epochs, (_, report) = published[0]
    assert [name for name, _ in published[0]] == ["plan", *["epoch"] * 6, "report"]
    order = [(role, number) for role in ("kronecker", "dense") for number in (1, 2, 3)]
    assert [(epoch["role"], epoch["epoch"]) for _, epoch in epochs] == order
    assert set(epochs[0][1]) == {"role", "epoch", "seconds", "ms_per_step", "loss", "validation", "test"}
    assert (plan["epochs"], plan["metric"]) == (3, "accuracy")
    assert plan["data"] == {
        "name": "Some-flowers",
        "task": "classification",
        "train_samples": 120,
        "test_samples": 30,
        "features": 4,
        "image_shape": None,
    }
    assert [epoch for member in report["members"] for epoch in member["epochs"]] == [epoch for _, epoch in epochs]


def test_progress_goes_up_in_each_stage(trained: tuple[str, list[Events], list[int]]) -> None:
    stages = ["kronecker", "dense", "exporting"]
    for seen in trained[1]:
        progress = [data for name, data in seen if name == "progress"]
        order = [stages.index(step["stage"]) for step in progress]
        assert order == sorted(order)
        for stage in stages:
            own = [step["done"] for step in progress if step["stage"] == stage]
            assert own == sorted(own)
        assert all(step["total"] == 3 for step in progress if step["stage"] != "exporting")  # 120 samples, 128 a step


def test_the_planned_models_are_published_and_served_by_every_worker(
    trained: tuple[str, list[Events], list[int]], workers: Serving, folder: Path
) -> None:
    seen = trained[1][0]
    (plan,) = [data for name, data in seen if name == "plan"]
    report = seen[-1][1]
    assert (report["served"], report["not_served"]) == (True, None)
    for planned, member in zip(plan["members"], report["members"], strict=True):
        name = f"Some-flowers-{planned['role']}"
        assert (member["name"], member["version"], planned["name"]) == (name, "1", name)
        card = wait_until(partial(_card, workers.client, name))
        for key in ("parameters", "weight_bytes", "macs_per_sample"):
            assert planned[key] == member[key] == card[key]
        assert member["weight_bytes"] == 4 * card["parameters"]
        assert {**member["c"], "code_bytes": None, "compiler": None} == {"code_bytes": None, "compiler": None} | card[
            "c"
        ]
        assert member["c"]["weight_bytes"] >= member["weight_bytes"]
        assert [layer["in_shape"] for layer in planned["layers"]] == [layer["in_shape"] for layer in card["layers"]]
        assert member["test_metric"]["value"] == card["test_metric"]["value"]
        assert (card["training"]["epochs"], card["training"]["seed"]) == (3, 1)
        assert (folder / name / "1" / "model.onnx").is_file()
    names = [member["name"] for member in report["members"]]
    for _ in range(8):  # a new connection each, which any worker may accept; one may still be loading the models
        body = {"inputs": [[2.0, 2.0, 2.0, 2.0]], "models": names}
        answer = wait_until(partial(_predicted, workers.address, body))
        assert [result["model"] for result in answer["results"]] == names
        assert len(answer["results"][0]["outputs"][0]["probabilities"]) == 3
    assert set(trained[2]) == {200}


def _card(client: httpx.Client, name: str) -> Any:
    return client.get(f"/api/models/{name}").json().get("card")


def _predicted(address: str, body: dict[str, Any]) -> Any:
    answer = httpx.post(f"{address}/api/predict", json=body)
    return answer.json() if answer.status_code == 200 else None


def test_the_report_is_kept_and_no_temporary_file_is_left(
    trained: tuple[str, list[Events], list[int]], workers: Serving, folder: Path
) -> None:
    place, seen, _ = trained
    kept = workers.client.get(place).json()
    assert (kept["kind"], kept["status"], kept["title"]) == ("training", "done", "Some-flowers.csv")
    assert kept["report"] == seen[0][-1][1]
    assert kept["headline"] == kept["report"]["headline"]
    assert kept["headline"].startswith("Some-flowers-kronecker version 1: accuracy ")
    assert kept["request"] == kept["report"]["request"]
    assert (kept["request"]["file"], kept["request"]["target"]) == ("Some-flowers.csv", "the kind")
    assert workers.client.get(place, params={"download": 1}).json() == kept["report"]
    assert [event for event in follow(workers.address, place) if event[0] != "progress"][1:] == [
        event for event in seen[0] if event[0] != "progress"
    ][1:]
    assert leftovers(folder) == []
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "Some-flowers-dense",
        "Some-flowers-kronecker",
        "one",
    ]
    assert 'kron_trainings_total{outcome="ok"} 1' in workers.client.get("/metrics").text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, None),
        ({"version_policy": "specific:1"}, "new version 2 is not among the versions to serve (KRON_VERSION_POLICY)"),
        ({"max_models": 1}, "too many models: got 2, expected at most 1 (KRON_MAX_MODELS)"),
    ],
)
def test_a_published_model_that_cannot_be_served_gives_the_reason(
    tmp_path: Path, options: dict[str, Any], reason: str | None
) -> None:
    publish(tmp_path, "one", classifier(weights([6, 3])))

    async def scenario() -> str | None:
        repository = await Repository.load(Settings(models=tmp_path, **options))
        for version in (1, 2):
            publish(tmp_path, "new", classifier(weights([6, 3])), version=version)
        return await serve(repository, {"new": "2"})

    assert asyncio.run(scenario()) == reason


def test_only_unused_folders_are_removed(tmp_path: Path) -> None:
    used, mine = TrainingFolder(tmp_path), TrainingFolder(tmp_path)
    used.make()
    mine.make()
    assert len(leftovers(tmp_path)) == 2
    (tmp_path / ".publishing-7-x").mkdir()
    (tmp_path / ".publishing-70-x").mkdir()
    (tmp_path / ".publishing-7-y").mkdir()
    (tmp_path / ".publishing-7-y" / ".complete").touch()  # the next `kronmodel train` renames what it holds
    mine.remove(7)
    assert sorted(leftovers(tmp_path)) == [".publishing-7-y", ".publishing-70-x", used.path.name]
    used.remove(None)
    assert sorted(leftovers(tmp_path)) == [".publishing-7-y", ".publishing-70-x"]
