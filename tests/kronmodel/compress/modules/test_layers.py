"""Replacement layers against the dense weights that they imply, and split attention against torch's."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kronmodel.compress import compress
from kronmodel.compress.modules.attention import SplitAttention
from kronmodel.compress.modules.layers import LowRankLinear, MonarchLinear

LAYERS = [LowRankLinear(20, 18, 3), MonarchLinear((4, 5), (3, 6), 2), MonarchLinear((5, 4), (9, 2), 1, bias=False)]


@pytest.mark.parametrize("layer", LAYERS, ids=["low-rank", "monarch", "without bias"])
def test_outputs_are_those_of_the_dense_weight(layer: LowRankLinear | MonarchLinear) -> None:
    layer = layer.double()
    assert layer.weight.shape == (18, 20)
    x = torch.randn(2, 7, 20, dtype=torch.float64, requires_grad=True)
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x[:0]).shape == (0, 7, 18)
    wanted = torch.autograd.grad(expected.square().sum(), [x, *layer.parameters()])
    torch.testing.assert_close(torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()]), wanted)


def test_a_monarch_matrix_is_built_entry_by_entry() -> None:
    layer = MonarchLinear((4, 5), (3, 6), 2)
    i, t, j, p = 2, 4, 3, 1
    entry = sum(layer.left[t, i, j, k] * layer.right[j, t, k, p] for k in range(2))
    torch.testing.assert_close(layer.weight[i * 6 + t, j * 5 + p], torch.as_tensor(entry))


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"kdim": 10, "vdim": 6}, {"bias": False}])
@pytest.mark.parametrize("masked", [False, True])
def test_split_attention_equals_torchs(options: dict[str, Any], masked: bool) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, **options).eval()
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.3)
    split = SplitAttention(attention)

    def order(x: Tensor) -> Tensor:
        return x if attention.batch_first else x.transpose(0, 1)

    query = order(torch.randn(2, 5, 12))
    key, value = order(torch.randn(2, 7, attention.kdim)), order(torch.randn(2, 7, attention.vdim))
    masks: dict[str, Tensor] = {}
    if masked:
        masks = {
            "attn_mask": torch.ones(5, 7).tril(2) == 0,
            "key_padding_mask": torch.tensor([[False] * 6 + [True], [False] * 7]),
        }
    for need, average in ((True, True), (True, False), (False, True)):
        ours = split(query, key, value, need_weights=need, average_attn_weights=average, **masks)
        theirs = attention(query, key, value, need_weights=need, average_attn_weights=average, **masks)
        torch.testing.assert_close(ours, theirs)


def test_attention_in_a_transformer_is_compressed() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(24, 4, dim_feedforward=48, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(60, 5, 6) @ torch.randn(6, 24)
    result = compress(model, target_ratio=1.7, data=x, structures=("low-rank",), tune_steps=0)
    assert len(result.report.layers) == 12
    with torch.inference_mode():
        y, z = model(x), result.model(x)
    assert z.shape == y.shape
    assert float((y - z).norm() / y.norm()) < 0.3
    assert sum(each.numel() for each in result.model.parameters()) < sum(p.numel() for p in model.parameters()) / 1.7
    untouched = compress(model, target_ratio=1.1, data=x, exclude=["*self_attn*"], structures=("low-rank",),
                         tune_steps=0).model  # fmt: skip
    kinds = {type(each) for each in untouched.modules()}
    assert SplitAttention in kinds or nn.MultiheadAttention in kinds
    torch.testing.assert_close(untouched(x).shape, y.shape)
