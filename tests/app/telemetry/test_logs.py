"""The app inside another program leaves that program's loggers, warning filters and signal handlers alone."""

import subprocess
import sys
from pathlib import Path

from tests.app.conftest import environment
from tests.app.graphs import classifier, publish, weights

PROGRAM = """
import asyncio
import logging
import signal
import sys
import warnings
from pathlib import Path

import numpy  # adds warning filters of its own


def state():
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in ("app", "app.access", "uvicorn"))]
    return {
        "loggers": [(logger.name, logger.level, list(logger.handlers), logger.disabled) for logger in loggers],
        "filters": list(warnings.filters),
        "signals": {sig: signal.getsignal(sig) for sig in signal.valid_signals()},
    }


def handler(*_):
    pass


logging.getLogger("uvicorn").setLevel(logging.ERROR)
for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(sig, handler)
before = state()

from app.main import create_app
from app.settings import Settings

app = create_app(Settings(models=Path(sys.argv[1]), access_log=True, log_level="debug", log_format="json"))
assert state() == before, (before, state())


async def run():
    async with app.router.lifespan_context(app):
        await app.state.service.wait_until_loaded()
        assert app.state.service.repository.models


asyncio.run(run())
assert state() == before, (before, state())
"""


def test_importing_creating_and_running_the_app_keeps_loggers_warning_filters_and_signals(tmp_path: Path) -> None:
    publish(tmp_path, "plain", classifier(weights([6, 3])))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
