"""The report's tables as Markdown, for user interfaces that show no pages: KFP's own, a pull request."""

import re
from collections.abc import Iterator, Sequence

from components.evaluate.report import (
    Estimate,
    ProtocolResult,
    ReportContent,
    format_difference,
    format_difference_interval,
    format_figure,
    format_interval,
    verdict,
)
from components.report.page import format_share

# Whatever Markdown could take for its own.
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#|!~&])")


def render_summary(content: ReportContent) -> str:
    """Returns the tables: every system under every protocol, and by how much the model leads."""
    k, facts = content.headline_cutoff, content.facts
    lines = [
        f"# {_escaped(content.title)}",
        "",
        f"{facts.num_users:,} users, {facts.num_items:,} items, {facts.num_interactions:,} interactions. In brackets: "
        f"{format_share(content.confidence)} intervals of {content.num_bootstrap_samples:,} bootstrap resamples of the "
        "users. Figures of two protocols cannot be compared.",
        "",
    ]
    if facts.selection == "test item":
        lines += ["**The best epoch was picked on the test item: the figures flatter the model.**", ""]
    for result in content.protocols:
        lines += [f"## {_escaped(result.protocol)}", ""]
        if result.candidates:
            lines += [result.candidates, ""]
        lines += [*_figures(result, content.cutoffs, k), "", *_leads(result, k)]
    return "\n".join(lines).rstrip() + "\n"


def _figures(result: ProtocolResult, cutoffs: Sequence[int], headline: int) -> Iterator[str]:
    has_coverage = all(system.coverage is not None for system in result.systems)
    heads = [f"{metric}@{k}" for metric in ("HR", "NDCG") for k in cutoffs] + ["MRR"]
    yield _row(["System", *heads, *([f"Coverage@{k}" for k in cutoffs] if has_coverage else [])])
    yield _row([":--", *["--:"] * (len(heads) + (len(cutoffs) if has_coverage else 0))])
    for system in result.systems:
        estimates = [*(system.hit_rate[k] for k in cutoffs), *(system.ndcg[k] for k in cutoffs), system.mrr]
        coverage = [format_share(system.coverage[k]) for k in cutoffs] if system.coverage and has_coverage else []
        yield _row([_escaped(system.name), *map(_figure, estimates), *coverage])
    for reference in result.references:
        known = {f"HR@{headline}": reference.hit_rate, f"NDCG@{headline}": reference.ndcg}
        figures = [format_figure(value) if (value := known.get(head)) is not None else "" for head in heads]
        yield _row([_escaped(reference.label), *figures, *([""] * len(cutoffs) if has_coverage else [])])


def _leads(result: ProtocolResult, k: int) -> list[str]:
    model, *others = result.systems
    compared = [(system.name, system.lead) for system in others if system.lead is not None]
    if not compared:
        return []
    rows = [
        _row([_escaped(name), _lead(lead.hit_rate), verdict(lead.hit_rate), _lead(lead.ndcg), verdict(lead.ndcg)])
        for name, lead in compared
    ]
    head = _row([f"{_escaped(model.name)} over", f"HR@{k}", "", f"NDCG@{k}", ""])
    return [head, _row([":--", "--:", ":--", "--:", ":--"]), *rows, ""]


def _figure(estimate: Estimate) -> str:
    return f"{format_figure(estimate.value)} ({format_interval(estimate)})"


def _lead(estimate: Estimate) -> str:
    return f"{format_difference(estimate.value)} ({format_difference_interval(estimate)})"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
