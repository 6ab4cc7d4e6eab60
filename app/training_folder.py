"""A private folder for what one training needs on the way, beside the models, where there is room for them."""

import shutil
import tempfile
from pathlib import Path

from app.errors import TrainingError
from app.lock import Lock

PREFIX = ".training-"  # the dot keeps it out of every scan for models


class TrainingFolder:
    """A folder that is nobody else's, until it is removed. Every method blocks.

    Args:
        models: the folder of models.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._lock: Lock | None = None
        self.path: Path

    def make(self) -> None:
        """Make it, and remove those of services that were killed: nobody has the lock of theirs.

        Raises:
            TrainingError: the folder of models cannot be written to.
        """
        try:
            self._make()
        except OSError as error:
            raise TrainingError(f"the folder of models cannot be written to: {error.strerror}") from None

    def _make(self) -> None:
        for old in self._models.glob(f"{PREFIX}*/lock"):
            lock = Lock(old)
            if lock.acquire():
                shutil.rmtree(old.parent, ignore_errors=True)
                lock.release()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._models))
        self._lock = Lock(self.path / "lock")
        self._lock.acquire()

    def remove(self, pid: int | None) -> None:
        """Remove it, if it was made, and what the training's process was about to publish when it was killed."""
        if self._lock is None:
            return
        for path in (self.path, *self._models.glob(f".publishing-{pid}-*")):
            shutil.rmtree(path, ignore_errors=True)
        self._lock.release()
