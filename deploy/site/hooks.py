"""MkDocs hooks: pages and files of the repository outside docs/; refusal of pages that load from other sites."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {"index.md": "README.md"} | {name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}
ASSETS = {"favicon.svg": "static/favicon.svg", "site.css": "deploy/site/site.css"}
# A link to another file, or a code block, which has no links.
LINK = re.compile(r"^```.*?^```$|(?<=\]\()(?!https?:|#)(?P<target>[^)#\s]+)", re.DOTALL | re.MULTILINE)
# The text of a link that is a file name: [docs/data.md](docs/data.md).
FILE_AS_TEXT = re.compile(r"\[(?:docs/)?([\w-]+)\.md\](?=\()")
LOADED = re.compile(
    r"<(?:script|img|iframe|source|link(?=[^>]*(?:stylesheet|preload|preconnect|icon)))\b"
    r"[^>]*\b(?:src|href)=[\"']?(?:https?:)?//"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the top of the repository, and each file outside docs/ that a page links to."""
    for place, name in (PAGES | ASSETS).items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))
    for page in files.documentation_pages():
        for link in LINK.finditer(page.content_string):
            if link["target"]:
                name = _in_repository(page, link["target"])
                if files.get_file_from_path(_in_site(name)) is None and (ROOT / name).is_file():
                    files.append(File.generated(config, _in_site(name), abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""

    def moved(link: re.Match[str]) -> str:
        if not link["target"]:
            return link[0]
        return relpath(_in_site(_in_repository(page.file, link["target"])), dirname(page.file.src_uri) or ".")

    return FILE_AS_TEXT.sub(r"[\1]", LINK.sub(moved, markdown))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page whose scripts, styles or images come from another site."""
    if found := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads from another site: {found[0]}...")
    return output


def _in_repository(page: File, link: str) -> str:
    """Path in the repository of the target of a page's link."""
    source = PAGES.get(page.src_uri, f"docs/{page.src_uri}")
    return normpath(join(dirname(source), link))


def _in_site(name: str) -> str:
    """Path in the site of a file of the repository."""
    return "index.md" if name == "README.md" else name.removeprefix("docs/")
