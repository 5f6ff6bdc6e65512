"""What is known of a data set, on whatever page shows it: what became of its rows, and how they are distributed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from components.report.distributions import Bin, Mark, curve_chart, histogram, share_axis
from components.report.page import format_count, format_share

_HEADLINE_PERCENTS = (1, 10)
# As many labels stand beside the curve as it has room for.
_LABELLED_PERCENTS = (1, 10, 50)
_TOP_PERCENTS = (1, 5, 10, 20, 50)
_NUM_COVERAGE_POINTS = 100
_NUM_RANKS = 30


@dataclass(frozen=True)
class FlowRow:
    """One row of the table that follows the rows from the source into the splits.

    Attributes:
        name: What these rows are.
        detail: One more line about them, or "".
        num_rows: How many; negative where they are dropped.
        start, end: The part of all rows read that they are, in [0, 1].
    """

    name: str
    detail: str
    num_rows: int
    start: float
    end: float


@dataclass(frozen=True)
class Quantiles:
    """Counts at the least, the middle, nine tenths and the greatest; each is a count that occurs."""

    minimum: int
    median: int
    percentile_90: int
    maximum: int


@dataclass(frozen=True)
class TopItems:
    """The most popular items.

    Attributes:
        percent: Which share of the items they are, rounded down to whole items; None for the single most popular one.
        num_items: How many they are.
        share: `num_items` as a share of all.
        coverage: The share of the training positives that are theirs.
        least_count: Training positives of the least popular of them.
    """

    percent: int | None
    num_items: int
    share: float
    coverage: float
    least_count: int

    @property
    def name(self) -> str:
        """The share, or "1 item"."""
        return format_share(self.percent / 100) if self.percent else "1\N{NO-BREAK SPACE}item"


@dataclass(frozen=True)
class Popularity:
    """How the training positives spread over the items.

    Attributes:
        quantiles: Training positives per item.
        num_unseen: Items without any: they occur as held-out items alone.
        top: At least one; ascending.
        coverage: (share of the items, the most popular first; share of the training positives), from (0, 0) to (1, 1).
        counts_by_rank: (rank from 1, training positives), of some of the items that have any.
    """

    quantiles: Quantiles
    num_unseen: int
    top: tuple[TopItems, ...]
    coverage: tuple[tuple[float, float], ...]
    counts_by_rank: tuple[tuple[int, int], ...]

    @property
    def headline(self) -> tuple[TopItems, ...]:
        """Those that the page begins with."""
        return tuple(top for top in self.top if top.percent in _HEADLINE_PERCENTS) or self.top[:1]


def rows_into_splits(manifest: Mapping[str, Any]) -> tuple[FlowRow, ...]:
    """Follows the rows from the ratings into the splits; `manifest` is that of the examples."""
    counts, users, train = manifest["counts"], manifest["num_users"], manifest["num_train_positives"]
    read, distinct, kept = counts["rows_read"], counts["rows_distinct"], counts["rows_kept"]
    inactive = counts["users_read"] - counts["users_kept"]
    too_few = f"{inactive:,} users with fewer than {manifest['min_ratings']:,} distinct items"
    rows = (
        ("Read from the ratings", "", read, 0, read),
        ("Repetitions, dropped", "of a user and an item; the latest row stays", distinct - read, distinct, read),
        ("Rows of inactive users, dropped", too_few, kept - distinct, kept, distinct),
        ("Kept interactions", "", kept, 0, kept),
        ("Training positives", "all but two of each user", train, 0, train),
        ("Validation items", "one of each user", users, train, train + users),
        ("Test items", "one of each user", users, train + users, kept),
    )
    return tuple(FlowRow(name, detail, number, start / read, end / read) for name, detail, number, start, end in rows)


def quantiles_of(counts: NDArray[np.int64], times: NDArray[np.int64]) -> Quantiles:
    """Returns the quantiles of counts, int64, ascending, each of which is there as many times as `times` says."""
    # The inverted distribution function: the least count that at least this share of all does not exceed.
    shares = np.cumsum(times) / times.sum()
    return Quantiles(*(int(counts[np.searchsorted(shares, q)]) for q in (0, 0.5, 0.9, 1)))


def popularity_of(item_counts: NDArray[np.int64]) -> Popularity:
    """Describes how training positives spread over the items: int64 [num_items], not all 0."""
    descending = np.sort(item_counts)[::-1]
    covered = np.concatenate([[0], np.cumsum(descending)]) / descending.sum()
    num_items, num_seen = len(descending), int(np.count_nonzero(descending))
    percent_by_size: dict[int, int | None] = {1: None}
    for percent in _TOP_PERCENTS:
        percent_by_size.setdefault(num_items * percent // 100, percent)
    top = tuple(
        TopItems(percent, size, size / num_items, float(covered[size]), int(descending[size - 1]))
        for size, percent in sorted(percent_by_size.items(), key=lambda pair: pair[0])
        if size
    )
    sizes = np.linspace(0, num_items, min(num_items, _NUM_COVERAGE_POINTS) + 1).round().astype(int)
    # Evenly spread on the logarithmic axis, and some more where it hides a steep end.
    spreads = (np.geomspace(1, num_seen, _NUM_RANKS), np.linspace(1, num_seen, _NUM_RANKS // 3))
    ranks = np.unique(np.concatenate(spreads).round().astype(int)).tolist()
    return Popularity(
        quantiles=quantiles_of(*np.unique(item_counts, return_counts=True)),
        num_unseen=num_items - num_seen,
        top=top,
        coverage=tuple(
            (size / num_items, float(covered[size]))
            for size in sorted({*sizes.tolist(), *(one.num_items for one in top)})
        ),
        counts_by_rank=tuple((rank, int(descending[rank - 1])) for rank in ranks),
    )


def coverage_chart(popularity: Popularity) -> Markup:
    """Draws which share of the training positives the most popular items make up."""
    says = {
        one: f"{one.name}{' of items' if one.percent else ''}: {format_share(one.coverage)}" for one in popularity.top
    }
    marks = [
        Mark(
            one.share, one.coverage, f"{text} of training positives", text if one.percent in _LABELLED_PERCENTS else ""
        )
        for one, text in says.items()
    ]
    return curve_chart(
        popularity.coverage,
        marks,
        (share_axis("share of the items, most popular first"), share_axis("share of training positives")),
        ((0.0, 0.0), (1.0, 1.0)),
        "Share of the training positives that the most popular items make up. " + "; ".join(says.values()),
    )


def activity_chart(activity: Sequence[Bin]) -> Markup:
    """Draws how many users have how many interactions."""
    bars = "; ".join(f"{one.label}: {format_count(one.num_counts)}" for one in activity)
    return histogram(activity, ("user", "users"), "interactions per user", f"Users by number of interactions. {bars}")
