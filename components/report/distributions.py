"""Charts of how counts are distributed: curves over two axes, histograms, and bars within a table's rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from components.report.svg import (
    CHARACTER_WIDTH,
    WIDTH,
    Scale,
    count_labels,
    draw,
    horizontal_grid,
    linear_scale,
    new_chart,
    nice_ticks,
    pixels,
    shortened_count,
    to_markup,
)

_TOP, _BOTTOM, _HEIGHT = 12.0, 186.0, 222.0
_MAX_BAR_WIDTH = 48.0
_MAX_BINS = 16
# From here on, edges that grow by the square root of two are whole numbers almost as evenly spaced as they should be.
_LEAST_FOR_FINE_BINS = 10


@dataclass(frozen=True)
class Axis:
    """One axis of a curve: linear or logarithmic, its ends at its first and last tick.

    Attributes:
        title: What it counts.
        ticks: At least two, ascending; positive where the axis is logarithmic.
        labels: One for each tick.
        is_logarithmic: Whether equal ratios are equally far apart.
    """

    title: str
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    is_logarithmic: bool

    def onto(self, pixel_0: float, pixel_1: float) -> Scale:
        """Returns the map of data onto pixels, the first tick onto `pixel_0`, the last one onto `pixel_1`."""
        if not self.is_logarithmic:
            return linear_scale(self.ticks[0], self.ticks[-1], pixel_0, pixel_1)
        exponents = linear_scale(math.log10(self.ticks[0]), math.log10(self.ticks[-1]), pixel_0, pixel_1)
        return lambda value: exponents(math.log10(value))


def share_axis(title: str) -> Axis:
    """Returns an axis from 0 to 1, labelled in per cent."""
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    return Axis(title, ticks, tuple(f"{100 * tick:.0f}\N{NO-BREAK SPACE}%" for tick in ticks), is_logarithmic=False)


def decades_axis(title: str, low: float, high: float) -> Axis:
    """Returns a logarithmic axis whose ends are powers of ten that enclose `low` (above 0) and `high`."""
    first = math.floor(math.log10(low) + 1e-12)
    last = max(first + 1, math.ceil(math.log10(high) - 1e-12))
    ticks = tuple(10.0**power for power in range(first, last + 1))
    return Axis(title, ticks, tuple(map(shortened_count, ticks)), is_logarithmic=True)


@dataclass(frozen=True)
class Mark:
    """A point of a curve: its place, the text that hovering shows, and the text beside it ("" for none)."""

    x: float
    y: float
    tooltip: str
    text: str


def curve_chart(
    points: Sequence[tuple[float, float]],
    marks: Sequence[Mark],
    axes: tuple[Axis, Axis],
    reference: Sequence[tuple[float, float]],
    label: str,
) -> Markup:
    """Draws a curve.

    Args:
        points: (x, y), in the order in which to join them, at least one.
        marks: Points of the curve to stand out.
        axes: The horizontal and the vertical one; they enclose the points.
        reference: The ends of a dashed line to compare the curve with; empty for none.
        label: What a screen reader says.
    """
    x_axis, y_axis = axes
    left = 12 + CHARACTER_WIDTH * max(map(len, y_axis.labels))
    x, y = x_axis.onto(left, WIDTH - 16), y_axis.onto(_BOTTOM, _TOP + 14)
    svg = new_chart(_HEIGHT, label)
    draw(svg, "text", "axis-title", y_axis.title, x=0, y=_TOP - 2)
    horizontal_grid(svg, y_axis.ticks, y_axis.labels, y, left, WIDTH)
    for tick, text in zip(x_axis.ticks, x_axis.labels, strict=True):
        draw(svg, "text", "tick middle", text, x=x(tick), y=_BOTTOM + 17)
    draw(svg, "text", "axis-title middle", x_axis.title, x=(left + WIDTH) / 2, y=_HEIGHT - 3)
    for css_class, route in (("reference-line", reference), ("line series-1", points)):
        if route:
            joined = " ".join(f"{pixels(x(point_x))},{pixels(y(point_y))}" for point_x, point_y in route)
            draw(svg, "polyline", css_class, points=joined)
    for mark in marks:
        circle = draw(svg, "circle", "mark series-1", cx=x(mark.x), cy=y(mark.y), r=3)
        draw(circle, "title", None, mark.tooltip)
        if mark.text:
            draw(svg, "text", "strong halo", mark.text, x=x(mark.x) + 8, y=y(mark.y) + 9)
    return to_markup(svg)


@dataclass(frozen=True)
class Bin:
    """How many counts lie between two whole numbers, both included."""

    low: int
    high: int
    num_counts: int

    @property
    def label(self) -> str:
        """The two numbers joined by an en dash, or the one."""
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,}\N{EN DASH}{self.high:,}"


def make_bins(counts: NDArray[np.int64], times: NDArray[np.int64] | None = None) -> tuple[Bin, ...]:
    """Sorts counts into at most 16 bins that begin at the least one.

    Where few whole numbers lie between the least and the greatest, each has a bin of its own. Otherwise every bin spans
    the same ratio: the square root of two, or the least power of two that leaves few enough.

    Args:
        counts: int64 [at least 1], each at least 1.
        times: int64, how many times each of them is there; once each if not given.
    """
    low, high = int(counts.min()), int(counts.max())
    edges = list(range(low, high + 2)) if high - low < _MAX_BINS else _growing_edges(low, high)
    order = np.argsort(counts)
    num_below = np.append(0, np.cumsum(np.ones_like(counts) if times is None else times[order]))
    numbers = np.diff(num_below[np.searchsorted(counts[order], edges)]).tolist()
    return tuple(Bin(start, end - 1, number) for start, end, number in zip(edges[:-1], edges[1:], numbers, strict=True))


def _growing_edges(low: int, high: int) -> list[int]:
    """Edges from `low` to the first beyond `high`, each the same ratio above the one before."""
    for doublings in ((0.5,) if low >= _LEAST_FOR_FINE_BINS else ()) + tuple(range(1, 64)):
        edges = [low]
        while edges[-1] <= high:
            edges.append(math.ceil(low * 2 ** (doublings * len(edges)) - 1e-6))
        if len(edges) <= _MAX_BINS + 1:
            break
    return edges


def histogram(bins: Sequence[Bin], nouns: tuple[str, str], axis_title: str, label: str) -> Markup:
    """Draws one bar for each bin, all of one width, over an axis from 0.

    Args:
        bins: At least one, adjacent, ascending.
        nouns: What is counted, for one and for many: "user", "users".
        axis_title: What the bins are ranges of.
        label: What a screen reader says.
    """
    ticks = nice_ticks(0.0, max(one.num_counts for one in bins), 4, integers=True)
    labels = count_labels(ticks)
    left = 12 + CHARACTER_WIDTH * max(map(len, labels))
    y = linear_scale(ticks[0], ticks[-1], _BOTTOM, _TOP + 14)
    width = min(_MAX_BAR_WIDTH, (WIDTH - 16 - left) / len(bins))
    start = (left + WIDTH - 16 - width * len(bins)) / 2
    svg = new_chart(_HEIGHT, label)
    draw(svg, "text", "axis-title", nouns[1], x=0, y=_TOP - 2)
    horizontal_grid(svg, ticks, labels, y, left, WIDTH)
    for index, one in enumerate(bins):
        top = y(one.num_counts)
        bar = draw(
            svg, "rect", "mark series-1", x=start + width * index + 1, width=width - 2, y=top, height=_BOTTOM - top
        )
        draw(bar, "title", None, f"{one.label}: {one.num_counts:,} {nouns[one.num_counts != 1]}")
    draw(svg, "line", "axis", x1=left, x2=WIDTH, y1=_BOTTOM, y2=_BOTTOM)
    for place, text in _bin_labels(bins, width):
        draw(svg, "text", "tick middle", text, x=start + width * place, y=_BOTTOM + 17)
    draw(svg, "text", "axis-title middle", axis_title, x=(left + WIDTH) / 2, y=_HEIGHT - 3)
    return to_markup(svg)


def _bin_labels(bins: Sequence[Bin], width: float) -> list[tuple[float, str]]:
    """(place in bars, text): the number in the middle of a bar that has one, the edges of the others, few enough."""
    if all(one.low == one.high for one in bins):
        labels = [(index + 0.5, one.low) for index, one in enumerate(bins)]
    else:
        labels = [(float(index), one.low) for index, one in enumerate(bins)] + [(float(len(bins)), bins[-1].high + 1)]
    texts = count_labels([number for _, number in labels])
    every = math.ceil((CHARACTER_WIDTH * max(map(len, texts)) + 6) / width)
    return [(place, text) for (place, _), text in zip(labels, texts, strict=True)][::every]


def range_bar(start: float, end: float) -> Markup:
    """Draws the range from `start` to `end` of a whole, both in [0, 1]: decoration of a row that says it in figures."""
    svg = new_chart(4, "", 100)
    svg.attrib = {"class": "range", "viewBox": "0 0 100 4", "preserveAspectRatio": "none", "aria-hidden": "true"}
    draw(svg, "rect", "whole", width=100, height=4)
    # A range that is not empty shows, however narrow it is.
    length = max(100 * (end - start), 0.4 if end > start else 0)
    draw(svg, "rect", "part", x=min(100 * start, 100 - length), width=length, height=4)
    return to_markup(svg)
