"""Matrix products of small factors with long rows, by the library that is fastest at them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["matmul"]

# torch.mm goes to MKL, which on AMD's processors leaves half of AVX-512 unused; oneDNN, which torch ships too and which
# torch.compile calls through this very operation, is up to twice as fast there. A call costs 12 µs more.
_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
_WORTH_IT = 1 << 20  # multiply-adds


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of ``(n, k)`` and ``(k, m)``, outside of autograd."""
    if _LINEAR is None or a.dtype != torch.float32 or a.shape[0] * a.shape[1] * b.shape[1] < _WORTH_IT:
        return torch.mm(a, b)
    out: Tensor = _LINEAR(a, b.t(), None, "none", [], "")
    return out
