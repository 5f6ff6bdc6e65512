"""Reports to render in tests."""

import dataclasses

import numpy as np

from components.evaluate.command import repeating_command
from components.evaluate.data_card import data_card
from components.evaluate.report import (
    Breakdown,
    BreakdownGroup,
    EpochRecord,
    Estimate,
    ExampleUser,
    Item,
    Lead,
    ProtocolResult,
    Reference,
    ReportContent,
    Reproduction,
    RunFacts,
    Selection,
    SystemResult,
)

DASH = "\N{EN DASH}"
HOSTILE_TITLE = '<script>alert("1")</script> & Sons'
MANIFEST = {
    "dataset": "ml-1m",
    "min_ratings": 20,
    "num_users": 4,
    "num_train_positives": 80,
    "protocols": {"loo-99": {}},
    "counts": {"rows_read": 100, "rows_distinct": 97, "rows_kept": 88, "users_read": 6, "users_kept": 4},
    "source": {
        "url": "https://example.org/ml-1m.zip",
        "archive": {"md5": "0a1b"},
        "licence": "research use <only>",
        "citation": "Harper 2015",
        "counts": {"rejected": 3},
        "timestamp_range": [5, 9],
    },
}


def system(name, hit_rate, ndcg, lead=None, is_catalogue=False):
    def by_cutoff(at_10):
        return {k: Estimate(at_10 * k / 10, at_10 * k / 10 - 0.01, at_10 * k / 10 + 0.011) for k in (5, 10, 20)}

    def difference(value):
        return Estimate(value, value - 0.02, value + 0.03)

    lead = None if lead is None else Lead(difference(lead), difference(lead / 2))
    coverage = {k: k / 40 for k in (5, 10, 20)} if is_catalogue else None
    return SystemResult(name, by_cutoff(hit_rate), by_cutoff(ndcg), by_cutoff(ndcg)[5], coverage, lead)


def item(number, title=None, genres=()):
    return Item(f"raw-{number}", title, genres)


def content(**changes):
    titles = tuple(item(n, f"Film {n} (19{n:02})", ("Drama", "War")) for n in range(12))
    whole = ReportContent(
        title="ml-1m",
        facts=RunFacts(6040, 3706, 1_000_209, 8, (64, 32, 16, 8), 4, 3, Selection.VALIDATION_ITEM),
        headline_cutoff=10,
        cutoffs=(5, 10, 20),
        confidence=0.95,
        num_bootstrap_samples=1000,
        protocols=(
            ProtocolResult(
                "loo-99",
                (system("NeuMF", 0.43249, 0.2511), system("Popularity", 0.31251, 0.1712, 0.12)),
                (Reference("Best reachable", 0.8123, None),),
            ),
            ProtocolResult(
                "loo-full",
                (system("NeuMF", 0.0812, 0.0441, None, True), system("Popularity", 0.0342, 0.0161, 0.005, True)),
                (),
            ),
        ),
        history=tuple(EpochRecord(n, 0.5 / n, 0.4 + n / 100, 0.2 + n / 100) for n in range(1, 5)),
        breakdowns=(
            Breakdown(
                "user activity",
                "training interactions per user",
                "loo-99",
                ("NeuMF", "Popularity"),
                tuple(
                    BreakdownGroup(f"{n}0{DASH}{n}9", "", 1000 * n, (Estimate(0.6, 0.5, 0.7), Estimate(0.3, 0.2, 0.4)))
                    for n in (2, 3, 4)
                ),
            ),
        ),
        data=data_card(MANIFEST, np.array([40, 20, 10, 6, 3, 1, 0]), np.array([18, 20, 25, 17])),
        examples=(
            ExampleUser("42", 53, titles[8:12], titles[:8], titles[2], 2),
            ExampleUser("u-43", 20, (item(99, HOSTILE_TITLE),), titles[:5], item(98, "Lost One"), 36),
        ),
        reproduction=Reproduction(
            "neumf run --dataset ml-1m --set train.seed=7",
            (("ratings", "abc123"), ("model", "def456")),
            (("tensorflow", "2.21.0"),),
            (("download", 3.21), ("train", 102.4)),
        ),
    )
    return dataclasses.replace(whole, **changes)


def of_four_systems():
    """The most that a page has to hold: four systems under four protocols, long names and a long command."""
    names = ("NeuMF", "Popularity", "ALS", "Champion")
    protocols = tuple(
        ProtocolResult(
            protocol,
            tuple(
                system(name, high - 0.05 * n, high / 2, None if n == 0 else 0.08 - 0.05 * n, protocol == "loo-full")
                for n, name in enumerate(names)
            ),
            (),
        )
        for protocol, high in (("loo-99", 0.8), ("loo-999-masked", 0.5), ("fixed", 0.7), ("loo-full", 0.3))
    )
    rates = tuple(Estimate(0.6 - n / 10, 0.5 - n / 10, 0.7 - n / 10) for n in range(4))
    breakdowns = (
        Breakdown("user activity", "training interactions per user", "loo-99", names,
                  tuple(BreakdownGroup(f"{n},000{DASH}{n},999", "", 40_000 * n, rates) for n in range(1, 5))),
        Breakdown("item popularity", "a third of all interactions each", "loo-99", names,
                  tuple(BreakdownGroup(label, "12,345 items", 140_000, rates) for label in ("head", "middle", "tail"))),
    )  # fmt: skip
    command = repeating_command({"train": {f"parameter_{n}": "x" * 30 for n in range(40)}})
    digests = (("ratings", 64 * "a"), ("examples", 64 * "b"))
    reproduction = Reproduction(command, digests, (("tensorflow", "2.21.0"),), (("train", 102.4),))
    return content(protocols=protocols, breakdowns=breakdowns, reproduction=reproduction)
