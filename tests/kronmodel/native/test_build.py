"""Build of the native library: real compilers, caches and processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kronmodel.cli.main import main

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")

PROGRAM = """
import ctypes, json
from kronmodel.native import build
library = build.library()
build.library()
if library is not None:
    library.kron_instructions.restype = ctypes.c_char_p
print(json.dumps([library and library.kron_instructions().decode(), build.status().reason]))
"""


def start(cache: Path, program: str = PROGRAM, **environment: str) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("CC", "KRONMODEL_NATIVE")}
    command = [sys.executable, "-c", program]
    env |= {"XDG_CACHE_HOME": str(cache), **environment}
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> tuple[Any, str]:
    """Wait for a process; return what it printed as JSON, and its standard error."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out), err


def built(cache: Path) -> list[Path]:
    return sorted((cache / "kronmodel" / "native").iterdir())


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache with a library that was built by four processes that started at the same time."""
    cache: Path = tmp_path_factory.mktemp("cache")
    for (instructions, reason), err in [finish(each) for each in [start(cache) for _ in range(4)]]:
        assert instructions
        assert str(cache) in reason
        assert err == ""
    return cache


def test_processes_that_start_together_build_one_library(warm: Path) -> None:
    (path,) = built(warm)
    assert path.suffix == ".so"


def test_the_library_is_built_once(warm: Path) -> None:
    (path,) = built(warm)
    before = path.stat()
    (instructions, _), err = finish(start(warm))
    assert instructions
    assert err == ""
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_damaged_library_is_built_again(warm: Path, tmp_path: Path) -> None:
    (path,) = built(warm)
    folder = tmp_path / "kronmodel" / "native"
    folder.mkdir(parents=True)
    (folder / path.name).write_bytes(path.read_bytes()[:100])
    (instructions, _), err = finish(start(tmp_path))
    assert instructions
    assert err == ""
    assert [each.stat().st_size for each in built(tmp_path)] == [path.stat().st_size]


def test_a_library_of_another_user_is_refused(warm: Path, tmp_path: Path) -> None:
    (path,) = built(warm)
    folder = tmp_path / "kronmodel" / "native"
    folder.mkdir(parents=True)
    copy = Path(shutil.copy(path, folder))
    copy.chmod(0o777)
    (instructions, reason), err = finish(start(tmp_path))
    assert instructions is None
    assert "writable by another user" in reason
    assert err.count(reason) == 1


def test_the_switch_turns_it_off_silently(tmp_path: Path) -> None:
    (instructions, reason), err = finish(start(tmp_path, KRONMODEL_NATIVE="0"))
    assert instructions is None
    assert reason == "switched off by KRONMODEL_NATIVE=0"
    assert err == ""
    assert list(tmp_path.iterdir()) == []


def test_without_a_compiler_there_is_no_library_and_no_warning(tmp_path: Path) -> None:
    (instructions, reason), err = finish(start(tmp_path, PATH=str(tmp_path)))
    assert instructions is None
    assert reason == "no C compiler: 'cc' is not on the PATH"
    assert err == ""


def test_a_broken_compiler_is_reported_once(tmp_path: Path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit\necho "x.c: error: no" >&2; exit 3\n'
    )
    compiler.chmod(0o755)
    (instructions, reason), err = finish(start(tmp_path / "cache", CC=str(compiler)))
    assert instructions is None
    assert reason == f"{compiler} failed with exit code 3: x.c: error: no"
    assert err.count(reason) == 1
    assert built(tmp_path / "cache") == []


def test_a_compiler_that_hangs_is_stopped(tmp_path: Path) -> None:
    compiler = tmp_path / "hanging"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo hanging 1.0 && exit\nexec sleep 600\n')
    compiler.chmod(0o755)
    program = f"from kronmodel.native import build\nbuild.COMPILE_SECONDS = 0.5\n{PROGRAM}"
    (instructions, reason), err = finish(start(tmp_path / "cache", program, CC=str(compiler)))
    assert instructions is None
    assert reason == f"{compiler} did not end within 0.5 s"
    assert err.count(reason) == 1
    assert built(tmp_path / "cache") == []


def test_a_compiler_that_writes_something_else_is_reported(tmp_path: Path) -> None:
    compiler = tmp_path / "odd"
    compiler.write_text("#!/bin/sh\necho odd 1.0\n")  # succeeds, and writes no library
    compiler.chmod(0o755)
    (instructions, reason), err = finish(start(tmp_path / "cache", CC=str(compiler)))
    assert instructions is None
    assert "file too short" in reason
    assert err.count(reason) == 1


def test_a_flag_that_the_compiler_does_not_know_is_left_out(tmp_path: Path) -> None:
    compiler = tmp_path / "old"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *gnu-unique*|*=native*) echo "error: unknown flag" >&2; exit 1;; esac\nexec cc "$@"\n'
    )
    compiler.chmod(0o755)
    (instructions, _), err = finish(start(tmp_path / "cache", CC=str(compiler)))
    assert instructions
    assert err == ""


def test_a_cache_that_cannot_be_written_is_reported_once(tmp_path: Path) -> None:
    cache = tmp_path / "file"
    cache.write_text("")  # root may write to folders without write permission, but not below a file
    (instructions, reason), err = finish(start(cache))
    assert instructions is None
    assert reason.startswith(f"the cache {cache}/kronmodel/native can't be written: ")
    assert err.count(reason) == 1


def test_a_cache_that_cannot_be_written_is_read(warm: Path, tmp_path: Path) -> None:
    (path,) = built(warm)
    folder = tmp_path / "kronmodel" / "native"
    folder.mkdir(parents=True)
    shutil.copy(path, folder)
    folder.chmod(0o500)
    (instructions, _), err = finish(start(tmp_path))
    assert instructions
    assert err == ""


def test_a_user_without_a_home_folder_is_told(tmp_path: Path) -> None:
    program = f"import os\nos.environ.pop('XDG_CACHE_HOME')\nos.environ['HOME'] = {str(tmp_path)!r}\n{PROGRAM}"
    (instructions, reason), _ = finish(start(tmp_path, program))
    assert instructions
    assert reason.startswith(f"{tmp_path}/.cache/kronmodel/native/")


def test_the_wait_for_another_build_is_bounded(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from kronmodel.files import FolderLock
from kronmodel.native import build
build.WAIT_SECONDS = 0.2
folder = build.cache_folder()
folder.mkdir(parents=True)
lock = FolderLock(folder)
{PROGRAM}"""
    (instructions, reason), err = finish(start(tmp_path, program))
    assert instructions is None
    assert "another process has been building" in reason
    assert err.count(reason) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_during_the_build_builds_or_finds_it(tmp_path: Path) -> None:
    program = """
import os, threading
from kronmodel.native import build
compile_library, forked = build.compile_library, threading.Event()
def compile_when_forked(*arguments):
    compiling.set()
    assert forked.wait(60)
    compile_library(*arguments)
compiling = threading.Event()
build.compile_library = compile_when_forked
thread = threading.Thread(target=build.library)
thread.start()
assert compiling.wait(60)
child = os.fork()
forked.set()
if child == 0:
    os._exit(0 if build.library() is not None else 1)
thread.join()
_, code = os.waitpid(child, 0)
print(f'[{os.waitstatus_to_exitcode(code)}, {int(build.library() is not None)}]')
"""
    codes, _ = finish(start(tmp_path, program))
    assert codes == [0, 1]
    assert len(built(tmp_path)) == 1


def test_the_command_says_what_is_used_and_why(warm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = "from kronmodel.cli.main import main\nmain(['info', '--system', '--json'])"
    described, _ = finish(start(warm, program))
    assert described["native"] is True
    assert str(built(warm)[0]) in described["native_reason"]
    assert described["native_instructions"]
    described, _ = finish(start(warm, program, KRONMODEL_NATIVE="0"))
    assert described["native"] is False
    assert described["native_reason"] == "switched off by KRONMODEL_NATIVE=0"
    for wrong in (["info"], ["info", "model.onnx", "--system"]):
        assert main(wrong) == 2
        assert "info takes either MODEL.onnx or --system" in capsys.readouterr().err
