"""The page, its files and the API documentation."""

import base64
import hashlib
import re

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, Response

from app.errors import NotFound
from app.http.static_files import packaged_file, page_file, vendored

VENDORED = {
    "swagger-ui-bundle.js": ("fastapi_offline", "static", "swagger-ui-bundle.js"),
    "swagger-ui.css": ("fastapi_offline", "static", "swagger-ui.css"),
}

router = APIRouter(include_in_schema=False)


@router.get("/")
def page(request: Request) -> Response:
    """Answer with the page; 404 where it is not installed, which the API does not need."""
    answer = page_file("index.html", request.headers.get("If-None-Match"))
    if answer is None:
        raise NotFound("the page is not installed; the API is described at /docs")
    return answer


@router.get("/static/vendor/{name}")
async def vendor(name: str) -> Response:
    """Answer with one of the API documentation's files, which other packages ship."""
    path = packaged_file(*VENDORED[name]) if name in VENDORED else None
    if path is None:
        raise NotFound(f"no such file: got {name[:100]!r}, expected one of: {', '.join(VENDORED)}")
    return vendored(path)


@router.get("/static/{path:path}")  # behind the route above, which it would hide
def file(path: str, request: Request) -> Response:
    """Answer with one of the page's files."""
    answer = page_file(path, request.headers.get("If-None-Match"))
    if answer is None:
        raise NotFound(f"no such path: /static/{path[:200]}")
    return answer


@router.get("/docs")
async def docs() -> Response:
    """Answer with the interactive API documentation."""
    html = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="kronmodel API",
        swagger_js_url="/static/vendor/swagger-ui-bundle.js",
        swagger_css_url="/static/vendor/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    text = bytes(html.body).decode()
    # The page has one inline script. It is allowed by its hash, so that no other one runs.
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = (
        f"default-src 'none'; script-src 'self' {allowed}; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})
