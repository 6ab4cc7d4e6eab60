"""Torch modules that replace compressed layers: low-rank and Monarch products, factored convolutions and embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kronmodel.compress.matrices.structures import Structure
from kronmodel.shapes import linear_macs

__all__ = ["FactoredConv", "FactoredEmbedding", "LowRankLinear", "MonarchLinear"]


class LowRankLinear(nn.Module):
    """Linear layer whose weight is a product of two matrices: ``y = left (right x) + bias``.

    Args:
        in_features: number of inputs.
        out_features: number of outputs.
        rank: inner width.
        bias: add a learnable bias.
        device: device of the parameters.
        dtype: data type of the parameters.

    Shape:
        input ``(*, in_features)``, output ``(*, out_features)``.

    Cost:
        ``rank * (in_features + out_features)`` weights, and as many multiply-adds a sample.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.left = nn.Parameter(torch.empty(out_features, rank, device=device, dtype=dtype))
        self.right = nn.Parameter(torch.empty(rank, in_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise the factors so that the product keeps the variance of its inputs, and the bias with zeros."""
        nn.init.normal_(self.right, std=self.in_features**-0.5)
        nn.init.normal_(self.left, std=self.rank**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute ``x @ weight.T + bias``."""
        return F.linear(F.linear(x, self.right), self.left, self.bias)

    @property
    def weight(self) -> Tensor:
        """Dense weight ``(out_features, in_features)`` that the factors imply, formed at each access."""
        weight: Tensor = self.left @ self.right
        return weight

    def extra_repr(self) -> str:
        """Describe the layer for ``repr``."""
        return f"{self.in_features} -> {self.out_features}, rank={self.rank}, bias={self.bias is not None}"


class MonarchLinear(nn.Module):
    """Linear layer whose weight is a Monarch matrix: two block-diagonal matrices with a transposition in between.

    ``W[(i, t), (j, p)] = Σ_k left[t, i, j, k] right[j, t, k, p]``: each of the ``n1 * t`` blocks ``(m1, n2)`` has rank
    ``rank``.

    Args:
        in_shape: ``(n1, n2)``: number of blocks of the first factor, and inputs of each.
        out_shape: ``(m1, t)``: outputs of each block of the second factor, and number of its blocks.
        rank: rank of each block.
        bias: add a learnable bias.
        device: device of the parameters.
        dtype: data type of the parameters.

    Shape:
        input ``(*, n1 * n2)``, output ``(*, m1 * t)``.

    Cost:
        ``rank * t * n1 * (m1 + n2)`` weights, and as many multiply-adds a sample.

    Reference:
        T. Dao et al., *Monarch: Expressive Structured Matrices for Efficient and Accurate Training*, arXiv 2204.00595.
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
        (self.n1, self.n2), (self.m1, self.t), self.rank = in_shape, out_shape, rank
        self.in_features, self.out_features = self.n1 * self.n2, self.m1 * self.t
        self.left = nn.Parameter(torch.empty(self.t, self.m1, self.n1, rank, device=device, dtype=dtype))
        self.right = nn.Parameter(torch.empty(self.n1, self.t, rank, self.n2, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(self.out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise the factors so that the product keeps the variance of its inputs, and the bias with zeros."""
        nn.init.normal_(self.right, std=self.n2**-0.5)
        nn.init.normal_(self.left, std=(self.n1 * self.rank) ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute ``x @ weight.T + bias`` as two batched matrix products."""
        lead = x.shape[:-1]
        parts = x.reshape(-1, self.n1, self.n2).transpose(0, 1)  # (n1, rows, n2)
        inner = parts @ self.right.reshape(self.n1, self.t * self.rank, self.n2).transpose(1, 2)  # (n1, rows, t r)
        inner = inner.reshape(self.n1, -1, self.t, self.rank).permute(2, 1, 0, 3)  # (t, rows, n1, r)
        inner = inner.reshape(self.t, -1, self.n1 * self.rank)
        y = inner @ self.left.reshape(self.t, self.m1, self.n1 * self.rank).transpose(1, 2)  # (t, rows, m1)
        y = y.permute(1, 2, 0).reshape(*lead, self.out_features)
        return y if self.bias is None else y + self.bias

    @property
    def weight(self) -> Tensor:
        """Dense weight ``(out_features, in_features)`` that the factors imply, formed at each access."""
        blocks = torch.einsum("tijk,jtkp->itjp", self.left, self.right)
        return blocks.reshape(self.out_features, self.in_features)

    def extra_repr(self) -> str:
        """Describe the layer for ``repr``."""
        shapes = f"({self.n1}, {self.n2}) -> ({self.m1}, {self.t})"
        return f"{shapes}, rank={self.rank}, bias={self.bias is not None}"


class FactoredConv(nn.Module):
    """Convolution in one or two dimensions whose kernel is a low-rank product or a sum of Kronecker products.

    The kernel as a matrix ``(out_channels, in_channels * positions)`` has the structure. Low rank: a convolution to
    ``rank`` channels, then a 1x1 one. Kronecker: the kernel's positions are in the second factor, so that one factor is
    a convolution of groups of channels, and the other mixes the groups; the cheaper order is used.

    Args:
        convolution: convolution to replace: gives channels, stride, padding and dilation; without groups.
        structure: low-rank or Kronecker structure of the matrix; of two factors, the second input size a multiple of
            the kernel's number of positions.
        factors: the structure's factors; they become the parameters.
        bias: bias ``(out_channels,)``, or None.
    """

    def __init__(
        self,
        convolution: nn.Conv1d | nn.Conv2d,
        structure: Structure,
        factors: Sequence[nn.Parameter],
        bias: nn.Parameter | None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = convolution.in_channels, convolution.out_channels
        self.kernel_size, self.stride = convolution.kernel_size, convolution.stride
        self.padding, self.dilation = convolution.padding, convolution.dilation
        self.padding_mode = convolution.padding_mode
        self._padding = list(convolution._reversed_padding_repeated_twice)
        self.structure = structure
        self.factors = nn.ParameterList(factors)
        self.bias = bias
        self._left_first = structure.kind == "kronecker" and (
            linear_macs(structure.in_shape, structure.out_shape)[0] == "left"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the convolution of ``(batch, in_channels, *positions)``, or of one sample without a batch."""
        batched = x.dim() == len(self.kernel_size) + 2
        x = x if batched else x[None]
        if self.padding_mode != "zeros":
            x = F.pad(x, self._padding, mode=self.padding_mode)
        y = self._low_rank(x) if self.structure.kind == "low-rank" else self._kronecker(x)
        if self.bias is not None:
            y = y + self.bias.reshape(-1, *[1] * len(self.kernel_size))
        return y if batched else y[0]

    def _low_rank(self, x: Tensor) -> Tensor:
        left, right = self.factors
        inner = self._convolve(x, right.reshape(-1, self.in_channels, *self.kernel_size))
        return self._mix(inner, left)

    def _kronecker(self, x: Tensor) -> Tensor:
        a, b = self.factors  # (r, m1, n1), (r, m2, n2 * positions)
        rank, m1, n1 = a.shape
        m2 = b.shape[1]
        n2 = self.in_channels // n1
        rows, size = len(x), x.shape[2:]
        kernels = b.reshape(rank, m2, n2, *self.kernel_size)
        if self._left_first:
            groups = x.reshape(rows, n1, -1)
            mixed = a.transpose(0, 1).reshape(m1 * rank, n1) @ groups  # (rows, m1 r, n2 * positions)
            inner = mixed.reshape(rows * m1, rank * n2, *size)
            y = self._convolve(inner, kernels.transpose(0, 1).reshape(m2, rank * n2, *self.kernel_size))
            size = y.shape[2:]
        else:
            inner = self._convolve(x.reshape(rows * n1, n2, *size), kernels.flatten(0, 1))  # (rows n1, r m2, ...)
            size = inner.shape[2:]
            mixed = a.permute(1, 2, 0).reshape(m1, n1 * rank)
            y = mixed @ inner.reshape(rows, n1 * rank, -1)
        result: Tensor = y.reshape(rows, self.out_channels, *size)
        return result

    def _convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        padding = self.padding if self.padding_mode == "zeros" else 0
        function = F.conv1d if len(self.kernel_size) == 1 else F.conv2d
        y: Tensor = function(x, kernel, None, self.stride, padding, self.dilation)
        return y

    def _mix(self, x: Tensor, matrix: Tensor) -> Tensor:
        function = F.conv1d if len(self.kernel_size) == 1 else F.conv2d
        y: Tensor = function(x, matrix.reshape(*matrix.shape, *[1] * len(self.kernel_size)))
        return y

    def extra_repr(self) -> str:
        """Describe the layer for ``repr``."""
        return f"{self.in_channels} -> {self.out_channels}, kernel {self.kernel_size}, {self.structure}"


class FactoredEmbedding(nn.Module):
    """Embedding whose table ``(rows, width)`` is a low-rank product or a sum of Kronecker products of two factors.

    The factors are those of the table as the weight of a linear layer from ``width`` to ``rows``, so that an output
    layer with a tied weight shares them.

    Args:
        structure: low-rank or Kronecker structure of the table.
        factors: the structure's factors; they become the parameters.
        padding_idx: row that is zero, or None.
    """

    def __init__(self, structure: Structure, factors: Sequence[nn.Parameter], padding_idx: int | None = None) -> None:
        super().__init__()
        self.structure = structure
        self.num_embeddings, self.embedding_dim = structure.out_features, structure.in_features
        self.factors = nn.ParameterList(factors)
        self.padding_idx = padding_idx

    def forward(self, indices: Tensor) -> Tensor:
        """Look up the rows ``(*, width)`` of indices ``(*)``."""
        if self.structure.kind == "low-rank":
            left, right = self.factors  # (rows, r), (r, width)
            y: Tensor = F.embedding(indices, left) @ right
        else:
            a, b = self.factors  # (r, m1, n1), (r, m2, n2)
            m2 = b.shape[1]
            first = F.embedding(indices.div(m2, rounding_mode="floor"), a.transpose(0, 1).flatten(1))
            second = F.embedding(indices.remainder(m2), b.transpose(0, 1).flatten(1))
            first = first.reshape(*indices.shape, len(a), a.shape[2])
            second = second.reshape(*indices.shape, len(b), b.shape[2])
            y = (first.transpose(-1, -2) @ second).flatten(-2)  # (*, n1, n2) -> (*, width)
        if self.padding_idx is None:
            return y
        return y * (indices != self.padding_idx).unsqueeze(-1).to(y.dtype)

    @property
    def weight(self) -> Tensor:
        """Table ``(rows, width)`` that the factors imply, formed at each access."""
        first, second = self.factors
        if self.structure.kind == "low-rank":
            table: Tensor = first @ second
            return table
        terms = [torch.kron(a, b) for a, b in zip(first, second, strict=True)]
        return torch.stack(terms).sum(0)

    def extra_repr(self) -> str:
        """Describe the layer for ``repr``."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.structure}"
