"""Loading, reloading and unloading models while they are being used; which versions; which files are refused."""

import asyncio
import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.errors import BadRequest, ModelError, NotFound, NotReady, Overloaded
from app.model import Model
from app.repository import MAX_WAITING, Repository
from app.settings import Settings
from tests.app.conftest import Serving, serving, wait_until
from tests.app.graphs import Array, classifier, forward, heavy, publish, weights
from tests.app.oip_models import graph, two

ROW: Array = np.random.default_rng(7).random((1, 6)).astype(np.float32)


def layers_of(version: int) -> list[Array]:
    return weights([6, 3], seed=version)


def put(folder: Path, version: int, name: str = "m") -> None:
    """Publish a version as the training does: whole or not at all."""
    publish(folder / ".unfinished", f"{name}-{version}", classifier(layers_of(version), outputs=("logits",)))
    (folder / name).mkdir(exist_ok=True)
    (folder / ".unfinished" / f"{name}-{version}" / "1").rename(folder / name / str(version))


def repository_of(folder: Path, **options: object) -> Repository:
    return asyncio.run(Repository.load(Settings.model_validate({"models": folder, **options})))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("latest:1", ["12"]),
        ("latest:2", ["9", "12"]),
        ("all", ["1", "3", "9", "12"]),
        ("specific:3", ["3"]),
        ("specific:9,1,77", ["1", "9"]),
    ],
)
def test_version_policy(tmp_path: Path, policy: str, expected: list[str]) -> None:
    for version in (1, 3, 9, 12):
        put(tmp_path, version)
    repository = repository_of(tmp_path, version_policy=policy)
    assert repository.versions("m") == expected
    assert repository.get("m").version == expected[-1]
    assert repository.models["m"].version == expected[-1]
    for chosen in expected:
        logits = repository.get("m", chosen).engine.run({"input": ROW})["logits"]
        np.testing.assert_allclose(logits, forward(layers_of(int(chosen)), ROW), atol=1e-5)
    with pytest.raises(NotFound, match=r"version of m: got '2', expected one of: "):
        repository.get("m", "2")


def test_a_policy_that_chooses_nothing_and_a_name_that_is_taken(tmp_path: Path) -> None:
    put(tmp_path, 1)
    put(tmp_path, 1, name="stats")
    repository = repository_of(tmp_path, version_policy="specific:5,6")
    assert repository.failures == {
        "m": "got versions 1, expected one of specific:5,6",
        "stats": "the name stats is taken by the protocol",
    }


def test_one_bad_version_does_not_keep_the_others_from_being_served(tmp_path: Path) -> None:
    put(tmp_path, 1)
    publish(tmp_path, "m", b"nothing", version=2)

    async def main() -> None:
        settings = Settings.model_validate({"models": tmp_path, "version_policy": "latest:2"})
        repository = await Repository.load(settings)
        assert repository.versions("m") == ["1"]
        assert await repository.index(ready=False) == [
            {"name": "m", "version": "1", "state": "READY", "reason": ""},
            {"name": "m", "version": "2", "state": "UNAVAILABLE", "reason": "not an ONNX file, or a truncated one"},
        ]
        with pytest.raises(NotReady, match="m version 2 is not ready: not an ONNX file"):
            repository.get("m", "2")

    asyncio.run(main())


def test_index_names_what_the_policy_leaves_out(tmp_path: Path) -> None:
    put(tmp_path, 1)
    put(tmp_path, 2)

    async def main() -> None:
        repository = await Repository.load(Settings.model_validate({"models": tmp_path}))
        assert [
            (entry["version"], entry["state"], entry["reason"]) for entry in await repository.index(ready=False)
        ] == [
            ("1", "UNAVAILABLE", "not loaded"),
            ("2", "READY", ""),
        ]
        assert [entry["version"] for entry in await repository.index(ready=True)] == ["2"]

    asyncio.run(main())


def test_load_reload_and_unload_of_a_repository(tmp_path: Path) -> None:
    changes: list[tuple[list[str], list[str]]] = []

    def changed(new: Any, old: Any) -> None:
        changes.append(([model.version for model in new], [model.version for model in old]))

    async def main() -> None:
        put(tmp_path, 1)
        settings = Settings.model_validate({"models": tmp_path, "max_models": 2})
        repository = Repository(settings, on_change=changed)
        await repository.refresh()
        first = repository.get("m")
        await repository.refresh()
        assert repository.get("m") is first  # nothing has changed
        put(tmp_path, 2)
        await repository.refresh()
        assert repository.versions("m") == ["2"]
        second = repository.get("m")
        await repository.load_model("m")
        assert repository.get("m") is not second  # asked for, so loaded anew
        assert changes == [(["1"], []), (["2"], ["1"]), (["2"], ["2"])]

        publish(tmp_path, "m", b"nothing", version=3)
        with pytest.raises(BadRequest, match="failed to load m: version 3: not an ONNX file"):
            await repository.load_model("m")
        await repository.refresh()
        assert repository.versions("m") == ["2"]  # it goes on
        (tmp_path / "m" / "3" / "model.onnx").unlink()

        del first, second
        await repository.unload_model("m")
        await repository.unload_model("m")  # once more does no harm
        assert repository.default == []
        with pytest.raises(NotReady, match="models: m version 2 is not ready: unloaded"):
            repository.get("m")
        await repository.refresh()
        assert repository.models == {}  # unloaded by request stays unloaded
        await repository.load_model("m")
        assert repository.default == ["m"]

        await repository.close()

    asyncio.run(main())


def test_a_device_that_cannot_be_had_keeps_its_model_out_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        put(tmp_path, 1)
        own = {"n": "cuda:1", "m": "cpu", "nobody": "cpu"}
        repository = Repository(Settings.model_validate({"models": tmp_path, "model_devices": own}))
        await repository.refresh()
        assert "there is no model nobody in the folder" in caplog.text
        publish(tmp_path, "n", classifier(weights([6, 3])))
        with pytest.raises(BadRequest, match=r"^failed to load n: version 1: device cuda:1: "):
            await repository.load_model("n")
        assert list(repository.models) == ["m"]
        await repository.refresh()
        assert list(repository.models) == ["m"]
        assert repository.failures["n"].startswith("version 1: device cuda:1: onnxruntime has no CUDAExecutionProvider")
        await repository.close()

    asyncio.run(main())


def test_names_that_come_and_go(tmp_path: Path) -> None:
    async def main() -> None:
        put(tmp_path, 1)
        repository = await Repository.load(Settings.model_validate({"models": tmp_path, "max_models": 2}))
        for other in ("n", "o"):
            put(tmp_path, 1, name=other)
        await repository.load_model("n")
        with pytest.raises(BadRequest, match=r"too many models: got 3, expected at most 2 \(KRON_MAX_MODELS\)"):
            await repository.load_model("o")
        for name in ("nobody", "../m", ".unfinished", "m/2", ""):
            with pytest.raises(NotFound, match="expected the name of a folder in the repository"):
                await repository.load_model(name)
            with pytest.raises(NotFound, match="models: got"):
                await repository.unload_model(name)

        (tmp_path / "n").rename(tmp_path / ".n")
        (tmp_path / "o").rename(tmp_path / ".o")
        await repository.refresh()
        assert list(repository.models) == ["m"]  # what has gone from the folder has gone from service
        await repository.close()

    asyncio.run(main())


def test_an_unload_waits_for_those_who_hold_the_model(tmp_path: Path) -> None:
    async def main() -> None:
        put(tmp_path, 1)
        repository = await Repository.load(Settings.model_validate({"models": tmp_path}))
        held: list[Model] = [repository.get("m")]
        unloading = asyncio.create_task(repository.unload_model("m"))
        done, _ = await asyncio.wait([unloading], timeout=0.3)
        assert not done
        assert (await repository.index(ready=False))[0]["state"] == "UNLOADING"
        np.testing.assert_allclose(held[0].engine.run({"input": ROW})["logits"], forward(layers_of(1), ROW), atol=1e-5)
        held.clear()
        await unloading
        assert (await repository.index(ready=False))[0]["state"] == "UNAVAILABLE"

    asyncio.run(main())


def test_loads_that_wait_are_bounded(tmp_path: Path) -> None:
    async def main() -> None:
        put(tmp_path, 1)
        repository = await Repository.load(Settings.model_validate({"models": tmp_path}))
        loading = asyncio.create_task(repository.load_model("m"))  # the others wait until it has ended
        await asyncio.sleep(0)
        unloads = [repository.unload_model("m") for _ in range(MAX_WAITING + 2)]
        results = await asyncio.gather(*unloads, return_exceptions=True)
        await loading
        assert sum(isinstance(result, Overloaded) for result in results) == 3

    asyncio.run(main())


def operator_of(domain: str) -> onnx.ModelProto:
    made = graph(
        [helper.make_node("Gadget", ["x"], ["y"], domain=domain)],
        [("x", TensorProto.FLOAT, ["batch", 2])],
        [("y", TensorProto.FLOAT, ["batch", 2])],
    )
    made.opset_import.append(helper.make_opsetid(domain, 1))
    return made


def hidden_operator() -> onnx.ModelProto:
    """The foreign operator is in the branch of an `If`."""
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Gadget", ["x"], ["z"], domain="evil.ops")], "branch", [], [out])
    nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
    return graph(
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 2])],
        [("y", TensorProto.FLOAT, ["batch", 2])],
        {"yes": np.array(True)},
    )


def own_function() -> onnx.ModelProto:
    """An operator that the file itself defines needs no library."""
    made = operator_of("mine")
    body = [helper.make_node("Neg", ["a"], ["b"])]
    made.functions.append(helper.make_function("mine", "Gadget", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    return made


def external_beside() -> onnx.ModelProto:
    made = two()
    values = numpy_helper.from_array(np.zeros(3, np.float32), "weights")
    values.ClearField("raw_data")
    values.data_location = TensorProto.EXTERNAL
    values.external_data.add(key="location", value="weights.bin")
    made.graph.initializer.append(values)
    return made


def short_tensor() -> onnx.ModelProto:
    made = classifier(layers_of(1))
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-4]
    return made


def compiled() -> onnx.ModelProto:
    made = operator_of("com.microsoft")
    made.graph.node[0].op_type = "EPContext"
    return made


def sequence_input() -> onnx.ModelProto:
    spec = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    made = graph([helper.make_node("SequenceAt", ["x", "first"], ["y"])], [], [("y", TensorProto.FLOAT, ["n"])])
    made.graph.initializer.append(numpy_helper.from_array(np.array(0), "first"))
    made.graph.input.append(spec)
    return made


HOSTILE: dict[str, tuple[onnx.ModelProto, str]] = {
    "library": (operator_of("evil.ops"), "operator 'Gadget' is of the domain 'evil.ops', expected one of ai.onnx, "),
    "hidden": (hidden_operator(), "operator 'Gadget' is of the domain 'evil.ops'"),
    "beside": (external_beside(), "tensor 'weights' is kept in another file, expected one self-contained file"),
    "short": (short_tensor(), "tensor 'w0' is truncated: got 68 bytes, expected 72"),
    "compiled": (compiled(), "operator 'EPContext' holds or names a program that was compiled elsewhere"),
    "sequence": (sequence_input(), "input 'x': got seq(tensor(float)), expected one of: tensor(float), "),
}


def test_hostile_files_are_refused_by_name(tmp_path: Path) -> None:
    for name, (made, _) in HOSTILE.items():
        publish(tmp_path, name, made)
    (tmp_path / "beside" / "1" / "weights.bin").write_bytes(bytes(12))
    publish(tmp_path, "function", own_function())
    repository = repository_of(tmp_path)
    assert list(repository.models) == ["function"]
    np.testing.assert_array_equal(repository.get("function").engine.run({"x": ROW[:, :2]})["y"], -ROW[:, :2])
    assert repository.failures.keys() == HOSTILE.keys()
    for name, (_, message) in HOSTILE.items():
        assert message in repository.failures[name]


def test_a_checksum_beside_the_model_is_held_to(tmp_path: Path) -> None:
    for name in ("right", "wrong", "bad"):
        put(tmp_path, 1, name=name)
    digest = hashlib.sha256((tmp_path / "right" / "1" / "model.onnx").read_bytes()).hexdigest()
    (tmp_path / "right" / "1" / "model.onnx.sha256").write_text(f"{digest.upper()}  model.onnx\n")
    (tmp_path / "wrong" / "1" / "model.onnx.sha256").write_text("0" * 64)
    (tmp_path / "bad" / "1" / "model.onnx.sha256").write_text("0" * 63)
    repository = repository_of(tmp_path)
    assert repository.get("right").artifact.sha256 == digest
    assert repository.failures == {
        "wrong": f"version 1: model.onnx: got SHA-256 {digest}, expected {'0' * 64} (model.onnx.sha256)",
        "bad": "version 1: model.onnx.sha256: expected 64 hexadecimal digits, as sha256sum writes them",
    }


def test_a_file_that_is_exchanged_between_inspection_and_loading(tmp_path: Path) -> None:
    put(tmp_path, 1)
    artifact = repository_of(tmp_path).get("m").artifact
    artifact.check_unchanged()
    artifact.path.write_bytes(artifact.path.read_bytes() + b"x")
    with pytest.raises(ModelError, match=r"model\.onnx was changed while it was being loaded"):
        artifact.check_unchanged()
    artifact.path.unlink()
    with pytest.raises(ModelError, match="was changed"):
        artifact.check_unchanged()


def infer(client: httpx.Client, model: str = "m", row: Array = ROW) -> httpx.Response:
    values = {"name": "input", "shape": list(row.shape), "datatype": "FP32", "data": row.ravel().tolist()}
    return client.post(f"/v2/models/{model}/infer", json={"inputs": [values]})


def load(client: httpx.Client, model: str = "m") -> httpx.Response:
    return client.post(f"/v2/repository/models/{model}/load")


def is_served(server: Serving, version: int) -> bool:
    return bool(infer(server.client).json()["model_version"] == str(version))


def test_no_request_fails_while_versions_are_swapped(tmp_path: Path) -> None:
    """Clients hammer, versions come by API, by signal, and bad ones not at all; each answer is of its version."""
    put(tmp_path, 1)
    stop = threading.Event()
    wrong: list[str] = []
    seen: list[list[int]] = []

    with serving(tmp_path) as server:

        def hammer(mine: list[int]) -> None:
            with httpx.Client(base_url=server.address, timeout=60) as client:
                while not stop.is_set():
                    answer = infer(client)
                    if answer.status_code != 200:
                        wrong.append(answer.text)
                        return
                    body = answer.json()
                    mine.append(int(body["model_version"]))
                    logits = np.array(body["outputs"][0]["data"])
                    if not np.allclose(logits, forward(layers_of(mine[-1]), ROW)[0], atol=1e-5):
                        wrong.append(f"version {mine[-1]} gave {logits}")

        threads = []
        for _ in range(3):
            seen.append([])
            threads.append(threading.Thread(target=hammer, args=(seen[-1],)))
            threads[-1].start()
        try:
            for version in range(2, 6):
                put(tmp_path, version)
                if version % 3 == 0:
                    os.kill(server.process.pid, signal.SIGHUP)
                    wait_until(partial(is_served, server, version))
                else:
                    assert load(server.client).is_success
            assert load(server.client).is_success  # the same again
            publish(tmp_path, "m", b"nothing", version=99)
            assert load(server.client).status_code == 400
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert wrong == []
    for versions in seen:
        assert len(versions) > 20
        assert versions == sorted(versions)  # never back to an old one
        assert versions[-1] == 5


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Serving, Path]]:
    """A server with a model that takes its time."""
    publish(tmp_path, "m", heavy(width=512, products=400))
    with serving(tmp_path, max_body_bytes=2**24) as server:
        yield server, tmp_path


def answered(server: Serving, rows: int) -> tuple[threading.Thread, list[httpx.Response]]:
    """A request on its way that will run for a while."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(base_url=server.address, timeout=60) as client:
            answers.append(infer(client, row=np.ones((rows, 512), np.float32)))

    before = cpu_seconds(server)
    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: cpu_seconds(server) > before + 0.3)
    assert not answers
    return thread, answers


def cpu_seconds(server: Serving) -> float:
    """Seconds of CPU that the server has used."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_request_ends_on_the_version_that_it_began_with(slow: tuple[Serving, Path]) -> None:
    server, folder = slow
    thread, answers = answered(server, rows=1000)
    put(folder, 2)
    assert load(server.client).is_success
    assert not answers
    assert infer(server.client).json()["model_version"] == "2"
    thread.join()
    assert answers[0].json()["model_version"] == "1"
    assert set(answers[0].json()["outputs"][0]["data"]) == {1.0}


def test_a_request_that_is_running_survives_the_unload(slow: tuple[Serving, Path]) -> None:
    server, _ = slow
    thread, answers = answered(server, rows=500)
    assert server.client.post("/v2/repository/models/m/unload").is_success
    thread.join()
    assert answers[0].is_success
    assert infer(server.client).status_code == 503
    assert server.client.get("/v2/models/m/ready").status_code == 400
    assert server.client.get("/v2/health/ready").is_success
    assert server.client.post("/api/predict", json={"inputs": [[0] * 512]}).status_code == 404
    metrics = server.client.get("/metrics").text
    assert 'kron_model_info{model="m"' not in metrics
    assert load(server.client).is_success
    assert infer(server.client, row=np.ones((1, 512), np.float32)).is_success


def test_unload_gives_the_memory_back(tmp_path: Path) -> None:
    """A padded model of 24 MB, loaded and unloaded again and again."""
    publish(tmp_path, "m", classifier(layers_of(1), padding_bytes=24 * 2**20, outputs=("logits",)))
    put(tmp_path, 1, name="other")
    with serving(tmp_path) as server:

        def resident() -> float:
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            return int(status.partition("VmRSS:")[2].split()[0]) / 1024

        def cycle() -> tuple[float, float]:
            assert load(server.client).is_success
            assert infer(server.client).is_success
            loaded = resident()
            assert server.client.post("/v2/repository/models/m/unload").is_success
            return loaded, resident()

        _, before = cycle()
        loaded, after = [cycle() for _ in range(3)][-1]
    assert loaded - before > 20
    assert after - before < 5
