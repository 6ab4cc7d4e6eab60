"""What is inside the image: size, packages, bill of materials, labels."""

import json
import subprocess
import zlib
from importlib.metadata import version

import pytest

from tests.image.container import ENGINE, HEALTH, IMAGE, engine, run

MB = 1_000_000
MAX_BYTES, MAX_COMPRESSED_BYTES = 250 * MB, 100 * MB
LIST = """
import json, os
from importlib.metadata import distributions
files = [os.path.join(folder, name) for top in ("bin", "etc", "usr", "var", "lib", "sbin", "opt", "root", "home")
         for folder, _, names in os.walk("/" + top) for name in names]
print(json.dumps({"files": files, "packages": {found.metadata["Name"]: found.version for found in distributions()}}))
"""


@pytest.fixture(scope="module")
def content() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(run("-c", LIST, options=("--entrypoint", "python")).stdout)
    return found


def test_size() -> None:
    # Layers of an image in the local store are not compressed: its size is what it takes unpacked.
    assert int(engine("image", "inspect", "--format", "{{.Size}}", IMAGE)) <= MAX_BYTES
    compressor, size = zlib.compressobj(6, wbits=31), 0
    with subprocess.Popen([ENGINE, "save", IMAGE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as saving:
        assert saving.stdout is not None
        while chunk := saving.stdout.read(MB):
            size += len(compressor.compress(chunk))
    assert saving.returncode == 0
    assert 10 * MB < size + len(compressor.flush()) <= MAX_COMPRESSED_BYTES


def test_it_has_no_tools_that_the_service_does_not_need(content: dict[str, dict[str, str]]) -> None:
    names = {path.rpartition("/")[2] for path in content["files"]}
    assert not names & {"sh", "bash", "dash", "gcc", "cc", "apt-get", "dpkg", "pip", "pip3", "perl", "strip", "curl"}
    assert not {name.lower() for name in content["packages"]} & {"torch", "pip", "setuptools", "wheel", "pytest"}
    assert not [path for path in content["files"] if path.endswith((".a", ".h", ".c", ".pyx", ".whl"))]
    assert not [path for path in content["files"] if "/tests/" in path or "/cache/pip" in path]


def test_every_module_is_compiled(content: dict[str, dict[str, str]]) -> None:
    """Without bytecode, each start on a read-only file system takes seconds more."""
    files = set(content["files"])
    compiled = {
        path.replace("/__pycache__/", "/").rpartition(".cpython-")[0] for path in files if path.endswith(".pyc")
    }
    sources = {path.removesuffix(".py") for path in files if path.endswith(".py")}
    assert len(compiled) > 1000
    assert not {path for path in sources - compiled if "lib2to3" not in path}


def test_the_packages_are_those_of_the_constraints_and_of_the_bill_of_materials(
    content: dict[str, dict[str, str]],
) -> None:
    packages = content["packages"]
    for name in ("onnxruntime", "numpy", "onnx", "fastapi", "uvicorn", "uvloop", "pydantic"):
        assert packages[name] == version(name)  # this environment's, installed with the same constraints
    read = "print(open('/usr/share/kronmodel/sbom.cdx.json').read())"
    document = json.loads(run("-c", read, options=("--entrypoint", "python")).stdout)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    components = [*document["components"], document["metadata"]["component"]]
    listed = {found["name"]: found["version"] for found in components if found.get("purl", "").startswith("pkg:pypi/")}
    assert listed == packages
    debian = {found["name"] for found in components if found.get("purl", "").startswith("pkg:deb/")}
    libraries = {path for path in content["files"] if path.startswith("/var/lib/dpkg/status.d/")}
    assert debian == {path.rpartition("/")[2] for path in libraries}
    assert {"libc6", "libstdc++6"} <= debian
    assert [found["version"] for found in components if found["name"] == "python"]


def test_labels_user_and_health_check() -> None:
    config = json.loads(engine("image", "inspect", IMAGE))[0]
    labels = config["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == version("kronmodel")
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert config["Config"]["User"] == "10001"
    assert config["Config"]["Entrypoint"] == ["tini", "--", "kronserve"]
    health = config.get("Healthcheck") or config["Config"]["Healthcheck"]  # podman's and Docker's place
    assert health["Test"] == ["CMD", *HEALTH]
