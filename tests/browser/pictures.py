"""Take the screenshots in docs/ with the models in models/: `make pictures`."""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import APIRequestContext, Page, expect, sync_playwright

from kronmodel.cli import main as cli
from tests.browser.conftest import CHROMIUM_ARGS, CHROMIUM_NAMES
from tests.browser.service import Service
from tests.browser.strokes import draw

ROOT = Path(__file__).parents[2]
MODELS = ("mnist-kronecker", "mnist-dense")
SIZE = (1280, 800)
MAX_BYTES = 300_000
LOAD_SECONDS = 25


def main() -> None:
    """Serve a copy of the two models, run a comparison and a sweep, and overwrite the screenshots."""
    if missing := [name for name in MODELS if not (ROOT / "models" / name).is_dir()]:
        sys.exit(f"pictures: no {' and no '.join(missing)} in models/; `make train` makes them")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        for name in MODELS:
            shutil.copytree(ROOT / "models" / name, Path(folder) / name)
        path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
        browser = driver.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        with browser, Service(Path(folder), "--reports", ":memory:", "--compare-seconds", "300") as service:
            context = browser.new_context(viewport={"width": SIZE[0], "height": SIZE[1]}, reduced_motion="reduce")
            context.set_default_timeout(120_000)
            expect.set_options(timeout=120_000)
            page = context.new_page()
            comparison, sweep = measured(context.request, page, service.url)
            for name, (address, ready) in {
                "page": ("try", a_drawing),
                "compare": (f"compare/{comparison}", lambda page: expect(page.locator(".headline")).to_be_visible()),
                "sweep": (f"sweep/{sweep}", lambda page: expect(page.locator(".crossovers li").first).to_be_visible()),
                "model": (f"models/{MODELS[0]}", lambda page: expect(page.locator(".layer").first).to_be_visible()),
                "live": ("live", some_load),
            }.items():
                take(page, f"{service.url}/#/{address}", ready, ROOT / "docs" / f"{name}.png")
            context.set_offline(True)
            take(page, exported(Path(folder)).as_uri(), a_drawing, ROOT / "docs" / "exported.png")


def exported(folder: Path) -> Path:
    """Export both networks as a page in one file."""
    first, second = (str(folder / name / "1" / "model.onnx") for name in MODELS)
    path = folder / "twin.html"
    if cli.main(["export", first, "--to", "html", "--with", second, "--out", str(path)]) != 0:
        sys.exit("pictures: the models can't be exported")
    return path


def measured(ask: APIRequestContext, page: Page, url: str) -> tuple[str, str]:
    """Return the ids of a comparison at all depths and of a sweep, with default durations."""
    wanted = {"models": list(MODELS), "depths": ["session", "queue", "http"]}
    report = ask.post(f"{url}/api/compare", data=wanted)
    if not report.ok:
        sys.exit(f"pictures: no comparison: {report.text()}")
    sweep: str = ask.post(f"{url}/api/sweeps", data={}).json()["id"]
    while (state := ask.get(f"{url}/api/sweeps/{sweep}").json())["status"] == "running":
        page.wait_for_timeout(500)
    if state["status"] != "done":
        sys.exit(f"pictures: no sweep: {state['error']}")
    return report.json()["id"], sweep


def a_drawing(page: Page) -> None:
    """Draw a 3 and wait for the answers."""
    expect(page.locator(".sample").first).to_be_visible()
    draw(page, "3")
    expect(page.locator("#verdict")).to_have_text("Both read 3.")
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")


def some_load(page: Page) -> None:
    """Send test samples for a while at a varying rate."""
    url = page.url.split("#", maxsplit=1)[0]
    rows = page.request.get(f"{url}api/models/{MODELS[0]}/samples?limit=100").json()["inputs"]
    for second in range(LOAD_SECONDS):
        page.wait_for_timeout(800)
        for i in range(8 + 6 * (second // 5 % 2) + second % 3):
            data = {"inputs": [rows[(8 * second + i) % len(rows)]]}
            answer = page.request.post(f"{url}api/predict", data=data)
            if not answer.ok:
                sys.exit(f"pictures: no prediction: {answer.text()}")


def take(page: Page, address: str, ready: Callable[[Page], object], file: Path) -> None:
    """Save a screenshot with few colours, so that the file is small."""
    page.goto("about:blank")  # so that the page is loaded anew
    page.goto(address)
    ready(page)
    page.wait_for_timeout(300)
    page.screenshot(path=file, full_page=True)
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    size = file.stat().st_size
    if size > MAX_BYTES:
        sys.exit(f"pictures: {file.name} has {size:,} bytes, expected at most {MAX_BYTES:,}")
    print(f"{file.relative_to(ROOT)}: {size:,} bytes")


if __name__ == "__main__":
    main()
