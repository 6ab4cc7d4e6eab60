"""Trainings by a real server: what they tell, what they leave, and how they end when they are not to go on."""

import asyncio
import io
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.archive import INTERRUPTED
from app.errors import BadRequest
from app.repository import Repository
from app.settings import Settings
from app.trainer import Trainer
from app.training import OwnData, check, serve
from app.training_folder import TrainingFolder
from app.training_reports import TrainRequest
from tests.app.conftest import Serving, is_alive, serving, wait_until
from tests.app.events import events
from tests.app.graphs import classifier, publish, weights

WORKERS = 2
LONG: dict[str, Any] = {"data": "digits", "name": "long", "hidden": [[8, 8]], "epochs": 100, "batch_size": 1}
Told = list[tuple[str, Any]]


def flowers() -> bytes:
    """150 rows of four columns, in three kinds that are easy to tell apart."""
    rng = random.Random(0)
    lines = ["a,b,c,d,the kind"]
    for row in range(150):
        kind = row % 3
        lines.append(",".join([*(f"{kind + rng.gauss(0, 0.3):.3f}" for _ in range(4)), ("red", "green", "blue")[kind]]))
    return "\n".join(lines).encode()


def follow(address: str, place: str) -> Told:
    """All events, over a connection of its own, to whichever worker."""
    with httpx.stream("GET", f"{address}{place}/events", timeout=250) as response:
        return list(events(response))


def left(models: Path) -> list[str]:
    return [path.name for path in models.iterdir() if path.name.startswith((".training", ".publishing"))]


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
def trained(workers: Serving, folder: Path) -> tuple[str, list[Told], list[int]]:
    """One training on a file of one's own: where it is, what its followers saw, how others were answered meanwhile."""
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
        told = list(pool.map(lambda _: follow(workers.address, place), range(6)))
        over.set()
        asking.result()
    return place, told, statuses


def test_every_follower_sees_the_plan_and_each_epoch_in_order_then_the_report(
    trained: tuple[str, list[Told], list[int]],
) -> None:
    lasting: list[Told] = []
    for told in trained[1]:
        names = [name for name, _ in told]
        assert names[0] == "started"
        assert names[-1] == "report", told[-1]
        lasting.append([event for event in told if event[0] in {"plan", "epoch", "report"}])
    assert all(each == lasting[0] for each in lasting)
    (_, plan), *epochs, (_, report) = lasting[0]
    assert [name for name, _ in lasting[0]] == ["plan", *["epoch"] * 6, "report"]
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


def test_progress_goes_up_in_each_stage(trained: tuple[str, list[Told], list[int]]) -> None:
    stages = ["kronecker", "dense", "exporting"]
    for told in trained[1]:
        progress = [data for name, data in told if name == "progress"]
        seen = [stages.index(step["stage"]) for step in progress]
        assert seen == sorted(seen)
        for stage in stages:
            own = [step["done"] for step in progress if step["stage"] == stage]
            assert own == sorted(own)
        assert all(step["total"] == 3 for step in progress if step["stage"] != "exporting")  # 120 samples, 128 a step


def test_what_was_planned_is_what_is_published_and_served_by_every_worker(
    trained: tuple[str, list[Told], list[int]], workers: Serving, folder: Path
) -> None:
    told = trained[1][0]
    (plan,) = [data for name, data in told if name == "plan"]
    report = told[-1][1]
    assert (report["served"], report["not_served"]) == (True, None)
    for planned, member in zip(plan["members"], report["members"], strict=True):
        name = f"Some-flowers-{planned['role']}"
        assert (member["name"], member["version"], planned["name"]) == (name, "1", name)
        card = wait_until(partial(_card, workers.client, name))
        for key in ("parameters", "macs_per_sample"):
            assert planned[key] == member[key] == card[key]
        assert [layer["in_shape"] for layer in planned["layers"]] == [layer["in_shape"] for layer in card["layers"]]
        assert member["test_metric"]["value"] == card["test_metric"]["value"]
        assert (card["training"]["epochs"], card["training"]["seed"]) == (3, 1)
        assert (folder / name / "1" / "model.onnx").is_file()
    names = [member["name"] for member in report["members"]]
    for _ in range(8):  # each a connection of its own, to whichever worker; another one may need a moment
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


def test_the_report_is_kept_and_nothing_else_is_left(
    trained: tuple[str, list[Told], list[int]], workers: Serving, folder: Path
) -> None:
    place, told, _ = trained
    kept = workers.client.get(place).json()
    assert (kept["kind"], kept["status"], kept["title"]) == ("training", "done", "Some-flowers.csv")
    assert kept["report"] == told[0][-1][1]
    assert kept["headline"] == kept["report"]["headline"]
    assert kept["headline"].startswith("Some-flowers-kronecker version 1: accuracy ")
    assert kept["request"] == kept["report"]["request"]
    assert (kept["request"]["file"], kept["request"]["target"]) == ("Some-flowers.csv", "the kind")
    assert workers.client.get(place, params={"download": 1}).json() == kept["report"]
    assert [event for event in follow(workers.address, place) if event[0] != "progress"][1:] == [
        event for event in told[0] if event[0] != "progress"
    ][1:]
    assert left(folder) == []
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "Some-flowers-dense",
        "Some-flowers-kronecker",
        "one",
    ]
    assert 'kron_trainings_total{outcome="ok"} 1' in workers.client.get("/metrics").text


def begin(server: Serving, until: str = "epoch", **changes: Any) -> tuple[str, Iterator[tuple[str, Any]], Any]:
    """A training that would take long, followed until such an event: where it is, its further events, the response."""
    stream = server.client.stream(
        "POST", "/api/trainings", json=LONG | changes, headers={"Accept": "text/event-stream"}
    )
    response = stream.__enter__()
    assert response.status_code == 200, response.read()
    incoming = events(response)
    name, job = next(incoming)
    assert (name, job["status"]) == ("started", "running")
    while name != until:
        name, data = next(incoming)
        assert name != "error", data
    return f"/api/trainings/{job['id']}", incoming, stream


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, Path]]:
    """A server of one worker, whose children are the trainings' processes."""
    models = tmp_path_factory.mktemp("single")
    publish(models, "one", classifier(weights([6, 3])))
    with serving(models) as server:
        yield server, models


def test_a_cancelled_training_leaves_nothing(single: tuple[Serving, Path]) -> None:
    server, models = single
    place, incoming, stream = begin(server)
    (child,) = server.children()
    own, other = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (server.process.pid, child))
    assert other == min(19, own + 10)
    (private,) = left(models)
    assert (models / private).stat().st_mode & 0o777 == 0o700
    wait_until(lambda: list((models / private).glob("checkpoints/*/last.pt")))
    answer = server.client.post("/api/trainings", json=LONG)
    assert (answer.status_code, answer.json()["error"]) == (
        409,
        "another comparison, sweep or training is running; try again later",
    )
    assert server.client.delete(place, timeout=60).status_code == 204
    assert not is_alive(child)
    assert left(models) == []
    assert list(incoming)[-1] == ("error", {"error": "the training was cancelled"})
    assert server.client.get(place).status_code == 404
    assert [path.name for path in models.iterdir() if path.is_dir()] == ["one"]
    stream.__exit__(None, None, None)


def test_a_training_whose_process_is_killed_failed_with_the_reason(single: tuple[Serving, Path]) -> None:
    server, models = single
    place, incoming, stream = begin(server, until="plan")
    (child,) = server.children()
    os.kill(child, signal.SIGKILL)
    reason = "the training failed: it was killed (SIGKILL), by hand or by the system because memory ran out"
    assert list(incoming)[-1] == ("error", {"error": reason})
    job = server.client.get(place).json()
    assert (job["status"], job["error"], job["report"]) == ("failed", reason, None)
    assert [name for name, _ in follow(server.address, place)][:2] == ["started", "plan"]  # what was known of it stays
    assert left(models) == []
    stream.__exit__(None, None, None)


def test_what_kronmodel_refuses_is_the_reason_without_a_path(single: tuple[Serving, Path]) -> None:
    server, models = single
    files = {"data": ("prices.csv", flowers(), "text/csv")}
    wanted = {"target": "--out=/tmp", "name": "x"}  # no option, whatever it looks like
    with server.client.stream(
        "POST",
        "/api/trainings",
        files=files,
        data={"request": json.dumps(wanted)},
        headers={"Accept": "text/event-stream"},
    ) as response:
        (name, data) = list(events(response))[-1]
    assert name == "error"
    assert data["error"].startswith("the training failed: prices.csv ")
    assert "'--out=/tmp'" in data["error"]
    assert left(models) == []


def test_a_training_ends_with_a_service_that_is_killed_and_is_marked_failed(tmp_path: Path) -> None:
    publish(tmp_path, "one", classifier(weights([6, 3])))
    with serving(tmp_path, expected_code=-9) as server:
        place, _, stream = begin(server)
        (child,) = server.children()
        server.process.kill()
        wait_until(lambda: not is_alive(child))
        stream.__exit__(None, None, None)
    assert left(tmp_path) == []
    abandoned = tmp_path / ".training-abandoned"  # as after a power cut
    abandoned.mkdir()
    (abandoned / "lock").touch()
    with serving(tmp_path, train_memory_bytes=64 * 2**20, train_seconds=100) as server:
        job = server.client.get(place).json()
        assert (job["status"], job["error"]) == ("failed", INTERRUPTED)
        told = follow(server.address, place)
        assert [name for name, _ in told][:2] == ["started", "plan"]
        assert told[-1] == ("error", {"error": INTERRUPTED})
        limits = server.client.get("/api/trainings/options").json()["limits"]
        assert (limits["memory_bytes"], limits["seconds"]) == (64 * 2**20, 100)
        place = server.client.post("/api/trainings", json=LONG).headers["location"]
        reason = "the training was killed: it took more than 67108864 bytes of memory (KRON_TRAIN_MEMORY_BYTES)"
        assert follow(server.address, place)[-1] == ("error", {"error": reason})
        server.wait_until_childless()
    assert left(tmp_path) == []


def test_a_training_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    publish(tmp_path, "one", classifier(weights([6, 3])))
    with serving(tmp_path, train_seconds=0.5) as server:
        place = server.client.post("/api/trainings", json=LONG).headers["location"]
        reason = "the training took longer than 0.5 s (KRON_TRAIN_SECONDS)"
        assert follow(server.address, place)[-1] == ("error", {"error": reason})
        assert not server.children()
        assert left(tmp_path) == []


def test_options_say_what_there_is(client: httpx.Client) -> None:
    options = client.get("/api/trainings/options").json()
    assert (options["available"], options["reason"]) == (True, None)
    data = {each["name"]: each for each in options["data"]}
    assert data["digits"]["image"] == [8, 8]
    assert (data["digits"]["samples"], data["digits"]["features"], data["digits"]["outputs"]) == (1438, 64, 10)
    assert (data["digits"]["found"], data["digits"]["note"]) == (True, None)
    assert not any(" /" in (each["note"] or "") for each in data.values())  # no folder of the service's machine
    recipes = {each["name"]: each for each in options["recipes"]}
    assert (recipes["default"]["rank"], recipes["default"]["hidden"]) == (2, [[28, 28], [28, 28]])
    assert recipes["default"]["learning_rate"] > recipes["default"]["dense"]["learning_rate"] > 0
    assert recipes["default"]["shift"] == 1
    assert options["limits"]["upload_bytes"] == Settings().max_body_bytes
    assert options["activations"] == ["gelu", "relu", "tanh"]


def test_the_documented_requests_are_good_ones(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/api/trainings"]["post"]
    content = operation["requestBody"]["content"]
    for example in content["application/json"]["examples"].values():
        check(TrainRequest.model_validate(example["value"]), None)
    text = content["multipart/form-data"]["schema"]["properties"]["request"]["examples"][0]
    check(TrainRequest.model_validate_json(text), OwnData("a.csv", b""))
    for status in ("400", "409", "413", "501"):
        assert operation["responses"][status]["content"]["application/json"]["example"]["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "data: got nothing, expected the name of a data set, or a file"),
        ({"data": "nowhere"}, "data: got 'nowhere', expected one of: mnist, mnist-5k"),
        ({"data": "../x.csv"}, "data: got '../x.csv', expected one of: mnist"),
        ({"data": "digits", "recipe": "best"}, "recipe: got 'best', expected one of: default, accurate"),
        ({"data": "digits", "target": "x"}, "target: expected with a .csv file only"),
        ({"data": "digits", "task": "regression"}, "task: expected with a file only"),
        ({"data": "digits", "rank": 65}, "rank: got 65, expected less than or equal to 64"),
        ({"data": "digits", "rank": True}, "rank: got True, expected a valid integer"),
        ({"data": "digits", "hidden": []}, "hidden: got [], expected"),
        ({"data": "digits", "hidden": [[8]]}, "hidden[0]: got [8], expected"),
        (
            {"data": "digits", "hidden": [[8, 8], [65, 64]]},
            "hidden[1]: got 65 x 64, expected a product of at most 4096",
        ),
        ({"data": "digits", "hidden": [[2, 2]] * 5}, "hidden: got "),
        ({"data": "digits", "epochs": 101}, "epochs: got 101, expected less than or equal to 100"),
        ({"data": "digits", "learning_rate": 0}, "learning_rate: got 0, expected greater than 0"),
        ({"data": "digits", "batch_size": 0}, "batch_size: got 0"),
        ({"data": "digits", "activation": "sine"}, "activation: got 'sine', expected 'gelu', 'relu' or 'tanh'"),
        ({"data": "digits", "kind": "both"}, "kind: got 'both', expected 'twin', 'kronecker' or 'dense'"),
        ({"data": "digits", "name": "../up"}, "name: got '../up'"),
        ({"data": "digits", "name": "a" * 65}, "name: got 'aaaa"),
        ({"data": "digits", "device": "cuda"}, "body: got the unknown key 'device', expected activation, batch_size"),
    ],
)
def test_a_bad_training_is_400_and_is_not_started(client: httpx.Client, body: Any, message: str) -> None:
    answer = client.post("/api/trainings", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)
    assert client.get("/api/trainings").json()["total"] == 0


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("a.csv", {}, "target: missing, expected the column of the .csv file to predict"),
        ("a.npz", {"target": "y"}, "target: expected with a .csv file only"),
        ("a.npz", {"data": "mnist"}, "data: got 'mnist' and a file, expected the name of a data set"),
        ("a.exe", {}, "data: got the file 'a.exe', expected one that is called .csv or .npz"),
    ],
)
def test_a_bad_file_is_400(client: httpx.Client, name: str, wanted: dict[str, str], message: str) -> None:
    files = {"data": (name, b"x")}
    answer = client.post("/api/trainings", files=files, data={"request": json.dumps(wanted)})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)
    too_long = client.post("/api/trainings", files={"data": ("a.npz", io.BytesIO(bytes(17 * 2**20)))})
    assert (too_long.status_code, "KRON_MAX_BODY_BYTES" in too_long.text) == (413, True)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("prices.csv", "prices.csv"),
        ("../../etc/My prices.v2.NPZ", "My-prices-v2.npz"),
        ("C:\\data\\-o.csv", "o.csv"),
        (".csv", "csv"),
        ("\x00ü\n.csv", "data.csv"),
        ("x" * 300 + ".csv", "x" * 50 + ".csv"),
    ],
)
def test_the_name_of_a_file_is_made_harmless(name: str, kept: str) -> None:
    own = OwnData(name, b"")
    assert own.file_name == kept
    if "." not in kept:
        with pytest.raises(BadRequest, match=r"expected one that is called \.csv or \.npz"):
            check(TrainRequest(), own)


def test_without_the_extra_it_says_what_is_missing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packages of this environment but torch, by way of links to them."""
    packages, path = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("path")
    for folder in {Path(entry) for entry in sys.path if entry.endswith("site-packages")}:
        for package in folder.iterdir():
            if package.name != "torch" and not (packages / package.name).exists():
                (packages / package.name).symlink_to(package)
    (path / "sitecustomize.py").write_text(
        "import sys\n"
        "sys.path[:] = [entry for entry in sys.path if not entry.endswith('site-packages')]\n"
        f"sys.path.append({str(packages)!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(path))
    publish(tmp_path, "one", classifier(weights([6, 3])))
    with serving(tmp_path) as server:
        reason = "training needs torch, not installed here: pip install 'kronmodel[train]'"
        options = server.client.get("/api/trainings/options").json()
        assert (options["available"], options["reason"], options["data"]) == (False, reason, [])
        answer = server.client.post("/api/trainings", json={"data": "digits"})
        assert (answer.status_code, answer.json()) == (501, {"error": reason})


def test_not_where_everybody_may_or_nothing_can_be_written(tmp_path: Path) -> None:
    for host, there in (("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("::", True)):
        trainer = Trainer(Settings(models=tmp_path, host=host, insecure_no_keys=True))
        assert (trainer.unavailable is not None) == there
    assert trainer.unavailable is not None
    assert "(--insecure-no-keys): training needs --keys" in trainer.unavailable
    assert Trainer(Settings(models=tmp_path, host="0.0.0.0", keys=tmp_path / "keys")).unavailable is None
    nowhere = Trainer(Settings(models=tmp_path / "none")).unavailable
    assert nowhere is not None
    assert nowhere.startswith("training needs a folder of models that can be written to")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, None),
        ({"version_policy": "specific:1"}, "new version 2 is not among the versions to serve (KRON_VERSION_POLICY)"),
        ({"max_models": 1}, "too many models: got 2, expected at most 1 (KRON_MAX_MODELS)"),
    ],
)
def test_what_is_published_but_cannot_be_served_says_why(
    tmp_path: Path, options: dict[str, Any], reason: str | None
) -> None:
    publish(tmp_path, "one", classifier(weights([6, 3])))

    async def scenario() -> str | None:
        repository = await Repository.load(Settings(models=tmp_path, **options))
        for version in (1, 2):
            publish(tmp_path, "new", classifier(weights([6, 3])), version=version)
        return await serve(repository, {"new": "2"})

    assert asyncio.run(scenario()) == reason


def test_only_folders_that_nobody_uses_are_removed(tmp_path: Path) -> None:
    used, mine = TrainingFolder(tmp_path), TrainingFolder(tmp_path)
    used.make()
    mine.make()
    assert len(left(tmp_path)) == 2
    (tmp_path / ".publishing-7-x").mkdir()
    (tmp_path / ".publishing-70-x").mkdir()
    mine.remove(7)
    assert sorted(left(tmp_path)) == [".publishing-70-x", used.path.name]
    used.remove(None)
    assert left(tmp_path) == [".publishing-70-x"]
