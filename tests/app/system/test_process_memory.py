"""Memory of this process and of others, from /proc."""

import os
import subprocess
import sys

import pytest

from app.system.process_memory import anonymous_bytes, peak_bytes, resident_bytes, resident_bytes_of, virtual_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")


def test_the_figures_of_this_process_are_ordered() -> None:
    anonymous, resident, peak, virtual = anonymous_bytes(), resident_bytes(), peak_bytes(), virtual_bytes()
    assert anonymous is not None
    assert resident is not None
    assert peak is not None
    assert virtual is not None
    assert 0 < anonymous < resident < 1.1 * peak < 1.1 * virtual  # the kernel updates the peak with some delay
    assert resident_bytes_of(os.getpid()) == pytest.approx(resident, rel=0.1)


def test_another_process_has_its_own_figure_until_it_ends() -> None:
    code = "held = bytearray(50_000_000)\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        resident = resident_bytes_of(process.pid)
        assert resident is not None
        assert 50_000_000 < resident < 90_000_000
    assert resident_bytes_of(process.pid) is None
