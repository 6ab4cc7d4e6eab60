"""Where the browser's files are: the page and the API documentation's scripts. Nothing from a CDN."""

from importlib.util import find_spec
from pathlib import Path

from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

ONE_WEEK = "public, max-age=604800"
REVALIDATE = "no-cache"


def page_folder() -> Path | None:
    """The page's folder: inside the package once installed, beside it in a checkout; None where it was left out."""
    package = Path(__file__).resolve().parent.parent
    folders = (package / "static", package.parent / "static")
    return next((folder for folder in folders if (folder / "index.html").is_file()), None)


def packaged_file(package: str, *parts: str) -> Path | None:
    """A file of an installed package, found without importing it."""
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    files = (Path(place, *parts) for place in places)
    return next((path for path in files if path.is_file()), None)


class PageFiles(StaticFiles):
    """The page's files: a browser asks each time whether they have changed, and mostly hears that they have not."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """As usual, with the caching that fits files without a version in their name."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = REVALIDATE
        return response


def vendored(path: Path) -> FileResponse:
    """A file that changes only with its package."""
    return FileResponse(path, headers={"Cache-Control": ONE_WEEK})
