"""HTML page of a compression report: tables, and each layer's curve as an SVG drawing, without scripts."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["page_of"]

COLOURS = {"dense": "#555555", "low-rank": "#b4530a", "kronecker": "#0b6e4f", "monarch": "#3b4cc0"}
STYLE = """
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; font-weight: 500; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .35rem .7rem; text-align: left; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
svg { max-width: 40rem; width: 100%; height: auto; }
svg text { font-size: 12px; fill: #444; }
"""
ABOUT_CURVES = """<h2>Error of the outputs against size</h2>
<p>Each point is a candidate; the ring is the chosen one, with its error after the final fit.</p>
"""
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 260, 56, 40, 14


def page_of(
    title: str,
    tables: Mapping[str, Sequence[Sequence[str]]],
    layers: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
) -> str:
    """Return a report as one self-contained HTML page.

    Args:
        title: heading.
        tables: header and rows of each table by its heading, which may be empty.
        layers: layers with ``name``, ``kind``, ``bytes``, ``output_error``, and ``curve`` as a list of candidates.
        notes: sentences below the tables.
    """
    shown = "".join(
        f"{f'<h2>{html.escape(heading)}</h2>' if heading else ''}\n{_table(rows)}" for heading, rows in tables.items()
    )
    curves = "".join(
        f"<h3>{html.escape(layer['name'])}</h3>\n{_curve(layer)}\n" for layer in layers if len(layer["curve"]) > 1
    )
    sentences = "".join(f"<p>{html.escape(note)}</p>\n" for note in notes)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{shown}{sentences}{ABOUT_CURVES + curves if curves else ''}</body>\n</html>\n"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    top = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in body
    )
    return f'<div class="wide"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table></div>\n'


def _curve(layer: Mapping[str, Any]) -> str:
    """Draw the candidates of a layer: bytes on a logarithmic axis, error on a linear one."""
    curve = layer["curve"]
    chosen = (layer["bytes"][1], layer["output_error"])
    sizes = [max(point["bytes"], 1) for point in curve] + [max(chosen[0], 1)]
    low, high = math.log(min(sizes)), math.log(max(sizes))
    top = max([point["output_error"] for point in curve] + [chosen[1], 1e-9])

    def across(size: float) -> float:
        relative: float = (math.log(max(size, 1)) - low) / max(high - low, 1e-9)
        return LEFT + relative * (WIDTH - LEFT - 20)

    def up(error: float) -> float:
        relative: float = error / top
        return HEIGHT - BOTTOM - relative * (HEIGHT - BOTTOM - TOP)

    parts = [
        f'<line x1="{LEFT}" y1="{up(0):.1f}" x2="{WIDTH - 10}" y2="{up(0):.1f}" stroke="#999"/>',
        f'<line x1="{LEFT}" y1="{TOP}" x2="{LEFT}" y2="{up(0):.1f}" stroke="#999"/>',
        f'<text x="{LEFT - 6}" y="{up(top) + 4:.1f}" text-anchor="end">{top:.2f}</text>',
        f'<text x="{LEFT - 6}" y="{up(0) + 4:.1f}" text-anchor="end">0</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 22}">{min(sizes):,}</text>',
        f'<text x="{WIDTH - 10}" y="{HEIGHT - 22}" text-anchor="end">{max(sizes):,} bytes</text>',
    ]
    line = " ".join(f"{across(point['bytes']):.1f},{up(point['output_error']):.1f}" for point in curve)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#bbb"/>')
    for point in curve:
        label = html.escape(f"{point['structure']}: {point['bytes']:,} bytes, error {point['output_error']:.3f}")
        parts.append(
            f'<circle cx="{across(point["bytes"]):.1f}" cy="{up(point["output_error"]):.1f}" r="3.5" '
            f'fill="{COLOURS[point["kind"]]}"><title>{label}</title></circle>'
        )
    parts.append(
        f'<circle cx="{across(chosen[0]):.1f}" cy="{up(chosen[1]):.1f}" r="7" fill="none" '
        f'stroke="{COLOURS[layer["kind"]]}" stroke-width="2"/>'
    )
    kinds = list(dict.fromkeys(point["kind"] for point in curve))
    for index, kind in enumerate(kinds):
        x = LEFT + 110 * index
        parts.append(f'<circle cx="{x + 4}" cy="{HEIGHT - 8}" r="4" fill="{COLOURS[kind]}"/>')
        parts.append(f'<text x="{x + 12}" y="{HEIGHT - 4}">{html.escape(kind)}</text>')
    name = html.escape(f"Error of the outputs against bytes, {layer['name']}")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
