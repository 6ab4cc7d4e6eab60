"""Builds of the image by its script: models that a build argument names."""

import shutil
import subprocess
import uuid
from pathlib import Path

from tests.dependencies.pins import ROOT
from tests.image.conftest import copy_models
from tests.image.container import ENGINE, LOCKED_DOWN, Container, engine

CONTEXT = (
    "app", "kronmodel", "static", "deploy/image", "deploy/wheel.py", "pyproject.toml", "constraints.txt", "README.md",
    "LICENSE", "Dockerfile", ".dockerignore",
)  # fmt: skip


def test_models_are_built_in_by_a_build_argument(models: Path, tmp_path: Path) -> None:
    """The layers of a former build are used again: their files are the same."""
    for name in CONTEXT:
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    copy_models(models, tmp_path / "models" / "built-in")
    name = f"kronmodel-test-{uuid.uuid4().hex}"
    build = [str(tmp_path / "deploy/image/build"), ENGINE, "cpu", name, "--build-arg", "MODELS=models/built-in"]
    subprocess.run(build, check=True, capture_output=True, timeout=290)
    try:
        options = ("--env", "KRON_INSECURE_NO_KEYS=true", "--user", "12345", *LOCKED_DOWN)
        with Container(None, *options, image=f"{name}:latest") as container, container.client() as client:
            answer = client.post("/api/predict", json={"inputs": [[0.5] * 784]}).raise_for_status().json()
            assert {result["model"] for result in answer["results"]} == {"mnist-kronecker", "mnist-dense"}
    finally:
        engine("image", "rm", "--force", name)
