"""A page in every size and light: nothing sticks out, axe finds nothing, and pictures to be looked at."""

from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

SIZES = [(390, 844), (1024, 768), (1600, 1000)]
SCHEMES = ["light", "dark"]


def look(page: Page, name: str, screenshots: Path) -> None:
    """Take the pictures and find fault with the page as it is."""
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
            page.evaluate("scrollTo(0, 0)")
            page.wait_for_timeout(100)  # charts are drawn anew for the width
            assert page.evaluate("document.documentElement.scrollWidth") == width
            page.screenshot(path=screenshots / f"{name}-{width}-{scheme}.png", full_page=True)
    # Dark by now: there only the colours can be another matter.
    assert findings(page, runOnly=["color-contrast"]) == []
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    assert findings(page) == []


def findings(page: Page, **options: object) -> list[tuple[str, str, list[str]]]:
    """What axe finds fault with: impact, rule, elements."""
    found = Axe().run(page, options=options).response["violations"]
    return [(each["impact"], each["id"], [node["html"][:200] for node in each["nodes"][:5]]) for each in found]
