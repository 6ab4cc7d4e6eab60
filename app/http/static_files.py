"""The files of the page and of the API documentation; nothing comes from a CDN."""

from importlib.util import find_spec
from pathlib import Path

from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

ONE_WEEK = "public, max-age=604800"
REVALIDATE = "no-cache"
REVALIDATE_PRIVATELY = "private, no-cache"  # of answers that need an API key


def page_folder() -> Path | None:
    """Find the page's folder: inside the package once installed, beside it in a checkout; None if it was left out."""
    package = Path(__file__).resolve().parent.parent
    folders = (package / "static", package.parent / "static")
    return next((folder for folder in folders if (folder / "index.html").is_file()), None)


def packaged_file(package: str, *parts: str) -> Path | None:
    """Find a file of an installed package without importing the package."""
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    files = (Path(place, *parts) for place in places)
    return next((path for path in files if path.is_file()), None)


class PageFiles(StaticFiles):
    """The page's files, which a browser revalidates each time: their names have no version."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer with the file, to be revalidated at each use."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = REVALIDATE
        return response


def vendored(path: Path) -> FileResponse:
    """Answer with a file that changes only when its package is updated."""
    return FileResponse(path, headers={"Cache-Control": ONE_WEEK})
