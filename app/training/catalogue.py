"""The data sets and recipes of `kronmodel`, listed by a child process, and whether training is available."""

import asyncio
import importlib.util
import os
import re
from typing import Any, get_args

from app.errors import BadRequest, NotSupported, TrainingError
from app.processes.parent import ChildError, run_child_for_result
from app.settings import Settings
from app.system.net import is_loopback
from app.training import child
from app.training.schemas import Activation, DataOption, Limits, RecipeOption, TrainingOptions

PACKAGES = ("torch", "onnxscript", "pooch")  # of the extra `train`, those that every training needs
CATALOGUE_SECONDS = 20.0


class TrainingCatalogue:
    """The data sets and recipes that this service can train with.

    Args:
        settings: the settings of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._is_open = settings.keys is None and settings.insecure_no_keys and not is_loopback(settings.host)
        self._lock = asyncio.Lock()
        self._catalogue: tuple[list[DataOption], list[RecipeOption]] | None = None

    @property
    def unavailable(self) -> str | None:
        """Why training is not available; None where it is."""
        settings = self._settings
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            return f"training needs {', '.join(missing)}, not installed here: pip install 'kronmodel[train]'"
        if self._is_open:
            return "anyone who can reach this service may use it (--insecure-no-keys): training needs --keys"
        if not os.access(settings.models, os.W_OK | os.X_OK):
            return f"training needs a folder of models that can be written to, {settings.models} cannot"
        return None

    async def options(self) -> TrainingOptions:
        """Data sets, recipes and limits, and whether training is available."""
        reason = self.unavailable
        data: list[DataOption] = []
        recipes: list[RecipeOption] = []
        if reason is None:
            try:
                data, recipes = await self._read_catalogue()
            except TrainingError as error:
                reason = str(error)
        return TrainingOptions(
            available=reason is None,
            reason=reason,
            data=data,
            recipes=recipes,
            limits=Limits(
                upload_bytes=self._settings.max_body_bytes,
                seconds=self._settings.train_seconds,
                memory_bytes=self._settings.train_memory_bytes,
            ),
            activations=list(get_args(Activation)),
        )

    async def check(self, *, data: str | None, recipe: str | None) -> None:
        """Check that training is available with a data set and a recipe.

        Args:
            data: name of a data set; None for a file.
            recipe: name of a recipe; None for the default.

        Raises:
            NotSupported: training is not available.
            BadRequest: there is no such data set or recipe.
            TrainingError: the catalogue of `kronmodel` cannot be read.
        """
        reason = self.unavailable
        if reason is not None:
            raise NotSupported(reason)
        catalogue = await self._read_catalogue()
        for field, got, names in (
            ("data", data, [each.name for each in catalogue[0]]),
            ("recipe", recipe, [each.name for each in catalogue[1]]),
        ):
            if got is not None and got not in names:
                raise BadRequest(f"{field}: got {got!r}, expected one of: {', '.join(names)}")

    async def _read_catalogue(self) -> tuple[list[DataOption], list[RecipeOption]]:
        """Data sets and recipes of `kronmodel`, read once."""
        async with self._lock:
            if self._catalogue is None:
                try:
                    async with asyncio.timeout(CATALOGUE_SECONDS):
                        data, recipes = await asyncio.gather(_run_command("data"), _run_command("recipes"))
                except (ChildError, TimeoutError) as error:
                    reason = "it does not respond" if isinstance(error, TimeoutError) else error
                    raise TrainingError(f"the data sets of kronmodel cannot be listed: {reason}") from None
                self._catalogue = (
                    [_data_option(each) for each in data["datasets"]],
                    [_recipe_option(each) for each in recipes["recipes"]],
                )
            return self._catalogue


async def _run_command(command: str) -> dict[str, Any]:
    """Run `kronmodel <command> --json` in a child process and return the object that it prints."""
    return await run_child_for_result(child.__name__, {"arguments": [command, "--json"]})


def _data_option(data: dict[str, Any]) -> DataOption:
    """A data set, without the folders of the service's machine, which clients must not see."""
    note = None if data["found"] else re.sub(r"(?<!\S)/\S*/", "…/", data["where"])
    return DataOption(image=data["image_shape"], samples=data["train_samples"], note=note, **_without(data, "where"))


def _recipe_option(recipe: dict[str, Any]) -> RecipeOption:
    return RecipeOption(**recipe["kronecker"], **_without(recipe, "kronecker"))


def _without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}
