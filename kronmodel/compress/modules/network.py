"""Torch module behind the protocol of the compression: runs samples, collects moments, replaces layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from kronmodel.compress.matrices.candidates import Fitted, MatrixLayer
from kronmodel.compress.matrices.fitting import LayerData
from kronmodel.compress.matrices.moments import Moments
from kronmodel.compress.modules.attention import SplitAttention
from kronmodel.compress.modules.call_rows import add_indices, layer_data, rows_of_call, smooth
from kronmodel.compress.modules.sites import Site, Skipped, build, find_sites
from kronmodel.compress.modules.timing import LayerTimer
from kronmodel.compress.samples import Batch, fitted_part, held_out, rows_of
from kronmodel.compress.tuning import tune
from kronmodel.errors import DataError
from kronmodel.training.evaluation import evaluation_mode

__all__ = ["TorchNetwork"]


class _Stop(BaseException):
    """Ends a forward pass behind the layer whose inputs are wanted; not an Exception, which models may catch."""


class TorchNetwork:
    """Torch module whose layers are replaced one by one, beside the unchanged original.

    Args:
        model: the original; it is not changed.
        batches: sample inputs; empty if there are none.
        include: patterns of the names of the layers to compress; None for all.
        exclude: patterns of names to leave alone.

    Attributes:
        layers: the layers that may be replaced, in the order in which the samples pass them.
        skipped: layers that are left alone, with reasons.
        original: copy of the model whose attention layers are split into their projections.
        model: copy with the replacements; tied weights stay tied.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Batch] = (),
        include: Iterable[str] | None = None,
        exclude: Iterable[str] = (),
    ) -> None:
        # Inside a container, so that a layer can be the whole model.
        self._original = nn.ModuleDict({"model": _split_attention(copy.deepcopy(model))})
        self._copy = copy.deepcopy(self._original)
        self._source = model
        self._batches = list(batches)
        counts = [held_out(number, rows_of(batch)) for number, batch in enumerate(self._batches)]
        self._judges = any(counts)  # else there are too few samples to hold one out
        sites, self.skipped = find_sites(self.original, include, exclude)
        self._calls: dict[str, int] = {}
        if self._batches:
            sites = self._in_order(sites)
        self._sites = sites
        self.layers: Sequence[MatrixLayer] = [site.layer for site in sites]
        self._positions = {
            index: [_path(self._original, module) for module in site.modules] for index, site in enumerate(sites)
        }
        self._kept = {
            index: [self._copy.get_submodule(paths[0]) for paths in every] for index, every in self._positions.items()
        }
        self._reference: list[list[Tensor]] | None = None

    @property
    def original(self) -> nn.Module:
        """The original model, with attention layers split."""
        return self._original["model"]

    @property
    def model(self) -> nn.Module:
        """The model with the replacements made so far."""
        return self._copy["model"]

    def finished(self) -> nn.Module:
        """Return the compressed model; attention layers of which nothing was replaced are the original ones again."""
        changed = {path for index, paths in self._positions.items() for every in paths for path in every
                   if self._copy.get_submodule(path) not in self._kept[index]}  # fmt: skip
        for name, module in self._source.named_modules(remove_duplicate=False):
            if isinstance(module, nn.MultiheadAttention):
                path = f"model.{name}" if name else "model"
                parent = path.rpartition(".")[0]
                if not any(each.startswith((f"{path}.", f"{parent}.linear")) for each in changed):
                    _set(self._copy, path, copy.deepcopy(module))
        return self.model

    def data_of(self, index: int) -> LayerData | None:
        """Collect the moments of a layer's inputs in the current model and of its outputs in the original."""
        if not self._batches:
            return None
        site = self._sites[index]
        layer = site.layer
        fit, judge = (
            Moments(layer.in_features, layer.out_features, diagonal=True if site.transposed else None) for _ in range(2)
        )
        current = [self._copy.get_submodule(paths[0]) for paths in self._positions[index]]
        for number, batch in enumerate(self._batches):
            inputs = self._run(self.model, current, site, batch)
            outputs = inputs if site.transposed else self._run(self.original, list(site.modules), site, batch)
            for (x, _), (seen, y) in zip(inputs, outputs, strict=True):
                size = rows_of(batch)
                kept = held_out(number, size)
                if site.transposed:
                    add_indices(fit, x[: len(x) - len(x) * kept // size], layer)
                    continue
                rows = rows_of_call(x, y, site.modules, number)
                count = len(rows[0])
                cut = count - count * kept // size
                fit.add(rows[0][:cut], rows[1][:cut])
                judge.add(rows[0][cut:], rows[1][cut:])
                del seen
        if site.transposed:
            smooth(fit, layer)
        return layer_data(fit, judge)

    def replace(self, index: int, fitted: Fitted | None) -> None:
        """Replace the modules of a layer by those of a fit, or restore them."""
        new = self._kept[index] if fitted is None else build(self._sites[index], fitted)
        for paths, module in zip(self._positions[index], new, strict=True):
            for path in paths:
                _set(self._copy, path, module)

    def replaced_modules(self) -> list[nn.Module]:
        """Return the modules that stand in the place of replaced layers."""
        return [
            module
            for index, every in self._positions.items()
            for paths, kept in zip(every, self._kept[index], strict=True)
            if (module := self._copy.get_submodule(paths[0])) is not kept
        ]

    def tune(self, steps: int) -> int:
        """Train the replaced layers on the samples; return the step of the kept weights, 0 for the untrained ones."""
        if not self._batches or not steps:
            return 0
        modules = self.replaced_modules()
        parts = [fitted_part(number, batch) for number, batch in enumerate(self._batches)]
        parts = [part for part in parts if rows_of(part)]
        return tune(self.model, self.original, modules, parts, self._held_out_error, steps=steps)

    def _held_out_error(self) -> float:
        error = self.output_error()
        return math.inf if error is None else error

    def output_error(self) -> float | None:
        """Measure the relative change of the model's outputs on the held-out samples."""
        if not self._batches:
            return None
        square = energy = 0.0
        for reference, output in zip(self.reference(), self.outputs(self.model), strict=True):
            for one, other in zip(reference, output, strict=True):
                first, second = one.double(), other.double()
                square += float((first - second).square().sum())
                energy += float((first - first.mean(0, keepdim=True)).square().sum())
        return math.sqrt(square / max(energy, 1e-300)) if math.isfinite(square) else math.inf

    def agreement(self) -> float | None:
        """Return the fraction of held-out samples of which the first output's largest value is the original's.

        Returns:
            The fraction; None without samples, or if the first output holds no scores ``(..., classes)``.
        """
        same = count = 0
        if not self._batches:
            return None
        for reference, output in zip(self.reference(), self.outputs(self.model), strict=True):
            if not reference or reference[0].dim() < 2 or reference[0].shape[-1] < 2:
                return None
            equal = reference[0].argmax(-1) == output[0].argmax(-1)
            same, count = same + int(equal.sum()), count + equal.numel()
        return same / max(count, 1)

    def one_sample(self) -> Batch | None:
        """Return the first sample as a batch, for a measurement of the time of a call."""
        if not self._batches:
            return None
        rows = rows_of(self._batches[0])

        def first(value: Any) -> Any:
            return value[:1] if isinstance(value, Tensor) and value.dim() and len(value) == rows else value

        args, options = self._batches[0]
        return tuple(map(first, args)), {name: first(value) for name, value in options.items()}

    def timer(self) -> LayerTimer:
        """Return a function that measures layers, on the first sample.

        Raises:
            DataError: there is no sample.
        """
        sample = self.one_sample()
        if sample is None:
            raise DataError("layers can't be measured without a sample; expected at least one")
        return LayerTimer(self.original, self._sites, sample)

    def reference(self) -> list[list[Tensor]]:
        """Return the original's outputs on the held-out samples of each batch."""
        if self._reference is None:
            self._reference = self.outputs(self.original)
        return self._reference

    def outputs(self, model: nn.Module) -> list[list[Tensor]]:
        """Run a model; return the floating-point outputs for the held-out samples of each batch, on the CPU."""
        found = []
        with evaluation_mode(model), torch.inference_mode():
            for number, (args, kwargs) in enumerate(self._batches):
                rows = rows_of((args, kwargs))
                held = held_out(number, rows) if self._judges else rows
                if not held:
                    continue
                leaves = [
                    leaf
                    for leaf in _pytree.tree_leaves(model(*args, **kwargs))
                    if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim()
                ]
                found.append(
                    [leaf[-held:].float().cpu() if len(leaf) == rows else leaf.float().cpu() for leaf in leaves]
                )
        return found

    def _in_order(self, sites: list[Site]) -> list[Site]:
        """Sort the layers by their first call, count their calls and rows, and skip those that are not called."""
        first: dict[int, int] = {}
        rows: dict[int, int] = {}
        by_module = {id(module): index for index, site in enumerate(sites) for module in site.modules}

        def called(module: nn.Module, inputs: Any, output: Tensor) -> None:
            index = by_module[id(module)]
            first.setdefault(index, len(first))
            name = sites[index].names[0]
            self._calls[name] = self._calls.get(name, 0) + 1
            width = (
                output.shape[-1] if not isinstance(module, nn.Conv1d | nn.Conv2d) else sites[index].layer.out_features
            )
            rows[index] = rows.get(index, 0) + output.numel() // max(width, 1)

        batch = self._batches[0]
        with ExitStack() as stack, evaluation_mode(self._original), torch.inference_mode():
            for site in sites:
                for module in site.modules:
                    stack.callback(module.register_forward_hook(called).remove)
            self.original(*batch[0], **batch[1])
        unused = [site for index, site in enumerate(sites) if index not in first]
        self.skipped += [Skipped(name, "not called for the samples") for site in unused for name in site.names]
        samples = max(rows_of(batch), 1)
        ordered = sorted(first, key=first.__getitem__)
        counted = (replace(sites[index].layer, applications=max(rows[index] // samples, 1)) for index in ordered)
        return [replace(sites[index], layer=layer) for index, layer in zip(ordered, counted, strict=True)]

    def _run(
        self, model: nn.Module, modules: Sequence[nn.Module], site: Site, batch: Batch
    ) -> list[tuple[Tensor, Tensor]]:
        """Run a batch up to the last call of a layer; return the input and the output of each call."""
        found: list[tuple[Tensor, Tensor]] = []
        expected = self._calls[site.names[0]]

        def called(module: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Tensor], output: Tensor) -> None:
            if isinstance(module, nn.Embedding) and not site.transposed:
                found.append((output[:0], output[:0]))  # of a tied output layer, whose own calls are fitted
            else:
                bias = getattr(module, "bias", None) if len(modules) > 1 else None  # a tied layer is fitted without
                x = inputs[0] if inputs else next(iter(options.values()))
                found.append((x, output if bias is None else output - bias))
            if len(found) == expected:
                raise _Stop

        with ExitStack() as stack, evaluation_mode(model), torch.inference_mode():
            for module in modules:
                stack.callback(module.register_forward_hook(called, with_kwargs=True).remove)
            with _stopped():
                model(*batch[0], **batch[1])
        return [pair for pair in found if len(pair[0])]


@contextmanager
def _stopped() -> Iterator[None]:
    try:
        yield
    except _Stop:
        return


def _split_attention(model: nn.Module) -> nn.Module:
    """Replace attention layers by ones whose projections are layers of their own."""
    made: dict[int, SplitAttention] = {}

    def split(module: nn.Module) -> nn.Module:
        if type(module) is not nn.MultiheadAttention or module.bias_k is not None or module.add_zero_attn:
            return module
        return made.setdefault(id(module), SplitAttention(module))

    for parent in list(model.modules()):
        if not isinstance(parent, SplitAttention):
            for name, child in parent._modules.items():
                if child is not None:
                    parent._modules[name] = split(child)
    return split(model)


def _path(root: nn.Module, module: nn.Module) -> list[str]:
    """Return all qualified names under which a module stands."""
    return [name for name, each in root.named_modules(remove_duplicate=False) if each is module]


def _set(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    root.get_submodule(parent)._modules[name] = module
