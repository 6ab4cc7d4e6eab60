"""Rows of a layer's matrix from the inputs and outputs of its calls in torch, and the moments of these rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kronmodel.compress.matrices.candidates import MatrixLayer
from kronmodel.compress.matrices.fitting import LayerData
from kronmodel.compress.matrices.moments import Moments

__all__ = ["add_indices", "layer_data", "rows_of_call", "smooth"]

POSITIONS = 64  # positions of an image that are used for the moments of a convolution, drawn at random


def rows_of_call(x: Tensor, y: Tensor, modules: Sequence[nn.Module], seed: int) -> tuple[Any, Any]:
    """Convert the input and the output of a call to rows of the layer's matrix."""
    module = modules[0]
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        patches, values = _patches(x, y, module)
        take = np.random.default_rng(seed).permutation(patches.shape[1])[:POSITIONS]
        index = torch.from_numpy(np.sort(take)).to(patches.device)
        x, y = patches[:, index], values[:, index]
    return x.reshape(-1, x.shape[-1]).float().cpu().numpy(), y.reshape(-1, y.shape[-1]).float().cpu().numpy()


def _patches(x: Tensor, y: Tensor, module: nn.Conv1d | nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Return the patches ``(batch, positions, in)`` that a convolution multiplies, and its outputs beside them."""
    if x.dim() == len(module.kernel_size) + 1:
        x, y = x[None], y[None]
    padding = list(module._reversed_padding_repeated_twice)
    x = F.pad(x.float(), padding, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)
    kernel, dilation, stride = module.kernel_size, module.dilation, module.stride
    if len(kernel) == 1:
        x, kernel, dilation, stride = x.unsqueeze(2), (1, *kernel), (1, *dilation), (1, *stride)
    patches = F.unfold(x, kernel, dilation, 0, stride)  # (batch, in, positions)
    return patches.transpose(1, 2), y.flatten(2).transpose(1, 2)


def layer_data(fit: Moments, judge: Moments) -> LayerData:
    """Return the moments of a layer; those of held-out samples stand in if all samples that reach it are held out."""
    return LayerData(fit if fit.count else judge, judge if judge.count else None)


def add_indices(moments: Moments, indices: Tensor, layer: MatrixLayer) -> None:
    """Add the looked-up rows of an embedding: one-hot inputs, of which the second moment is diagonal."""
    counts = np.bincount(indices.reshape(-1).cpu().numpy(), minlength=layer.in_features).astype(moments.xx.dtype)
    moments.count += int(counts.sum())
    moments.xx += counts


def smooth(moments: Moments, layer: MatrixLayer) -> None:
    """Give rows that the samples don't use a little weight, and compute the energy of the looked-up rows."""
    total = moments.count
    moments.xx += max(0.1 * total / layer.in_features, 1e-3)
    moments.count = max(int(moments.xx.sum()), 1)
    moments.yy = float(np.vdot(layer.weight * moments.xx, layer.weight))
