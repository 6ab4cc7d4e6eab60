"""Undocumented names of torch: all are there in the versions supported, and layers compute without each of them."""

import importlib
import sys
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import kronmodel
from kronmodel import kron_dual
from kronmodel.nn import _native, _private_torch
from tests.kronmodel.nn.test_functional import dense_dual

GUARDS = [
    "torch._C._is_tracing",
    "torch._C._are_functorch_transforms_active",
    "torch.autograd.forward_ad._current_level",
    "torch._C._len_torch_dispatch_stack",
    "torch._C._len_torch_function_stack",
]


def test_this_version_of_torch_has_every_undocumented_name() -> None:
    missing = ", ".join(_private_torch.MISSING)
    assert not missing, (
        f"torch {torch.__version__} no longer has {missing}: layers still compute, but more slowly; "
        "find the new names in kronmodel/nn/_private_torch.py"
    )


def hide(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a name away from torch."""
    module, name = path.rsplit(".", 1)
    holder: Any = torch
    for part in module.split(".")[1:]:
        holder = getattr(holder, part)
    monkeypatch.delattr(holder, name)


@pytest.mark.parametrize("path", [None, *GUARDS])
def test_values_and_gradients_stay_where_torch_lacks_a_name(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if path is not None:
        hide(path, monkeypatch)
    monkeypatch.delitem(sys.modules, "kronmodel.nn._private_torch")
    monkeypatch.setattr(kronmodel.nn, "_private_torch", _private_torch)  # what the import below sets anew
    private: Any = importlib.import_module("kronmodel.nn._private_torch")
    assert private is not _private_torch
    assert (() if path is None else (path,)) == private.MISSING
    assert private.runs_eagerly() == (path is None)
    monkeypatch.setattr(_native, "runs_eagerly", private.runs_eagerly)

    n, m, rank = (24, 30), (26, 22), 2
    torch.manual_seed(3)
    x = torch.randn(9, 720, requires_grad=True)
    factors = [torch.randn(rank, m[axis], n[axis]).mul(0.2).requires_grad_() for axis in (0, 1)]
    inner, bias = torch.randn(rank, 26, 30, requires_grad=True), torch.randn(26 * 22, requires_grad=True)
    inputs = [x, *factors, inner, bias]
    exact = [each.detach().double().requires_grad_() for each in inputs]
    direction = torch.randn(9, 26 * 22)
    got = kron_dual(x, factors, "gelu", inner_biases=[inner], bias=bias)
    want = dense_dual(exact[0], exact[1:3], exact[3:4], exact[4], "left", F.gelu)
    gradients = torch.autograd.grad(got, inputs, direction)
    wanted = torch.autograd.grad(want, exact, direction.double())
    for each, exactly in zip((got, *gradients), (want, *wanted), strict=True):
        torch.testing.assert_close(each.double(), exactly, rtol=1e-4, atol=1e-5 * exactly.detach().std().item())
