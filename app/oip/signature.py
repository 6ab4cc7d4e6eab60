"""What a model takes, and requests that fit it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from app.engine import Tensor
from app.oip.blobs import read_blob
from app.oip.datatypes import BYTES, Array

MAX_HEADS = 64  # that are remembered for a model
MAX_HEAD_BYTES = 2048  # of one of them
NUMBER_BYTES = 12  # in JSON with its comma, give or take
FRAME_BYTES = 150  # of JSON around an output, and around all of them


@dataclass(slots=True)
class Wanted:
    """A requested output."""

    name: str
    datatype: str
    binary: bool
    classes: int = 0  # how many of the classification extension; 0 where the tensor itself is wanted


@dataclass(slots=True)
class InferRequest:
    """A request that fits its model; `rows` is the size of its batch, 1 where the model has no batch axis.

    With `receipt` the response says how it came about.
    """

    feeds: dict[str, Array]
    outputs: Sequence[Wanted]
    rows: int
    id: str | None = None
    timeout_s: float | None = None
    receipt: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """What the JSON of a request means whose inputs are all binary: name, datatype, shape and size of each."""

    tensors: Sequence[tuple[str, str, tuple[int, ...], int]]
    blob_bytes: int
    outputs: Sequence[Wanted]
    rows: int
    timeout_s: float | None
    receipt: bool

    @classmethod
    def of(cls, request: InferRequest, signature: "Signature", blob_bytes: int) -> "Head | None":
        """Of a request that was read; None where its JSON holds more than that, or less than their sizes."""
        inputs = request.feeds.items()
        tensors = [(name, signature.inputs[name].datatype, values.shape, values.nbytes) for name, values in inputs]
        if request.id is not None or sum(tensor[3] for tensor in tensors) != blob_bytes:
            return None
        if any(datatype == BYTES for _, datatype, _, _ in tensors):
            return None
        return cls(tensors, blob_bytes, request.outputs, request.rows, request.timeout_s, request.receipt)

    def request(self, body: bytes, start: int) -> InferRequest | None:
        """The request of this head with the blobs that begin at `start`; None if these are not as long as they should.

        Raises:
            BadRequest: a blob is not of its datatype.
        """
        if len(body) - start != self.blob_bytes:
            return None
        view = memoryview(body)
        feeds = {}
        for name, datatype, shape, size in self.tensors:
            blob = view[start : start + size]
            start += size
            feeds[name] = read_blob(blob, datatype, shape, name)
        return InferRequest(feeds, self.outputs, self.rows, None, self.timeout_s, self.receipt)


@dataclass(frozen=True, slots=True)
class Signature:
    """What requests to one model have to fit.

    Args:
        inputs: by name.
        outputs: by name.
        batchable: the first axis of all of them is the batch.
        max_batch: most rows of a batch.
        heads: JSON that was read before, of which a client sends the same with each new blob.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    batchable: bool
    max_batch: int
    heads: dict[bytes, Head] = field(default_factory=dict, compare=False)

    def answers_briefly(self, rows: int, most: int) -> bool:
        """Whether all outputs of that many rows take fewer than about `most` bytes, in JSON too."""
        numbers = 0
        for tensor in self.outputs.values():
            sizes = tensor.shape[1:] if self.batchable else tensor.shape
            if tensor.datatype == BYTES or min(sizes, default=0) < 0:
                return False
            numbers += prod(sizes)
        return (rows if self.batchable else 1) * numbers * NUMBER_BYTES + FRAME_BYTES * (1 + len(self.outputs)) < most

    def remember(self, head: bytes, request: InferRequest, blob_bytes: int) -> None:
        """Keep what a JSON head means, if it is short and means the same with other blobs."""
        if len(head) <= MAX_HEAD_BYTES and (known := Head.of(request, self, blob_bytes)) is not None:
            if len(self.heads) >= MAX_HEADS:
                self.heads.clear()
            self.heads[head] = known
