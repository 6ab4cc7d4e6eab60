"""The installed wheel: training with the extra ``train``, and serving without it, by the commands and on the page."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visitor
from tests.package.conftest import INSTALL_SECONDS, clean_environment, run

pytestmark = pytest.mark.timeout(2 * INSTALL_SECONDS)


@pytest.fixture(scope="module")
def serving(install: Callable[[str], Path]) -> Path:
    """Programs of an environment with the base install."""
    return install("")


@pytest.fixture(scope="module")
def models(install: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model repository that the installed ``kronmodel train`` has written, from the data set in scikit-learn."""
    folder = tmp_path_factory.mktemp("trained")
    programs = install("[train]")
    summary = json.loads(
        run(
            programs / "kronmodel",
            "train",
            "--data",
            "digits",
            "--epochs",
            "3",
            "--json",
            "--out",
            "models",
            folder=folder,
        )
    )
    assert isinstance(summary, dict)
    return folder / "models"


@pytest.fixture(scope="module")
def address(serving: Path, models: Path) -> Iterator[str]:
    """Address of the installed ``kronserve``."""
    command: list[str | Path] = [serving / "kronserve", "--models", models, "--port", "0", "--reports", ":memory:"]
    log = models.parent / "service.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=models.parent, env=clean_environment()
        ) as process,
    ):
        try:
            assert process.stdout is not None
            found = next((found[0] for line in process.stdout if (found := re.search(r"http://\S+", line))), None)
            assert found is not None, log.read_text()
            yield found
        finally:
            process.terminate()
            assert process.wait(timeout=60) == 0, log.read_text()


def test_the_base_install_comes_from_the_wheel_and_has_no_torch(serving: Path, tmp_path: Path) -> None:
    code = "import importlib.util as i; print(i.find_spec('app').origin, i.find_spec('torch'))"
    origin, torch = run(serving / "python", "-c", code, folder=tmp_path).split()
    assert Path(origin).is_relative_to(serving.parent)
    assert torch == "None"


def test_training_without_the_extra_names_it(serving: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [serving / "kronmodel", "train", "--data", "digits"], check=False, capture_output=True, text=True, timeout=60,
        cwd=tmp_path, env=clean_environment(),
    )  # fmt: skip
    assert done.returncode != 0
    assert "kronmodel[train]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_page_is_exported_without_torch(serving: Path, models: Path, tmp_path: Path) -> None:
    model = models / "digits-kronecker" / "1" / "model.onnx"
    run(serving / "kronmodel", "export", model, "--to", "html", "--out", "page.html", folder=tmp_path)
    assert "</html>" in (tmp_path / "page.html").read_text()


def test_the_trained_twin_is_served(address: str) -> None:
    with httpx.Client(base_url=address) as client:
        names = {model["name"] for model in client.get("/api/models").raise_for_status().json()["models"]}
        assert names == {"digits-kronecker", "digits-dense"}
        sample = client.get("/api/models/digits-kronecker/samples", params={"limit": 8}).raise_for_status().json()
        results = client.post("/api/predict", json={"inputs": sample["inputs"]}).raise_for_status().json()["results"]
        assert {result["model"] for result in results} == names
        for result in results:
            assert len(result["outputs"]) == 8
            for output in result["outputs"]:
                assert sum(output["probabilities"]) == pytest.approx(1, abs=1e-4)
        page = ("/", "/docs", "/static/js/main.js", "/static/vendor/swagger-ui.css")
        for path in (*page, "/openapi.json", "/metrics", "/v2"):
            assert client.get(path).raise_for_status().content


def test_the_page_of_the_wheel_works(address: str, visitor: Visitor) -> None:
    page = visitor(url=address).page
    page.goto(address)
    expect(page.locator(".card[data-model]")).to_have_count(2)
    page.locator(".sample").first.click()
    for card in page.locator(".card[data-model]").all():
        expect(card.locator(".time")).to_have_text(re.compile(r"^[\d.,]+\s(µs|ms)$"))
