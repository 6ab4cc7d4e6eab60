"""Checks of a page at several sizes and colour schemes: no overflow, no accessibility violations; saves screenshots."""

from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

SIZES = [(390, 844), (1024, 768), (1600, 1000)]
SCHEMES = ["light", "dark"]


def check_appearance(page: Page, name: str, screenshots: Path) -> None:
    """Save screenshots, and check for overflow and accessibility violations."""
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
            page.evaluate("scrollTo(0, 0)")
            page.wait_for_timeout(100)  # charts are redrawn for the new width
            assert page.evaluate("document.documentElement.scrollWidth") == width
            page.screenshot(path=screenshots / f"{name}-{width}-{scheme}.png", full_page=True)
    # The dark scheme, in which only colours can differ.
    assert axe_violations(page, runOnly=["color-contrast"]) == []
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    assert axe_violations(page) == []


def axe_violations(page: Page, **options: object) -> list[tuple[str, str, list[str]]]:
    """Return axe's violations: impact, rule, elements."""
    found = Axe().run(page, options=options).response["violations"]
    return [(each["impact"], each["id"], [node["html"][:200] for node in each["nodes"][:5]]) for each in found]
