"""Renew the pins of constraints.txt, or list the lowest versions that pyproject.toml declares; uv resolves them."""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
# The other files of pins, for tools in environments of their own.
TOOLS = (
    "benchmarks/others.txt", "deploy/requirements.txt", "deploy/site/requirements.txt",
    "tests/conformance/requirements.txt", "tests/dependencies/requirements.txt", "tests/fuzz/requirements.txt",
)  # fmt: skip
EXTRAS = ("train", "tables", "c", "otel", "dev")
# What torch requires for CUDA. The pins are for the CPU build, which requires none of these; they are told apart here
# because PyPI's build of the same version has the name of the CPU build.
CUDA = (
    "cuda-bindings", "cuda-toolkit", "nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-cusparselt-cu13", "nvidia-nccl-cu13",
    "nvidia-nvshmem-cu13", "triton",
    # The names in torch before 2.11.
    "nvidia-cublas-cu12", "nvidia-cuda-cupti-cu12", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-runtime-cu12",
    "nvidia-cudnn-cu12", "nvidia-cufft-cu12", "nvidia-cufile-cu12", "nvidia-curand-cu12", "nvidia-cusolver-cu12",
    "nvidia-cusparse-cu12", "nvidia-cusparselt-cu12", "nvidia-nccl-cu12", "nvidia-nvjitlink-cu12",
    "nvidia-nvshmem-cu12", "nvidia-nvtx-cu12",
)  # fmt: skip
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$")
HEADER = {
    False: "# Exact versions of all packages that CI, the Makefile and the Dockerfile install (`make pins`);\n"
    "# `pip install kronmodel` does not need them.\n",
    True: "# The lowest versions that pyproject.toml declares. Written by `make test-lowest`.\n",
}


def canonical(name: str) -> str:
    """Return the name of a package in the one spelling that PEP 503 gives it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(text: str) -> dict[str, str]:
    """Read ``name==version`` lines; comments are left out.

    Returns:
        Versions by canonical name.

    Raises:
        ValueError: If a line is neither a pin nor a comment.
    """
    pins = {}
    for line in text.splitlines():
        content = line.partition("#")[0].strip()
        if content:
            found = PIN.match(content)
            if found is None:
                raise ValueError(f"expected a line such as name==1.2.3, got {line!r}")
            pins[canonical(found[1])] = found[2]
    return pins


def resolve(requirements: Iterable[str], folder: Path, python: str, options: Sequence[str] = ()) -> dict[str, str]:
    """Resolve requirements with uv for x86-64 Linux.

    Args:
        requirements: Requirements in the notation of pip, without extras of this project.
        folder: Folder of files that uv reads; they are overwritten.
        python: Version of Python, such as ``3.11``.
        options: Further options of ``uv pip compile``.

    Returns:
        Versions by canonical name.
    """
    source, excludes = folder / "requirements.in", folder / "excludes.txt"
    source.write_text("".join(f"{line}\n" for line in requirements))
    excludes.write_text("\n".join(CUDA))
    command = [str(UV), "pip", "compile", str(source), "--python-version", python, "--quiet", "--no-header"]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--no-annotate", "--no-config", *options]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"uv cannot resolve the requirements in {source}:\n{result.stderr}")
    return read_pins(result.stdout)


def lowest_python(requires: str) -> str:
    """Return the lowest version that ``requires-python`` names, such as 3.11 in ``>=3.11``."""
    found = re.fullmatch(r">=\s*(3\.\d+)", requires)
    if found is None:
        raise ValueError(f"expected requires-python such as >=3.11 in pyproject.toml, got {requires!r}")
    return found[1]


def resolve_project(folder: Path, torch: str, lowest: bool) -> dict[str, str]:
    """Resolve all requirements of pyproject.toml, the extra ``gpu`` and the build system's among them.

    Args:
        folder: Folder of files that uv reads.
        torch: Version of torch, or an empty string for the one that the resolution finds.
        lowest: Take the lowest declared version of each direct requirement; the extra ``gpu`` is left out.

    Returns:
        Versions by canonical name.
    """
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    python = lowest_python(project["requires-python"])
    requirements = [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])]
    requirements += pyproject["build-system"]["requires"]
    requirements += [f"torch=={torch}"] if torch else []
    excluding = ["--excludes", str(folder / "excludes.txt")]
    if lowest:
        options = ["--resolution", "lowest-direct", "--only-binary", ":all:", *excluding]
        return resolve(requirements, folder, python, options)
    pins = resolve(requirements, folder, python, excluding)
    if unknown := sorted(name for name in pins if name.startswith(("nvidia-", "cuda-"))):
        sys.exit(f"torch requires packages for CUDA that {__file__} does not name in CUDA: {', '.join(unknown)}")
    known = folder / "known.txt"
    known.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))
    # Never installed beside torch: nothing is excluded here.
    return pins | resolve(extras["gpu"], folder, python, ["--constraint", str(known)])


def renew(text: str, pins: Mapping[str, str]) -> str:
    """Return a file of pins with the versions of `pins` for the packages that both name."""

    def renewed(found: re.Match[str]) -> str:
        return f"{found[1]}=={pins.get(canonical(found[1]), found[2])}"

    return re.sub(PIN.pattern, renewed, text, flags=re.MULTILINE)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="make pins")
    parser.add_argument("--output", type=Path, default=ROOT / "constraints.txt", help="file to write")
    parser.add_argument("--lowest", action="store_true", help="the lowest versions that pyproject.toml declares")
    parser.add_argument("--torch", default="", help="version of torch; without it the pin is kept, or the lowest taken")
    options = parser.parse_args()
    folder = ROOT / "build/pins"
    folder.mkdir(parents=True, exist_ok=True)
    before = read_pins((ROOT / "constraints.txt").read_text())
    torch = options.torch or ("" if options.lowest else before["torch"])
    pins = resolve_project(folder, torch, options.lowest)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}=={version}\n" for name, version in sorted(pins.items())]
    options.output.write_text(HEADER[options.lowest] + "".join(lines))
    if not options.lowest:
        for path in (ROOT / name for name in TOOLS):
            path.write_text(renew(path.read_text(), pins))
        for name in sorted(before.keys() | pins.keys()):
            if before.get(name) != pins.get(name):
                print(f"{name}: {before.get(name, 'new')} -> {pins.get(name, 'removed')}")
    print(f"{options.output}: {len(pins)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
