"""Export of models as a self-contained HTML page, and of a model as an ES module."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import re
from collections.abc import Sequence

from kronmodel.errors import ExportError
from kronmodel.export.web.bundle import bundle, page_folder, styles
from kronmodel.export.web.model import WebModel, data_module

__all__ = ["html_page", "js_module"]

_STYLES = (
    "ui/base", "ui/forms", "ui/card", "model/picker", "charts/structure", "shell/page", "views/try",
    "views/try/chooser", "views/try/palette", "views/try/row-form",
)  # fmt: skip
_REPLACED = {
    "api/client.js": "standalone/client.js",
    "api/model-file.js": "standalone/model-file.js",
    "ui/stylesheet.js": "standalone/stylesheet.js",
}
_SECTION = re.compile(r'<section id="view-try".*?\n      </section>', re.DOTALL)


def html_page(models: Sequence[WebModel]) -> str:
    """Write a page that computes the models by itself: the view Try of the service's page, in one file.

    The script is compressed, and unpacked when the page is opened. The page's content security policy allows its own
    scripts and styles only, by their hashes, and no connections.

    Raises:
        ExportError: two models have the same name, or files of the page are missing.
    """
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise ExportError(f"models must have different names, got {', '.join(names)}")
    folder = page_folder()
    script = bundle(folder / "js", "standalone/page.js", _data(models), _REPLACED)
    loader = bundle(folder / "js", "standalone/loader.js", {})
    packed = base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode()
    style = "\n" + styles(folder / "css", _STYLES)
    section = _SECTION.search((folder / "index.html").read_text(encoding="utf-8"))
    if section is None:
        raise ExportError(f"{folder / 'index.html'} has no view Try: install kronmodel again")
    icon = (folder / "favicon.svg").read_bytes()
    image = f"data:image/svg+xml;base64,{base64.b64encode(icon).decode()}"
    policy = (
        f"default-src 'none'; script-src '{_digest(loader)}' '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    title = html.escape(" and ".join(names))
    return f"""<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta http-equiv="Content-Security-Policy" content="{policy}">
    <title>{title} · kronmodel</title>
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <link rel="icon" href="{image}">
    <style>{style}</style>
  </head>
  <body>
    <header class="masthead">
      <span class="brand"><img src="{image}" alt="" width="28" height="28"> {title}</span>
    </header>
    <main id="main">
      <noscript><p class="verdict failed">This page needs JavaScript.</p></noscript>
      {section[0]}
    </main>
    <footer class="muted">
      <span>Computed on this device: nothing is sent.</span>
      <a href="https://arxiv.org/abs/2204.04273" rel="noreferrer">Method: arXiv 2204.04273</a>
    </footer>
    <div id="gone" class="gone" hidden></div>
    <script type="application/gzip" id="bundle">{packed}</script>
    <script type="module">{loader}</script>
  </body>
</html>
"""


def js_module(model: WebModel) -> str:
    """Write an ES module with the function ``predict``, for browsers and Node.js, with its types as JSDoc comments.

    Raises:
        ExportError: files of the page are missing.
    """
    return bundle(page_folder() / "js", "standalone/module.js", _data([model]))


def _data(models: Sequence[WebModel]) -> dict[str, str]:
    return {"standalone/data.js": data_module(models)}


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
