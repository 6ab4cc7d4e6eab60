"""Evaluations leave a network in the modes in which it was."""

import pytest
import torch
from torch import Tensor, nn

from kronmodel.training.evaluation import EVALUATION_BATCH
from kronmodel.training.tasks import Classification


class Failing(nn.Module):
    """Fails in its second batch, when it has already been switched to evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        self.batches += 1
        if self.batches == 2:
            raise KeyboardInterrupt
        return x


def modes(network: nn.Module) -> list[bool]:
    return [module.training for module in network.modules()]


@pytest.mark.parametrize("training", [True, False])
def test_each_module_keeps_its_mode(training: bool) -> None:
    """A frozen normalisation inside a network that trains is the usual case."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3)))
    network.train(training)
    network[1].eval()
    before = modes(network)
    x, y = torch.randn(50, 4), torch.randint(0, 3, (50,))
    scores = {Classification().score(network, x, y) for _ in range(5)}
    assert modes(network) == before
    frozen = nn.Sequential(*network).eval()  # the same modules: without dropout the score is always this one
    with torch.no_grad():
        assert scores == {int((frozen(x).argmax(1) == y).sum()) / 50}


def test_an_interruption_keeps_the_modes_too() -> None:
    network = nn.Sequential(nn.Dropout(0.5), Failing())
    x = torch.randn(EVALUATION_BATCH + 1, 3)
    with pytest.raises(KeyboardInterrupt):
        Classification().score(network, x, torch.zeros(len(x), dtype=torch.int64))
    assert modes(network) == [True, True, True]
    assert not torch.is_inference_mode_enabled()
