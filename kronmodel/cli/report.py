"""HTML report of a training: one self-contained page with learning curves and a table that compares the networks."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kronmodel.cli.console import BASELINES_TITLE, baseline_rows, twin_rows
from kronmodel.cli.pages import write_page
from kronmodel.training.baselines import Baseline
from kronmodel.training.history import Epoch
from kronmodel.training.ranks import RankSearch

__all__ = ["write_report"]

COLOURS = {"kronecker": "#0b6e4f", "dense": "#b4530a"}
STYLE = """
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
th:first-child { text-align: left; font-weight: 500; }
.figure { height: 22rem; } p, footer { color: #555; }
"""
SCRIPT = """
for (const [id, figure] of Object.entries(JSON.parse(document.getElementById("figures").textContent)))
  Plotly.newPlot(id, figure.data, figure.layout, {responsive: true, displaylogo: false});
"""


def write_report(
    path: Path,
    name: str,
    models: Mapping[str, Mapping[str, Any]],
    histories: Mapping[str, Sequence[Epoch]],
    cards: Mapping[str, Mapping[str, Any]],
    *,
    baselines: Sequence[Baseline] = (),
    ranks: RankSearch | None = None,
) -> None:
    """Write the HTML report of a training atomically; the page loads no other files and needs no network.

    Args:
        path: the HTML file; replaced if it exists.
        name: name of the twin.
        models: summary of each network by its role, as ``kronmodel train --json`` prints them.
        histories: epochs of each network by its role.
        cards: model card of each network by its role.
        baselines: simple methods on the same test rows.
        ranks: Kronecker networks of higher ranks on the same test rows.

    Raises:
        ExportError: the file can't be written.
    """
    write_page(path, _page(name, models, histories, cards, _baselines(baselines, models, ranks)))


def _page(
    name: str,
    models: Mapping[str, Mapping[str, Any]],
    histories: Mapping[str, Sequence[Epoch]],
    cards: Mapping[str, Mapping[str, Any]],
    baselines: str,
) -> str:
    from plotly.offline import get_plotlyjs  # imported here because the import is slow and only reports need it

    figures = {
        "score": _figure(histories, cards, ("epoch", "epoch"), ("test", "test score")),
        "loss": _figure(histories, cards, ("epoch", "epoch"), ("loss", "training loss")),
        "seconds": _figure(histories, cards, ("seconds", "training seconds"), ("test", "test score")),
    }
    data = cards[next(iter(cards))]["data"]
    title = html.escape(f"Training of {name}")
    about = html.escape(
        f"{data['name']}: {data['train_samples']:,} training and {data['test_samples']:,} test samples. "
        f"Test scores decide nothing; dotted: the validation split, where there is one."
    )
    # The figures are embedded in a <script> element: an unescaped "<" in a name could close it.
    packed = json.dumps(figures, allow_nan=False).replace("<", "\\u003c")
    created = html.escape(str(cards[next(iter(cards))]["created"]))
    sections = "".join(
        f'<h2>{heading}</h2><div class="figure" id="{key}"></div>\n'
        for key, heading in (
            ("score", "Score by epoch"),
            ("loss", "Loss by epoch"),
            ("seconds", "Score by training time"),
        )
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
        f"<h1>{title}</h1>\n<p>{about}</p>\n{_table(models)}{baselines}{sections}"
        f"<footer>Made by kronmodel, {created}.</footer>\n"
        f'<script type="application/json" id="figures">{packed}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _table(models: Mapping[str, Mapping[str, Any]]) -> str:
    heads = [f"{model['name']} v{model['version']}" for model in models.values()]
    if len(models) == 2:
        heads.append("dense ÷ Kronecker")
    rows = twin_rows({role: dict(model) for role, model in models.items()})
    return _table_of(heads, rows)


def _baselines(found: Sequence[Baseline], models: Mapping[str, Mapping[str, Any]], ranks: RankSearch | None) -> str:
    """Build the table of the networks, of higher ranks and the baselines; empty without baselines."""
    if not found:
        return ""
    heads, rows, texts = baseline_rows(found, models, ranks)
    better = "".join(f"<p>{html.escape(text[:1].upper() + text[1:])}.</p>\n" for text in texts)
    return f"<h2>{BASELINES_TITLE}</h2>\n{_table_of(heads, rows)}{better}"


def _table_of(heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{html.escape(title)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>\n"
        for title, cells in rows
    )
    return f"<table>\n<thead><tr><th></th>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"


def _figure(
    histories: Mapping[str, Sequence[Epoch]],
    cards: Mapping[str, Mapping[str, Any]],
    across: tuple[str, str],
    up: tuple[str, str],
) -> dict[str, Any]:
    """Build a Plotly figure with one curve for each network; test scores are joined by the validation scores.

    Args:
        histories: epochs of each network by its role.
        cards: model card of each network by its role.
        across: x axis: a field of :class:`Epoch` and the axis title.
        up: y axis: a field of :class:`Epoch` and the axis title.
    """
    lines: list[dict[str, Any]] = []
    for role, history in histories.items():
        kinds = [(up[0], "solid", "")]
        if up[0] == "test" and history[0].validation is not None:
            kinds.append(("validation", "dot", ", validation"))
        lines += [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": html.escape(cards[role]["name"]) + suffix,
                "x": [getattr(epoch, across[0]) for epoch in history],
                "y": [getattr(epoch, kind) for epoch in history],
                "line": {"color": COLOURS[role], "dash": dash},
            }
            for kind, dash, suffix in kinds
        ]
    y_axis = {"title": {"text": up[1]}, "automargin": True, "type": "log" if up[0] == "loss" else "linear"}
    layout = {
        "xaxis": {"title": {"text": across[1]}, "rangemode": "tozero"},
        "yaxis": y_axis,
        "margin": {"t": 20, "r": 20},
        "legend": {"orientation": "h", "y": 1.12},
        "template": {"layout": {"colorway": list(COLOURS.values())}},
        "plot_bgcolor": "#fafafa",
        "hovermode": "x unified",
    }
    return {"data": lines, "layout": layout}
