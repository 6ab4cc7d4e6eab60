"""Requests of trainings: options, and checks before a training starts."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.errors import BadRequest
from app.settings import Settings
from app.training.catalogue import TrainingCatalogue
from app.training.run import check
from app.training.schemas import TrainRequest
from app.training.uploaded import UploadedData
from tests.app.conftest import serving
from tests.app.graphs import classifier, publish, weights


def test_options_list_data_sets_recipes_and_limits(client: httpx.Client) -> None:
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


def test_the_documented_requests_are_valid(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/api/trainings"]["post"]
    content = operation["requestBody"]["content"]
    for example in content["application/json"]["examples"].values():
        check(TrainRequest.model_validate(example["value"]), None)
    text = content["multipart/form-data"]["schema"]["properties"]["request"]["examples"][0]
    check(TrainRequest.model_validate_json(text), UploadedData("a.csv", b""))
    for status in ("400", "409", "413", "501"):
        assert operation["responses"][status]["content"]["application/json"]["example"]["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "data: got nothing, expected the name of a data set, or a file"),
        ({"data": "nowhere"}, "data: got 'nowhere', expected one of: mnist, mnist-5k"),
        ({"data": "../x.csv"}, "data: got '../x.csv', expected one of: mnist"),
        ({"data": "digits", "recipe": "best"}, "recipe: got 'best', expected one of: default, accurate"),
        ({"data": "digits", "target": "x"}, "target: expected with a table such as a .csv file only"),
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
        ("a.csv", {}, "target: missing, expected the column of the table to predict"),
        ("a.npz", {"target": "y"}, "target: expected with a table such as a .csv file only"),
        ("a.npz", {"data": "mnist"}, "data: got 'mnist' and a file, expected the name of a data set"),
        ("a.exe", {}, "data: got the file 'a.exe', expected one whose name ends in .csv, .tsv"),
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
def test_the_name_of_an_uploaded_file_is_sanitized(name: str, kept: str) -> None:
    uploaded = UploadedData(name, b"")
    assert uploaded.file_name == kept
    if "." not in kept:
        with pytest.raises(BadRequest, match=r"expected one whose name ends in \.csv"):
            check(TrainRequest(), uploaded)


def test_without_the_extra_the_missing_packages_are_named(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs with links to the packages of this environment except torch."""
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


def test_training_needs_access_control_and_a_writable_repository(tmp_path: Path) -> None:
    for host, there in (("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("::", True)):
        trainer = TrainingCatalogue(Settings(models=tmp_path, host=host, insecure_no_keys=True))
        assert (trainer.unavailable is not None) == there
    assert trainer.unavailable is not None
    assert "(--insecure-no-keys): training needs --keys" in trainer.unavailable
    assert TrainingCatalogue(Settings(models=tmp_path, host="0.0.0.0", keys=tmp_path / "keys")).unavailable is None
    nowhere = TrainingCatalogue(Settings(models=tmp_path / "none")).unavailable
    assert nowhere is not None
    assert nowhere.startswith("training needs a folder of models that can be written to")
