"""Columns of a table as inputs of a model: by the card, one input of the graph for each column, or a place in a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from app.errors import ModelError
from app.inference.datatypes import BYTES, Array
from app.inference.engine import Engine
from app.models.card import Card

Kind = Literal["number", "boolean", "date", "category"]


@dataclass(frozen=True, slots=True)
class InputColumn:
    """A column that a model takes.

    Args:
        name: of the column.
        input: name of the graph's input; "" for a model whose only input is a row of all columns.
        kind: of its values.
    """

    name: str
    input: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class ColumnInputs:
    """The columns that a model takes, in the order of its inputs or of the values of its rows.

    Args:
        columns: the columns.
        ignored: names of columns that were left out in the training; requests may have them.
        separate: each column is an input of the graph, float64 or strings `[batch, 1]`.
    """

    columns: tuple[InputColumn, ...]
    ignored: frozenset[str]
    separate: bool

    @classmethod
    def of(cls, engine: Engine, outputs: Mapping[str, Array], card: Card | None) -> "ColumnInputs | None":
        """Find the columns of a loaded model whose graph has an input for each; None if its card names none.

        Args:
            engine: the model.
            outputs: of its warm-up, by name.
            card: the model's card.

        Raises:
            ModelError: the graph has other inputs than its card says, or not an output row for each row.
        """
        given = None if card is None or card.input is None else card.input
        if given is None or given.columns is None:
            return None
        columns = [InputColumn(each.name, each.input or each.name, each.kind) for each in given.columns]
        tensors = {tensor.name: tensor for tensor in engine.inputs}
        if {column.input for column in columns} != tensors.keys() or len({each.name for each in columns}) < len(
            columns
        ):
            raise ModelError(
                f"its card names {len(columns)} columns that are not the inputs {', '.join(tensors)[:200]}"
            )
        for column in columns:
            tensor, datatype = tensors[column.input], BYTES if column.kind == "category" else "FP64"
            if tensor.datatype != datatype or tensor.shape != (-1, 1):
                got = f"{tensor.datatype} {list(tensor.shape)}"
                raise ModelError(f"input {tensor.name!r}: got {got}, expected {datatype} [-1, 1] by its card")
        if len({len(values) if values.ndim else 0 for values in outputs.values()} | {0}) != 2:
            raise ModelError("got outputs without a row for each input row")
        return cls(tuple(columns), frozenset(given.left_out or ()), separate=True)

    @classmethod
    def of_rows(cls, n_features: int, card: Card | None) -> "ColumnInputs | None":
        """The columns of a model whose only input is a row of numbers; None if its card does not name all of them."""
        given = None if card is None else card.input
        names: Sequence[str] | None = None if given is None else given.names
        if given is None or names is None or len(names) != n_features or len(set(names)) < n_features:
            return None
        return cls(tuple(InputColumn(name, "", "number") for name in names), frozenset(given.left_out or ()), False)
