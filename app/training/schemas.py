"""Request, options and report of a training; the unit of a number is in its name."""

import csv
import io
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.jobs.schemas import JobSummary
from app.models.card import CCode, TestMetric
from app.schemas import RequestModel, ResponseModel

MAX_RANK = 64
MAX_HIDDEN = 4
MAX_WIDTH = 4096
MAX_EPOCHS = 100
MAX_COLUMNS = 1000  # with a kind of the client's own
TWIN_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Activation = Literal["gelu", "relu", "tanh"]
NetworkRole = Literal["kronecker", "dense"]
Factor = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
ColumnName = Annotated[str, Field(min_length=1, max_length=200)]
Shape = Annotated[list[Factor], Field(min_length=2, max_length=2)]


class ColumnKinds(RequestModel):
    """Kinds that the client gives to columns of a table."""

    drop: list[ColumnName] = Field(default=[], max_length=MAX_COLUMNS, description="columns to leave out")
    categorical: list[ColumnName] = Field(default=[], max_length=MAX_COLUMNS, description="columns of categories")
    numeric: list[ColumnName] = Field(default=[], max_length=MAX_COLUMNS, description="columns of numbers")
    date: list[ColumnName] = Field(default=[], max_length=MAX_COLUMNS, description="columns of dates and times")

    def kinds(self) -> dict[str, list[str]]:
        """The columns by the option of `kronmodel` that gives them their kind."""
        return {name: getattr(self, name) for name in ColumnKinds.model_fields}

    def arguments(self) -> list[str]:
        """The options of `kronmodel`, each with its columns as a line of CSV."""
        found = []
        for option, names in self.kinds().items():
            if names:
                line = io.StringIO()
                csv.writer(line, lineterminator="").writerow(names)
                found.append(f"--{option}={line.getvalue()}")
        return found


class TrainRequest(ColumnKinds):
    """The data, the networks and their training; null stands for the recipe's value."""

    data: str | None = Field(
        default=None, max_length=100, description="name of a data set of `/api/trainings/options`; null with a file"
    )
    target: str | None = Field(default=None, min_length=1, max_length=1000, description="column of a table to predict")
    task: Literal["classification", "regression"] | None = Field(
        default=None, description="task of a file; null: inferred from the target"
    )
    skip_bad_rows: bool = Field(default=False, description="skip rows of a table that cannot be used")
    name: str | None = Field(
        default=None,
        pattern=TWIN_PATTERN,
        description="name of the twin; null: the name of the data. An existing twin gets a new version",
    )
    kind: Literal["twin", "kronecker", "dense"] = "twin"
    recipe: str | None = Field(
        default=None, max_length=100, description="null: small-table for a small table, else default"
    )
    rank: int | None = Field(default=None, ge=1, le=MAX_RANK)
    hidden: list[Shape] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_HIDDEN,
        description=f"two factors for each hidden layer; their product, its width, is at most {MAX_WIDTH}",
        examples=[[[28, 28], [28, 28]]],
    )
    activation: Activation | None = None
    epochs: int | None = Field(default=None, ge=1, le=MAX_EPOCHS)
    batch_size: int | None = Field(default=None, ge=1, le=65_536)
    learning_rate: float | None = Field(default=None, gt=0, le=100, strict=False, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    pad: bool | None = Field(
        default=None,
        description="pad the features with zeros to a width with balanced factors; null: for a file only",
    )


class DescribedColumn(ResponseModel):
    """A column of a table: its encoding as a feature of a training, and the task of predicting it."""

    name: str
    kind: Literal["number", "boolean", "category", "date", "left out"]
    done: str = Field(description="how it is encoded, or why it is left out")
    width: int = Field(description="number of features")
    plain: bool = Field(description="whether it holds numbers that need no encoding, or is left out")
    task: Literal["classification", "regression"] | None = Field(description="of predicting it; null: it cannot be")
    outputs: int | None = Field(description="classes, or values to predict")
    reason: str = Field(description="of the task, or of there being none")
    unusable: int = Field(description="number of rows without a usable value to predict")


class DataDescription(ResponseModel):
    """Description of a data file: its columns, or the sizes of its arrays."""

    rows: int
    notes: list[str] = Field(default=[], description="on the format of a table")
    bad_rows: str | None = Field(default=None, description="rows of a table that cannot be used")
    columns: list[DescribedColumn] = Field(default=[], description="of a table")
    task: Literal["classification", "regression"] | None = Field(default=None, description="of arrays")
    features: int | None = Field(default=None, description="of arrays")
    image: list[int] | None = Field(default=None, description="of arrays")
    outputs: int | None = Field(default=None, description="of arrays")


class DataOption(ResponseModel):
    """A data set that has a name."""

    name: str = Field(examples=["mnist"])
    title: str
    features: int
    image: list[int] | None
    outputs: int
    task: Literal["classification", "regression"]
    samples: int = Field(description="number of training samples")
    found: bool = Field(description="whether it is on this machine")
    note: str | None = Field(description="where it is not found: the reason and the consequence")


class RecipeTraining(BaseModel):
    """Training configuration of one network in a recipe, with the field names of `kronmodel`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    epochs: int
    batch_size: int
    learning_rate: float


class RecipeOption(RecipeTraining):
    """A recipe: the Kronecker network, and how it and its dense twin are trained."""

    name: str = Field(examples=["default"])
    summary: str
    hidden: list[list[int]]
    dense_hidden: list[int] | None = Field(description="widths of the dense twin where they differ")
    rank: int | list[int] = Field(description="one rank for every layer, or one for each")
    activation: str
    features: list[int] = Field(description="channels of the convolutions in front of both networks")
    dense: RecipeTraining


class Limits(ResponseModel):
    """Largest values that a training request may have."""

    rank: int = MAX_RANK
    hidden_layers: int = MAX_HIDDEN
    width: int = MAX_WIDTH
    epochs: int = MAX_EPOCHS
    upload_bytes: int
    seconds: float
    memory_bytes: int


class TrainingOptions(ResponseModel):
    """Data sets, recipes and limits of trainings on this service."""

    available: bool
    reason: str | None = Field(description="why training is not available")
    data: list[DataOption]
    recipes: list[RecipeOption]
    limits: Limits
    activations: list[str]


class EpochReport(ResponseModel):
    """Loss and metrics after an epoch."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: NetworkRole
    epoch: int
    seconds: float = Field(description="training time so far, without evaluations")
    ms_per_step: float = Field(description="median of this epoch")
    loss: float | None
    validation: float | None = Field(description="null without a validation set")
    test: float | None


class PlannedMember(ResponseModel):
    """A network that a training is about to train."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: NetworkRole
    name: str
    epochs: int
    parameters: int
    weight_bytes: int = Field(default=0, description="bytes of weights, biases and step sizes")
    macs_per_sample: int
    layers: list[dict[str, Any]] = Field(description="as in the model card")


class PlannedData(ResponseModel):
    """The data that a training is about to use."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    task: Literal["classification", "regression"]
    train_samples: int
    test_samples: int
    features: int
    image_shape: list[int] | None = None


class TrainingPlan(ResponseModel):
    """The networks and the data of a training: the event `plan`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    members: list[PlannedMember]
    epochs: int
    metric: str = Field(examples=["accuracy"])
    data: PlannedData


class TrainedMember(ResponseModel):
    """A trained and published network."""

    role: NetworkRole
    name: str
    version: str
    parameters: int
    weight_bytes: int = Field(default=0, description="bytes of weights, biases and step sizes")
    c: CCode | None = Field(default=None, description="sizes as C code, where it can compute the network")
    macs_per_sample: int
    test_metric: TestMetric
    training_seconds: float
    ms_per_step: float = Field(description="median of the medians of the epochs")
    epochs: list[EpochReport]


class TrainingReport(ResponseModel):
    """The report of a training."""

    id: str
    created: str
    seconds: float
    headline: str
    metric: str
    request: dict[str, Any]
    data: PlannedData
    members: list[TrainedMember]
    served: bool
    not_served: str | None = Field(default=None, description="why a published network is not served")


class TrainingList(ResponseModel):
    """Trainings, newest first."""

    total: int
    offset: int
    trainings: list[JobSummary]


class TrainingJob(JobSummary):
    """A training that is running or has ended."""

    report: TrainingReport | None = Field(default=None, description="null until the training is done")
