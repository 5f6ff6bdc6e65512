"""Charts put marks where the numbers are."""

import re
import runpy
from pathlib import Path

import pytest

from components.report.charts import Bar, BarGroup, StripRow, grouped_bars, interval_strip, line_chart
from components.report.svg import nice_ticks
from components.report.svg import tick_labels as labels_of

Page = runpy.run_path(str(Path(__file__).parents[1] / "report" / "html_page.py"))["Page"]


@pytest.mark.parametrize("num_epochs", [1, 2, 3, 20, 130])
def test_points_lie_inside_the_chart_whose_frame_they_need(num_epochs):
    points = [(epoch, 0.4 + 0.001 * epoch) for epoch in range(1, num_epochs + 1)]
    page = Page(line_chart(points, num_epochs, "HR", ".3f"))
    _, _, width, height = map(float, page.all("svg")[0]["attrs"]["viewbox"].split())
    places = [(float(mark["attrs"]["cx"]), float(mark["attrs"]["cy"])) for mark in page.marks()]
    assert len(set(places)) == num_epochs
    assert all(0 < x < width and 0 < y < height for x, y in places)
    assert places == sorted(places, key=lambda place: place[0])
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True), "higher values stand higher"


def test_a_bar_is_as_high_as_its_value_on_the_axis():
    bars = tuple(Bar(value, (value, value), "") for value in (0.25, 0.5, 0.0))
    page = Page(grouped_bars([BarGroup("a", "b", bars)], "axis", "label"))
    heights = [float(mark["attrs"]["height"]) for mark in page.marks()]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.02)
    assert heights[2] == 0
    grid = {float(line["attrs"]["y1"]) for line in page.all("line", "grid")}
    tops = [float(mark["attrs"]["y"]) for mark in page.marks()]
    assert tops[1] == min(grid), "0.5 is the highest tick"


def test_a_strip_places_figures_in_proportion_from_zero():
    page = Page(interval_strip([StripRow("a", 1, 0.0, None), StripRow("b", 0, 0.4, (0.3, 0.4))], "label"))
    grid = sorted(float(line["attrs"]["x1"]) for line in page.all("line", "grid"))
    caps = [float(x) for x in re.findall(r"M([\d.]+) ", page.all("path", "whisker")[0]["attrs"]["d"])]
    assert caps[2] == pytest.approx(grid[-1], abs=0.02)
    assert caps[1] == pytest.approx(grid[0] + 0.75 * (grid[-1] - grid[0]), abs=0.02)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 0.682, ["0.0", "0.2", "0.4", "0.6", "0.8"]),
        (0.0, 0.094, ["0.000", "0.025", "0.050", "0.075", "0.100"]),
        (0.0, 1.0, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (0.24, 0.409, ["0.20", "0.25", "0.30", "0.35", "0.40", "0.45"]),
    ],
)
def test_ticks_are_round_and_enclose_the_data(low, high, labels):
    assert labels_of(nice_ticks(low, high, 4)) == labels


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 2), (1, 3), (1, 14), (0, 129), (5, 5)])
def test_ticks_of_epochs_are_whole_numbers(first, last):
    ticks = nice_ticks(first, last, 6, integers=True)
    assert all(tick == int(tick) for tick in ticks)
    assert ticks[0] <= first <= last <= ticks[-1]
    assert len(ticks) <= 9


def test_ticks_survive_figures_that_are_all_equal():
    assert nice_ticks(0.0, 0.0, 4)[0] == 0.0
    assert len(nice_ticks(0.3, 0.3, 4)) >= 2
