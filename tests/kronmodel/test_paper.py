"""A published number, reached by the command that the README names."""

import json
from pathlib import Path

import pytest

from kronmodel.cli import main as cli

pytestmark = pytest.mark.slow


def test_the_papers_rank_1_network_reaches_its_published_accuracy(
    mnist_folder: Path | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """arXiv 2204.04273: 96.94 % with 6,534 weights. `make bench-paper` shows the other rows, and more seeds."""
    if mnist_folder is None:
        pytest.skip("the full MNIST is not on this machine")
    assert cli.main(["train", "--recipe", "paper", "--kind", "kronecker", "--out", str(tmp_path), "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["models"]["kronecker"]
    assert model["parameters"] == 6_534
    assert model["test_accuracy"] == pytest.approx(0.969, abs=0.003)
