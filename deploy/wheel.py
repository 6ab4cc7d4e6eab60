"""Build hook of the wheel: adds the page, its scripts and style sheets without comments and indentation."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PageHook(BuildHookInterface):  # type: ignore[type-arg]  # its argument is a private class
    """Adds ``static`` to a wheel as ``app/static``; an editable installation serves the files of the repository."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copy the page into a temporary folder, and compact it."""
        self._folder: Path | None = None
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from kronmodel.export.web.bundle import compact_script, compact_styles

        self._folder = Path(tempfile.mkdtemp(prefix="kronmodel-page-"))
        page = self._folder / "static"
        shutil.copytree(Path(self.root, "static"), page)
        for path in page.rglob("*.css"):
            path.write_text(compact_styles(path.read_text(encoding="utf-8")), encoding="utf-8")
        for path in page.rglob("*.js"):
            # An exported JavaScript module keeps the comments of its entry, which describe its functions.
            if path.parent.name != "standalone":
                path.write_text(compact_script(path.read_text(encoding="utf-8")), encoding="utf-8")
        build_data["force_include"][str(page)] = "app/static"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder)
