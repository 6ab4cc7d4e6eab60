"""Layers under vmap, compile, autocast, padding and in the place of nn.Linear, against dense matrices in float64."""

import copy
import math
import shutil
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from kronmodel import KroneckerDual, KroneckerLinear
from kronmodel.nn.activations import ACTIVATIONS
from kronmodel.nn.init import zero_mean_orthogonal
from tests.kronmodel.nn.test_functional import assert_same_values_and_gradients, dense_linear
from tests.kronmodel.nn.test_layers import branch_by_branch

SHAPES: list[Any] = [((3, 7), (2, 5)), ((2, 5, 3), (4, 3, 6))]
KINDS = ["linear", "left", "right", "mixed"]


def make(kind: str, shapes: Any, **options: Any) -> KroneckerLinear | KroneckerDual:
    torch.manual_seed(2)
    options = {"dtype": torch.float64, **options}
    layer: KroneckerLinear | KroneckerDual
    if kind == "linear":
        layer = KroneckerLinear(shapes[0], shapes[1], 3, **options)
    else:
        order: Any = ("right", "left", "right") if kind == "mixed" else kind
        layer = KroneckerDual(shapes[0], shapes[1], 3, order=order, activation="tanh", **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def dense(layer: KroneckerLinear | KroneckerDual, x: Tensor) -> Tensor:
    """Compute the output of a layer by dense matrices."""
    if isinstance(layer, KroneckerLinear):
        return dense_linear(x, list(layer.factors), layer.bias)
    return branch_by_branch(layer, x)


@pytest.fixture(params=SHAPES, ids=["two factors", "three factors"])
def shapes(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("batch", [5, 19])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_in_float64(kind: str, shapes: Any, batch: int) -> None:
    layer = make(kind, shapes)
    x = torch.randn(batch, layer.in_features, dtype=torch.float64, requires_grad=True)
    assert_same_values_and_gradients(layer(x), dense(layer, x), [x, *layer.parameters()])


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_over_inputs_and_gradients_by_torch_func(kind: str, shapes: Any) -> None:
    layer = make(kind, shapes)
    x = torch.randn(18, layer.in_features, dtype=torch.float64)
    torch.testing.assert_close(vmap(layer)(x), dense(layer, x))

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = functional_call(layer, parameters, x)
        return out.square().sum()

    per_sample = vmap(grad(loss), in_dims=(None, 0))(dict(layer.named_parameters()), x)
    dense(layer, x).square().sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(per_sample[name].sum(0), parameter.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_over_an_ensemble_of_layers(kind: str, shapes: Any) -> None:
    layers = [make(kind, shapes) for _ in range(2)]
    layers[1].load_state_dict({name: -tensor for name, tensor in layers[0].state_dict().items()})
    stacked = {
        name: torch.stack([dict(layer.named_parameters())[name] for layer in layers])
        for name, _ in layers[0].named_parameters()
    }
    x = torch.randn(16, layers[0].in_features, dtype=torch.float64)
    got = vmap(lambda parameters: functional_call(layers[0], parameters, x))(stacked)
    torch.testing.assert_close(got, torch.stack([dense(layer, x) for layer in layers]))


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_and_autocast_are_close(kind: str, shapes: Any) -> None:
    layer = make(kind, shapes)
    x = torch.randn(64, layer.in_features, dtype=torch.float64)
    want = dense(layer, x)
    scale = want.std().item()
    single = copy.deepcopy(layer).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        automatic = single(x.float())
    assert automatic.dtype == torch.bfloat16  # as that of an nn.Linear
    for got in (copy.deepcopy(layer).bfloat16()(x.bfloat16()), automatic):
        assert (got.double() - want).abs().mean().item() < 0.02 * scale
    torch.testing.assert_close(single(x.float()).double(), want, rtol=1e-4, atol=1e-4 * scale)
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's own, of its own
@pytest.mark.parametrize("kind", ["linear", "mixed"])
def test_torch_compile_computes_the_same_without_graph_breaks(kind: str, shapes: Any) -> None:
    layer = make(kind, shapes)
    # Inductor needs a C++ compiler; the graph is the same without it.
    compiled = torch.compile(layer, fullgraph=True, backend="inductor" if shutil.which("g++") else "aot_eager")
    x = torch.randn(17, layer.in_features, dtype=torch.float64, requires_grad=True)
    assert_same_values_and_gradients(compiled(x), dense(layer, x), [x, *layer.parameters()])


@pytest.mark.parametrize("kind", KINDS)
def test_export_with_a_batch_of_any_size(kind: str, shapes: Any) -> None:
    """A batch size is a symbol there: comparing it with the fused path's smallest batch would restrict the program."""
    layer = make(kind, shapes)
    x = torch.randn(20, layer.in_features, dtype=torch.float64)
    program = torch.export.export(layer, (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch", min=2)}})
    for batch in (3, 33):
        x = torch.randn(batch, layer.in_features, dtype=torch.float64)
        torch.testing.assert_close(program.module()(x), dense(layer, x))


@pytest.mark.parametrize("lead", [(), (0,), (2, 3), (2, 0, 3), (3, 7)])
@pytest.mark.parametrize("kind", KINDS)
def test_leading_dimensions_and_empty_batches(kind: str, shapes: Any, lead: tuple[int, ...]) -> None:
    layer = make(kind, shapes)
    x = torch.randn(*lead, layer.in_features, dtype=torch.float64, requires_grad=True)
    assert layer(x).shape == (*lead, layer.out_features)
    assert_same_values_and_gradients(layer(x), dense(layer, x), [x, *layer.parameters()])


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_zeros_behind_the_input_and_a_cropped_output(kind: str) -> None:
    layer = make(kind, ((3, 5), (2, 4)), in_features=13, out_features=7, pad=True)
    assert layer.bias is not None
    assert layer.bias.shape == (7,)
    whole = make(kind, ((3, 5), (2, 4)))
    state = layer.state_dict()
    whole.load_state_dict(state | {"bias": torch.cat([state["bias"], torch.zeros(1, dtype=torch.float64)])})
    x = torch.randn(6, 13, dtype=torch.float64)
    want = dense(whole, torch.cat([x, torch.zeros(6, 2, dtype=torch.float64)], 1))[:, :7]
    torch.testing.assert_close(layer(x), want)
    assert "in_features=13, out_features=7" in repr(layer)
    with pytest.raises(ValueError, match=r"\(\*, 13\), got \(6, 15\)"):
        layer(torch.zeros(6, 15))


def test_padding_is_never_silent() -> None:
    for options, message in (
        ({"in_features": 13}, r"in_features must be 3 \* 5 = 15, got 13; or set pad=True"),
        ({"out_features": 9, "pad": True}, r"out_features must be between 1 and 8"),
    ):
        with pytest.raises(ValueError, match=message):
            KroneckerDual((3, 5), (2, 4), **options)  # type: ignore[arg-type]  # options of several kinds


def test_the_weight_is_the_linear_map(shapes: Any) -> None:
    layer = make("linear", shapes)
    assert isinstance(layer, KroneckerLinear)
    unit = torch.eye(layer.in_features, dtype=torch.float64)
    assert layer.bias is not None
    torch.testing.assert_close(layer.weight, (layer(unit) - layer.bias).T)
    x = torch.randn(5, layer.in_features, dtype=torch.float64, requires_grad=True)
    want = dense_linear(x, list(layer.factors), layer.bias)
    got = nn.functional.linear(x, layer.weight, layer.bias)
    assert_same_values_and_gradients(got, want, [x, *layer.parameters()])
    assert "weight" not in layer.state_dict()
    assert "weight" not in dict(layer.named_parameters())
    padded = KroneckerLinear((3, 5), (2, 4), 2, in_features=13, out_features=7, pad=True, bias=False)
    torch.testing.assert_close(padded.weight, padded(torch.eye(13)).T)
    assert padded.weight.is_contiguous()


def test_the_weight_says_what_is_missing_and_is_none_of_a_dual_layer() -> None:
    layer = KroneckerLinear((3, 7), (2, 5))
    del layer.factors
    with pytest.raises(RuntimeError, match=r"the weight can't be formed: .* no attribute 'factors'"):
        _ = layer.weight
    assert not hasattr(KroneckerDual((3, 7), (2, 5)), "weight")


def transformer() -> nn.TransformerEncoderLayer:
    torch.manual_seed(5)
    made = nn.TransformerEncoderLayer(12, 2, dim_feedforward=35, dropout=0.0, batch_first=True)
    made.linear1 = KroneckerLinear((3, 4), (5, 7), 2)  # type: ignore[assignment]  # in the place of an nn.Linear
    made.linear2 = KroneckerLinear((5, 7), (4, 3), 2)  # type: ignore[assignment]
    made.self_attn.out_proj = KroneckerLinear((4, 3), (2, 6), 3)  # type: ignore[assignment]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5)
    return made


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_torchs_transformer_layer_takes_kronecker_layers_on_its_fast_path_too(context: Any) -> None:
    made = transformer()
    x = torch.randn(2, 9, 12)
    trained = made(x)
    made.eval()
    with context(), torch.profiler.profile() as profile:
        fast = made(x)
    assert any("_transformer_encoder_layer_fwd" in event.key for event in profile.key_averages())
    torch.testing.assert_close(fast.clone(), trained.detach(), rtol=1e-4, atol=1e-5)


def test_torchs_transformer_layer_trains_the_factors_as_it_would_the_dense_weights() -> None:
    made, dense_one = (
        transformer(),
        nn.TransformerEncoderLayer(12, 2, dim_feedforward=35, dropout=0.0, batch_first=True),
    )
    pairs: list[tuple[Any, Any]] = [(made.linear1, dense_one.linear1), (made.linear2, dense_one.linear2)]
    pairs.append((made.self_attn.out_proj, dense_one.self_attn.out_proj))
    dense_one.load_state_dict(made.state_dict(), strict=False)
    with torch.no_grad():
        for kronecker, plain in pairs:
            plain.weight.copy_(kronecker.weight)
            plain.bias.copy_(kronecker.bias)
    x = torch.randn(2, 9, 12)
    torch.testing.assert_close(made(x), dense_one(x), rtol=1e-4, atol=1e-5)
    direction = torch.randn(2, 9, 12)
    (made(x) * direction).sum().backward()
    (dense_one(x) * direction).sum().backward()
    for kronecker, plain in pairs:
        factors = list(kronecker.factors)
        want = torch.autograd.grad(kronecker.weight, factors, plain.weight.grad)
        for factor, gradient in zip(factors, want, strict=True):
            torch.testing.assert_close(factor.grad, gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", ["left", "right"])
def test_initialisation_keeps_the_variance_level_with_three_factors(activation: str, order: Any) -> None:
    torch.manual_seed(0)
    shapes = [(9, 10, 8), (8, 12, 9), (10, 9, 8)] * 2
    z = torch.randn(32, math.prod(shapes[0]))
    with torch.no_grad():
        for n, m in pairwise(shapes):
            z = KroneckerDual(n, m, 2, order=order, activation=activation)(ACTIVATIONS[activation](z))
            assert 1 / 2 < z.square().mean() < 2


@pytest.mark.parametrize(("rows", "columns"), [(5, 9), (9, 9), (12, 5), (4, 2), (3, 1)])
def test_rows_of_zero_mean_orthogonal_matrices_sum_to_zero_and_are_orthogonal(rows: int, columns: int) -> None:
    matrix = zero_mean_orthogonal(rows, columns, 3.0, torch.empty(0))
    assert matrix.shape == (rows, columns)
    if columns > 1:
        assert matrix.sum(1).abs().max() < 1e-4
    singular = torch.linalg.svdvals(matrix)
    nonzero = singular[: min(rows, max(1, columns - 1))]
    torch.testing.assert_close(nonzero, nonzero[0].expand_as(nonzero), rtol=1e-4, atol=1e-4)
    # On average over the outputs, what it sees of a vector of variance 1 comes out with variance gain².
    assert matrix.square().sum().item() / rows == pytest.approx(9.0, rel=1e-3)


def test_a_layer_can_be_part_of_a_sequence_and_be_copied(shapes: Any) -> None:
    layer = make("mixed", shapes)
    network = nn.Sequential(copy.deepcopy(layer), nn.Tanh())
    x = torch.randn(4, layer.in_features, dtype=torch.float64)
    torch.testing.assert_close(network(x), torch.tanh(dense(layer, x)))
