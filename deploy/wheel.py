"""Build hook of the wheel: adds the page, its scripts and style sheets without comments and indentation."""

import bz2
import io
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PageHook(BuildHookInterface):  # type: ignore[type-arg]  # its argument is a private class
    """Adds the files of ``static`` to a wheel as ``app/static.zip.bz2``; an editable installation serves the folder.

    The archive stores its many small files uncompressed, and is compressed as one file, to less than half the size.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the archive of the page, in a temporary folder."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from kronmodel.export.web.bundle import compact_script, compact_styles

        page = Path(self.root, "static")
        self._folder = tempfile.TemporaryDirectory(prefix="kronmodel-page-")
        stored = io.BytesIO()
        with zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as files:
            for path in sorted(page.rglob("*"), key=lambda path: (path.suffix, path.as_posix())):  # like beside like
                if path.is_dir():
                    continue
                content = path.read_bytes()
                if path.suffix == ".css":
                    content = compact_styles(content.decode()).encode()
                # An exported JavaScript module keeps the comments of its entry, which describe its functions.
                elif path.suffix == ".js" and path.parent.name != "standalone":
                    content = compact_script(content.decode()).encode()
                # The same date in each build, so that the wheel is the same, too.
                files.writestr(zipfile.ZipInfo(path.relative_to(page).as_posix()), content)
        archive = Path(self._folder.name, "static.zip.bz2")
        archive.write_bytes(bz2.compress(stored.getvalue()))
        build_data["force_include"][str(archive)] = "app/static.zip.bz2"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        if self._folder is not None:
            self._folder.cleanup()
