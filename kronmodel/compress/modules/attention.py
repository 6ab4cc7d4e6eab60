"""Multi-head attention with separate projections, each of which can be replaced by a structured layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SplitAttention"]


class SplitAttention(nn.Module):
    """Multi-head attention with the projections of queries, keys, values and outputs as modules of their own.

    Computes what ``nn.MultiheadAttention`` computes, with the same arguments and results. That module keeps three
    projections in one parameter, and reads the weight of the fourth without calling the layer.

    Args:
        attention: attention whose weights are taken over; without ``bias_k``, ``bias_v`` and ``add_zero_attn``.

    Raises:
        ValueError: the attention has learned keys or values, or adds zeros.
    """

    in_proj_bias = None  # nn.TransformerEncoderLayer then calls the module instead of a fused kernel
    _qkv_same_embed_dim = False

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        if attention.bias_k is not None or attention.bias_v is not None or attention.add_zero_attn:
            raise ValueError("attention with add_bias_kv or add_zero_attn can't be split into its projections")
        self.embed_dim, self.num_heads = attention.embed_dim, attention.num_heads
        self.dropout, self.batch_first = attention.dropout, attention.batch_first
        joint, biases = attention.in_proj_weight, attention.in_proj_bias
        weights = (
            joint.detach().chunk(3) if joint is not None else [weight.detach() for weight in _projections(attention)]
        )
        frozen = not (joint if joint is not None else attention.q_proj_weight).requires_grad
        parts: list[Tensor | None] = [None] * 3 if biases is None else list(biases.detach().chunk(3))
        self.q_proj, self.k_proj, self.v_proj = (
            _linear(weight, bias, frozen=frozen) for weight, bias in zip(weights, parts, strict=True)
        )
        out = attention.out_proj
        out_bias = None if out.bias is None else out.bias.detach()
        self.out_proj = _linear(out.weight.detach(), out_bias, frozen=not out.weight.requires_grad)
        self.train(attention.training)

    def forward(  # noqa: PLR0917  # the signature of nn.MultiheadAttention
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as ``nn.MultiheadAttention.forward`` does.

        Returns:
            Outputs with the shape of the query, and the attention weights ``(batch, length, source)`` (or for each
            head) if they are needed, else None.
        """
        if query.is_nested:
            query, key, value = (each.to_padded_tensor(0.0) for each in (query, key, value))
        batched = query.dim() == 3
        if not batched:
            query, key, value = (each.unsqueeze(0 if self.batch_first else 1) for each in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        q, k, v = self._heads(self.q_proj(query)), self._heads(self.k_proj(key)), self._heads(self.v_proj(value))
        mask = self._mask(attn_mask, key_padding_mask, q, k.shape[2], is_causal=is_causal)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            weights = torch.softmax(scores if mask is None else scores + mask, -1)
            weights = F.dropout(weights, dropout)  # (batch, heads, length, source)
            y = weights @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        y = y.transpose(1, 2).flatten(2)  # (batch, length, embed)
        y = self.out_proj(y if self.batch_first else y.transpose(0, 1))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            y = y.squeeze(0 if self.batch_first else 1)
            weights = None if weights is None else weights.squeeze(0)
        return y, weights

    def merge_masks(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, query: Tensor
    ) -> tuple[Tensor | None, int | None]:
        """Return the masks unmerged; ``nn.TransformerEncoderLayer`` needs merged ones only for its fused kernel."""
        return (attn_mask, 0) if attn_mask is not None else (key_padding_mask, None if key_padding_mask is None else 1)

    def _heads(self, x: Tensor) -> Tensor:
        """Split the projected features: ``(batch, heads, length, width)``."""
        x = x if self.batch_first else x.transpose(0, 1)
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return heads

    def _mask(
        self,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        query: Tensor,
        source: int,
        *,
        is_causal: bool,
    ) -> Tensor | None:
        """Merge the masks to one that is added to the scores, ``(batch or 1, heads or 1, length, source)``."""
        if is_causal and attn_mask is None:
            raise ValueError("is_causal needs attn_mask, as in nn.MultiheadAttention")
        mask = None
        if attn_mask is not None:
            mask = _additive(attn_mask, query)
            mask = mask.unflatten(0, (-1, self.num_heads)) if mask.dim() == 3 else mask[None, None]
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, query)[:, None, None, :]
            mask = padding if mask is None else mask + padding
        return mask


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """Convert a mask, of which True means not to attend, to one that is added to scores."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
    return mask.to(like.dtype)


def _projections(attention: nn.MultiheadAttention) -> tuple[Tensor, Tensor, Tensor]:
    return attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight


def _linear(weight: Tensor, bias: Tensor | None, *, frozen: bool) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.clone(), requires_grad=not frozen)
    if bias is not None:
        linear.bias = nn.Parameter(bias.clone(), requires_grad=not frozen)
    return linear
