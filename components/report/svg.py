"""What every chart is drawn with: an SVG element, its parts, round ticks and scales.

Charts take their colours from the page's CSS, so that one drawing serves light, dark and paper.
"""

import math
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

from markupsafe import Markup

# A generous mean width of a character of the 12 px labels: SVG cannot measure text before a browser lays it out.
CHARACTER_WIDTH = 7.0
WIDTH = 360.0

Scale = Callable[[float], float]


def nice_ticks(low: float, high: float, max_intervals: int, integers: bool = False) -> list[float]:
    """Returns round numbers, equally far apart, whose first and last enclose [low, high].

    The distance is 1, 2, 2.5 or 5 times a power of ten: the smallest that needs at most `max_intervals` (one more where
    neither end is round). Equal ends are widened.

    Args:
        low: The least value.
        high: The greatest, not below `low`.
        max_intervals: How many intervals are wanted at most.
        integers: Whether the ticks must be whole numbers.
    """
    if high <= low:
        margin = max(abs(high) * 0.1, 0.5 if integers else 1e-3)
        low, high = (low - margin if low else low), high + margin
    rough = (high - low) / max_intervals
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [step for step in (power * factor for factor in (1, 2, 2.5, 5, 10)) if step >= rough * (1 - 1e-9)]
    step = max(1, math.ceil(rough)) if integers and steps[0] != round(steps[0]) else steps[0]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Writes ticks with the fewest decimals that tell them all exactly, the same number for each."""
    decimals = next(d for d in range(13) if all(math.isclose(round(tick, d), tick, abs_tol=1e-9) for tick in ticks))
    return [f"{tick:,.{decimals}f}" for tick in ticks]


def count_labels(ticks: Sequence[float]) -> list[str]:
    """Writes whole numbers as `tick_labels` does, but shortened as soon as one of them has more than four digits."""
    return [shortened_count(tick) for tick in ticks] if max(ticks) >= 10_000 else tick_labels(ticks)


def shortened_count(count: float) -> str:
    """Writes a count with three significant digits at most, if it is a thousand or more: 12.8k, 3M, 1.25bn."""
    for unit, suffix in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * unit:
            scaled = count / unit
            text = f"{scaled:,.{max(0, 2 - math.floor(math.log10(scaled) + 1e-9))}f}"
            return f"{text.rstrip('0').rstrip('.') if '.' in text else text}{suffix}"
    return f"{count:g}"


def linear_scale(data_0: float, data_1: float, pixel_0: float, pixel_1: float) -> Scale:
    """Returns the linear map of data onto pixels; where the data is one value, it lies in the middle."""
    if data_0 == data_1:
        return lambda _: (pixel_0 + pixel_1) / 2
    return lambda value: pixel_0 + (value - data_0) * (pixel_1 - pixel_0) / (data_1 - data_0)


def new_chart(height: float, label: str, width: float = WIDTH) -> ElementTree.Element:
    """Starts a chart, `width` by `height` pixels before it is scaled; `label` is what a screen reader says."""
    attributes = {"class": "chart", "viewBox": f"0 0 {pixels(width)} {pixels(height)}", "role": "img"}
    return ElementTree.Element("svg", {**attributes, "aria-label": label})


def draw(
    parent: ElementTree.Element, tag: str, css_class: str | None, text: str | None = None, **attributes: float | str
) -> ElementTree.Element:
    """Appends an element; numbers become pixels with two decimals at most."""
    written = {name: value if isinstance(value, str) else pixels(value) for name, value in attributes.items()}
    element = ElementTree.SubElement(parent, tag, {**({"class": css_class} if css_class else {}), **written})
    element.text = text
    return element


def to_markup(svg: ElementTree.Element) -> Markup:
    """Returns the finished chart as text that a template inserts as it is."""
    # ElementTree has escaped every text and attribute on its way out.
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


def pixels(value: float) -> str:
    """Writes a coordinate or a length with two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def horizontal_grid(
    svg: ElementTree.Element, ticks: Sequence[float], labels: Sequence[str], y: Scale, left: float, right: float
) -> None:
    """Draws a line across the chart at each tick, its label at the left."""
    for tick, text in zip(ticks, labels, strict=True):
        draw(svg, "line", "grid", x1=left, x2=right, y1=y(tick), y2=y(tick))
        draw(svg, "text", "tick end", text, x=left - 7, y=y(tick) + 4)
