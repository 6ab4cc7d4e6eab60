"""Modules that hold the parameters of the functions in :mod:`kronmodel.functional`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kronmodel.activations import Init, activation_gain, check_init, get_activation
from kronmodel.functional import kron_dual, kron_linear
from kronmodel.shapes import Order, check_orders, check_rank, check_shape, dual_macs, linear_macs

__all__ = ["KroneckerDual", "KroneckerLinear"]


class KroneckerLinear(nn.Module):
    """Linear layer whose weight is a sum of Kronecker products.

    Args:
        in_shape: factor sizes ``(n1, n2)``; the layer takes ``n1 * n2`` features.
        out_shape: factor sizes ``(m1, m2)``; it gives ``m1 * m2`` features.
        rank: number of Kronecker terms.
        bias: add a learnable bias of ``m1 * m2`` values.
        device: where the parameters lie.
        dtype: of the parameters.

    Shape:
        input ``(*, n1 * n2)``, output ``(*, m1 * m2)``; the weight ``(m1 * m2, n1 * n2)`` is never formed.

    Cost:
        ``rank * (m1*n1 + m2*n2)`` weights; multiply-adds a sample in ``macs_per_sample``.

    Raises:
        ValueError: a size below 1, or a rank below 1 or above ``min(m1*n1, m2*n2)``.

    Example:
        >>> KroneckerLinear((28, 28), (2, 5), rank=2)(torch.zeros(7, 784)).shape
        torch.Size([7, 10])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        rank: int = 1,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_shape = n1, n2 = check_shape("in_shape", in_shape)
        self.out_shape = m1, m2 = check_shape("out_shape", out_shape)
        self.rank = check_rank(rank, self.in_shape, self.out_shape)
        self.macs_per_sample = rank * linear_macs(self.in_shape, self.out_shape)[1]
        self.a = nn.Parameter(torch.empty(rank, m1, n1, device=device, dtype=dtype))
        self.b = nn.Parameter(torch.empty(rank, m2, n2, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(m1 * m2, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self, gain: float = 1.0) -> None:
        """Draw the factors so that the implied weight has variance ``gain² / (n1 * n2)``, whatever the rank."""
        share = math.sqrt(self.rank)
        nn.init.normal_(self.a, std=math.sqrt(gain / (self.in_shape[0] * share)))
        nn.init.normal_(self.b, std=math.sqrt(gain / (self.in_shape[1] * share)))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(*, n1 * n2)`` to ``(*, m1 * m2)``."""
        return kron_linear(x, self.a, self.b, self.bias)

    def extra_repr(self) -> str:
        """What the layer is, for ``repr``."""
        return f"{self.in_shape} -> {self.out_shape}, rank={self.rank}, bias={self.bias is not None}"


class KroneckerDual(nn.Module):
    """Kronecker dual layer: each branch applies its two factors with a bias and an activation in between.

    ``Y = Σ_k φ(A_k X + C_k) B_kᵀ + D`` for the branches that take the left factor first, and
    ``A_k φ(X B_kᵀ + C_k)`` for those that take the right one first. The outer activation is the caller's.

    Args:
        in_shape: factor sizes ``(n1, n2)``; the layer takes ``n1 * n2`` features.
        out_shape: factor sizes ``(m1, m2)``; it gives ``m1 * m2`` features.
        rank: number of branches.
        order: ``"left"``, ``"right"``, or one of them for each branch. Branches are summed, so their sequence
            doesn't matter; left-first ones are kept in front.
        activation: name of φ: gelu, relu, silu or tanh.
        bias: learnable inner and output biases; one output bias serves all branches (the paper's copies are summed).
        device: where the parameters lie.
        dtype: of the parameters.

    Shape:
        input ``(*, n1 * n2)``, output ``(*, m1 * m2)``.

    Cost:
        ``m1*n1 + m2*n2`` weights and ``m1*n2`` (left) or ``n1*m2`` (right) inner biases a branch;
        multiply-adds a sample in ``macs_per_sample``.

    Raises:
        ValueError: a size below 1, a rank below 1 or above ``min(m1*n1, m2*n2)``, orders that don't match the
            rank, an unknown activation.

    Example:
        >>> KroneckerDual((28, 28), (4, 8), rank=2, order=["left", "right"])(torch.zeros(7, 784)).shape
        torch.Size([7, 32])

    Reference:
        Hogue, Kirby & Narayan, arXiv 2204.04273.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        rank: int = 1,
        *,
        order: Order | Sequence[Order] = "left",
        activation: str = "tanh",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_shape = n1, n2 = check_shape("in_shape", in_shape)
        self.out_shape = m1, m2 = check_shape("out_shape", out_shape)
        self.rank = check_rank(rank, self.in_shape, self.out_shape)
        self.order: tuple[Order, ...] = tuple(sorted(check_orders(order, rank)))
        self.activation = activation
        self._activation = get_activation(activation)
        self.macs_per_sample = sum(dual_macs(self.in_shape, self.out_shape, each) for each in self.order)
        self._left = self.order.count("left")

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))

        self.a = parameter(rank, m1, n1)
        self.b = parameter(rank, m2, n2)
        self.left_bias = parameter(self._left, m1, n2) if bias and self._left else None
        self.right_bias = parameter(rank - self._left, n1, m2) if bias and self._left < rank else None
        self.bias = parameter(m1 * m2) if bias else None
        self.reset_parameters()

    def reset_parameters(self, init: Init = "level") -> None:
        """Draw the factors anew; biases become zero.

        Args:
            init: ``"level"``: normal with variance ``gain² / fan_in``, the rank counted into the second factor's
                fan-in. With the gain of the activation, pre-activations keep a variance of 1 through any depth and
                rank, if what comes in has passed the same activation. ``"glorot"``: uniform with variance
                ``2 / (fan_in + fan_out)`` for each factor by itself, Keras's default and so the paper's.
        """
        check_init(init)
        gain, left, (n1, n2) = activation_gain(self.activation), self._left, self.in_shape
        with torch.no_grad():
            for factor, first, fan_in in ((self.a, slice(left), n1), (self.b, slice(left, None), n2)):
                if init == "glorot":
                    bound = math.sqrt(6 / (factor.shape[1] + factor.shape[2]))
                    factor.uniform_(-bound, bound)
                else:
                    factor.normal_(std=gain / math.sqrt(fan_in * self.rank))
                    factor[first] *= math.sqrt(self.rank)
            for bias in (self.left_bias, self.right_bias, self.bias):
                if bias is not None:
                    bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """``(*, n1 * n2)`` to ``(*, m1 * m2)``."""
        left, outs = self._left, []
        if left:
            outs.append(self._branches(x, slice(left), self.left_bias, "left"))
        if left < self.rank:
            outs.append(self._branches(x, slice(left, None), self.right_bias, "right"))
        y = outs[0] if len(outs) == 1 else outs[0] + outs[1]
        return y if self.bias is None else y + self.bias

    def _branches(self, x: Tensor, which: slice, inner_bias: Tensor | None, order: Order) -> Tensor:
        return kron_dual(x, self.a[which], self.b[which], self._activation, inner_bias=inner_bias, order=order)

    def extra_repr(self) -> str:
        """What the layer is, for ``repr``."""
        orders = self.order[0] if len(set(self.order)) == 1 else self.order
        return (
            f"{self.in_shape} -> {self.out_shape}, rank={self.rank}, order={orders!r}, "
            f"activation={self.activation!r}, bias={self.bias is not None}"
        )
