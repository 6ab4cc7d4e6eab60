"""Layers of a torch module that can be compressed: found, described as matrices, and rebuilt from fitted factors."""

from __future__ import annotations

import copy
import fnmatch
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from kronmodel.compress.matrices.candidates import Fitted, MatrixLayer
from kronmodel.compress.matrices.moments import Array
from kronmodel.compress.matrices.structures import KINDS, Kind, Structure
from kronmodel.compress.modules.layers import FactoredConv, FactoredEmbedding, LowRankLinear, MonarchLinear
from kronmodel.nn.layers import KroneckerLinear

__all__ = ["Site", "Skipped", "build", "find_sites", "is_transposed", "weight_of"]

SMALLEST = 256  # weights below which a layer is left alone
LINEAR = (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear)


@dataclass(frozen=True, eq=False)
class Site:
    """Weight of a model that can be compressed, with all modules that use it.

    Attributes:
        names: qualified names of the modules; the first is the layer's name.
        modules: modules of the original model that use the weight; several if it is tied.
        layer: the weight as a matrix.
        transposed: whether the matrix is the transposed weight of the module: that of an embedding, whose inputs are
            indices of rows.
    """

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]
    layer: MatrixLayer
    transposed: bool = False


@dataclass(frozen=True)
class Skipped:
    """Layer that is left alone, and why."""

    name: str
    reason: str


def find_sites(
    model: nn.Module, include: Iterable[str] | None = None, exclude: Iterable[str] = ()
) -> tuple[list[Site], list[Skipped]]:
    """Find the layers of a model that can be compressed.

    Args:
        model: any module.
        include: patterns of qualified names, such as ``"encoder.*"``; None for all.
        exclude: patterns of names to leave alone.

    Returns:
        The layers in the order of ``named_modules``, and those of a supported type that are left alone.
    """
    patterns, excluded = None if include is None else tuple(include), tuple(exclude)
    found: dict[int, list[tuple[str, nn.Module]]] = {}
    skipped: list[Skipped] = []
    for name, module in model.named_modules():
        if not _is_supported_type(module):
            continue
        reason = _obstacle(module)
        if (patterns is not None and not _matches(name, patterns)) or _matches(name, excluded):
            reason = "excluded"
        if reason:
            skipped.append(Skipped(name, reason))
        else:
            found.setdefault(id(weight_of(module)), []).append((name, module))
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    sites = []
    for key, uses in found.items():
        names = tuple(name for name, _ in uses)
        if owners[key] != len(uses):
            skipped += [Skipped(name, "its weight is shared with a module that is left alone") for name in names]
            continue
        kinds = {_kind(module) for _, module in uses}
        if len(uses) > 1 and not kinds <= {"linear", "embedding"}:
            skipped += [Skipped(name, "its weight is shared by layers of different types") for name in names]
            continue
        sites.append(_site(names, tuple(module for _, module in uses)))
    return sites, skipped


def weight_of(module: nn.Module) -> nn.Parameter:
    """Return the weight of a module of a supported type."""
    weight = module._parameters["weight"]
    if weight is None:
        raise TypeError(f"{type(module).__name__} has no weight")
    return weight


def is_transposed(module: nn.Module) -> bool:
    """Tell whether a module keeps its weight as ``(in, out)``, as the ``Conv1D`` of Hugging Face does."""
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return "convolution"
    return "transposed" if is_transposed(module) else "linear"


def _is_supported_type(module: nn.Module) -> bool:
    # Subclasses compute something else, such as fake quantisation; those of parametrised modules are torch's own.
    types = (*LINEAR, nn.Conv1d, nn.Conv2d, nn.Embedding)
    return (
        type(module) in types
        or is_transposed(module)
        or (hasattr(module, "parametrizations") and isinstance(module, types))
    )


def _obstacle(module: nn.Module) -> str:
    """Say why a module of a supported type can't be replaced; empty if it can."""
    weight = module._parameters.get("weight")
    if weight is None or hasattr(module, "parametrizations"):
        return "its weight is computed from other parameters"
    is_grouped = isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups != 1
    is_special = isinstance(module, nn.Embedding) and (module.max_norm is not None or module.sparse)
    obstacles = (
        (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks, "it has hooks"),
        (not weight.dtype.is_floating_point, f"its weight is {weight.dtype}, expected floating-point values"),
        (weight.device.type == "meta", "its weight is not in memory"),
        (is_grouped, "a convolution with groups"),
        (is_special, "an embedding with max_norm or sparse gradients"),
        (weight.numel() < SMALLEST, f"fewer than {SMALLEST} weights"),
    )
    reason = next((text for applies, text in obstacles if applies), "")
    if not reason and not bool(weight.detach().isfinite().all()):
        reason = "its weight has values that are not finite"
    return reason


def _site(names: tuple[str, ...], modules: tuple[nn.Module, ...]) -> Site:
    # With an output layer among tied ones, the matrix is that of the output layer.
    main = next((module for module in modules if _kind(module) != "embedding"), modules[0])
    weight = weight_of(main)
    transposed = _kind(main) in ("embedding", "transposed")
    matrix = _array(weight.detach()).reshape(len(weight), -1)
    # Modules with a tied weight keep their own biases.
    bias = getattr(main, "bias", None) if len(modules) == 1 else None
    kernel = math.prod(main.kernel_size) if isinstance(main, nn.Conv1d | nn.Conv2d) else 1
    factored: tuple[Kind, ...] = ("dense", "low-rank", "kronecker")
    is_linear = all(_kind(module) in ("linear", "transposed") for module in modules)
    layer = MatrixLayer(
        name=names[0],
        weight=matrix.T if transposed else matrix,
        bias=None if bias is None else _array(bias.detach()),
        itemsize=weight.element_size(),
        structures=KINDS if is_linear else factored,
        kernel=kernel,
        is_refittable=len(modules) == 1 and not isinstance(main, nn.Embedding),
    )
    return Site(names, modules, layer, transposed=isinstance(main, nn.Embedding))


def _array(tensor: Tensor) -> Array:
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    array: Array = tensor.to("cpu", dtype).numpy()
    return array


def build(site: Site, fitted: Fitted) -> list[nn.Module]:
    """Build the replacement of each module of a site; tied modules share the parameters of the factors.

    Data type, device, ``requires_grad`` and training mode are those of the replaced modules.
    """
    structure, factors = fitted.structure, fitted.factors
    if site.transposed and structure.kind != "dense":
        structure, factors = _transposed(structure, factors)
    weight = weight_of(site.modules[0])
    parameters = [_parameter(factor, weight) for factor in factors]
    return [_replacement(module, structure, parameters, fitted.bias) for module in site.modules]


def _transposed(structure: Structure, factors: Sequence[Array]) -> tuple[Structure, tuple[Array, ...]]:
    """Return the structure and the factors of the transposed matrix."""
    turned = Structure(structure.kind, structure.out_shape, structure.in_shape, structure.rank)
    if structure.kind == "low-rank":
        return turned, (factors[1].T, factors[0].T)
    return turned, tuple(factor.transpose(0, 2, 1) for factor in factors)


def _parameter(array: Array, like: nn.Parameter) -> nn.Parameter:
    values = torch.from_numpy(np.array(array, order="C")).to(like.device, like.dtype)
    return nn.Parameter(values, requires_grad=like.requires_grad)


def _replacement(
    module: nn.Module, structure: Structure, parameters: list[nn.Parameter], bias: Array | None
) -> nn.Module:
    old = getattr(module, "bias", None)
    new_bias = None if old is None else _parameter(_array(old.detach()) if bias is None else bias, old)
    if structure.kind == "dense":
        return _with_weight(module, parameters[0], new_bias)
    new: nn.Module
    if isinstance(module, nn.Embedding):
        new = FactoredEmbedding(structure, parameters, module.padding_idx)
    elif isinstance(module, nn.Conv1d | nn.Conv2d):
        new = FactoredConv(module, structure, parameters, new_bias)
    elif structure.kind == "kronecker":
        linear = KroneckerLinear(
            structure.in_shape, structure.out_shape, structure.rank, bias=old is not None, device="meta"
        )
        linear.factors = nn.ParameterList(parameters)
        linear.bias = new_bias
        new = linear
    else:
        if structure.kind == "low-rank":
            sizes = structure.in_features, structure.out_features, structure.rank
            new = LowRankLinear(*sizes, bias=old is not None, device="meta")
        else:
            new = MonarchLinear(
                structure.in_shape, structure.out_shape, structure.rank, bias=old is not None, device="meta"
            )
        new.left, new.right = parameters
        new.bias = new_bias
    return new.train(module.training)


def _with_weight(module: nn.Module, weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Module:
    """Return a copy of a module with another dense weight."""
    new = copy.copy(module)
    new._parameters = dict(module._parameters)
    values = weight.T.contiguous() if is_transposed(module) else weight.reshape(weight_of(module).shape)
    new._parameters["weight"] = nn.Parameter(values.detach(), requires_grad=weight.requires_grad)
    if bias is not None:
        new._parameters["bias"] = bias
    return new
