"""What a model takes and gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from app.inference.datatypes import BYTES, Tensor
from app.oip.request_cache import RequestTemplateCache

NUMBER_BYTES = 12  # in JSON with its comma, give or take
FRAME_BYTES = 150  # of JSON around an output, and around all of them


@dataclass(frozen=True, slots=True)
class Signature:
    """What requests to one model have to fit.

    Args:
        inputs: by name.
        outputs: by name.
        batchable: the first axis of all of them is the batch.
        max_batch: most rows of a batch.
        known: requests that were read before.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    batchable: bool
    max_batch: int
    known: RequestTemplateCache = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", RequestTemplateCache(self.inputs))

    def answers_briefly(self, rows: int, most: int) -> bool:
        """Whether all outputs of that many rows take fewer than about `most` bytes, in JSON too."""
        numbers = 0
        for tensor in self.outputs.values():
            sizes = tensor.shape[1:] if self.batchable else tensor.shape
            if tensor.datatype == BYTES or min(sizes, default=0) < 0:
                return False
            numbers += prod(sizes)
        return (rows if self.batchable else 1) * numbers * NUMBER_BYTES + FRAME_BYTES * (1 + len(self.outputs)) < most
