"""Handwritten digits as strokes: points in fractions of the pad's side."""

from math import cos, pi, sin

from playwright.sync_api import Page

Point = tuple[float, float]
Stroke = list[Point]


def arc(x: float, y: float, width: float, height: float, start: float, end: float) -> Stroke:
    """Return points on a part of an ellipse; angles in turns, clockwise from the right."""
    count = 24
    turns = [start + (end - start) * i / count for i in range(count + 1)]
    return [(x + width / 2 * cos(2 * pi * t), y + height / 2 * sin(2 * pi * t)) for t in turns]


DIGITS: dict[str, list[Stroke]] = {
    "0": [arc(0.5, 0.5, 0.4, 0.56, -0.25, 0.75)],
    "1": [[(0.54, 0.2), (0.5, 0.5), (0.46, 0.8)]],
    "2": [[*arc(0.48, 0.36, 0.34, 0.3, -0.5, 0.1), (0.34, 0.78), (0.7, 0.77)]],
    "3": [[*arc(0.48, 0.35, 0.3, 0.28, -0.4, 0.25), *arc(0.48, 0.635, 0.36, 0.29, -0.25, 0.4)]],
    "4": [[(0.38, 0.2), (0.32, 0.5), (0.68, 0.5)], [(0.64, 0.22), (0.6, 0.82)]],
    "7": [[(0.28, 0.25), (0.72, 0.25), (0.45, 0.8)]],
}


def on_screen(page: Page, stroke: Stroke) -> Stroke:
    """Convert a stroke to the window's coordinates."""
    box = page.locator("#pad").bounding_box()
    assert box is not None
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]


def move_mouse(page: Page, stroke: Stroke, *, lift: bool = True) -> None:
    """Draw one stroke with the mouse, in many small moves."""
    first, *rest = on_screen(page, stroke)
    page.mouse.move(*first)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point, steps=4)
    if lift:
        page.mouse.up()


def draw(page: Page, digit: str) -> None:
    """Draw a whole digit with the mouse."""
    page.locator("#pad").scroll_into_view_if_needed()
    for stroke in DIGITS[digit]:
        move_mouse(page, stroke)
