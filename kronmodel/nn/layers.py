"""Kronecker layers as PyTorch modules: ``KroneckerLinear`` and ``KroneckerDual``."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from kronmodel.nn._composite import LayerForm
from kronmodel.nn.activations import Activation, Function, activation_moments, activation_name, get_activation
from kronmodel.nn.base import KroneckerLayer, entries
from kronmodel.nn.functional import branches_by_order, inner_shapes, linear_order
from kronmodel.nn.init import Init, check_init, fill_orthogonal
from kronmodel.nn.nearest import nearest_kronecker
from kronmodel.shapes import (
    Order,
    Shape,
    balanced_shape,
    check_linear_rank,
    check_orders,
    check_rank,
    dual_macs,
    linear_macs,
)

__all__ = ["KroneckerDual", "KroneckerLinear"]


class KroneckerLinear(KroneckerLayer):
    """Linear layer whose weight is a sum of Kronecker products; a replacement for ``nn.Linear``.

    Args:
        in_shape: factor sizes ``(n1, n2, ...)``; the layer takes ``n1 * n2 * ...`` features. Or the number of features,
            for the most balanced factor sizes.
        out_shape: equally many factor sizes ``(m1, m2, ...)``; the layer returns ``m1 * m2 * ...`` features. Or the
            number of features.
        rank: number of Kronecker terms.
        bias: add a learnable bias of ``out_features`` values.
        in_features: number of input features, if fewer than the product of ``in_shape`` (with ``pad``).
        out_features: number of output features, if fewer than the product of ``out_shape`` (with ``pad``).
        pad: allow fewer features than the shapes' products: the input is padded with zeros, the output is cropped.
        device: device of the parameters.
        dtype: data type of the parameters.

    Shape:
        input ``(*, in_features)``, output ``(*, out_features)``, contiguous; the weight ``(out_features, in_features)``
        is formed only where :attr:`weight` is read.

    Cost:
        ``rank * (m1*n1 + m2*n2 + ...)`` weights; multiply-adds a sample in ``macs_per_sample``.

    Raises:
        PrimeWidthError: a number of features is a prime above 3, and ``pad`` is not set.
        ValueError: a size below 1, shapes that don't multiply to the features, or a rank below 1 or above the useful
            maximum, with two factors ``min(m1*n1, m2*n2)``.

    Example:
        >>> KroneckerLinear((28, 28), (2, 5), rank=2)(torch.zeros(7, 784)).shape
        torch.Size([7, 10])

    Reference:
        Hogue, Kirby & Narayan, arXiv 2204.04273.
    """

    def __init__(
        self,
        in_shape: Sequence[int] | int,
        out_shape: Sequence[int] | int,
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
        self.macs_per_sample = self.rank * linear_macs(self.in_shape, self.out_shape)[1]
        self.bias = nn.Parameter(torch.empty(self.out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        rank: int = 1,
        *,
        in_shape: Sequence[int] | None = None,
        out_shape: Sequence[int] | None = None,
        pad: bool = False,
    ) -> Self:
        """Create the layer whose weight is nearest to that of a dense layer in the Frobenius norm.

        Trained weights are rarely near a sum of few Kronecker products: :func:`kronmodel.compress.compress` fits the
        layer's outputs on data instead, which keeps far more accuracy. Data type, device, ``requires_grad`` and mode
        are the dense layer's.

        Args:
            linear: dense layer; it is not changed.
            rank: number of Kronecker terms.
            in_shape: factor sizes of the inputs; by default two, as equal as possible.
            out_shape: factor sizes of the outputs; by default as many as ``in_shape`` has, as equal as possible.
            pad: allow shapes with larger products than the dense layer's widths, and choose such for prime widths.

        Raises:
            PrimeWidthError: a width without a given shape is a prime above 3, and ``pad`` is not set.
            ValueError: a shape doesn't fit the dense layer, or the rank is out of range.
        """
        count = len(in_shape if in_shape is not None else out_shape if out_shape is not None else (0, 0))
        shapes = [
            balanced_shape(width, factors=count, pad=pad) if shape is None else tuple(shape)
            for shape, width in ((in_shape, linear.in_features), (out_shape, linear.out_features))
        ]
        weight = linear.weight.detach()
        layer = cls(
            shapes[0],
            shapes[1],
            rank,
            bias=linear.bias is not None,
            in_features=linear.in_features,
            out_features=linear.out_features,
            pad=pad,
            device=weight.device,
            dtype=weight.dtype,
        )
        missing = (math.prod(layer.in_shape) - weight.shape[1], math.prod(layer.out_shape) - weight.shape[0])
        padded = nn.functional.pad(weight, (0, missing[0], 0, missing[1]))
        factors = nearest_kronecker(padded, layer.in_shape, layer.out_shape, layer.rank)
        trained = linear.weight.requires_grad
        layer.factors = nn.ParameterList(nn.Parameter(factor, requires_grad=trained) for factor in factors)
        if layer.bias is not None:
            layer.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=linear.bias.requires_grad)
        return layer.train(linear.training)

    def _checked_rank(self, rank: int) -> int:
        return check_linear_rank(rank, self.in_shape, self.out_shape)

    def reset_parameters(self, gain: float = 1.0, init: Literal["normal"] | Init = "normal") -> None:
        """Reinitialise the factors at random, and set the bias to zero.

        Args:
            gain: root mean square of the outputs for inputs of variance 1.
            init: ``"normal"``: normal factors, with which the implied weight has variance ``gain² / (n1 * n2 * ...)``
                whatever the rank.
                ``"level"``: zero-mean orthogonal, for a layer behind an activation of standard deviation ``1 / gain``:
                its outputs have variance 1 through any depth and rank; a mean of the activation is ignored.
                ``"glorot"``: as ``"normal"``, but the implied weight has the variance of Glorot's initialisation of a
                dense layer, ``2 / (fan_in + fan_out)``; ``gain`` is not used.
        """
        if init != "normal":
            check_init(init)
        if init == "level":
            order, _ = linear_macs(self.in_shape, self.out_shape)
            fill_orthogonal(list(self.factors), range(self.rank), order, gain=gain, linear=True)
        else:
            n, m = math.prod(self.in_shape), math.prod(self.out_shape)
            total = 2 * n / (n + m) if init == "glorot" else gain**2
            part = (total / self.rank) ** (1 / (2 * len(self.factors)))
            for factor, size in zip(self.factors, self.in_shape, strict=True):
                nn.init.normal_(factor, std=part / math.sqrt(size))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _layer(self, bias: Tensor | None, outer: Function | None = None) -> LayerForm:
        factors = entries(self.factors)
        return LayerForm(factors, linear_order(factors), bias=bias, outer=outer)

    @property
    def weight(self) -> Tensor:
        """Dense weight ``(out_features, in_features)`` that the factors imply, differentiable, formed at each access.

        For inspection, and for code that reads the weight of an ``nn.Linear``, such as the fast path of
        ``nn.TransformerEncoderLayer``. The weight is not a parameter: ``state_dict`` and optimizers see the factors.
        """
        try:
            factors = list(self.factors)
        except AttributeError as error:
            # nn.Module would replace an AttributeError by one that says that there is no attribute ``weight``.
            raise RuntimeError(f"the weight can't be formed: {error}") from error
        terms = (functools.reduce(torch.kron, term) for term in zip(*factors, strict=True))
        weight: Tensor = functools.reduce(torch.add, terms)
        return weight[: self.out_features, : self.in_features].contiguous()

    def extra_repr(self) -> str:
        """Describe the layer for ``repr``."""
        return f"{self._described()}, bias={self.bias is not None}"


class KroneckerDual(KroneckerLayer):
    """Kronecker dual layer: each branch applies its factors with a bias and an activation in between.

    With two factors ``Y = Σ_k φ(A_k X + C_k) B_kᵀ + D`` for the branches in the order ``"left"``, and
    ``A_k φ(X B_kᵀ + C_k)`` for those in the order ``"right"``. The layer applies no activation to its output.

    Args:
        in_shape: factor sizes ``(n1, n2, ...)``; the layer takes ``n1 * n2 * ...`` features. Or the number of features,
            for the most balanced factor sizes.
        out_shape: equally many factor sizes ``(m1, m2, ...)``; the layer returns ``m1 * m2 * ...`` features. Or the
            number of features.
        rank: number of branches; it may exceed ``min(m1*n1, m2*n2)``, since branches are separated by activations.
        order: factor that is applied first, ``"left"`` or ``"right"``; one for all branches or one for each. Branch k
            has ``order[k]``; ``left_biases`` and ``right_biases`` keep the sequence of their branches.
        activation: φ: gelu, relu, tanh, or any elementwise function; a module is registered with its parameters. Only
            the named ones are computed by the native kernel.
        bias: learnable inner and output biases; one output bias serves all branches (the paper's copies are summed).
        in_features: number of input features, if fewer than the product of ``in_shape`` (with ``pad``).
        out_features: number of output features, if fewer than the product of ``out_shape`` (with ``pad``).
        pad: allow fewer features than the shapes' products: the input is padded with zeros, the output is cropped.
        device: device of the parameters.
        dtype: data type of the parameters.

    Shape:
        input ``(*, in_features)``, output ``(*, out_features)``, contiguous.

    Cost:
        with two factors ``m1*n1 + m2*n2`` weights and ``m1*n2`` (left) or ``n1*m2`` (right) inner biases a branch;
        multiply-adds a sample in ``macs_per_sample``.

    Raises:
        PrimeWidthError: a number of features is a prime above 3, and ``pad`` is not set.
        ValueError: a size below 1, shapes that don't multiply to the features, a rank below 1, orders that don't match
            the rank, an unknown activation, or one that is not elementwise.

    Example:
        >>> KroneckerDual((28, 28), (4, 8), rank=2, order=["left", "right"])(torch.zeros(7, 784)).shape
        torch.Size([7, 32])

    Reference:
        Hogue, Kirby & Narayan, arXiv 2204.04273.
    """

    activation: Activation

    def __init__(
        self,
        in_shape: Sequence[int] | int,
        out_shape: Sequence[int] | int,
        rank: int = 1,
        *,
        order: Order | Sequence[Order] = "left",
        activation: Activation = "tanh",
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
        get_activation(activation)
        self.order = check_orders(order, self.rank)
        self.activation = activation
        self.macs_per_sample = sum(dual_macs(self.in_shape, self.out_shape, each) for each in self.order)
        self._branches = branches_by_order(self.order)

        def inner_biases(order: Order) -> nn.ParameterList:
            branches = len(self._branches.get(order, ())) if bias else 0
            shapes: list[Shape] = inner_shapes(self.in_shape, self.out_shape, order) if branches else []
            return nn.ParameterList(torch.empty(branches, *shape, device=device, dtype=dtype) for shape in shapes)

        self.left_biases = inner_biases("left")
        self.right_biases = inner_biases("right")
        self.bias = nn.Parameter(torch.empty(self.out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def _checked_rank(self, rank: int) -> int:
        return check_rank(rank)

    def reset_parameters(self, init: Init = "level") -> None:
        """Reinitialise the factors at random, and set the biases to zero; an activation's parameters are unchanged.

        Args:
            init: ``"level"``, zero-mean orthogonal: keeps the variance of pre-activations at 1 through any depth and
                rank, if inputs have passed the same activation. All first factors of one order are one random
                matrix with orthonormal rows (or columns) that sum to zero, and all last ones another. Independent
                entries would keep it only on average over draws. The zero sums matter because an activation's mean,
                where it isn't zero, gives each row of the product its own scale, and the scales multiply with depth.
                ``"glorot"``: uniform with variance ``2 / (fan_in + fan_out)``, each factor by itself: Keras's
                default, presumably the paper's.
        """
        check_init(init)
        factors = list(self.factors)
        with torch.no_grad():
            if init == "glorot":
                for factor in factors:
                    bound = math.sqrt(6 / (factor.shape[1] + factor.shape[2]))
                    factor.uniform_(-bound, bound)
            else:
                gain = 1 / activation_moments(self.activation, factors[0])[1]
                for order, branches in self._branches.items():
                    fill_orthogonal(factors, branches, order, gain=gain)
            for bias in (*self.left_biases, *self.right_biases):
                bias.zero_()
            if self.bias is not None:
                self.bias.zero_()

    def _tensors(self) -> list[Any]:
        biases = (*entries(self.left_biases), *entries(self.right_biases))
        return [self.activation, self._branches, *super()._tensors(), *biases]

    def _layer(self, bias: Tensor | None, outer: Function | None = None) -> LayerForm:
        inner: dict[Order, list[Tensor]] = {"left": entries(self.left_biases), "right": entries(self.right_biases)}
        return LayerForm(entries(self.factors), self._branches, get_activation(self.activation), inner, bias, outer)

    def extra_repr(self) -> str:
        """Describe the layer for ``repr``."""
        orders = self.order[0] if len(set(self.order)) == 1 else self.order
        described = f"{self._described()}, order={orders!r}, activation={activation_name(self.activation)!r}"
        return f"{described}, bias={self.bias is not None}"
