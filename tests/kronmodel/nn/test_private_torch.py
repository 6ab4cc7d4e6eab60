"""Undocumented names of torch: all are there in the versions supported, and layers compute without each of them."""

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import kronmodel
from kronmodel.nn import _private_torch
from tests.kronmodel.nn.test_functional import dense_dual, dense_linear

GUARDS = [
    "torch._C._is_tracing",
    "torch._C._are_functorch_transforms_active",
    "torch.autograd.forward_ad._current_level",
]
KERNELS = ["torch.ops.mkldnn._linear_pointwise"]
GRADIENTS = [f"torch.ops.aten.{name}_backward.grad_input" for name in ("gelu", "threshold", "tanh")]


def test_this_version_of_torch_has_every_undocumented_name() -> None:
    missing = ", ".join(_private_torch.MISSING)
    assert not missing, (
        f"torch {torch.__version__} no longer has {missing}: layers still compute, but more slowly; "
        "find the new names in kronmodel/nn/_private_torch.py"
    )


def hide(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a name away from torch. Operators come into being when asked for, so the object above them is replaced."""
    if path.startswith("torch.ops."):
        _, _, namespace, operator, *rest = path.split(".")
        if rest:
            monkeypatch.setattr(getattr(torch.ops, namespace), operator, SimpleNamespace())
        else:
            monkeypatch.setattr(torch.ops, namespace, SimpleNamespace())
    else:
        module, name = path.rsplit(".", 1)
        holder: Any = torch
        for part in module.split(".")[1:]:
            holder = getattr(holder, part)
        monkeypatch.delattr(holder, name)


@pytest.mark.parametrize("path", [None, *GUARDS, *KERNELS, *GRADIENTS])
def test_values_and_gradients_stay_where_torch_lacks_a_name(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if path is not None:
        hide(path, monkeypatch)
    for name in [name for name in sys.modules if name == "kronmodel.nn" or name.startswith("kronmodel.nn.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(kronmodel, "nn", kronmodel.nn)  # what the import below sets anew
    functional: Any = importlib.import_module("kronmodel.nn.functional")
    private: Any = importlib.import_module("kronmodel.nn._private_torch")
    assert functional._fused_cpu.mkldnn_linear is private.mkldnn_linear
    assert private is not _private_torch
    assert (() if path is None else (path,)) == private.MISSING
    assert private.runs_eagerly() == (path not in GUARDS)

    n, m, rank, batch = (24, 30), (26, 22), 2, 96  # large enough for oneDNN
    torch.manual_seed(3)
    x = torch.randn(batch, 720, requires_grad=True)
    factors = [torch.randn(rank, m[axis], n[axis]).mul(0.2).requires_grad_() for axis in (0, 1)]
    inner, bias = torch.randn(rank, 26, 30, requires_grad=True), torch.randn(26 * 22, requires_grad=True)
    inputs = [x, *factors, inner, bias]
    exact = [each.detach().double().requires_grad_() for each in inputs]
    direction = torch.randn(batch, 26 * 22)
    for activation, function in (("gelu", F.gelu), ("relu", F.relu), ("tanh", torch.tanh), (None, None)):
        if function is None:
            used = [0, 1, 2, 4]
            got, want = functional.kron_linear(x, factors, bias), dense_linear(exact[0], exact[1:3], exact[4])
        else:
            used = [0, 1, 2, 3, 4]
            got = functional.kron_dual(x, factors, activation, inner_biases=[inner], bias=bias)
            want = dense_dual(exact[0], exact[1:3], exact[3:4], exact[4], "left", function)
        gradients = torch.autograd.grad(got, [inputs[index] for index in used], direction)
        wanted = torch.autograd.grad(want, [exact[index] for index in used], direction.double())
        for each, exactly in zip((got, *gradients), (want, *wanted), strict=True):
            torch.testing.assert_close(each.double(), exactly, rtol=1e-4, atol=1e-5 * exactly.detach().std().item())
