"""Terminal output: a table of the times of each model's nodes."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from app.measure.comparison_schemas import ModelNodes


def print_nodes(models: Sequence[ModelNodes]) -> None:
    """Print the time of each node to standard output."""
    console = Console(highlight=False)
    for model in models:
        title = f"{escape(model.model)}: {model.us:,.1f} µs in all nodes, batch size {model.batch_size}"
        columns = ("operator", Column("µs", justify="right"), Column("%", justify="right"))
        table = Table(Column("node", overflow="fold"), *columns, title=title, title_justify="left", box=SIMPLE_HEAD)
        for node in model.nodes:
            percent = f"{100 * node.us / (model.us or 1):.0f}"
            table.add_row(escape(node.name), escape(node.op), f"{node.us:,.1f}", percent)
        console.print(table)
