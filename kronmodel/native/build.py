"""Build of the C sources beside this file into a shared library, on first use, by the machine's own C compiler.

The library is kept in the user's cache, under a name made of the sources, the compiler, its flags and the CPU, so that
a new version of any of them is built anew. It appears there whole or not at all, and processes that start together
build it once. Where it can't be built, callers use other code: no error leaves this module.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kronmodel.errors import NativeError
from kronmodel.files import FolderLock

__all__ = ["SOURCES", "Status", "cache_folder", "compile_library", "describe_system", "library", "status"]

SOURCES = Path(__file__).parent
SWITCH = "KRONMODEL_NATIVE"
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
         "-pthread")  # fmt: skip
# Not -ffast-math: linked into a shared library, it switches the whole process to flush denormal numbers to zero.
UNIQUE = "-fno-gnu-unique"  # gcc only: without it, several builds in one process may share symbols
ATTEMPTS = (("-march=native", UNIQUE), ("-march=native",), ("-mcpu=native",), ())  # not every compiler knows the first
COMPILE_SECONDS = 60.0
WAIT_SECONDS = 90.0  # for another process that is building
POLL_SECONDS = 0.05

log = logging.getLogger("kronmodel.native")


class BuildError(NativeError):
    """Reason why there is no library.

    Args:
        reason: one line.
        expected: whether this is usual, such as on a machine without a compiler, and needs no warning.
        final: whether other flags of the compiler would not help.
    """

    def __init__(self, reason: str, *, expected: bool = False, final: bool = False) -> None:
        super().__init__(reason)
        self.expected = expected
        self.final = final


@dataclass(frozen=True)
class Status:
    """Outcome of the build in this process.

    Attributes:
        library: the loaded library; None if there is none.
        reason: the file and the compiler of the library, or why there is none, in one line.
    """

    library: ctypes.CDLL | None
    reason: str


_lock = threading.Lock()
_status: Status | None = None


def library() -> ctypes.CDLL | None:
    """Return the library of native functions, which the first call builds or finds in the cache; None without one.

    :func:`status` has the reason why there is none. A build that fails unexpectedly is logged once, as a warning.
    """
    return status().library


def status() -> Status:
    """Return the library with what it was built by, or the reason why there is none; the first call may build it."""
    global _status  # noqa: PLW0603 (one library for the process)
    if _status is None:
        with _lock:
            if _status is None:
                _status = _find_or_build()
    return _status


def describe_system() -> dict[str, Any]:
    """Describe the native library for ``kronmodel info --system``: whether and why it is used, and its instructions."""
    found = status()
    described: dict[str, Any] = {"native": found.library is not None, "native_reason": found.reason}
    if found.library is not None:
        instructions = found.library.kron_instructions
        instructions.restype = ctypes.c_char_p
        described["native_instructions"] = instructions().decode()
    return described | {"machine": platform.machine(), "python": platform.python_version()}


def _after_fork() -> None:
    """Replace the lock in a forked process: another thread may have held the lock at the time of the fork."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _find_or_build() -> Status:
    try:
        if os.environ.get(SWITCH) == "0":
            raise BuildError(f"switched off by {SWITCH}=0", expected=True)
        if sys.platform == "win32":
            raise BuildError("not supported on Windows", expected=True)
        compiler = _find_compiler()
        version = _compiler_version(compiler)
        path = cache_folder() / f"native-{_key(compiler, version)}.so"
        return Status(_load(path, compiler, version), f"{path}, built by {version}")
    except (BuildError, OSError) as error:
        reason = " ".join(str(error).split())
        expected = isinstance(error, BuildError) and error.expected
        log.log(logging.DEBUG if expected else logging.WARNING, "no native code is used, which is slower: %s", reason)
        return Status(None, reason)


def cache_folder() -> Path:
    """Folder of the built libraries in the user's cache: below ``$XDG_CACHE_HOME``, or where the platform keeps it.

    Raises:
        BuildError: the user has no home folder.
    """
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "kronmodel" / "native"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise BuildError("no folder for the cache: set XDG_CACHE_HOME") from error
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "kronmodel" / "native"


def _find_compiler() -> list[str]:
    """Find the C compiler: the command in ``$CC``, by default ``cc``."""
    command = shlex.split(os.environ.get("CC") or "cc")
    if not command or shutil.which(command[0]) is None:
        raise BuildError(f"no C compiler: {shlex.join(command)!r} is not on the PATH", expected=True)
    return command


def _compiler_version(compiler: list[str]) -> str:
    """Return the first line of the compiler's version."""
    output = _run([*compiler, "--version"]).strip()
    return output.splitlines()[0][:200] if output else "unknown compiler"


def _run(command: list[str]) -> str:
    """Run a compiler with a time limit, and return its standard output.

    Raises:
        BuildError: the compiler can't be started, fails, or takes too long.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMPILE_SECONDS,
            check=False,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{shlex.join(command[:1])} did not end within {COMPILE_SECONDS:g} s", final=True) from error
    except OSError as error:
        raise BuildError(f"{shlex.join(command[:1])} can't be started: {error.strerror or error}") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines or ["no message"]
        raise BuildError(
            f"{shlex.join(command[:1])} failed with exit code {done.returncode}: {errors[0].strip()[:300]}"
        )
    return done.stdout


def _key(compiler: list[str], version: str) -> str:
    """Hash what the library depends on: sources, compiler, flags and CPU."""
    digest = hashlib.sha256()
    for path in sorted((*SOURCES.glob("*.c"), *SOURCES.glob("*.h"))):
        digest.update(f"{path.name}\0".encode())
        digest.update(path.read_bytes())
    for part in (*compiler, version, *FLAGS, str(ATTEMPTS), platform.machine(), str(sys.maxsize), _cpu()):
        digest.update(f"\0{part}".encode())
    return digest.hexdigest()[:32]


def _cpu() -> str:
    """Describe the CPU's model and instruction sets: the library may use any instruction of the CPU that builds it."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return platform.processor()
    names = ("model name", "flags", "Features", "CPU part", "isa")
    lines = text.split("\n\n", 1)[0].splitlines()
    return "\n".join(line for line in lines if line.partition(":")[0].strip() in names)


def _load(path: Path, compiler: list[str], version: str) -> ctypes.CDLL:
    """Load the library from the cache; build it first if it is missing there or damaged."""
    if path.exists():
        _check_owner(path)
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:
            if "map segment" in str(error):  # the folder does not allow programs (noexec); another build won't help
                raise
            log.debug("%s can't be loaded, and is built again: %s", path, error)
    _build_once(path, compiler, version)
    _check_owner(path)
    return ctypes.CDLL(str(path))


def _check_owner(path: Path) -> None:
    """Refuse a library that another user could have written."""
    found = path.stat()
    if found.st_uid not in (0, os.getuid()) or found.st_mode & 0o022:
        raise BuildError(f"{path} belongs to or is writable by another user, expected your own: delete it")


def _build_once(path: Path, compiler: list[str], version: str) -> None:
    """Build the library at a path of the cache, unless another process does so meanwhile."""
    damaged = path.stat().st_ino if path.exists() else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire_lock(path, damaged)
    except OSError as error:
        raise BuildError(f"the cache {path.parent} can't be written: {error.strerror or error}") from error
    if lock is None:
        return
    try:
        if not _is_there(path, damaged):
            _build(path, compiler)
            log.debug("built %s by %s", path, version)
    finally:
        lock.release()


def _is_there(path: Path, damaged: int | None) -> bool:
    """Tell whether a process has built the library, as another file than the damaged one with that inode."""
    try:
        return path.stat().st_ino != damaged
    except FileNotFoundError:
        return False


def _acquire_lock(path: Path, damaged: int | None) -> FolderLock | None:
    """Lock the cache, waiting for another process that builds; None if that process has built the library."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not _is_there(path, damaged):
        try:
            return FolderLock(path.parent)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BuildError(
                    f"another process has been building in {path.parent} for more than {WAIT_SECONDS:g} s"
                ) from None
            time.sleep(POLL_SECONDS)
    return None


def _build(path: Path, compiler: list[str]) -> None:
    """Build the library beside a path, and rename it to that path."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".building-", suffix=".so", dir=path.parent)
    except OSError as error:
        raise BuildError(f"the cache {path.parent} can't be written: {error.strerror or error}") from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        compile_library(temporary, compiler)
        temporary.chmod(0o755)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # a crash of the machine must not leave the name of a library without its content
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def compile_library(path: Path, compiler: list[str], *extra: str) -> None:
    """Compile the C sources into a shared library.

    Args:
        path: file to write.
        compiler: command of the compiler, such as ``["cc"]``.
        extra: flags that replace those that select this machine's CPU, such as ``-mavx2``.

    Raises:
        BuildError: the compiler fails or takes longer than a minute.
    """
    sources = [str(source) for source in sorted(SOURCES.glob("*.c"))]
    attempts = ((*extra, UNIQUE), extra) if extra else ATTEMPTS
    for flags in attempts:
        try:
            _run([*compiler, *FLAGS, *flags, "-o", str(path), *sources, "-lm"])
        except BuildError as error:
            if error.final or flags is attempts[-1]:
                raise
        else:
            return
