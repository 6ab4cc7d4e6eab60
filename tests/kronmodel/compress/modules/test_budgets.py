"""What bounds a compressed torch module: bytes, multiply-adds, measured time, or a permitted drop."""

from typing import Any

import pytest
import torch
from torch import nn

from kronmodel.compress import compress
from tests.kronmodel.compress.modules.test_compress import bytes_of, network, samples


def test_a_budget_of_multiply_adds_and_of_bytes() -> None:
    model, x = network(), samples(300, 48)
    report = compress(model, target_ratio=2.5, budget="macs", data=x, tune_steps=0).report
    assert report.after.macs <= report.before.macs / 2.5
    assert bytes_of(compress(model, max_bytes=9_000, data=x, tune_steps=0).model) <= 9_000


@pytest.mark.slow
def test_a_budget_of_measured_time() -> None:
    torch.manual_seed(0)
    layers = (nn.Linear(400, 600), nn.GELU(), nn.Linear(600, 300), nn.GELU(), nn.Linear(300, 7))
    model, x = nn.Sequential(*layers).eval(), samples(300, 400)
    options: dict[str, Any] = {"budget": "microseconds", "data": x, "structures": ("low-rank",), "tune_steps": 0}
    report = compress(model, target_ratio=1.5, **options).report
    times = [layer.microseconds for layer in report.layers]
    before, after = (sum(each[turn] for each in times if each is not None) for turn in (0, 1))
    assert None not in times
    assert after <= before / 1.5
    assert "µs" in report.table().splitlines()[0]
    assert all(
        layer.microseconds is not None and (layer.microseconds[1] < layer.microseconds[0] or layer.kind == "dense")
        for layer in report.layers
    )
    with pytest.raises(ValueError, match="needs data"):
        compress(model, target_ratio=1.5, budget="microseconds")
    with pytest.raises(ValueError, match="with target_ratio"):
        compress(model, max_bytes=500_000, budget="microseconds", data=x)


def test_the_permitted_drop_is_kept_by_the_score_of_the_caller() -> None:
    model, x = network(), samples(300, 48)
    with torch.inference_mode():
        labels = model(x).argmax(1)

    def accuracy(each: nn.Module) -> float:
        with torch.inference_mode():
            return 100 * float((each(x).argmax(1) == labels).double().mean())

    report = compress(model, max_drop=8, data=x, evaluate=accuracy, structures=("low-rank",), tune_steps=0).report
    assert report.before.score == 100
    assert report.after.score is not None
    assert report.after.score >= 92
    assert report.ratio > 1.2
