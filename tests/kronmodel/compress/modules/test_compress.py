"""``compress`` of torch modules of all supported types: interface, size, data types, ties, and errors."""

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from kronmodel import DenseConfig, Network, build
from kronmodel.compress import Compressed, compress, distill
from kronmodel.compress.modules.layers import FactoredConv, FactoredEmbedding
from kronmodel.compress.modules.sites import find_sites
from kronmodel.compress.search.budget import BudgetError
from kronmodel.data.dataset import Dataset
from kronmodel.errors import DataError, KronmodelError
from kronmodel.training.config import TrainConfig
from kronmodel.training.loop import train


def bytes_of(model: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in {*model.parameters(), *model.buffers()})


def samples(count: int, width: int, seed: int = 0) -> Tensor:
    """Inputs with few strong directions, as real ones have."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(1, 0, width) ** 4
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(99)) * scales / 3
    return torch.randn(count, width, generator=generator) @ mix.T


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 60), nn.GELU(), nn.Linear(60, 40), nn.GELU(), nn.Linear(40, 7)).eval()


def error(one: nn.Module, other: nn.Module, *args: Any) -> float:
    with torch.inference_mode():
        y, z = one(*args), other(*args)
    return float((y - z).norm() / (y - y.mean(0)).norm())


@pytest.fixture(scope="module")
def compressed() -> tuple[nn.Module, Tensor, Compressed]:
    model = network()
    x = samples(500, 48)
    return model, x, compress(model, target_ratio=3, data=x, tune_steps=60)


def test_the_target_is_met_and_the_original_is_unchanged(compressed: tuple[nn.Module, Tensor, Compressed]) -> None:
    model, _, result = compressed
    assert bytes_of(result.model) <= bytes_of(model) / 3
    assert result.report.ratio == pytest.approx(bytes_of(model) / bytes_of(result.model))
    for mine, fresh in zip(model.parameters(), network().parameters(), strict=True):
        assert torch.equal(mine, fresh)
    assert not result.model.training
    assert all(parameter.requires_grad for parameter in result.model.parameters())


def test_outputs_are_near_on_new_inputs_and_nearer_than_without_data(
    compressed: tuple[nn.Module, Tensor, Compressed],
) -> None:
    model, _, result = compressed
    new = samples(300, 48, seed=1)
    without = compress(model, target_ratio=3)
    assert error(model, result.model, new) < 0.35
    assert error(model, result.model, new) < 0.7 * error(model, without.model, new)
    assert result.report.output_error == pytest.approx(error(model, result.model, new), rel=0.4)
    assert "without samples" in without.report.table()
    assert without.report.output_error is None


def test_it_is_no_worse_than_low_rank_alone() -> None:
    model, x = network(), samples(500, 48)
    for ratio in (2, 6):
        every = compress(model, target_ratio=ratio, data=x, tune_steps=0).report.output_error
        alone = compress(model, target_ratio=ratio, data=x, tune_steps=0, structures=("low-rank",)).report.output_error
        assert every is not None
        assert alone is not None
        assert every <= alone * (1 + 1e-6)


def test_the_report_tells_the_truth_in_every_form(compressed: tuple[nn.Module, Tensor, Compressed]) -> None:
    _, x, result = compressed
    report = result.report
    assert [layer.name for layer in report.layers] == ["0", "2", "4"]
    parsed = json.loads(report.to_json())
    assert parsed["ratio"] == pytest.approx(report.ratio)
    assert sum(layer["bytes"][1] for layer in parsed["layers"]) == bytes_of(result.model)
    first = report.layers[0]
    assert first.macs[0] == 48 * 60
    assert 0 < first.output_error < first.weight_error  # on data, less is lost than of the weights
    page = report.to_html("a <title>")
    assert "a &lt;title&gt;" in page
    assert page.count("<svg") == sum(len(layer.curve) > 1 for layer in report.layers)
    assert "<script" not in page
    assert "http" not in page
    assert all(layer.structure in report.table() for layer in report.layers)
    with torch.inference_mode():
        held = torch.cat([part[-(len(part) // 8) :] for part in x.split(200)])
        same = (network()(held).argmax(1) == result.model(held).argmax(1)).double().mean()
    assert report.agreement == pytest.approx(float(same))


class Tied(nn.Module):
    """Language model in small: an embedding whose table is the output layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 24)
        self.hidden = nn.Linear(24, 24)
        self.output = nn.Linear(24, 50)
        self.output.weight = self.embedding.weight

    def forward(self, indices: Tensor) -> Tensor:
        y: Tensor = self.output(torch.tanh(self.hidden(self.embedding(indices))))
        return y


def test_tied_weights_stay_tied() -> None:
    torch.manual_seed(0)
    model = Tied().eval()
    x = torch.randint(0, 50, (300, 6))
    result = compress(model, target_ratio=2, data=x, tune_steps=0)
    small = result.model
    assert isinstance(small, Tied)
    assert isinstance(small.embedding, FactoredEmbedding)
    names = {id(each) for each in small.embedding.parameters()}
    assert names <= {id(each) for each in small.output.parameters()}
    torch.testing.assert_close(small.embedding.weight, small.output.weight)
    torch.testing.assert_close(small.embedding(x), small.output.weight[x])
    assert bytes_of(small) <= bytes_of(model) / 2


def test_an_embedding_keeps_its_padding_row() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(60, 32, padding_idx=3), nn.Linear(32, 32)).eval()
    x = torch.randint(0, 60, (400, 5))
    small = compress(model, target_ratio=2.5, data=x, include=["0", "1"], tune_steps=0).model
    table = small.get_submodule("0")
    assert isinstance(table, FactoredEmbedding)
    y = table(torch.tensor([[3, 4]]))
    assert not y[0, 0].any()
    torch.testing.assert_close(y[0, 1], table.weight[4])


@pytest.mark.parametrize("structures", [("low-rank",), ("kronecker",)])
@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.Conv2d(8, 12, (3, 2), padding="same", padding_mode="circular", bias=False),
        nn.Conv2d(16, 12, 1),
        nn.Conv1d(8, 12, 5, padding=2, dilation=2),
    ],
    ids=["strided", "circular", "1x1", "1d"],
)
def test_convolutions_are_compressed_by_their_patches(
    convolution: nn.Conv1d | nn.Conv2d, structures: tuple[Any, ...]
) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(copy.deepcopy(convolution)).eval()
    channels = convolution.in_channels
    size = (9,) if isinstance(convolution, nn.Conv1d) else (9, 7)
    mix = torch.randn(channels, 3)
    x = torch.einsum("cd,nd...->nc...", mix, torch.randn(60, 3, *size)) + 0.05 * torch.randn(60, channels, *size)
    if convolution.weight.numel() < 256:
        with pytest.raises(KronmodelError, match="fewer than 256 weights"):
            compress(model, target_ratio=2, data=x, structures=structures)
        return
    result = compress(model, target_ratio=2, data=x, structures=structures, tune_steps=0)
    small = result.model.get_submodule("0")
    assert isinstance(small, FactoredConv)
    new = torch.einsum("cd,nd...->nc...", mix, torch.randn(20, 3, *size))
    assert small(new).shape == model(new).shape
    first, second = small.factors
    dense = copy.deepcopy(convolution)
    terms = (torch.kron(*term) for term in zip(first, second, strict=True))
    matrix = first @ second if structures == ("low-rank",) else sum(terms, torch.zeros(()))
    dense.weight = nn.Parameter(matrix.detach().reshape(dense.weight.shape))
    dense.bias = small.bias
    torch.testing.assert_close(small(new), dense(new), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(small(new[:1])[0], small(new[0]), atol=1e-4, rtol=1e-4)
    assert error(model, result.model, new) < 0.8
    assert result.report.layers[0].output_error == pytest.approx(error(model, result.model, x), rel=0.3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_frozen_weights_are_kept(dtype: torch.dtype) -> None:
    model = network().to(dtype)
    model[0].weight.requires_grad_(False)
    small = compress(model, target_ratio=2.5, data=samples(200, 48)).model
    assert {each.dtype for each in small.parameters()} == {dtype}
    assert bytes_of(small) <= bytes_of(model) / 2.5
    first = dict(small.get_submodule("0").named_parameters())
    assert {name: each.requires_grad for name, each in first.items() if name != "bias"} == {
        name: False for name in first if name != "bias"
    }
    assert first["bias"].requires_grad


def test_one_sample_input_forms_give_the_same_moments() -> None:
    model, x = network(), samples(200, 48)
    forms = [x, x.numpy(), [x[:120], x[120:].numpy()], [(x,)], [{"input": x}]]
    options: dict[str, Any] = {"target_ratio": 2, "structures": ("low-rank",), "tune_steps": 0}
    errors = [compress(model, data=form, **options).report.layers[0].weight_error for form in forms]
    assert max(errors) < 1.1 * min(errors)


def test_layers_that_cannot_be_replaced_are_named_with_the_reason() -> None:
    class Own(nn.Linear):
        pass

    hooked = nn.Linear(24, 24)
    hooked.register_forward_hook(lambda *_: None)
    model = nn.ModuleDict(
        {
            "own": Own(24, 24),
            "hooked": hooked,
            "normed": parametrizations.weight_norm(nn.Linear(24, 24)),
            "groups": nn.Conv2d(16, 32, 3, groups=2),
            "small": nn.Linear(4, 4),
            "excluded": nn.Linear(24, 24),
            "broken": nn.Linear(24, 24),
            "fine": nn.Linear(24, 24),
        }
    )
    nn.init.constant_(model.get_parameter("broken.weight"), float("nan"))
    sites, skipped = find_sites(model, exclude=["excl*"])
    assert [site.layer.name for site in sites] == ["fine"]
    assert {each.name: each.reason for each in skipped} == {
        "hooked": "it has hooks",
        "normed": "its weight is computed from other parameters",
        "groups": "a convolution with groups",
        "small": "fewer than 256 weights",
        "excluded": "excluded",
        "broken": "its weight has values that are not finite",
    }


def test_a_layer_can_be_the_whole_model_and_layers_that_are_not_called_are_left_alone() -> None:
    single = compress(nn.Linear(48, 60), target_ratio=2, data=samples(100, 48), tune_steps=0).model
    assert single(torch.ones(2, 48)).shape == (2, 60)

    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(48, 60), nn.Linear(60, 48)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.used(x)
            return y

    report = compress(Partly(), target_ratio=1.5, data=samples(100, 48), tune_steps=0).report
    assert report.skipped == (("unused", "not called for the samples"),)


def test_wrong_arguments_are_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match="expected one of target_ratio, max_bytes and max_drop, got none"):
        compress(model)
    with pytest.raises(ValueError, match="got target_ratio, max_bytes"):
        compress(model, target_ratio=2, max_bytes=100)
    with pytest.raises(ValueError, match="target_ratio must be a number above 1, got"):
        compress(model, target_ratio=0.5)
    with pytest.raises(ValueError, match="structures must be some of"):
        compress(model, target_ratio=2, structures=("sparse",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_drop needs data or evaluate"):
        compress(model, max_drop=1)
    with pytest.raises(BudgetError, match="smallest candidates need"):
        compress(model, target_ratio=10_000)
    with pytest.raises(BudgetError, match="are no layers that can be compressed"):
        compress(model, target_ratio=5, include=["4"])
    with pytest.raises(KronmodelError, match="no layer to compress"):
        compress(nn.ReLU(), target_ratio=2)
    with pytest.raises(DataError, match="no samples"):
        compress(model, target_ratio=2, data=torch.zeros(0, 48))
    with pytest.raises(DataError, match="a batch must be a tensor"):
        compress(model, target_ratio=2, data=["text"])


def test_a_trained_network_of_this_package_is_compressed_and_distilled_on_its_data(digits: Dataset) -> None:
    few = replace(digits, x_train=digits.x_train[:600], y_train=digits.y_train[:600], x_test=digits.x_test[:200],
                  y_test=digits.y_test[:200])  # fmt: skip
    torch.manual_seed(0)
    model = build(DenseConfig(in_features=784, hidden=(40,), out_features=10))
    train(model, few, TrainConfig(epochs=2, batch_size=50))
    result = compress(model, target_ratio=4, data=few.x_train[:200], structures=("low-rank",), tune_steps=0)
    assert isinstance(result.model, Network)
    assert result.model.in_features == 784
    assert result.report.ratio >= 4
    assert distill(result.model, model, few, label_weight=0.3).test_score > 0.5


def test_distillation_brings_the_outputs_nearer_without_labels() -> None:
    model = network()
    x = np.ascontiguousarray(samples(2000, 48).numpy())
    small = compress(model, target_ratio=6, data=x[:100], tune_steps=0).model
    new = samples(300, 48, seed=5)
    before = error(model, small, new)
    kept = copy.deepcopy(model.state_dict())
    result = distill(small, model, x, TrainConfig(epochs=6, batch_size=50, learning_rate=1e-2, weight_decay=0))
    assert error(model, small, new) < 0.8 * before
    assert result.metric == "accuracy"
    assert result.test_score > 0.6
    assert all(torch.equal(kept[name], each) for name, each in model.state_dict().items())
    with pytest.raises(ValueError, match="label_weight needs labels"):
        distill(small, model, x, label_weight=0.5)
    with pytest.raises(DataError, match="at least 10 samples"):
        distill(small, model, x[:5])
