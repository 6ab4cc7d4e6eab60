"""The HTML report of `kronmodel train --report` in a browser without a network."""

import re
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.kronmodel.cli.test_report import write


def test_the_report_is_drawn_from_the_file_alone(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write(path, "toy")
    requests: list[str] = []
    problems: list[str] = []
    with browser.new_context(offline=True) as context:
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(path.as_uri())
        for figure in ("score", "loss", "seconds"):
            expect(page.locator(f"#{figure} svg.main-svg").first).to_be_visible()
        expect(page.locator("#score .scatterlayer .trace")).to_have_count(2)
        expect(page.get_by_role("row", name=re.compile("^weights"))).to_contain_text("107.81×")
    assert problems == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
