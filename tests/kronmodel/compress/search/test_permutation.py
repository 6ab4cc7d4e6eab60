"""Hidden units in another order: found where it helps, folded into both weights, and left alone elsewhere."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from kronmodel.compress.files.compress import compress_file
from kronmodel.compress.files.target import Settings, Target
from kronmodel.compress.matrices.candidates import Candidate, unchanged
from kronmodel.compress.matrices.structures import kronecker
from kronmodel.compress.modules.network import TorchNetwork
from kronmodel.compress.search.in_order import Options, fit_in_order, put
from kronmodel.compress.search.permutation import find_orders
from tests.kronmodel.compress.onnx_models import Array, make_model, run, save

IN, UNITS, OUT = 48, 60, 20  # so many outputs that the second layer is large enough to be compressed, too
STRUCTURE = kronecker((8, 6), (6, 10), 4)
node = helper.make_node


def scrambled_weight() -> Array:
    """A sum of two Kronecker products, of which the rows are shuffled."""
    rng = np.random.default_rng(1)
    terms = [np.kron(rng.standard_normal((6, 8)), rng.standard_normal((10, 6))) for _ in range(2)]
    weight: Array = ((terms[0] + terms[1]) / 8)[rng.permutation(UNITS)].astype(np.float32)
    return weight


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(IN, UNITS)
        self.outer = nn.Linear(UNITS, OUT)
        self.beside = nn.Linear(UNITS, OUT)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = torch.tanh(self.inner(x))
        y: Tensor = self.outer(hidden) + torch.tanh(hidden[:, :OUT])
        return y


def network(between: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Linear(IN, UNITS)
    with torch.no_grad():
        first.weight.copy_(torch.from_numpy(scrambled_weight()))
        first.bias.normal_()
    return nn.Sequential(first, nn.Tanh(), *([] if between is None else [between]), nn.Linear(UNITS, OUT)).eval()


def samples(count: int = 600) -> Tensor:
    return torch.randn(count, IN, generator=torch.Generator().manual_seed(3))


def opened(model: nn.Module) -> tuple[TorchNetwork, list[Candidate], list[list[Candidate]]]:
    """The network, the structures of its layers, and their curves."""
    network = TorchNetwork(model, [((samples(),), {})])
    dense = [unchanged(layer) for layer in network.layers]
    layer = network.layers[0]
    choice = replace(dense[0], structure=STRUCTURE, bytes=layer.bytes_of(STRUCTURE), macs=layer.macs_of(STRUCTURE))
    return network, [choice, *dense[1:]], [[each] for each in dense]


def test_an_order_lowers_the_error_of_the_network() -> None:
    model = network()
    opened_network, choice, curves = opened(model)
    options = Options(budget=1e9)
    fit_in_order(opened_network, choice, curves, options)
    before = opened_network.output_error()
    put(opened_network, None)
    orders = find_orders(opened_network, choice)
    assert sorted(orders[0]) == list(range(UNITS))
    assert opened_network.output_error() == 0  # the trial is undone
    results = fit_in_order(opened_network, choice, curves, options, orders)
    after = opened_network.output_error()
    assert before is not None
    assert after is not None
    assert after < 0.98 * before
    assert [each.is_permuted for each in results] == [True, True]
    first, second = (each.fitted for each in results)
    assert first is not None
    assert first.bias is not None
    assert second is not None
    assert second.bias is not None
    # An oracle in numpy: the new network is an ordinary one of the two matrices.
    x = samples()[:20]
    hidden = np.tanh(x.numpy() @ first.matrix().T + first.bias)
    with torch.inference_mode():
        got = opened_network.finished()(x).numpy()
    np.testing.assert_allclose(got, hidden @ second.matrix().T + second.bias, atol=1e-4)
    # The units stand in the order that was found: most rows are nearest to the weights of their own unit.
    correlation = np.corrcoef(first.matrix(), opened_network.layers[0].weight)[:UNITS, UNITS:]
    assert (correlation.argmax(1) == orders[0]).mean() > 0.5


@pytest.mark.parametrize(
    "model",
    [Residual(), network(nn.LayerNorm(UNITS)), network(nn.Dropout()), nn.Sequential(nn.Linear(IN, UNITS), nn.Tanh())],
    ids=["residual", "norm", "nothing else", "one layer"],
)
def test_units_are_permuted_only_where_the_outputs_stay_the_same(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight)
    opened_network, choice, _ = opened(model.eval())
    orders = find_orders(opened_network, choice)
    assert bool(orders) == (isinstance(model, nn.Sequential) and len(model) == 4 and isinstance(model[2], nn.Dropout))
    assert opened_network.output_error() == 0


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_the_order_is_folded_into_the_weights_of_a_file(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    weights = {
        "w0": scrambled_weight().T, "b0": rng.standard_normal(UNITS), "w1": rng.standard_normal((UNITS, OUT)) / 8,
        "b1": rng.standard_normal(OUT),
    }  # fmt: skip
    if kind == "Gemm":  # with a constant that is scaled otherwise than the weight
        nodes = [
            node("Gemm", ["x", "w0", "b0"], ["h"], "first", alpha=1.0, beta=0.5),
            node("Relu", ["h"], ["r"]),
            node("Gemm", ["r", "w1", "b1"], ["y"], "second"),
        ]
    else:
        nodes = [
            node("MatMul", ["x", "w0"], ["m"], "first"), node("Add", ["m", "b0"], ["h"]), node("Relu", ["h"], ["r"]),
            node("MatMul", ["r", "w1"], ["n"], "second"), node("Add", ["n", "b1"], ["y"]),
        ]  # fmt: skip
    arrays = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    path, data = save(make_model(nodes, arrays, ["n", IN]), tmp_path), tmp_path / "data.npz"
    x = samples(900).numpy()
    np.savez(data, x=x, y=run(path, x=x)[0].argmax(1))
    settings = Settings(structures=("kronecker",), allow_slower=True, tune_steps=0, seconds=0.05)
    report = compress_file(path, Target(ratio=2.5), data=str(data), out=tmp_path / "models", settings=settings)
    assert [row.structure.endswith(", units permuted") for row in report.layers] == [True, True]
    scores = next(row.scores for row in report.variants if row.variant == "compressed")
    assert scores is not None
    assert scores.relative_error < 0.5
