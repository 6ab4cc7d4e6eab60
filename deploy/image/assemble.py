"""Assembles the root file system of the image in the build stage: what the service needs at run time, and no more.

Usage: python assemble.py OUT

Three folders, each a layer of the image: OUT/system (Python with the system libraries that it needs), OUT/packages (the
requirements) and OUT/service (kronmodel itself, and the software bill of materials in CycloneDX).
"""

import compileall
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from email.message import Message
from importlib.metadata import Distribution, distributions
from pathlib import Path

PROJECT = "kronmodel"
BUILD_ONLY = frozenset({"pip", "setuptools", "wheel"})
UID = 10001  # any other works, too: nothing but STATE is written to, and that by the group 0, too
STATE = "var/lib/kronmodel"
# The first process of the container: the system ignores signals to that one until it handles them, which takes Python
# a second after its start; and it reaps processes whose parent has ended.
INIT = Path("/usr/bin/tini")
STDLIB = Path(sysconfig.get_path("stdlib"))
SITE = Path(sysconfig.get_path("purelib"))
# Parts that nothing imports while the service runs, relative to the standard library or to site-packages.
UNUSED_STDLIB = (
    "config-*", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tkinter", "turtledemo",
    "venv", "turtle.py", "lib-dynload/_ctypes_test.*", "lib-dynload/_test*", "lib-dynload/_tkinter.*",
    "lib-dynload/_xx*",
)  # fmt: skip
UNUSED_PACKAGES = (
    "**/tests", "**/*.h", "**/*.cc", "**/*.c", "**/*.pxd", "**/*.pxi", "**/*.pyx", "**/*.pyi", "**/*.a", "**/*.lib",
    "numpy/f2py", "numpy/distutils", "numpy/_pyinstaller",
    "onnx/backend", "onnx/reference", "onnx/bin", "onnx/fuzz", "onnx/**/*.proto", "onnx/tools",
    # The C library, for other programs: Python's module of onnxruntime contains its own copy.
    "onnxruntime/capi/libonnxruntime.so*",
    "onnxruntime/backend", "onnxruntime/datasets", "onnxruntime/quantization", "onnxruntime/tools",
    "onnxruntime/transformers",
    # rich highlights source code and renders Markdown by these; kronserve prints tables only.
    "pygments", "pygments-*", "markdown_it", "markdown_it_py-*", "mdurl", "mdurl-*",
)  # fmt: skip


def main() -> None:
    """Assemble all three layers."""
    out = Path(sys.argv[1])
    system, packages, service = out / "system", out / "packages", out / "service"
    copy_python(system)
    installed = {name_of(found): found for found in distributions(path=[str(SITE)])}
    project = installed.pop(PROJECT)
    for name in BUILD_ONLY:
        installed.pop(name, None)
    for found in installed.values():
        copy_distribution(found, packages)
    copy_distribution(project, service)
    for folder in (packages, service):
        remove(folder / SITE.relative_to("/"), UNUSED_PACKAGES)
    strip(out)
    debian = copy_libraries(out, system)
    write_accounts(system)
    kept = [found for found in installed.values() if (packages / metadata_path(found).relative_to("/")).exists()]
    write_sbom(service / "usr/share/kronmodel/sbom.cdx.json", project, kept, debian)
    for folder in (system, packages, service):
        compile_modules(folder)
    subprocess.run(["ldconfig", "-r", system], check=True)


def name_of(found: Distribution) -> str:
    """Normalized name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()


def metadata_path(found: Distribution) -> Path:
    """Folder of a distribution's metadata."""
    return next(Path(str(found.locate_file(file))).parent for file in found.files or () if file.name == "METADATA")


def copy(source: Path, target: Path) -> None:
    """Copy a file with its modification time, or a link as a link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        shutil.copy2(source, target, follow_symlinks=False)


def copy_python(system: Path) -> None:
    """Copy the interpreter and its standard library."""
    target = system / STDLIB.relative_to("/")
    shutil.copytree(STDLIB, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "site-packages"))
    remove(target, UNUSED_STDLIB)
    executable = Path(os.path.realpath(sys.executable))
    copy(executable, system / executable.relative_to("/"))
    for name in ("python", "python3"):
        (system / "usr/local/bin" / name).symlink_to(executable.name)


def copy_distribution(found: Distribution, target: Path) -> None:
    """Copy the installed files of a distribution."""
    for file in found.files or ():
        source = Path(os.path.normpath(str(found.locate_file(file))))
        if source.suffix != ".pyc" and source.exists():
            copy(source, target / source.relative_to("/"))


def remove(folder: Path, patterns: Iterable[str]) -> None:
    """Remove what matches the patterns."""
    for pattern in patterns:
        for path in list(folder.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def elf_files(folder: Path) -> Iterator[Path]:
    """Executables and shared libraries of a folder."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def strip(folder: Path) -> None:
    """Remove debugging symbols; not of CUDA's libraries, nor of those in `*.libs`, which auditwheel has rewritten."""
    for path in elf_files(folder):
        if ".libs" not in path.parent.name and "nvidia" not in path.parts:
            subprocess.run(["strip", "--strip-unneeded", path], check=True)


def copy_libraries(out: Path, system: Path) -> dict[str, str]:
    """Copy `INIT`, and the system's shared libraries that any file of the image needs.

    Returns:
        The versions of the Debian packages that they belong to, by name.
    """
    linked = subprocess.run(
        ["ldd", *map(str, elf_files(out))], capture_output=True, text=True, check=False
    ).stdout  # ldd also fails for a file that needs a library of another wheel, which Python loads before it
    libraries = {Path(name) for name in re.findall(r"(?:=> |\s)(/[^\s]+) \(0x", linked)}
    for root in ("lib", "lib64"):
        if Path("/", root).is_symlink():
            (system / root).symlink_to(Path("/", root).readlink())
    debian = {}
    for library in sorted({INIT, *(path for path in libraries if not path.resolve().is_relative_to(out))}):
        real = library.resolve()
        link = library.parent.resolve() / library.name
        copy(link, system / link.relative_to("/"))
        copy(real, system / real.relative_to("/"))
        if real.is_relative_to("/usr/local"):
            continue  # Python's own library
        package = owner(library, real)
        if package not in debian:
            debian[package] = copy_package_record(package, system)
    for file in ("etc/ssl/certs/ca-certificates.crt", "etc/os-release", "usr/lib/os-release", "etc/debian_version"):
        if Path("/", file).exists():
            copy(Path("/", file), system / file)
    return debian


def owner(*paths: Path) -> str:
    """Debian package that a library belongs to."""
    for path in paths:
        for name in (str(path), str(path).removeprefix("/usr")):
            found = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True, check=False)
            if found.returncode == 0:
                return found.stdout.partition(":")[0]
    raise SystemExit(f"{paths[0]} belongs to no Debian package")


def copy_package_record(package: str, system: Path) -> str:
    """Copy a Debian package's licence and its status, which scanners for vulnerabilities read; return its version."""
    copy(Path(f"/usr/share/doc/{package}/copyright").resolve(), system / f"usr/share/doc/{package}/copyright")
    status = subprocess.run(["dpkg", "-s", package], capture_output=True, text=True, check=True).stdout
    record = system / "var/lib/dpkg/status.d" / package
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(status)
    version = re.search(r"^Version: (.*)$", status, re.MULTILINE)
    assert version is not None
    return version[1]


def write_accounts(system: Path) -> None:
    """Write the accounts, and create the folders that are written to or mounted."""
    (system / "etc/passwd").write_text(f"root:x:0:0:root:/:/\nkronmodel:x:{UID}:0:kronmodel:/{STATE}:/\n")
    (system / "etc/group").write_text("root:x:0:\n")
    (system / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    (system / "etc/ld.so.conf").write_text("/usr/local/lib\n")
    for name, mode in (("tmp", 0o1777), (STATE, 0o770)):
        (system / name).mkdir(parents=True)
        (system / name).chmod(mode)
    os.chown(system / STATE, UID, 0)


def compile_modules(folder: Path) -> None:
    """Compile modules to bytecode: on a read-only file system each start would compile them again."""
    compileall.compile_dir(
        folder,
        quiet=1,
        stripdir=folder,
        prependdir="/",
        maxlevels=30,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def write_sbom(path: Path, project: Distribution, packages: Iterable[Distribution], debian: dict[str, str]) -> None:
    """Write a software bill of materials: CycloneDX 1.6, as JSON."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.MULTILINE))
    python = sys.version.partition(" ")[0]
    components: list[dict[str, object]] = [
        {
            "type": "application",
            "name": "python",
            "version": python,
            "bom-ref": f"pkg:generic/python@{python}",
            "purl": f"pkg:generic/python@{python}",
            "cpe": f"cpe:2.3:a:python:python:{python}:*:*:*:*:*:*:*",
        },
        {"type": "operating-system", "name": release["ID"], "version": release.get("VERSION_ID", "")},
    ]
    components += [python_component(found) for found in sorted(packages, key=name_of)]
    for name, version in sorted(debian.items()):
        url = f"pkg:deb/{release['ID']}/{name}@{version.replace('+', '%2B').replace(':', '%3A')}"
        components.append({"type": "library", "name": name, "version": version, "bom-ref": url, "purl": url})
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**python_component(project), "type": "application"}},
        "components": components,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def python_component(found: Distribution) -> dict[str, object]:
    """Component of a Python distribution, with its licence as its metadata has it."""
    url = f"pkg:pypi/{name_of(found)}@{found.version}"
    component: dict[str, object] = {
        "type": "library",
        "name": found.metadata["Name"],
        "version": found.version,
        "bom-ref": url,
        "purl": url,
    }
    licence = licence_of(found.metadata)  # type: ignore[arg-type]
    return component | ({"licenses": [licence]} if licence else {})


def licence_of(metadata: Message) -> dict[str, object] | None:
    """Licence as an entry of CycloneDX: an SPDX expression, or a name."""
    expression = metadata["License-Expression"]
    if expression:
        return {"expression": expression}
    classifiers = [text for text in metadata.get_all("Classifier", []) if text.startswith("License ::")]
    name = classifiers[0].rpartition(" :: ")[2] if classifiers else (metadata["License"] or "").partition("\n")[0]
    return {"license": {"name": name}} if name else None


if __name__ == "__main__":
    main()
