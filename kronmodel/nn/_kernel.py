"""Native library with the types of the kernel's functions, and the arguments that it takes for consecutive layers."""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Sequence
from functools import cache, lru_cache

import torch
from torch import Tensor

from kronmodel.native import build

__all__ = ["PARAMETERS", "Layout", "has_library", "layout_of", "library"]

PARAMETERS = 5  # fields of kron_gradients
_MIN_MACS = 500_000  # multiply-adds for which a further thread pays off


class Layout:
    """Arguments of the kernel that depend on a specification only.

    Attributes:
        fields: kron_layer structures as integers, without the addresses of parameters.
        slots: index in ``fields`` of each parameter's address.
        gradient_slots: index in the kron_gradients structures of each parameter's gradient.
        packed: floats of the packed weights.
        kept: floats that the forward pass keeps of a sample.
    """

    def __init__(self, spec: Sequence[int], library: ctypes.CDLL) -> None:
        self.fields: list[int] = []
        self.slots: list[int] = []
        self.gradient_slots: list[int] = []
        self.macs = self.count = at = 0
        self._orders: list[array[int]] = []  # kept alive: fields hold their addresses
        while at < len(spec):
            n1, n2, m1, m2, rank, inner, outer, present = spec[at : at + 8]
            orders = array("B", spec[at + 8 : at + 8 + rank])
            self._orders.append(orders)
            used = [True, True, present & 1, present & 2, present & 4]
            self.slots += [len(self.fields) + 8 + index for index, each in enumerate(used) if each]
            self.gradient_slots += [self.count * PARAMETERS + index for index, each in enumerate(used) if each]
            self.fields += [n1, n2, m1, m2, rank, inner, outer, orders.buffer_info()[0], *map(bool, used)]
            right = sum(orders)
            self.macs += (rank - right) * m1 * n2 * (n1 + m2) + right * n1 * m2 * (n2 + m1)
            self.count += 1
            at += 8 + rank
        self.out_features = m1 * m2
        layers = array("q", self.fields)  # the addresses of parameters that are there count as such
        address = layers.buffer_info()[0]
        self.packed = library.kron_packed_size(address, self.count) // 4
        self.kept = library.kron_kept_size(address, self.count, 1) // 4

    def pack(self, parameters: Sequence[Tensor], library: ctypes.CDLL) -> Tensor:
        """Return the packed weights."""
        parameters = [parameter.contiguous() for parameter in parameters]
        fields = self.fields.copy()
        for slot, parameter in zip(self.slots, parameters, strict=True):
            fields[slot] = parameter.data_ptr()
        layers = array("q", fields)
        packed = torch.empty(self.packed)
        library.kron_pack(layers.buffer_info()[0], self.count, packed.data_ptr())
        return packed

    def threads(self, batch: int) -> int:
        """Number of threads for a batch."""
        return max(1, min(torch.get_num_threads(), batch * self.macs // _MIN_MACS))


@lru_cache(maxsize=1024)
def layout_of(spec: tuple[int, ...]) -> Layout:
    return Layout(spec, library())


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def has_library() -> bool:
    return build.library() is not None


@cache
def library() -> ctypes.CDLL:
    """Return the native library with the types of its functions."""
    found = build.library()
    if found is None:
        raise RuntimeError(f"there is no native library: {build.status().reason}")
    address, number = ctypes.c_void_p, ctypes.c_int64
    found.kron_packed_size.argtypes = [address, number]
    found.kron_packed_size.restype = ctypes.c_size_t
    found.kron_pack.argtypes = [address, number, address]
    found.kron_pack.restype = None
    found.kron_kept_size.argtypes = [address, number, number]
    found.kron_kept_size.restype = ctypes.c_size_t
    found.kron_forward.argtypes = [address, number, address, address, address, number]
    found.kron_backward.argtypes = [address, number, address, address, address, address, address, number]
    found.kron_use_openmp.argtypes = [address]
    found.kron_use_openmp.restype = None
    # The threads of torch's own OpenMP runtime, if it has one: others would compete with them for the cores.
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    found.kron_use_openmp(ctypes.cast(parallel, address) if parallel else None)
    # In a forked process these threads are gone, and waiting for them would last forever.
    os.register_at_fork(after_in_child=lambda: found.kron_use_openmp(None))
    return found
