"""The site of docs/: its menu holds every page once, and `make docs` builds it strictly."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIGURATION = (ROOT / "deploy" / "site" / "mkdocs.yml").read_text()
REQUIREMENTS = (ROOT / "deploy" / "site" / "requirements.txt").read_text()
TOP = {"README.md": "index.md"}  # pages at the top of the repository keep their names, except this one


def menu() -> list[str]:
    """Pages of the menu, from the top down."""
    nav = re.search(r"^nav:\n((?: .*\n)+)", CONFIGURATION, re.MULTILINE)
    assert nav is not None
    return re.findall(r"- [^:\n]+: (\S+)$", nav[1], re.MULTILINE)


def test_every_page_is_in_the_menu_once() -> None:
    pages = [page.name for page in (ROOT / "docs").rglob("*.md")]
    pages += [TOP.get(page.name, page.name) for page in ROOT.glob("*.md")]
    assert sorted(menu()) == sorted(pages)


def test_a_warning_fails_the_build() -> None:
    assert re.search(r"^strict: true$", CONFIGURATION, re.MULTILINE)
    for check in ("omitted_files", "not_found", "anchors", "absolute_links", "unrecognized_links"):
        assert re.findall(rf"^ +{check}: (\w+)$", CONFIGURATION, re.MULTILINE) in (["warn"], ["warn", "warn"]), check


def test_the_theme_loads_no_fonts_and_every_tool_is_pinned() -> None:
    assert re.search(r"^  font: false\b", CONFIGURATION, re.MULTILINE)
    lines = [line for line in REQUIREMENTS.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in lines)
    assert {"mkdocs", "mkdocs-material"} <= {line.partition("==")[0] for line in lines}


@pytest.mark.parametrize("page", menu())
def test_a_page_begins_with_its_only_title(page: str) -> None:
    """The site takes the title of a page from it, and the menu beside the text from the other headings."""
    path = (
        ROOT / "README.md" if page == "index.md" else next(p for p in (ROOT / "docs" / page, ROOT / page) if p.exists())
    )
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
