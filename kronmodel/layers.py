"""Modules that hold the parameters of the functions in :mod:`kronmodel.functional`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kronmodel.activations import Init, activation_moments, check_init, get_activation
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
        activation: name of φ: gelu, relu or tanh.
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
            init: ``"level"`` keeps the variance of pre-activations at 1 through any depth and rank, if what comes in
                has passed the same activation: all first factors of one order are one random matrix with orthonormal
                rows (or columns) that sum to zero, and all second ones another. Independent entries would keep it
                only on average over draws. The zero sums matter because an activation's mean, where it isn't zero,
                gives each row of the product its own scale, and the scales multiply with depth.
                ``"glorot"``: uniform with variance ``2 / (fan_in + fan_out)``, each factor by itself: Keras's
                default and so the paper's.
        """
        check_init(init)
        with torch.no_grad():
            if init == "glorot":
                for factor in (self.a, self.b):
                    bound = math.sqrt(6 / (factor.shape[1] + factor.shape[2]))
                    factor.uniform_(-bound, bound)
            else:
                left = self._left
                self._reset_level(self.a[:left], self.b[:left])
                self._reset_level(self.b[left:], self.a[left:])
            for bias in (self.left_bias, self.right_bias, self.bias):
                if bias is not None:
                    bias.zero_()

    def _reset_level(self, first: Tensor, second: Tensor) -> None:
        """Fill the factors ``(branches, out, in)`` that are applied first and second, of branches of one order."""
        branches = len(first)
        if branches == 0:
            return
        gain = 1 / activation_moments(self.activation)[1]
        first.copy_(_zero_sum_orthogonal(branches * first.shape[1], first.shape[2], gain).reshape(first.shape))
        # The second factors lie side by side: they sum over the branches, of which these are only a part.
        share = gain * math.sqrt(branches / self.rank)
        wide = _zero_sum_orthogonal(second.shape[1], branches * second.shape[2], share)
        second.copy_(wide.reshape(second.shape[1], branches, second.shape[2]).transpose(0, 1))

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


def _zero_sum_orthogonal(rows: int, columns: int, gain: float) -> Tensor:
    """A random ``(rows, columns)`` matrix that turns vectors of variance 1 into vectors of mean square ``gain²``.

    Its rows sum to zero, so it doesn't see the mean; within the space that is left it has orthonormal rows, or
    columns where there are more rows than that space has dimensions.
    """
    if columns == 1:
        column: Tensor = nn.init.orthogonal_(torch.empty(rows, 1), gain * math.sqrt(rows))
        return column
    free = columns - 1
    inner: Tensor = nn.init.orthogonal_(torch.empty(rows, free), gain * math.sqrt(max(1.0, rows / free)))
    # An orthonormal basis of the vectors that sum to zero: all but the first column, which is constant.
    basis, _ = torch.linalg.qr(torch.cat([torch.ones(columns, 1), torch.eye(columns)[:, :free]], dim=1))
    matrix: Tensor = inner @ basis[:, 1:].T
    return matrix
