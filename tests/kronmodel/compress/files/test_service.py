"""A compressed file and its original in the service."""

import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from kronmodel.compress.files.compress import compress_file
from kronmodel.compress.files.target import Target
from tests.app.conftest import serving, wait_until
from tests.kronmodel.compress.files.networks import SETTINGS, inputs, network
from tests.kronmodel.compress.onnx_models import run, save


def test_a_running_service_takes_both_and_shows_them_as_a_pair(tmp_path: Path) -> None:
    path, out = save(network(), tmp_path, "toy.onnx"), tmp_path / "models"
    compress_file(path, Target(ratio=2), out=out, settings=SETTINGS)
    with serving(out) as server, httpx.Client(base_url=server.address) as client:
        compress_file(path, Target(ratio=3), name="late", out=out, settings=SETTINGS)
        server.process.send_signal(signal.SIGHUP)

        def all_models() -> dict[str, dict[str, Any]]:
            models = {each["name"]: each for each in client.get("/api/models").json()["models"]}
            return models if len(models) == 4 else {}

        models = wait_until(all_models)
        roles = {name: (model["card"]["twin"], model["card"]["role"]) for name, model in models.items()}
        assert roles == {
            f"{twin}{suffix}": (twin, role)
            for twin in ("toy", "late")
            for suffix, role in (("", "original"), ("-compressed", "compressed"))
        }
        x = inputs(3)
        for name in models:
            tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
            answer = client.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]}).json()
            found = np.reshape(answer["outputs"][0]["data"], answer["outputs"][0]["shape"])
            want = run(out / name / "1/model.onnx", x=x)[0]
            np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
