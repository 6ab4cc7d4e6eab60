"""Progress bars and tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kronmodel.training import loop
    from kronmodel.training.baselines import Baseline
    from kronmodel.training.ranks import RankSearch

__all__ = [
    "BASELINES_TITLE",
    "METRICS",
    "TWIN_ROWS",
    "baseline_rows",
    "print_baselines",
    "print_fields",
    "print_twin",
    "score_text",
    "training_progress",
    "twin_rows",
]

METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "rmse": "RMSE", "r2": "R²"}
BASELINES_TITLE = "On the same test rows"
SHARES = ("accuracy", "balanced_accuracy")
OTHERS = ("balanced_accuracy", "r2")  # metrics beside the main one


@contextmanager
def training_progress(console: Console, name: str, epochs: int) -> Iterator[Callable[[loop.Progress], None]]:
    """Show a training as a progress bar that advances with the steps; without a terminal, print one line per epoch."""
    if not console.is_terminal:
        yield lambda now: _print_epoch(console, name, epochs, now)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps  {task.fields[news]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task(name, total=None, news="")
        score = ""

        def show(now: loop.Progress) -> None:
            nonlocal score
            if now.test_score is not None:
                score = f"  test {score_text(now.metric, now.test_score)}"
            news = f"epoch {now.epoch}/{epochs}  loss {now.loss:.4f}{score}"
            bars.update(bar, total=now.steps, completed=now.step, news=news)

        yield show


def _print_epoch(console: Console, name: str, epochs: int, now: loop.Progress) -> None:
    if now.test_score is not None:
        score = score_text(now.metric, now.test_score)
        news = f"{name}: epoch {now.epoch}/{epochs}  loss {now.loss:.4f}  test {score}"
        console.print(news, highlight=False, soft_wrap=True)


TWIN_ROWS = (
    ("weights", "parameters", "{:,}"),
    ("… with branch biases", "parameters_with_branch_biases", "{:,}"),
    ("bytes of weights", "weight_bytes", "{:,}"),
    ("multiply-adds a sample", "macs_per_sample", "{:,}"),
    ("training seconds", "train_seconds", "{:,.1f}"),
    ("median ms a step", "ms_per_step", "{:.2f}"),
)
C_ROWS = (("as C: flash, weights", "weight_bytes"), ("as C: memory", "scratch_bytes"))


def score_text(metric: str, value: float) -> str:
    """Format a test score with the name of its metric: ``accuracy 98.36 %``, ``RMSE 53.2``."""
    return f"{METRICS.get(metric, metric)} {_score_value(metric, value)}"


def _score_value(metric: str, value: float) -> str:
    return f"{value:.2%}" if metric in SHARES else f"{value:.4g}"


def twin_rows(models: dict[str, dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Yield the title and the cells of each row of the table of trained models.

    With two models, a last cell holds the ratio dense ÷ Kronecker.
    """
    scores = [model["test_metric"] for model in models.values()]
    for name in ("value", *OTHERS):
        if name in scores[0]:
            metric = scores[0]["name"] if name == "value" else name
            cells = [_score_value(metric, score[name]) if name in score else "" for score in scores]
            yield f"test {METRICS.get(metric, metric)}", [*cells, *([""] if len(models) == 2 else [])]
    for title, key, form in TWIN_ROWS:
        # The paper counts one output bias per branch; this row is shown only where that count differs from ours.
        if key == "parameters_with_branch_biases" and all(each[key] == each["parameters"] for each in models.values()):
            continue
        cells = [form.format(model[key]) for model in models.values()]
        if len(models) == 2:
            small, large = models["kronecker"][key], models["dense"][key]
            cells.append(f"{large / small:,.2f}×")
        yield title, cells
    for title, key in C_ROWS:  # of networks that C code can compute
        sizes = [model.get("c", {}).get(key) for model in models.values()]
        if all(sizes):
            ratio = [f"{sizes[1] / sizes[0]:,.2f}×"] if len(models) == 2 else []
            yield title, [*(f"{size:,}" for size in sizes), *ratio]


def print_twin(console: Console, models: dict[str, dict[str, Any]]) -> None:
    """Print a table of the trained models side by side, with the ratio dense ÷ Kronecker where there are two.

    Args:
        console: prints the table.
        models: summary of each model by its role.
    """
    table = Table(title="Kronecker and dense, side by side; ratio: dense ÷ Kronecker" if len(models) == 2 else None)
    table.add_column("", no_wrap=True)
    for model in models.values():
        table.add_column(f"{model['name']} v{model['version']}", justify="right")
    if len(models) == 2:
        table.add_column("ratio", justify="right")
    for title, cells in twin_rows(models):
        table.add_row(title, *cells)
    console.print(table)
    for model in models.values():
        console.print(f"wrote {model['path']}", highlight=False, soft_wrap=True)


def print_baselines(
    console: Console, found: Sequence[Baseline], models: dict[str, dict[str, Any]], ranks: RankSearch | None = None
) -> None:
    """Print the test scores of the networks, of higher ranks and of the baselines, and in words what is better."""
    heads, rows, texts = baseline_rows(found, models, ranks)
    table = Table(title=BASELINES_TITLE)
    table.add_column("", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right")
    for name, cells in rows:
        table.add_row(name, *cells)
    console.print(table)
    for text in texts:
        console.print(text, highlight=False, soft_wrap=True)


def baseline_rows(
    found: Sequence[Baseline], models: Mapping[str, Mapping[str, Any]], ranks: RankSearch | None
) -> tuple[list[str], list[tuple[str, list[str]]], list[str]]:
    """Format the test scores of the networks, of Kronecker networks of higher ranks, and of the baselines.

    Returns:
        The scores' names; the name and the formatted scores of each method; sentences where another is better.
    """
    from kronmodel.training.baselines import verdict

    metrics = list(found[0].scores)
    names = {model["name"]: model["test_metric"] for model in models.values()}
    scored = [(name, {score["name"]: score["value"], **score}) for name, score in names.items()]
    trials = [] if ranks is None else [(each.name, {metrics[0]: each.score}) for each in ranks.trials]
    rows = [
        (name, [_score_value(metric, scores[metric]) if metric in scores else "" for metric in metrics])
        for name, scores in [*scored, *trials, *((each.name, each.scores) for each in found)]
    ]
    text = verdict(list(found), metrics[0], {name: score["value"] for name, score in names.items()})
    texts = [text] if text is not None else []
    return [METRICS.get(metric, metric) for metric in metrics], rows, [*([ranks.text] if ranks else []), *texts]


def print_fields(console: Console, fields: dict[str, Any], indent: str = "") -> None:
    """Print a nested dictionary, one field per line."""
    for key, value in fields.items():
        if isinstance(value, dict):
            console.print(f"{indent}[bold]{escape(str(key))}[/]:", highlight=False)
            print_fields(console, value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            console.print(f"{indent}[bold]{escape(str(key))}[/]:", highlight=False)
            for entry in value:
                line = ", ".join(f"{name} {_plain(part)}" for name, part in entry.items())
                console.print(f"{indent}  - {escape(line)}", highlight=False, soft_wrap=True)
        else:
            line = f"{indent}[bold]{escape(str(key))}[/]: {escape(_plain(value))}"
            console.print(line, highlight=False, soft_wrap=True)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(each) for each in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000 else str(value)
