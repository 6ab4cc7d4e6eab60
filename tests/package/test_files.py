"""What the wheel and the sdist contain."""

import bz2
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import kronmodel
from tests.dependencies.pins import ROOT

MAX_WHEEL_BYTES = 1_000_000
MAX_SDIST_BYTES = 3_000_000
NEVER = {".venv", "models", "build", "dist", "node_modules", "__pycache__", ".git"}


def tracked(*folders: str) -> set[str]:
    lines = subprocess.run(
        ["git", "ls-files", "--", *folders], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.splitlines()
    return {line for line in lines if (ROOT / line).exists()}


def test_the_wheel_holds_the_packages_and_the_page_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"kronmodel-{kronmodel.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        with zipfile.ZipFile(bz2.open(archive.open("app/static.zip.bz2"))) as page:
            assert {f"static/{name}" for name in page.namelist()} == tracked("static")
    assert names == tracked("app", "kronmodel") | {"app/static.zip.bz2"}
    assert {PurePosixPath(name).parts[0] for name in names} == {"app", "kronmodel"}
    assert not [name for name in names if NEVER & set(PurePosixPath(name).parts[2:-1]) - {"models"}]


def test_the_sdist_holds_what_builds_and_tests_the_package(sdist: Path) -> None:
    assert sdist.stat().st_size <= MAX_SDIST_BYTES
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    files = ("pyproject.toml", "constraints.txt", "Makefile", "README.md", "LICENSE", "Dockerfile", "CHANGELOG.md")
    assert names >= {*files, *tracked("app", "kronmodel", "static", "tests", "docs", "deploy", "benchmarks")}
    assert not [name for name in names if name and PurePosixPath(name).parts[0] in NEVER]


def test_the_wheel_built_from_the_sdist_is_the_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(sdist)]
    subprocess.run(command, check=True, timeout=300, cwd=tmp_path)
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(tmp_path / wheel.name) as again:
        assert {each.filename: each.CRC for each in ours.infolist()} == {
            each.filename: each.CRC for each in again.infolist()
        }
