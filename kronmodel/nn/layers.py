"""Modules that hold the parameters of the functions in :mod:`kronmodel.nn.functional`."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kronmodel.nn.activations import activation_moments, get_activation
from kronmodel.nn.functional import apply, inner_shapes, kron_linear
from kronmodel.nn.init import Init, check_init, zero_sum_orthogonal
from kronmodel.shapes import (
    Order,
    Shape,
    axes,
    check_features,
    check_orders,
    check_rank,
    check_shapes,
    dual_macs,
    linear_macs,
)

__all__ = ["KroneckerDual", "KroneckerLinear"]


class _KroneckerLayer(nn.Module):
    """What both layers share: shapes, rank, padding of the features, and the factors."""

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        rank: int,
        *,
        in_features: int | None,
        out_features: int | None,
        pad: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.in_shape, self.out_shape = check_shapes(in_shape, out_shape)
        self.in_features = check_features("in_features", in_features, self.in_shape, pad=pad)
        self.out_features = check_features("out_features", out_features, self.out_shape, pad=pad)
        self.rank = check_rank(rank, self.in_shape, self.out_shape)
        self._missing = math.prod(self.in_shape) - self.in_features
        self._whole = math.prod(self.out_shape) == self.out_features
        self._new = functools.partial(torch.empty, device=device, dtype=dtype)
        self.factors = nn.ParameterList(
            self._new(rank, m, n) for m, n in zip(self.out_shape, self.in_shape, strict=True)
        )

    def _padded(self, x: Tensor) -> Tensor:
        """Features ``(*, in_features)`` with zeros behind them, as many as the shape has room for."""
        if x.dim() < 1 or x.shape[-1] != self.in_features:
            raise ValueError(f"features must have shape (*, {self.in_features}), got {tuple(x.shape)}")
        return F.pad(x, (0, self._missing)) if self._missing else x

    def _described(self) -> str:
        padded = (self.in_features, self.out_features) != (math.prod(self.in_shape), math.prod(self.out_shape))
        features = f", in_features={self.in_features}, out_features={self.out_features}" if padded else ""
        return f"{self.in_shape} -> {self.out_shape}, rank={self.rank}{features}"


class KroneckerLinear(_KroneckerLayer):
    """Linear layer whose weight is a sum of Kronecker products.

    Args:
        in_shape: factor sizes ``(n1, n2, ...)``; the layer takes ``n1 * n2 * ...`` features.
        out_shape: factor sizes ``(m1, m2, ...)``, as many; it gives ``m1 * m2 * ...`` features.
        rank: number of Kronecker terms.
        bias: add a learnable bias of ``out_features`` values.
        in_features: how many features it takes, if fewer than the shape has room for (with ``pad``).
        out_features: how many features it gives, if fewer than the shape has room for (with ``pad``).
        pad: allow that, for widths without balanced factors: zeros are added behind the input, the output is cropped.
        device: where the parameters lie.
        dtype: of the parameters.

    Shape:
        input ``(*, in_features)``, output ``(*, out_features)``; the weight is never formed.

    Cost:
        ``rank * (m1*n1 + m2*n2 + ...)`` weights; multiply-adds a sample in ``macs_per_sample``.

    Raises:
        ValueError: a size below 1, shapes that don't multiply to the features, or a rank below 1 or above the useful
            maximum, with two factors ``min(m1*n1, m2*n2)``.

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
        in_features: int | None = None,
        out_features: int | None = None,
        pad: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_shape,
            out_shape,
            rank,
            in_features=in_features,
            out_features=out_features,
            pad=pad,
            device=device,
            dtype=dtype,
        )
        self.macs_per_sample = rank * linear_macs(self.in_shape, self.out_shape)[1]
        self.bias = nn.Parameter(self._new(self.out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self, gain: float = 1.0) -> None:
        """Draw the factors so that the implied weight has variance ``gain² / (n1 * n2 * ...)``, whatever the rank."""
        share = (gain**2 / self.rank) ** (1 / (2 * len(self.factors)))
        for factor, n in zip(self.factors, self.in_shape, strict=True):
            nn.init.normal_(factor, std=share / math.sqrt(n))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(*, in_features)`` to ``(*, out_features)``."""
        if self._whole:
            return kron_linear(self._padded(x), list(self.factors), self.bias)
        y = kron_linear(self._padded(x), list(self.factors))[..., : self.out_features]
        return y if self.bias is None else y + self.bias

    def dense_weight(self) -> Tensor:
        """The weight ``(out_features, in_features)`` that the layer stands for, formed for inspection."""
        weight = sum(functools.reduce(torch.kron, terms) for terms in zip(*self.factors, strict=True))
        return torch.as_tensor(weight)[: self.out_features, : self.in_features]

    def extra_repr(self) -> str:
        """What the layer is, for ``repr``."""
        return f"{self._described()}, bias={self.bias is not None}"


class KroneckerDual(_KroneckerLayer):
    """Kronecker dual layer: each branch applies its factors with a bias and an activation in between.

    With two factors ``Y = Σ_k φ(A_k X + C_k) B_kᵀ + D`` for the branches that go from the left, and
    ``A_k φ(X B_kᵀ + C_k)`` for those that go from the right. The outer activation is the caller's.

    Args:
        in_shape: factor sizes ``(n1, n2, ...)``; the layer takes ``n1 * n2 * ...`` features.
        out_shape: factor sizes ``(m1, m2, ...)``, as many; it gives ``m1 * m2 * ...`` features.
        rank: number of branches.
        order: ``"left"``, ``"right"``, or one of them for each branch: which factor comes first. Branches are summed,
            so their sequence doesn't matter; left-first ones are kept in front.
        activation: name of φ: gelu, relu or tanh.
        bias: learnable inner and output biases; one output bias serves all branches (the paper's copies are summed).
        in_features: how many features it takes, if fewer than the shape has room for (with ``pad``).
        out_features: how many features it gives, if fewer than the shape has room for (with ``pad``).
        pad: allow that, for widths without balanced factors: zeros are added behind the input, the output is cropped.
        device: where the parameters lie.
        dtype: of the parameters.

    Shape:
        input ``(*, in_features)``, output ``(*, out_features)``.

    Cost:
        with two factors ``m1*n1 + m2*n2`` weights and ``m1*n2`` (left) or ``n1*m2`` (right) inner biases a branch;
        multiply-adds a sample in ``macs_per_sample``.

    Raises:
        ValueError: a size below 1, shapes that don't multiply to the features, a rank below 1 or above the useful
            maximum, orders that don't match the rank, an unknown activation.

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
        in_features: int | None = None,
        out_features: int | None = None,
        pad: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_shape,
            out_shape,
            rank,
            in_features=in_features,
            out_features=out_features,
            pad=pad,
            device=device,
            dtype=dtype,
        )
        self.order: tuple[Order, ...] = tuple(sorted(check_orders(order, rank)))
        self.activation = activation
        self._activation = get_activation(activation)
        self.macs_per_sample = sum(dual_macs(self.in_shape, self.out_shape, each) for each in self.order)
        self._left = self.order.count("left")
        self.left_biases = self._inner_biases(self._left if bias else 0, "left")
        self.right_biases = self._inner_biases(rank - self._left if bias else 0, "right")
        self.bias = nn.Parameter(self._new(self.out_features)) if bias else None
        self.reset_parameters()

    def _inner_biases(self, branches: int, order: Order) -> nn.ParameterList:
        shapes: list[Shape] = inner_shapes(self.in_shape, self.out_shape, order) if branches else []
        return nn.ParameterList(self._new(branches, *shape) for shape in shapes)

    def reset_parameters(self, init: Init = "level") -> None:
        """Draw the factors anew; biases become zero.

        Args:
            init: ``"level"`` keeps the variance of pre-activations at 1 through any depth and rank, if what comes in
                has passed the same activation: all first factors of one order are one random matrix with orthonormal
                rows (or columns) that sum to zero, and all last ones another. Independent entries would keep it
                only on average over draws. The zero sums matter because an activation's mean, where it isn't zero,
                gives each row of the product its own scale, and the scales multiply with depth.
                ``"glorot"``: uniform with variance ``2 / (fan_in + fan_out)``, each factor by itself: Keras's
                default, presumably the paper's.
        """
        check_init(init)
        with torch.no_grad():
            if init == "glorot":
                for factor in self.factors:
                    bound = math.sqrt(6 / (factor.shape[1] + factor.shape[2]))
                    factor.uniform_(-bound, bound)
            else:
                self._reset_level(slice(self._left), "left")
                self._reset_level(slice(self._left, None), "right")
            for bias in (*self.left_biases, *self.right_biases):
                bias.zero_()
            if self.bias is not None:
                self.bias.zero_()

    def _reset_level(self, which: slice, order: Order) -> None:
        """Fill the factors of the branches that go in this order."""
        branches = len(range(self.rank)[which])
        if branches == 0:
            return
        gain = 1 / activation_moments(self.activation)[1]
        first, *between, last = (self.factors[axis][which] for axis in axes(order, len(self.factors)))
        first.copy_(zero_sum_orthogonal(branches * first.shape[1], first.shape[2], gain).reshape(first.shape))
        for factor in between:
            for branch in factor:
                branch.copy_(zero_sum_orthogonal(branch.shape[0], branch.shape[1], gain))
        # The last factors lie side by side: they sum over the branches, of which these are only a part.
        share = gain * math.sqrt(branches / self.rank)
        wide = zero_sum_orthogonal(last.shape[1], branches * last.shape[2], share)
        last.copy_(wide.reshape(last.shape[1], branches, last.shape[2]).transpose(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(*, in_features)`` to ``(*, out_features)``."""
        x, factors, phi = self._padded(x), list(self.factors), self._activation
        lefts, rights, left = list(self.left_biases), list(self.right_biases), self._left
        if not 0 < left < self.rank:
            # The bias goes along where it can: one pass through the output less.
            bias = self.bias if self._whole else None
            y = apply(x, factors, phi, lefts or rights, bias=bias, order=self.order[0])
            if bias is not None:
                return y
        else:
            y = apply(x, [each[:left] for each in factors], phi, lefts, bias=None, order="left")
            y = y + apply(x, [each[left:] for each in factors], phi, rights, bias=None, order="right")
        y = y if self._whole else y[..., : self.out_features]
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """What the layer is, for ``repr``."""
        orders = self.order[0] if len(set(self.order)) == 1 else self.order
        return f"{self._described()}, order={orders!r}, activation={self.activation!r}, bias={self.bias is not None}"
