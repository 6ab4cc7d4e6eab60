"""The files of the page and of the API documentation; nothing comes from a CDN."""

import bz2
import functools
import hashlib
import io
import mimetypes
import re
import zipfile
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path

from starlette.responses import FileResponse, Response

ONE_WEEK = "public, max-age=604800"
REVALIDATE = "no-cache"
REVALIDATE_PRIVATELY = "private, no-cache"  # of answers that need an API key

_PATH = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)  # no part is empty or starts with a dot


@functools.cache
def page_files() -> Traversable | None:
    """Find the page's files: in the package's archive once installed, beside the package in a checkout.

    The archive is read into memory: workers would share the position in an open file.

    Returns:
        The folder of the files, or None if they were left out.
    """
    package = Path(__file__).resolve().parent.parent
    archive = package / "static.zip.bz2"
    if archive.is_file():
        return zipfile.Path(zipfile.ZipFile(io.BytesIO(bz2.decompress(archive.read_bytes()))))
    folder = package.parent / "static"
    return folder if (folder / "index.html").is_file() else None


def page_file(path: str, if_none_match: str | None) -> Response | None:
    """Answer with a file of the page, which a browser revalidates each time: its name has no version.

    Args:
        path: the file's path in the page's folder.
        if_none_match: the request's header: entity tags that the client has.

    Returns:
        The file, 304 without a body where the client has it, or None if there is no such file.
    """
    folder = page_files()
    if folder is None or not _PATH.fullmatch(path):
        return None
    file = folder.joinpath(*path.split("/"))
    if not file.is_file():
        return None
    content = file.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": REVALIDATE, "ETag": tag}
    if if_none_match is not None and tag in (each.strip().removeprefix("W/") for each in if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=mimetypes.guess_type(path)[0])


def packaged_file(package: str, *parts: str) -> Path | None:
    """Find a file of an installed package without importing the package."""
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    files = (Path(place, *parts) for place in places)
    return next((path for path in files if path.is_file()), None)


def vendored(path: Path) -> FileResponse:
    """Answer with a file that changes only when its package is updated."""
    return FileResponse(path, headers={"Cache-Control": ONE_WEEK})
