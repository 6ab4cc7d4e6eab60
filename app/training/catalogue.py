"""Whether networks can be trained here, and on what: asked of `kronmodel`, which is another process's to import."""

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

PACKAGES = ("torch", "onnxscript", "pooch")  # what every training needs of what the extra `train` brings
ANSWER_SECONDS = 20.0


class TrainingCatalogue:
    """What this service can train.

    Args:
        settings: what the service was told.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open = settings.keys is None and settings.insecure_no_keys and not is_loopback(settings.host)
        self._lock = asyncio.Lock()
        self._known: tuple[list[DataOption], list[RecipeOption]] | None = None

    @property
    def unavailable(self) -> str | None:
        """Why nothing can be trained; None where it can."""
        settings = self._settings
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            return f"training needs {', '.join(missing)}, not installed here: pip install 'kronmodel[train]'"
        if self._open:
            return "whoever can reach this service may do everything (--insecure-no-keys): training needs --keys"
        if not os.access(settings.models, os.W_OK | os.X_OK):
            return f"training needs a folder of models that can be written to, {settings.models} cannot"
        return None

    async def options(self) -> TrainingOptions:
        """All that a form needs to know."""
        reason = self.unavailable
        data: list[DataOption] = []
        recipes: list[RecipeOption] = []
        if reason is None:
            try:
                data, recipes = await self._catalogue()
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
        """Refuse what is not known here.

        Raises:
            NotSupported: nothing can be trained.
            BadRequest: there is no such data set or recipe.
            TrainingError: kronmodel does not say what there is.
        """
        reason = self.unavailable
        if reason is not None:
            raise NotSupported(reason)
        known = await self._catalogue()
        for field, got, names in (
            ("data", data, [each.name for each in known[0]]),
            ("recipe", recipe, [each.name for each in known[1]]),
        ):
            if got is not None and got not in names:
                raise BadRequest(f"{field}: got {got!r}, expected one of: {', '.join(names)}")

    async def _catalogue(self) -> tuple[list[DataOption], list[RecipeOption]]:
        """Data sets and recipes; asked for once."""
        async with self._lock:
            if self._known is None:
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        data, recipes = await asyncio.gather(_ask("data"), _ask("recipes"))
                except (ChildError, TimeoutError) as error:
                    why = "it does not answer" if isinstance(error, TimeoutError) else error
                    raise TrainingError(f"kronmodel cannot be asked what it knows: {why}") from None
                self._known = (
                    [_data(each) for each in data["datasets"]],
                    [_recipe(each) for each in recipes["recipes"]],
                )
            return self._known


async def _ask(command: str) -> dict[str, Any]:
    return await run_child_for_result(child.__name__, {"arguments": [command, "--json"]})


def _data(known: dict[str, Any]) -> DataOption:
    # Where folders lie is nobody's business outside.
    note = None if known["found"] else re.sub(r"(?<!\S)/\S*/", "…/", known["where"])
    return DataOption(image=known["image_shape"], samples=known["train_samples"], note=note, **_without(known, "where"))


def _recipe(known: dict[str, Any]) -> RecipeOption:
    return RecipeOption(**known["kronecker"], **_without(known, "kronecker"))


def _without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}
