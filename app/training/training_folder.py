"""A private folder for what one training needs on the way, beside the models, where there is room for them."""

import shutil
from pathlib import Path

from app.errors import TrainingError
from app.system.private_folder import PrivateFolder

PREFIX = ".training-"  # the dot keeps it out of every scan for models


class TrainingFolder:
    """A folder that is nobody else's, until it is removed. Every method blocks.

    Args:
        models: the folder of models.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._folder = PrivateFolder(PREFIX, models)

    @property
    def path(self) -> Path:
        """Where it is, once it is made."""
        return self._folder.path

    def make(self) -> None:
        """Make it, and remove those of services that were killed.

        Raises:
            TrainingError: the folder of models cannot be written to.
        """
        try:
            self._folder.make()
        except OSError as error:
            raise TrainingError(f"the folder of models cannot be written to: {error.strerror}") from None

    def remove(self, pid: int | None) -> None:
        """Remove it, if it was made, and what the training's process was about to publish when it was killed."""
        for path in self._models.glob(f".publishing-{pid}-*"):
            shutil.rmtree(path, ignore_errors=True)
        self._folder.remove()
