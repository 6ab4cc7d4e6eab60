"""Measured time of a layer in a structure, for budgets of microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.benchmark import Timer

from kronmodel.compress.matrices.candidates import Candidate, Fitted, MatrixLayer
from kronmodel.compress.matrices.structures import Structure
from kronmodel.compress.modules.sites import Site, build
from kronmodel.compress.samples import Batch
from kronmodel.training.evaluation import evaluation_mode

__all__ = ["LayerTimer"]

SECONDS = 0.003  # of one measurement
MEASUREMENTS = 2

_Call = tuple[tuple[Any, ...], dict[str, Any]]


class LayerTimer:
    """Measures the layers of a model as they are and in other structures, on the inputs that one sample gives them.

    Args:
        model: the original model.
        sites: its layers.
        sample: one sample, as the arguments of a call of the model.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site], sample: Batch) -> None:
        self._sites = {site.layer.name: site for site in sites}
        self._calls: dict[int, list[_Call]] = {}
        self._measured: dict[tuple[str, Structure], float] = {}

        def called(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            self._calls.setdefault(id(module), []).append((args, options))

        with ExitStack() as stack, evaluation_mode(model), torch.inference_mode():
            for module in {id(module): module for site in sites for module in site.modules}.values():
                stack.callback(module.register_forward_pre_hook(called, with_kwargs=True).remove)
            model(*sample[0], **sample[1])

    def __call__(self, layer: MatrixLayer, candidate: Candidate) -> Candidate:
        """Return a candidate with the time of the layer's calls for one sample, in microseconds."""
        key = layer.name, candidate.structure
        if key not in self._measured:
            self._measured[key] = self._measure(self._sites[layer.name], candidate)
        return replace(candidate, microseconds=self._measured[key])

    def _measure(self, site: Site, candidate: Candidate) -> float:
        modules: Sequence[nn.Module] = site.modules
        if candidate.structure.kind != "dense":
            rng = np.random.default_rng(0)
            factors = tuple(rng.standard_normal(shape, np.float32) for shape in candidate.structure.factor_shapes)
            modules = build(site, Fitted(candidate=candidate, factors=factors, bias=site.layer.bias))
        whole = 0.0
        for original, module in zip(site.modules, modules, strict=True):
            for args, options in self._calls.get(id(original), []):
                timer = Timer(
                    "module(*args, **options)",
                    globals={"module": module, "args": args, "options": options},
                    num_threads=torch.get_num_threads(),
                )
                with evaluation_mode(module), torch.inference_mode():
                    # The lesser one: other programs only ever add time.
                    runs = [timer.blocked_autorange(min_run_time=SECONDS).median for _ in range(MEASUREMENTS)]
                whole += min(runs)
        return 1e6 * whole
