"""A model's signature: the inputs that its requests need, and the outputs of its responses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from app.inference.datatypes import BYTES, Tensor
from app.oip.request_cache import RequestTemplateCache

JSON_NUMBER_BYTES = 12  # estimate for a number with its comma
JSON_OUTPUT_BYTES = 150  # estimate for the JSON around an output's data, and around all outputs


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model and the limits of its requests.

    Args:
        inputs: by name.
        outputs: by name.
        batchable: the first axis of every input and output is the batch.
        max_batch: most rows of a batch.
        unserved: the type of each output that has no datatype in the protocol, by name.
        limited: a request of more rows is refused; False where the first axis may be something else than a batch.
        request_cache: templates of requests that were read before.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    batchable: bool
    max_batch: int
    unserved: Mapping[str, str] = field(default_factory=dict)
    limited: bool = True
    request_cache: RequestTemplateCache = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "request_cache", RequestTemplateCache(self.inputs))

    def response_fits(self, rows: int, max_bytes: int) -> bool:
        """Whether a response of `rows` rows with all outputs is estimated at fewer than `max_bytes`, even as JSON.

        False where the size of an output is not known.
        """
        numbers = 0
        for tensor in self.outputs.values():
            sizes = tensor.shape[1:] if self.batchable else tensor.shape
            if tensor.datatype == BYTES or min(sizes, default=0) < 0:
                return False
            numbers += prod(sizes)
        numbers *= rows if self.batchable else 1
        return numbers * JSON_NUMBER_BYTES + JSON_OUTPUT_BYTES * (1 + len(self.outputs)) < max_bytes
