"""Matrix products by either library."""

import pytest
import torch

from kronmodel.nn import gemm


@pytest.mark.parametrize("library", ["the fastest", "torch's own"])
@pytest.mark.parametrize("sizes", [(3, 5, 2), (24, 30, 2048)], ids=["small", "large"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_numpy(
    library: str, sizes: tuple[int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library == "torch's own":
        monkeypatch.setattr(gemm, "_LINEAR", None)
    n, k, m = sizes
    a, b = torch.randn(n, k, dtype=torch.float64), torch.randn(k, m, dtype=torch.float64)
    want = torch.from_numpy(a.numpy() @ b.numpy())
    for left in (a, a.t().contiguous().t()):
        for right in (b, b.t().contiguous().t()):
            got = gemm.matmul(left.to(dtype), right.to(dtype))
            assert got.dtype == dtype
            torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)
