"""Bins hold every count once, and curves and bars stand where the numbers are."""

import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.report.distributions import (
    Bin,
    Mark,
    curve_chart,
    decades_axis,
    histogram,
    make_bins,
    range_bar,
    share_axis,
)
from components.report.svg import CHARACTER_WIDTH, count_labels, shortened_count

Page = runpy.run_path(str(Path(__file__).parents[1] / "report" / "html_page.py"))["Page"]
DASH = "\N{EN DASH}"


def frame(page):
    return tuple(map(float, page.all("svg")[0]["attrs"]["viewbox"].split()[2:]))


@given(st.lists(st.one_of(st.integers(1, 60), st.integers(1, 5_000), st.integers(1, 10**12)), min_size=1, max_size=200))
def test_every_count_lies_in_one_bin(counts):
    bins = make_bins(np.array(counts, np.int64))
    assert len(bins) <= 16
    assert bins[0].low == min(counts)
    assert bins[-1].low <= max(counts) <= bins[-1].high
    for one, following in pairwise(bins):
        assert following.low == one.high + 1
    for one in bins:
        assert one.num_counts == sum(one.low <= count <= one.high for count in counts)


@pytest.mark.parametrize(
    ("counts", "labels"),
    [
        ([7, 7, 7], ["7"]),
        ([3, 5], ["3", "4", "5"]),
        ([3, 40], [f"3{DASH}5", f"6{DASH}11", f"12{DASH}23", f"24{DASH}47"]),
        ([20, 100], [f"20{DASH}28", f"29{DASH}39", f"40{DASH}56", f"57{DASH}79", f"80{DASH}113"]),
    ],
    ids=["all the same", "few numbers", "doubling", "by the square root of two"],
)
def test_bins_are_single_numbers_or_equal_ratios(counts, labels):
    assert [one.label for one in make_bins(np.array(counts))] == labels


def test_huge_ranges_get_wider_bins_of_one_ratio():
    bins = make_bins(np.array([3, 3 * 10**9]))
    ratios = {(one.high + 1) / one.low for one in bins}
    assert ratios == {4.0}


def test_bars_are_as_high_as_their_counts_and_side_by_side():
    bins = (Bin(1, 1, 10), Bin(2, 3, 5), Bin(4, 7, 0), Bin(8, 15, 1))
    page = Page(histogram(bins, ("user", "users"), "interactions", "label"))
    bars = [{name: float(bar["attrs"][name]) for name in ("x", "y", "width", "height")} for bar in page.marks()]
    assert [bar["height"] / bars[0]["height"] for bar in bars] == pytest.approx([1, 0.5, 0, 0.1], abs=1e-3)
    assert len({bar["y"] + bar["height"] for bar in bars}) == 1
    assert all(a["x"] + a["width"] < b["x"] for a, b in pairwise(bars))
    assert [bar["text"] for bar in page.marks()] == ["1: 10 users", f"2{DASH}3: 5 users", f"4{DASH}7: 0 users",
                                                     f"8{DASH}15: 1 user"]  # fmt: skip


@pytest.mark.parametrize(
    "counts", [[5], [3, 4], [20, 2_314], [3, 3 * 10**9], [10**6] * 3, range(1, 17)], ids=lambda counts: str(counts)[:20]
)
def test_labels_of_a_histogram_do_not_overlap_and_stay_within_it(counts):
    page = Page(histogram(make_bins(np.array(counts)), ("user", "users"), "interactions", "label"))
    width, height = frame(page)
    below = max(float(line["attrs"]["y1"]) for line in page.all("line"))
    ticks = [e for e in page.all("text", "middle") if below < float(e["attrs"]["y"]) < below + 20]
    assert ticks
    places = [(float(e["attrs"]["x"]), CHARACTER_WIDTH * len(e["text"]) / 2) for e in ticks]
    ends = [(middle - half, middle + half) for middle, half in places]
    assert all(start >= 0 for start, _ in ends)
    assert all(end <= width + 8 for _, end in ends), "a last label may lean out into the margin"
    assert all(left[1] < right[0] for left, right in pairwise(ends))
    assert all(0 <= float(bar["attrs"]["x"]) <= width for bar in page.marks())
    assert all(0 <= float(bar["attrs"]["y"]) <= height for bar in page.marks())


def test_edges_are_labelled_at_the_bars_edges_and_single_numbers_below_their_middle():
    for bins, share in (((Bin(1, 1, 2), Bin(2, 2, 2)), 0.5), ((Bin(1, 2, 2), Bin(3, 4, 2)), 0.0)):
        page = Page(histogram(bins, ("user", "users"), "", "label"))
        first = page.marks()[0]["attrs"]
        label = next(e for e in page.all("text", "middle") if e["text"] == "1")
        start, width = float(first["x"]) - 1, float(first["width"]) + 2
        assert float(label["attrs"]["x"]) == pytest.approx(start + share * width)


def test_a_curve_lies_in_proportion_between_its_grid_lines():
    marks = [Mark(0.5, 0.75, "tip", "beside")]
    page = Page(
        curve_chart([(0, 0), (0.5, 0.75), (1, 1)], marks, (share_axis("x"), share_axis("y")), [(0, 0), (1, 1)], "label")
    )
    grid = [float(line["attrs"]["y1"]) for line in page.all("line", "grid")]
    (mark,) = page.marks()
    assert float(mark["attrs"]["cy"]) == pytest.approx(grid[3], abs=0.02)
    ticks = {e["text"]: float(e["attrs"]["x"]) for e in page.all("text", "middle")}
    assert float(mark["attrs"]["cx"]) == pytest.approx(ticks["50\N{NO-BREAK SPACE}%"], abs=0.02)
    assert mark["text"] == "tip"
    assert "beside" in page.texts("text", "strong")
    curve, dashed = page.all("polyline", "line"), page.all("polyline", "reference-line")
    assert curve[0]["attrs"]["points"].split()[0] == dashed[0]["attrs"]["points"].split()[0]
    assert curve[0]["attrs"]["points"].split()[2] == dashed[0]["attrs"]["points"].split()[1]


def test_equal_ratios_are_equally_far_apart_on_logarithmic_axes():
    points = [(1, 5_000), (10, 500), (100, 50)]
    axes = (decades_axis("rank", 1, 100), decades_axis("count", 5, 5_000))
    page = Page(curve_chart(points, [Mark(*point, "", "") for point in points], axes, (), "label"))
    xs, ys = ([float(mark["attrs"][name]) for mark in page.marks()] for name in ("cx", "cy"))
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.02)
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.02)
    assert ys[0] < ys[1]
    assert not page.all("polyline", "reference-line")


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [(1, 1, ["1", "10"]), (5, 5, ["1", "10"]), (1, 10, ["1", "10"]), (3, 1_000, ["1", "10", "100", "1k"]),
     (20, 3e9, ["10", "100", "1k", "10k", "100k", "1M", "10M", "100M", "1bn", "10bn"])],
)  # fmt: skip
def test_decades_enclose_the_data(low, high, labels):
    axis = decades_axis("x", low, high)
    assert list(axis.labels) == labels
    assert axis.ticks[0] <= low <= high <= axis.ticks[-1]


def test_long_counts_are_shortened():
    counts = (0, 7, 999, 1_000, 12_800, 999_400, 999_600, 1_250_000, 3_000_000_000, 250_000_000_000)
    assert [shortened_count(count) for count in counts] == [
        "0", "7", "999", "1k", "12.8k", "999k", "1M", "1.25M", "3bn", "250bn",
    ]  # fmt: skip
    assert count_labels([0, 2_500, 5_000]) == ["0", "2,500", "5,000"]
    assert count_labels([0, 5_000, 10_000]) == ["0", "5k", "10k"]


@pytest.mark.parametrize(
    ("start", "end", "x", "width"), [(0.25, 0.75, 25, 50), (0, 1, 0, 100), (1, 1, 100, 0), (0.9999, 1, 99.6, 0.4)]
)
def test_a_range_is_drawn_where_it_lies_and_never_too_thin_to_see(start, end, x, width):
    page = Page(range_bar(start, end))
    part = page.all("rect", "part")[0]["attrs"]
    assert (float(part["x"]), float(part["width"])) == pytest.approx((x, width))
    assert page.all("svg")[0]["attrs"]["aria-hidden"] == "true"
