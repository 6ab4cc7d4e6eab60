"""The model card: JSON that the training wrote into the metadata of an ONNX file. It is untrusted input."""

import logging
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.parsing import explain

MAX_CARD_BYTES = 256 * 1024

Text = Annotated[str, Field(max_length=2000)]
Label = Annotated[str, Field(max_length=200)]
Size = Annotated[int, Field(ge=1, le=2**40)]
Count = Annotated[int, Field(ge=0, le=2**62)]
Shape = Annotated[list[Size], Field(min_length=1, max_length=8)]

log = logging.getLogger(__name__)


def _limit_to_64_bits(seed: object) -> object:
    """Convert an integer of more than 64 bits to text, since orjson does not write larger ones."""
    return str(seed) if type(seed) is int and not -(2**63) <= seed < 2**64 else seed


Seed = Annotated[int | Label, BeforeValidator(_limit_to_64_bits)]


class _CardPart(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False, frozen=True)


class Layer(_CardPart):
    """A layer of the network that a model card describes."""

    kind: Text | None = None
    in_shape: Shape | None = None
    out_shape: Shape | None = None
    kernel: Shape | None = None
    rank: Size | None = None
    order: Annotated[list[Label], Field(max_length=1024)] | None = None
    parameters: Count | None = None
    macs_per_sample: Count | None = None


class Column(_CardPart):
    """A column of a table that a model takes, by its card.

    Args:
        input: name of the graph's input, where it is not the column's.
        fill: replaces a missing value.
        turns: cycles of a date that are encoded.
        values: of a category, those that the model tells apart.
        other: whether it tells other values apart from these.
    """

    name: Label
    input: Annotated[str, Field(max_length=300)] | None = None
    kind: Literal["number", "boolean", "date", "category"]
    fill: float | Label | None = None
    turns: Annotated[list[Literal["year", "week", "day"]], Field(max_length=3)] | None = None
    values: Annotated[list[Label], Field(max_length=100_000)] | None = None
    other: bool | None = None


class Input(_CardPart):
    """Meaning of a model's input rows by its card: an image, named features, or the columns of a table."""

    kind: Literal["image", "features"] | None = None
    shape: Shape | None = None
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    names: Annotated[list[Label], Field(max_length=100_000)] | None = None
    columns: Annotated[list[Column], Field(min_length=1, max_length=100_000)] | None = None
    left_out: Annotated[list[Label], Field(max_length=100_000)] | None = None


class Data(_CardPart):
    """The data set that a model was trained on, by its card."""

    name: Text | None = None
    sha256: Text | None = None
    train_samples: Count | None = None
    test_samples: Count | None = None


class TestMetric(_CardPart):
    """A model's metric on held-out data, by its card."""

    __test__ = False  # not a test class, although pytest would collect it by its name

    name: Label
    value: float
    samples: Count | None = None


class Novelty(_CardPart):
    """The detector of images that are unlike the training images, by the card."""

    test_fraction: float | None = None


class CCode(_CardPart):
    """Sizes of the model as C code for a microcontroller, by its card.

    Args:
        bits: of the weights; 32 for float32.
        weight_bytes: flash for weights and tables.
        scratch_bytes: memory of a prediction, beside its inputs, outputs and stack.
        code_bytes: flash for instructions; None if no compiler measured them.
        compiler: that measured them, and for which processor.
    """

    bits: Size | None = None
    weight_bytes: Count | None = None
    scratch_bytes: Count | None = None
    code_bytes: Count | None = None
    compiler: Label | None = None


class Training(_CardPart):
    """Configuration and duration of a model's training, by its card."""

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


class Card(_CardPart):
    """A model card. Every field is optional and typed; unknown keys are ignored."""

    card_version: Count | None = None
    name: Text | None = None
    twin: Label | None = None
    role: Literal["kronecker", "dense", "compressed", "original"] | None = None
    task: Literal["classification", "regression"] | None = None
    layers: Annotated[list[Layer], Field(max_length=1000)] | None = None
    parameters: Count | None = None
    parameters_with_branch_biases: Count | None = None
    macs_per_sample: Count | None = None
    weight_bytes: Count | None = None
    c: CCode | None = None
    input: Input | None = None
    preprocessing: Text | None = None
    labels: Annotated[list[Label], Field(min_length=1, max_length=100_000)] | None = None
    data: Data | None = None
    test_metric: TestMetric | None = None
    novelty: Novelty | None = None
    training: Training | None = None
    versions: Annotated[dict[Label, Label], Field(max_length=50)] | None = None
    created: Label | None = None

    @classmethod
    def parse(cls, text: str, model: str) -> Self | None:
        """Parse a card; None, with a warning in the log, if it is too long or not valid.

        Args:
            text: JSON, at least the first `MAX_CARD_BYTES` + 1 characters of it.
            model: name of the model, for the log.
        """
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
