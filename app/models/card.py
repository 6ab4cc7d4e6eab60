"""The model card: what the training wrote into the ONNX file's metadata. Untrusted here."""

import logging
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.models.verification import MAX_CARD_BYTES
from app.parsing import explain

CARD_KEY = "kronmodel"

Text = Annotated[str, Field(max_length=2000)]
Label = Annotated[str, Field(max_length=200)]
Size = Annotated[int, Field(ge=1, le=2**40)]
Count = Annotated[int, Field(ge=0, le=2**62)]
Shape = Annotated[list[Size], Field(min_length=1, max_length=8)]

log = logging.getLogger(__name__)


def _writable(seed: object) -> object:
    """An integer of more than 64 bits as text: JSON is not written with such ones here, and seldom read elsewhere."""
    return str(seed) if type(seed) is int and not -(2**63) <= seed < 2**64 else seed


Seed = Annotated[int | Label, BeforeValidator(_writable)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False, frozen=True)


class Layer(_Part):
    """One layer of the network, as the training described it."""

    kind: Text | None = None
    in_shape: Shape | None = None
    out_shape: Shape | None = None
    kernel: Shape | None = None
    rank: Size | None = None
    order: Annotated[list[Label], Field(max_length=1024)] | None = None
    parameters: Count | None = None
    macs_per_sample: Count | None = None


class Input(_Part):
    """What one row of the input means."""

    kind: Literal["image", "features"] | None = None
    shape: Shape | None = None
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    names: Annotated[list[Label], Field(max_length=100_000)] | None = None


class Data(_Part):
    """The data set it was trained on."""

    name: Text | None = None
    sha256: Text | None = None
    train_samples: Count | None = None
    test_samples: Count | None = None


class TestMetric(_Part):
    """What the training measured on held-out data."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    name: Label
    value: float
    samples: Count | None = None


class Training(_Part):
    """How it was trained."""

    recipe: Text | None = None
    epochs: Count | None = None
    seconds: float | None = None
    ms_per_step: float | None = None
    batch_size: Count | None = None
    optimizer: Text | None = None
    learning_rate: float | None = None
    schedule: Text | None = None
    seed: Seed | None = None
    device: Text | None = None
    threads: Count | None = None


class Card(_Part):
    """Everything optional, everything typed; unknown keys are dropped."""

    card_version: Count | None = None
    name: Text | None = None
    twin: Label | None = None
    role: Literal["kronecker", "dense"] | None = None
    task: Literal["classification", "regression"] | None = None
    layers: Annotated[list[Layer], Field(max_length=1000)] | None = None
    parameters: Count | None = None
    parameters_with_branch_biases: Count | None = None
    macs_per_sample: Count | None = None
    input: Input | None = None
    preprocessing: Text | None = None
    labels: Annotated[list[Label], Field(min_length=1, max_length=100_000)] | None = None
    data: Data | None = None
    test_metric: TestMetric | None = None
    training: Training | None = None
    versions: Annotated[dict[Label, Label], Field(max_length=50)] | None = None
    created: Label | None = None

    @classmethod
    def parse(cls, text: str, model: str) -> Self | None:
        """The card in `text`, or None, with a warning that names `model`, where it is not a valid one."""
        size = len(text.encode())
        if size > MAX_CARD_BYTES:
            log.warning("%s: card ignored: got %d bytes or more, expected at most %d", model, size, MAX_CARD_BYTES)
            return None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "card"
            log.warning("%s: card ignored: %s: %s", model, where, explain(error))
            return None
