"""Private temporary folders of trainings in the model repository."""

import shutil
from pathlib import Path

from app.errors import TrainingError
from app.system.files import PrivateFolder

PREFIX = ".training-"  # of the folders' names; scans for models ignore names that start with a dot


class TrainingFolder:
    """A private temporary folder in the model repository. Every method blocks.

    Args:
        models: the model repository.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._folder = PrivateFolder(PREFIX, models)

    @property
    def path(self) -> Path:
        """The path of the folder; valid after `make`."""
        return self._folder.path

    def make(self) -> None:
        """Create the folder, and remove training folders that killed services have left.

        Raises:
            TrainingError: the model repository cannot be written to.
        """
        try:
            self._folder.make()
        except OSError as error:
            raise TrainingError(f"the folder of models cannot be written to: {error.strerror}") from None

    def remove(self, pid: int | None) -> None:
        """Remove the folder, if it was made, and unfinished publications.

        Publications that are complete but for a rename stay: `kronmodel train` completes them when it runs next.

        Args:
            pid: the child process of the training, whose publications are removed.
        """
        for path in self._models.glob(f".publishing-{pid}-*"):
            if not (path / ".complete").exists():
                shutil.rmtree(path, ignore_errors=True)
        self._folder.remove()
