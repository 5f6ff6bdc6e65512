"""Charts as inline SVG: no plotting library, no script, colours from the page's CSS variables.

Each chart is drawn for a phone's width and scales up from there. Every data point is one element of class `mark` with a
`<title>`, which browsers show on hover; the chart itself is an image with an `aria-label`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

from components.report.svg import (
    CHARACTER_WIDTH,
    WIDTH,
    Scale,
    draw,
    horizontal_grid,
    linear_scale,
    new_chart,
    nice_ticks,
    pixels,
    tick_labels,
    to_markup,
)

_MAX_NAME_CHARACTERS = 20


@dataclass(frozen=True)
class StripRow:
    """One row of an interval strip.

    Attributes:
        name: The label at the left.
        series: The colour, counted from 1; 0 is the neutral colour of a reference figure, drawn as a diamond.
        value: The figure, at least 0.
        interval: Its low and high end, or None.
    """

    name: str
    series: int
    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Bar:
    """One bar: its height, at least 0, the ends of its whisker, and the text that hovering shows."""

    value: float
    interval: tuple[float, float]
    tooltip: str


@dataclass(frozen=True)
class BarGroup:
    """Bars side by side over one place of the horizontal axis, one for each series, in the order of the series."""

    label: str
    sublabel: str
    bars: tuple[Bar, ...]


def interval_strip(rows: Sequence[StripRow], label: str) -> Markup:
    """Draws figures of one unit beneath each other on one axis from 0, each with its interval.

    Args:
        rows: At least one.
        label: What a screen reader says.
    """
    row_height, top, right = 24.0, 6.0, 44.0
    left = 10 + CHARACTER_WIDTH * min(_MAX_NAME_CHARACTERS, max(len(row.name) for row in rows))
    bottom = top + row_height * len(rows)
    ticks = nice_ticks(0.0, max(max(row.value, *(row.interval or (0.0,))) for row in rows), 4)
    svg = new_chart(bottom + 22, label)
    x = linear_scale(ticks[0], ticks[-1], left, WIDTH - right)
    for tick, text in zip(ticks, tick_labels(ticks), strict=True):
        draw(svg, "line", "grid", x1=x(tick), x2=x(tick), y1=top, y2=bottom)
        draw(svg, "text", "tick middle", text, x=x(tick), y=bottom + 15)
    for index, row in enumerate(rows):
        y = top + row_height * (index + 0.5)
        name = draw(svg, "text", f"name series-{row.series}", _shortened(row.name), x=0, y=y + 4)
        draw(name, "title", None, row.name)
        if row.interval:
            _whisker(svg, [(x(end), y) for end in row.interval], (0, 6), f"whisker series-{row.series}")
        mark = draw(svg, "path", f"mark series-{row.series}", d=_symbol(row.series, x(row.value), y))
        draw(mark, "title", None, f"{row.name}: {row.value:.4f}")
        draw(svg, "text", "value end", f"{row.value:.3f}", x=WIDTH, y=y + 4)
    return to_markup(svg)


def line_chart(points: Sequence[tuple[int, float]], marked: int | None, label: str, value_format: str) -> Markup:
    """Draws one figure per epoch.

    Args:
        points: (epoch, value), in increasing order of the epochs, at least one.
        marked: The epoch to mark as the best, if it is among the points.
        label: What a screen reader says.
        value_format: How the hover text and the best value are written, for example ".3f".
    """
    width, left, top, bottom, height = 290.0, 38.0, 26.0, 176.0, 212.0
    epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
    ticks = nice_ticks(min(values), max(values), 4)
    epoch_ticks = [tick for tick in nice_ticks(epochs[0], epochs[-1], 6, integers=True) if tick <= epochs[-1]]
    epoch_ticks = [tick for tick in epoch_ticks if tick >= epochs[0]] or [epochs[0]]
    x = linear_scale(epochs[0], epochs[-1], left + 10, width - 10)
    y = linear_scale(ticks[0], ticks[-1], bottom, top)
    svg = new_chart(height, label, width)
    horizontal_grid(svg, ticks, tick_labels(ticks), y, left, width)
    for tick, text in zip(epoch_ticks, tick_labels(epoch_ticks), strict=True):
        draw(svg, "text", "tick middle", text, x=x(tick), y=bottom + 16)
    draw(svg, "text", "axis-title middle", "epoch", x=(left + width) / 2, y=height - 3)
    if marked in epochs:
        _best_epoch(svg, x(marked), (top, bottom), width, f"best epoch {marked}: {dict(points)[marked]:{value_format}}")
    route = " ".join(f"{pixels(x(epoch))},{pixels(y(value))}" for epoch, value in points)
    draw(svg, "polyline", "line series-1", points=route)
    radius = 3.0 if len(points) <= 40 else 1.6
    for epoch, value in points:
        best = epoch == marked
        mark_class = "mark best series-1" if best else "mark series-1"
        mark = draw(svg, "circle", mark_class, cx=x(epoch), cy=y(value), r=radius + 2 if best else radius)
        draw(mark, "title", None, f"epoch {epoch}: {value:{value_format}}")
    return to_markup(svg)


def grouped_bars(groups: Sequence[BarGroup], axis_title: str, label: str) -> Markup:
    """Draws groups of bars with whiskers over an axis from 0.

    Args:
        groups: At least one; each with as many bars as the others.
        axis_title: What the groups' labels count.
        label: What a screen reader says.
    """
    left, top, bottom, height = 32.0, 10.0, 190.0, 246.0
    ends = [end for group in groups for bar in group.bars for end in (bar.value, *bar.interval)]
    ticks = nice_ticks(0.0, max(ends), 5)
    y = linear_scale(ticks[0], ticks[-1], bottom, top)
    svg = new_chart(height, label)
    horizontal_grid(svg, ticks, tick_labels(ticks), y, left, WIDTH)
    group_width = (WIDTH - left) / len(groups)
    bar_width = min(30.0, 0.72 * group_width / len(groups[0].bars))
    for index, group in enumerate(groups):
        center = left + group_width * (index + 0.5)
        draw(svg, "text", "tick middle strong", group.label, x=center, y=bottom + 17)
        draw(svg, "text", "tick middle", group.sublabel, x=center, y=bottom + 33)
        for series, bar in enumerate(group.bars):
            start = center + bar_width * (series - len(group.bars) / 2)
            _bar(svg, bar, series + 1, start + 2, bar_width - 4, y)
    draw(svg, "line", "axis", x1=left, x2=WIDTH, y1=bottom, y2=bottom)
    draw(svg, "text", "axis-title middle", axis_title, x=(left + WIDTH) / 2, y=height - 3)
    return to_markup(svg)


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_NAME_CHARACTERS else name[: _MAX_NAME_CHARACTERS - 1] + "…"


def _best_epoch(svg: ElementTree.Element, x: float, vertical: tuple[float, float], width: float, text: str) -> None:
    top, bottom = vertical
    draw(svg, "line", "best-line", x1=x, x2=x, y1=top - 6, y2=bottom)
    half = len(text) * CHARACTER_WIDTH / 2
    draw(svg, "text", "best-label middle", text, x=min(max(x, half), width - half), y=top - 11)


def _bar(svg: ElementTree.Element, bar: Bar, series: int, x: float, width: float, y: Scale) -> None:
    mark_class = f"mark series-{series}"
    mark = draw(svg, "rect", mark_class, x=x, width=width, y=y(bar.value), height=y(0.0) - y(bar.value))
    draw(mark, "title", None, bar.tooltip)
    middle = x + width / 2
    _whisker(svg, [(middle, y(end)) for end in bar.interval], (4, 0), "whisker")


def _whisker(
    svg: ElementTree.Element, ends: Sequence[tuple[float, float]], cap: tuple[float, float], css_class: str
) -> None:
    """A line between two ends with a cap across each; `cap` is half of the cap, horizontally and vertically."""
    (x_0, y_0), (x_1, y_1) = ends
    parts = [(x_0, y_0, x_1, y_1)]
    parts += [(x - cap[0], y - cap[1], x + cap[0], y + cap[1]) for x, y in ends]
    path = "".join(f"M{pixels(a)} {pixels(b)}L{pixels(c)} {pixels(d)}" for a, b, c, d in parts)
    draw(svg, "path", css_class, d=path)


def _symbol(series: int, x: float, y: float) -> str:
    """A shape per series, so that colour is never the only difference; the diamond is a reference's."""
    steps = {
        0: (-5, 0, "l5 -5l5 5l-5 5z"),
        1: (-4, 0, "a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"),
        2: (-3.5, -3.5, "h7v7h-7z"),
        3: (-4.5, 4, "l4.5 -8l4.5 8z"),
    }
    right, down, outline = steps.get(series, (-4.5, -4, "l4.5 8l4.5 -8z"))
    return f"M{pixels(x + right)} {pixels(y + down)}{outline}"
