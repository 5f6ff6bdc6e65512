"""The data card: one HTML page that tells what a data set holds and what became of it.

`CardContent` holds everything the page shows; `render_card` reads nothing else but the project's own templates.
"""

from dataclasses import dataclass

from markupsafe import Markup

from components.report.data import FlowRow, Popularity, Quantiles, activity_chart, coverage_chart
from components.report.distributions import Bin, Mark, curve_chart, decades_axis, range_bar
from components.report.page import format_count, render_page


@dataclass(frozen=True)
class ProtocolRows:
    """The record rows of one protocol.

    Attributes:
        name: As in the manifest.
        description: What the held-out item is ranked against, or "".
        folder: Where the records are.
        num_candidates: Of each user.
        num_users: How many users are ranked.
        num_rows: All rows, the held-out items and the padding included.
        num_padding_rows: The rows that fill up the last pre-batch of each file.
    """

    name: str
    description: str
    folder: str
    num_candidates: int
    num_users: int
    num_rows: int
    num_padding_rows: int


@dataclass(frozen=True)
class CardContent:
    """Everything that the page shows.

    Attributes:
        title: The data set's name.
        num_read, num_kept: Rows before and after cleaning; a kept row is one distinct pair of a user and an item.
        num_users_read, num_users, num_items: Users before and after cleaning, and items after it.
        min_ratings: Distinct items that a user had to have.
        is_order_known: Whether any timestamps differ.
        has_given_test_items: Whether the data set's own files name the test items.
        flow: From the rows read to the splits.
        num_rejected: Lines of the source that could not be read.
        rejected: (reason, lines), the most frequent first.
        popularity: Of the items, in training positives.
        activity: Users by their number of interactions, the two held-out ones included.
        activity_quantiles: Of the same numbers.
        protocols: In the order of the manifest.
        num_offline_epochs, num_rows_per_offline_epoch: Training rows written with their negatives; 0 for none.
        source: (what, value): where the data comes from.
        citation: What its makers ask to be cited, or "".
        digests: (what, hexadecimal digest).
        parameters: (step.parameter, value).
    """

    title: str
    num_read: int
    num_kept: int
    num_users_read: int
    num_users: int
    num_items: int
    min_ratings: int
    is_order_known: bool
    has_given_test_items: bool
    flow: tuple[FlowRow, ...]
    num_rejected: int
    rejected: tuple[tuple[str, int], ...]
    popularity: Popularity
    activity: tuple[Bin, ...]
    activity_quantiles: Quantiles
    protocols: tuple[ProtocolRows, ...]
    num_offline_epochs: int
    num_rows_per_offline_epoch: int
    source: tuple[tuple[str, str], ...]
    citation: str
    digests: tuple[tuple[str, str], ...]
    parameters: tuple[tuple[str, str], ...]

    @property
    def density(self) -> float:
        """The share of all pairs of a user and an item that interacted."""
        return self.num_kept / (self.num_users * self.num_items)


def render_card(content: CardContent) -> str:
    """Returns the whole page as HTML text, to be written as UTF-8."""
    return render_page(
        "components.generate",
        "card.html",
        {},
        content=content,
        popularity=content.popularity,
        range_bars=[range_bar(row.start, row.end) for row in content.flow],
        coverage_chart=coverage_chart(content.popularity),
        rank_chart=_rank_chart(content.popularity),
        activity_chart=activity_chart(content.activity),
    )


def _rank_chart(popularity: Popularity) -> Markup:
    points = popularity.counts_by_rank
    (_, greatest), (last, least) = points[0], points[-1]
    return curve_chart(
        points,
        [
            Mark(rank, count, f"rank {format_count(rank)}: {format_count(count)} training positives", "")
            for rank, count in points
        ],
        (decades_axis("rank of the item", 1, last), decades_axis("training positives", least, greatest)),
        (),
        f"Training positives by rank of the item, both logarithmic: from {format_count(greatest)} at rank 1 to "
        f"{format_count(least)} at rank {format_count(last)}",
    )
