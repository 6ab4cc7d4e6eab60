"""Base class of the Kronecker layers: shapes, rank, padding and factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import is_
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module

from kronmodel.nn._composite import LayerForm, add
from kronmodel.nn.activations import Function
from kronmodel.nn.functional import apply_layers
from kronmodel.shapes import PrimeWidthError, Shape, balanced_shape, check_features, check_shapes, whole_number

__all__ = ["KroneckerLayer", "entries"]

_NAMES = tuple(map(str, range(8)))


def entries(parameters: nn.ParameterList) -> list[Tensor]:
    """List the entries of a ParameterList: ten times faster than its iterator, which looks each up as an attribute.

    A network has a dozen, and Python that a training step runs between two passes of the kernel finds cold caches.
    """
    own = parameters._parameters
    count = len(parameters)
    if tuple(own) == _NAMES[:count]:  # else an entry is parametrized, or there are more
        return list(own.values())  # type: ignore[arg-type]
    return list(parameters)


class KroneckerLayer(nn.Module):
    """Base class of the Kronecker layers: shapes, rank, zero padding, and the factors ``(rank, m_i, n_i)``."""

    bias: nn.Parameter | None
    _form: LayerForm | None = None  # of the last call of `joined`, and what it was made of
    _formed_of: Sequence[Any] = ()

    def __init__(
        self,
        in_shape: Sequence[int] | int,
        out_shape: Sequence[int] | int,
        rank: int,
        *,
        in_features: int | None,
        out_features: int | None,
        pad: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        count = next((len(shape) for shape in (in_shape, out_shape) if isinstance(shape, Sequence)), 2)
        if in_features is None and (width := whole_number(in_shape)) is not None:
            in_shape, in_features = _balanced("in_features", width, count, pad=pad), width
        if out_features is None and (width := whole_number(out_shape)) is not None:
            out_shape, out_features = _balanced("out_features", width, count, pad=pad), width
        # A number beside other features is refused here, like anything that is no shape.
        self.in_shape, self.out_shape = check_shapes(cast("Sequence[int]", in_shape), cast("Sequence[int]", out_shape))
        self.in_features = check_features("in_features", in_features, self.in_shape, pad=pad)
        self.out_features = check_features("out_features", out_features, self.out_shape, pad=pad)
        self.rank = self._checked_rank(rank)
        self._missing = math.prod(self.in_shape) - self.in_features
        self._whole = math.prod(self.out_shape) == self.out_features
        self.factors = nn.ParameterList(
            torch.empty(self.rank, m, n, device=device, dtype=dtype)
            for m, n in zip(self.out_shape, self.in_shape, strict=True)
        )

    @classmethod
    def from_features(
        cls, in_features: int, out_features: int, rank: int = 1, *, factors: int = 2, pad: bool = False, **options: Any
    ) -> Self:
        """Create a layer from its input and output widths, like ``nn.Linear``, with the most balanced factor sizes.

        Args:
            in_features: number of input features.
            out_features: number of output features.
            rank: number of Kronecker terms or branches.
            factors: number of factors.
            pad: allow larger shapes for widths without balanced factors, such as primes: the input is padded with
                zeros at its end, and the output is cropped.
            **options: further arguments of the layer's constructor.

        Raises:
            PrimeWidthError: a width is a prime above 3, and ``pad`` is not set.
            ValueError: an argument is refused by the layer's constructor.

        Example:
            >>> from kronmodel import KroneckerLinear
            >>> layer = KroneckerLinear.from_features(768, 3072, rank=4)
            >>> layer.in_shape, layer.out_shape
            ((24, 32), (48, 64))
        """
        widths = {"in_features": in_features, "out_features": out_features}
        shapes = [_balanced(name, width, factors, pad=pad) for name, width in widths.items()]
        sizes: dict[str, Any] = dict(widths)
        return cls(shapes[0], shapes[1], rank, pad=pad, **sizes, **options)

    def _checked_rank(self, rank: int) -> int:
        raise NotImplementedError

    def joined(self, outer: Function | None) -> LayerForm | None:
        """Return the layer, with an activation of its output, in the form of which several are computed at once.

        Returns:
            None if the layer pads or crops, or if hooks or another ``forward`` need it to be called by itself.
        """
        hooked = any(
            (
                self._forward_hooks,
                self._forward_pre_hooks,
                self._backward_hooks,
                self._backward_pre_hooks,
                module._global_forward_hooks,
                module._global_forward_pre_hooks,
                module._global_backward_hooks,
                module._global_backward_pre_hooks,
            )
        )
        if hooked or self._missing or not self._whole or type(self).forward is not KroneckerLayer.forward:
            return None
        form, tensors = self._form, self._tensors()
        # The form of the last call serves as long as nothing in it has been replaced.
        if form is None or torch.compiler.is_compiling() or form.outer is not outer or not self._is_formed_of(tensors):
            form = self._layer(self.bias, outer)
            # Not of tensors that an operation has given, as of a parametrization: these would keep its graph alive.
            if not torch.compiler.is_compiling() and not any(
                isinstance(each, Tensor) and each.grad_fn for each in tensors
            ):
                self._form, self._formed_of = form, tensors
        return form

    def _is_formed_of(self, tensors: list[Any]) -> bool:
        return len(tensors) == len(self._formed_of) and all(map(is_, tensors, self._formed_of))

    def _tensors(self) -> list[Any]:
        """List everything that may be replaced in the layer's form, such as its parameters."""
        return [self.bias, *entries(self.factors)]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in {"_form", "_formed_of"}}

    def _layer(self, bias: Tensor | None, outer: Function | None = None) -> LayerForm:
        """Return the parameters and functions of the layer, with this bias."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer's output.

        Args:
            x: ``(*, in_features)``.

        Returns:
            ``(*, out_features)``, contiguous.
        """
        if x.dim() < 1 or x.shape[-1] != self.in_features:
            raise ValueError(f"features must have shape (*, {self.in_features}), got {tuple(x.shape)}")
        if self._missing:
            x = F.pad(x, (0, self._missing))
        if self._whole:
            return apply_layers(x, [self._layer(self.bias)])
        y = apply_layers(x, [self._layer(None)])[..., : self.out_features]
        return y.contiguous() if self.bias is None else add(y, self.bias)

    def _described(self) -> str:
        padded = (self.in_features, self.out_features) != (math.prod(self.in_shape), math.prod(self.out_shape))
        features = f", in_features={self.in_features}, out_features={self.out_features}" if padded else ""
        return f"{self.in_shape} -> {self.out_shape}, rank={self.rank}{features}"


def _balanced(name: str, width: int, factors: int, *, pad: bool) -> Shape:
    """Choose the most balanced factor sizes of a width; ``name`` is the width's in messages."""
    try:
        return balanced_shape(width, factors=factors, pad=pad)
    except PrimeWidthError as error:
        raise PrimeWidthError(f"{name}: {error}", error.width, error.padded) from None
