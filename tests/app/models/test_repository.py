"""The repository: version policy, load, reload and unload, errors and states."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import BadRequest, NotFound, NotReady, Overloaded
from app.models.model import Model
from app.models.repository import MAX_WAITING, Repository
from app.settings import Settings
from tests.app.graphs import classifier, forward, publish, weights
from tests.app.versions import ROW, layers_of, put, repository_of


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


def test_no_selected_version_and_a_reserved_name_are_refused(tmp_path: Path) -> None:
    put(tmp_path, 1)
    put(tmp_path, 1, name="stats")
    repository = repository_of(tmp_path, version_policy="specific:5,6")
    assert repository.failures == {
        "m": "got versions 1, expected one of specific:5,6 (KRON_VERSION_POLICY)",
        "stats": "the name stats is reserved by the protocol: rename the folder",
    }


def test_one_bad_version_does_not_stop_the_others(tmp_path: Path) -> None:
    put(tmp_path, 1)
    publish(tmp_path, "m", b"nothing", version=2)

    async def main() -> None:
        settings = Settings.model_validate({"models": tmp_path, "version_policy": "latest:2"})
        repository = await Repository.load(settings)
        assert repository.versions("m") == ["1"]
        reason = "not an ONNX file, or a truncated one: copy or export it again"
        assert await repository.index(ready=False) == [
            {"name": "m", "version": "1", "state": "READY", "reason": ""},
            {"name": "m", "version": "2", "state": "UNAVAILABLE", "reason": reason},
        ]
        with pytest.raises(NotReady, match="m version 2 is not ready: not an ONNX file"):
            repository.get("m", "2")

    asyncio.run(main())


def test_index_lists_versions_that_the_policy_does_not_select(tmp_path: Path) -> None:
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


def test_load_reload_and_unload(tmp_path: Path) -> None:
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
        assert repository.get("m") is not second  # an explicit load reloads
        assert changes == [(["1"], []), (["2"], ["1"]), (["2"], ["2"])]

        publish(tmp_path, "m", b"nothing", version=3)
        with pytest.raises(BadRequest, match="failed to load m: version 3: not an ONNX file"):
            await repository.load_model("m")
        await repository.refresh()
        assert repository.versions("m") == ["2"]  # it stays in service
        (tmp_path / "m" / "3" / "model.onnx").unlink()

        del first, second
        await repository.unload_model("m")
        await repository.unload_model("m")  # a second unload has no effect
        assert repository.default == []
        with pytest.raises(NotReady, match="models: m version 2 is not ready: unloaded"):
            repository.get("m")
        await repository.refresh()
        assert repository.models == {}  # unloaded by request stays unloaded
        await repository.load_model("m")
        assert repository.default == ["m"]

        await repository.close()

    asyncio.run(main())


def test_a_missing_device_stops_only_its_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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


def test_an_unexpected_error_stops_only_its_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def prepare(model: Model) -> None:
        if model.name == "n":
            raise LookupError("unexpected")

    async def main() -> None:
        for name in ("m", "n", "o"):
            put(tmp_path, 1, name=name)
        repository = Repository(Settings.model_validate({"models": tmp_path}), prepare=prepare)
        await repository.refresh()
        assert list(repository.models) == ["m", "o"]
        assert repository.failures == {"n": "version 1: internal error (LookupError); see the service's log"}
        with pytest.raises(BadRequest, match=r"^failed to load n: version 1: internal error \(LookupError"):
            await repository.load_model("n")
        assert "n: version 1" in caplog.text
        await repository.close()

    asyncio.run(main())


def test_a_load_without_the_folder_is_refused_without_its_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        put(tmp_path / "models", 1)
        repository = await Repository.load(Settings.model_validate({"models": tmp_path / "models"}))
        (tmp_path / "models").rename(tmp_path / "away")
        with pytest.raises(
            NotReady, match=r"^failed to load 'm': the folder of models cannot be read; see the service's log"
        ):
            await repository.load_model("m")
        assert f"no models: {tmp_path / 'models'} is not a folder" in caplog.text
        assert list(repository.models) == ["m"]  # it stays in service
        await repository.close()

    asyncio.run(main())


def test_added_removed_and_unknown_models(tmp_path: Path) -> None:
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
        assert list(repository.models) == ["m"]  # removed from the folder, so unloaded
        await repository.close()

    asyncio.run(main())


def test_an_unload_waits_for_references_to_the_model(tmp_path: Path) -> None:
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


def test_a_reference_cycle_does_not_keep_a_model(tmp_path: Path) -> None:
    async def main() -> None:
        put(tmp_path, 1)
        repository = await Repository.load(Settings.model_validate({"models": tmp_path}))
        circle: list[object] = [repository.get("m")]
        circle.append(circle)
        del circle
        await repository.unload_model("m")
        assert (await repository.index(ready=False))[0]["state"] == "UNAVAILABLE"

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_waiting_loads_are_bounded(tmp_path: Path) -> None:
    async def main() -> None:
        put(tmp_path, 1)
        repository = await Repository.load(Settings.model_validate({"models": tmp_path}))
        loading = asyncio.create_task(repository.load_model("m"))  # the unloads wait for its end
        await asyncio.sleep(0)
        unloads = [repository.unload_model("m") for _ in range(MAX_WAITING + 2)]
        results = await asyncio.gather(*unloads, return_exceptions=True)
        await loading
        assert sum(isinstance(result, Overloaded) for result in results) == 3

    asyncio.run(main())
