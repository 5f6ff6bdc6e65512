"""The report that people open: one HTML file that needs nothing else, neither network nor script.

`ReportContent` holds everything the page shows; `render_report` reads nothing else but the project's own templates.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from markupsafe import Markup

from components.evaluate.data_card import DataCard
from components.report.charts import Bar, BarGroup, StripRow, grouped_bars, interval_strip, line_chart
from components.report.data import activity_chart, coverage_chart
from components.report.distributions import range_bar
from components.report.page import render_page
from components.report.protocols import Shortage, describe_candidates
from components.report.svg import count_labels


class Selection(StrEnum):
    """On which item of each user the best epoch was picked."""

    VALIDATION_ITEM = "validation item"
    TEST_ITEM = "test item"


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its bootstrap interval, all finite."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.value, self.low, self.high))):
            raise ValueError(f"{self} is not finite")


@dataclass(frozen=True)
class Lead:
    """By how much the model's figures at the headline's cutoff exceed another system's, paired over the users."""

    hit_rate: Estimate
    ndcg: Estimate


@dataclass(frozen=True)
class SystemResult:
    """The figures of one system (the model, a baseline) under one protocol, by cutoff k.

    Attributes:
        name: What people call it.
        hit_rate: HR@k, which with one relevant item is recall@k.
        ndcg: NDCG@k.
        mrr: Mean reciprocal rank, without a cutoff.
        coverage: The share of the catalogue among anybody's first k; None where the catalogue is not ranked.
        lead: The model's over this system; None for the model itself.
    """

    name: str
    hit_rate: Mapping[int, Estimate]
    ndcg: Mapping[int, Estimate]
    mrr: Estimate
    coverage: Mapping[int, float] | None
    lead: Lead | None


@dataclass(frozen=True)
class Reference:
    """A figure to read the headline against that was not measured in this run, at the headline's cutoff.

    Attributes:
        label: For example "Best reachable".
        hit_rate: HR, or None if it is not known.
        ndcg: NDCG, or None if it is not known.
    """

    label: str
    hit_rate: float | None
    ndcg: float | None


@dataclass(frozen=True)
class ProtocolResult:
    """What one protocol measured.

    Attributes:
        protocol: Its name, for example "loo-99".
        systems: The model first, then what it is compared with; in the same order for every protocol.
        references: Figures from elsewhere that belong to this protocol.
        shortage: Users who have fewer candidates than the protocol draws, if there are any.
    """

    protocol: str
    systems: tuple[SystemResult, ...]
    references: tuple[Reference, ...]
    shortage: Shortage | None = None

    @property
    def candidates(self) -> str | None:
        """What the held-out item is ranked against, if the protocol is one of the house."""
        return describe_candidates(self.protocol, self.shortage)


@dataclass(frozen=True)
class RunFacts:
    """What was trained on what.

    Attributes:
        num_users: After filtering.
        num_items: After filtering.
        num_interactions: After filtering, the held-out ones included.
        num_factors: The width of the model's factorization tower.
        layers: The widths of its perceptron tower; empty for none.
        num_epochs: How many epochs were trained.
        best_epoch: The epoch that was exported, numbered as in the history; None where nothing was selected.
        selection: On which item it was picked.
    """

    num_users: int
    num_items: int
    num_interactions: int
    num_factors: int
    layers: tuple[int, ...]
    num_epochs: int
    best_epoch: int | None
    selection: Selection

    @property
    def density(self) -> float:
        """The share of all pairs of a user and an item that interacted."""
        return self.num_interactions / (self.num_users * self.num_items)


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training; the metrics, at the headline's cutoff, are those of the item that selects the epoch."""

    epoch: int
    loss: float
    hit_rate: float | None
    ndcg: float | None

    def __post_init__(self) -> None:
        if not all(math.isfinite(figure) for figure in (self.loss, self.hit_rate, self.ndcg) if figure is not None):
            raise ValueError(f"{self} is not finite")


@dataclass(frozen=True)
class BreakdownGroup:
    """HR of one group of users, one estimate for each system of the breakdown, in their order.

    Attributes:
        label: What the group is, short enough to stand below a bar.
        detail: More about it, or "".
        num_users: How many users are in it.
        hit_rates: Of the systems.
    """

    label: str
    detail: str
    num_users: int
    hit_rates: tuple[Estimate, ...]


@dataclass(frozen=True)
class Breakdown:
    """HR at the headline's cutoff over groups of users.

    Attributes:
        subject: What the groups differ in, to follow "by": "user activity".
        axis_title: What the labels of the groups count: "training interactions per user".
        protocol: The protocol's name.
        system_names: The model first.
        groups: In the order of the axis, at least one.
    """

    subject: str
    axis_title: str
    protocol: str
    system_names: tuple[str, ...]
    groups: tuple[BreakdownGroup, ...]

    def __post_init__(self) -> None:
        if not self.groups or any(len(group.hit_rates) != len(self.system_names) for group in self.groups):
            raise ValueError(f"the breakdown by {self.subject} needs groups with one hit rate for each of its systems")


@dataclass(frozen=True)
class Item:
    """An item as a person knows it; without a title the raw id stands for it."""

    raw_item_id: str
    title: str | None
    genres: tuple[str, ...]


@dataclass(frozen=True)
class ExampleUser:
    """One user's taste beside what the model recommends.

    Attributes:
        raw_user_id: As in the data.
        num_training_interactions: How many the model learned from.
        history: The user's latest items, the one before the held-out one first.
        recommendations: The model's first items among all that the user never saw, best first.
        held_out: The test item.
        held_out_rank: Its rank among those items, 0 being best; None if it is not known.
    """

    raw_user_id: str
    num_training_interactions: int
    history: tuple[Item, ...]
    recommendations: tuple[Item, ...]
    held_out: Item
    held_out_rank: int | None

    @property
    def found(self) -> bool:
        """Whether the held-out item is among the recommendations shown."""
        return any(item.raw_item_id == self.held_out.raw_item_id for item in self.recommendations)


@dataclass(frozen=True)
class Reproduction:
    """How to get the same figures again.

    Attributes:
        command: The exact command, or None if the step was not started by one.
        digests: (what, hexadecimal digest).
        versions: (package, version).
        durations_s: (step, seconds).
    """

    command: str | None
    digests: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    durations_s: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class ReportContent:
    """Everything that the page shows.

    Attributes:
        title: The data set's name.
        facts: What was trained on what.
        headline_cutoff: The k of the headline, the history and the breakdowns.
        cutoffs: The k of the table, in its order.
        confidence: What share of resamples the intervals cover, for example 0.95.
        num_bootstrap_samples: How many resamples they come from.
        protocols: The one to be read first comes first; at least one.
        history: In the order of the epochs; may be empty.
        breakdowns: May be empty.
        data: What the figures were measured on.
        examples: May be empty.
        reproduction: How to get the same figures again.
    """

    title: str
    facts: RunFacts
    headline_cutoff: int
    cutoffs: tuple[int, ...]
    confidence: float
    num_bootstrap_samples: int
    protocols: tuple[ProtocolResult, ...]
    history: tuple[EpochRecord, ...]
    breakdowns: tuple[Breakdown, ...]
    data: DataCard
    examples: tuple[ExampleUser, ...]
    reproduction: Reproduction

    def __post_init__(self) -> None:
        if not self.protocols or not all(result.systems for result in self.protocols):
            raise ValueError(
                "a report needs at least one protocol, and each protocol the figures of at least one system"
            )
        for result in self.protocols:
            for system in result.systems:
                missing = {self.headline_cutoff, *self.cutoffs} - (system.hit_rate.keys() & system.ndcg.keys())
                if missing:
                    raise ValueError(f"{system.name} has no figures at k = {sorted(missing)} under {result.protocol}")


def render_report(content: ReportContent) -> str:
    """Returns the whole page as HTML text, to be written as UTF-8."""
    return render_page(
        "components.evaluate",
        "report.html",
        {
            "figure": format_figure,
            "interval": format_interval,
            "percent": format_percent,
            "difference": format_difference,
            "difference_interval": format_difference_interval,
            "verdict": verdict,
        },
        content=content,
        facts=content.facts,
        model=content.protocols[0].systems[0].name,
        headline_charts=[_headline_charts(result, content) for result in content.protocols],
        training_charts=_training_charts(content),
        coverage_chart=coverage_chart(content.data.popularity),
        activity_chart=activity_chart(content.data.activity),
        range_bars=[range_bar(row.start, row.end) for row in content.data.flow],
        breakdown_charts=[_breakdown_chart(breakdown, content) for breakdown in content.breakdowns],
    )


def format_figure(value: float) -> str:
    """Writes a metric in [0, 1] with three decimals."""
    return f"{value:.3f}"


def format_interval(estimate: Estimate) -> str:
    """Writes an interval as two figures joined by an en dash."""
    return f"{format_figure(estimate.low)}–{format_figure(estimate.high)}"  # noqa: RUF001


def format_difference(value: float) -> str:
    """Writes a difference with its sign and three decimals."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def format_difference_interval(estimate: Estimate) -> str:
    """Writes the interval of a difference: signs and dashes side by side would be misread."""
    return f"{format_difference(estimate.low)} to {format_difference(estimate.high)}"


def verdict(difference: Estimate) -> str:
    """Says what the interval of the model's lead allows to say."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "unclear"


def format_percent(value: float) -> str:
    """Writes a metric in [0, 1] as a per cent with one decimal, as exact as `format_figure`."""
    return f"{100.0 * value:.1f}\N{NO-BREAK SPACE}%"


def _headline_charts(result: ProtocolResult, content: ReportContent) -> dict[str, Markup]:
    k = content.headline_cutoff
    rows: dict[str, list[StripRow]] = {"HR": [], "NDCG": []}
    for series, system in enumerate(result.systems, start=1):
        for metric, estimate in (("HR", system.hit_rate[k]), ("NDCG", system.ndcg[k])):
            rows[metric].append(StripRow(system.name, series, estimate.value, (estimate.low, estimate.high)))
    for reference in result.references:
        for metric, value in (("HR", reference.hit_rate), ("NDCG", reference.ndcg)):
            if value is not None:
                rows[metric].append(StripRow(reference.label, 0, value, None))
    return {
        metric: interval_strip(
            metric_rows,
            f"{metric}@{k} under {result.protocol}: "
            + ", ".join(f"{row.name} {format_figure(row.value)}" for row in metric_rows),
        )
        for metric, metric_rows in rows.items()
    }


def _training_charts(content: ReportContent) -> dict[str, Markup]:
    """Charts by heading; a metric that no epoch recorded has none."""
    k, best = content.headline_cutoff, content.facts.best_epoch
    item = content.facts.selection.split()[0].capitalize()
    curves: dict[str, tuple[list[float | None], str]] = {
        "Training loss": ([record.loss for record in content.history], ".4f"),
        f"{item} HR@{k}": ([record.hit_rate for record in content.history], ".3f"),
        f"{item} NDCG@{k}": ([record.ndcg for record in content.history], ".3f"),
    }
    charts = {}
    for heading, (values, value_format) in curves.items():
        epochs = [record.epoch for record in content.history]
        points = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if value is not None]
        if points:
            label = f"{heading} by epoch, from {points[0][1]:{value_format}} to {points[-1][1]:{value_format}}"
            charts[heading] = line_chart(points, best, label, value_format)
    return charts


def _breakdown_chart(breakdown: Breakdown, content: ReportContent) -> Markup:
    metric = f"HR@{content.headline_cutoff}"
    groups = [
        BarGroup(
            group.label,
            _num_users(group.num_users),
            tuple(
                Bar(rate.value, (rate.low, rate.high), f"{name}: {format_figure(rate.value)} ({format_interval(rate)})")
                for name, rate in zip(breakdown.system_names, group.hit_rates, strict=True)
            ),
        )
        for group in breakdown.groups
    ]
    label = f"{metric} by {breakdown.subject} under {breakdown.protocol}: {' and '.join(breakdown.system_names)}"
    return grouped_bars(groups, breakdown.axis_title, label)


def _num_users(number: int) -> str:
    """Writes a number of users as shortly as the room below a group of bars demands."""
    (text,) = count_labels([number])
    return f"{text} user{'s' if number != 1 else ''}"
