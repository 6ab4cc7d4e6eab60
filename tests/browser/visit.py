"""A page whose console errors, exceptions and requests to other hosts fail the test."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, ViewportSize, expect

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}


@dataclass
class Visit:
    """A browser page of a service."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)
    """Console errors such as policy violations and missing files, uncaught exceptions, requests to other origins."""
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))
        self.page.on("request", self._request)

    def open(self) -> Page:
        """Load the page and wait for its models and samples."""
        self.load()
        expect(self.page.locator(".card[data-model]").first).to_be_visible()
        expect(self.page.locator(".sample").first).to_be_visible()
        return self.page

    def load(self) -> Page:
        """Load the page and wait for the list of models, which may be empty."""
        self.page.goto(self.url)
        expect(self.page.locator("#answers")).not_to_have_attribute("aria-busy", "true")
        return self.page

    def at(self, address: str) -> Page:
        """Load a view by its address, which follows the #."""
        self.page.goto(f"{self.url}/#/{address}")
        expect(self.page.locator("main h1:visible")).to_have_count(1)
        return self.page

    def allow_problems(self, *words: str) -> None:
        """Ignore expected problems: those with these words, such as requests that the service rejects."""
        self.problems = [problem for problem in self.problems if not any(word in problem for word in words)]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        self.requests.append(request)
        if request.url.startswith(("data:", "blob:")):
            return
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc:
            self.problems.append(f"leaves the origin: {request.url}")


def new_context(browser: Browser, viewport: ViewportSize, *, touch: bool = False, dark: bool = False) -> BrowserContext:
    """Open a fresh profile with long timeouts, as the machine may be busy."""
    context = browser.new_context(
        viewport=viewport,
        has_touch=touch,
        is_mobile=touch,
        device_scale_factor=2 if touch else 1,
        color_scheme="dark" if dark else "light",
    )
    context.set_default_timeout(60_000)
    return context
