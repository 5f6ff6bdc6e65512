"""Ranks the held-out items by protocol and turns the ranks into metrics with intervals."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluate.config import CATALOGUE, MODEL, EvaluateConfig
from components.ncf.examples import Candidates
from components.ncf.interactions import ItemLists
from components.ncf.metrics import (
    bootstrap_interval,
    catalogue_coverage_at_k,
    discounted_gains_at_k,
    hits_at_k,
    reciprocal_ranks,
)
from components.ncf.ranking import Scorer, num_processors, rank_held_out_items, rank_in_catalogue

_LOG = logging.getLogger(__name__)

Ranks = NDArray[np.int64]
# By protocol, then by system: int64 [num_users], in the order of the protocol's users.
RanksByProtocol = dict[str, dict[str, Ranks]]


@dataclass(frozen=True)
class HeldOut:
    """What every protocol ranks.

    Attributes:
        candidates: By protocol; those of the whole catalogue have none.
        users: int32 [num_users], everybody.
        positives: int32 [num_users], the test item of each.
        seen: What each user had before the test item.
        num_items: Size of the catalogue.
    """

    candidates: Mapping[str, Candidates]
    users: NDArray[np.int32]
    positives: NDArray[np.int32]
    seen: ItemLists
    num_items: int

    def users_of(self, protocol: str) -> NDArray[np.int32]:
        """Returns the users whose test item a protocol ranks, in the order of the ranks."""
        return self.users if protocol == CATALOGUE else self.candidates[protocol].users

    def positives_of(self, protocol: str) -> NDArray[np.int32]:
        """Returns their test items."""
        return self.positives if protocol == CATALOGUE else self.candidates[protocol].positives

    def num_candidates_of(self, protocol: str) -> NDArray[np.int64]:
        """Returns how many different items each of them is ranked against."""
        if protocol == CATALOGUE:
            return self.num_items - self.seen.lengths[self.users] - 1
        num_candidates: NDArray[np.int64] = np.sum(~self.candidates[protocol].duplicate_mask, axis=1)
        return num_candidates


@dataclass(frozen=True)
class Ranking:
    """What ranking gives.

    Attributes:
        ranks: By protocol and system.
        top_items: By system, the best items of the whole catalogue, int32 [num_users, depth]; empty where the catalogue
            was not ranked.
    """

    ranks: RanksByProtocol
    top_items: Mapping[str, NDArray[np.int32]]


def rank(protocols: tuple[str, ...], held_out: HeldOut, systems: Mapping[str, Scorer], depth: int) -> Ranking:
    """Ranks every protocol's held-out items with every system.

    Args:
        protocols: In the order of the result.
        held_out: What is ranked.
        systems: By name.
        depth: How many of the catalogue's best items to keep.
    """
    ranks: RanksByProtocol = {protocol: {} for protocol in protocols}
    top_items = {}
    for name, scorer in systems.items():
        for protocol in protocols:
            started = time.perf_counter()
            if protocol == CATALOGUE:
                in_catalogue = rank_in_catalogue(
                    scorer.score_catalogue, held_out.users, held_out.positives, held_out.seen, held_out.num_items, depth
                )
                ranks[protocol][name], top_items[name] = in_catalogue.ranks, in_catalogue.top_items
            else:
                ranks[protocol][name] = rank_held_out_items(
                    scorer.score_candidates, held_out.candidates[protocol], num_processors()
                )
            _LOG.info(
                "%s under %s: %d users in %.2f s",
                name, protocol, len(ranks[protocol][name]), time.perf_counter() - started,
            )  # fmt: skip
    return Ranking(ranks, top_items)


def metrics_of_ranks(ranks: Ranks, config: EvaluateConfig) -> dict[str, Any]:
    """Returns `hr@k`, `recall@k` and `ndcg@k` at every cutoff, `mrr`, and the 95 % intervals of all but recall.

    With one relevant item a user, recall@k is hr@k.
    """
    per_user = {"mrr": reciprocal_ranks(ranks)}
    for cutoff in config.cutoffs:
        per_user[f"hr@{cutoff}"] = hits_at_k(ranks, cutoff)
        per_user[f"ndcg@{cutoff}"] = discounted_gains_at_k(ranks, cutoff)
    metrics: dict[str, Any] = {}
    for name, values in per_user.items():
        metrics[name] = float(values.mean())
        metrics[f"{name}_interval"] = list(bootstrap_interval(values, config.num_bootstrap_samples, config.seed))
    return metrics | {f"recall@{cutoff}": metrics[f"hr@{cutoff}"] for cutoff in config.cutoffs}


def metrics_by_protocol(ranking: Ranking, num_items: int, config: EvaluateConfig) -> dict[str, dict[str, Any]]:
    """Returns each protocol's metrics: the model's, and those of every other system beneath its name.

    Where the whole catalogue is ranked, `coverage@k` is the share of it that anybody's first k items hold.
    """
    metrics: dict[str, dict[str, Any]] = {}
    for protocol, by_system in ranking.ranks.items():
        values = {name: metrics_of_ranks(ranks, config) for name, ranks in by_system.items()}
        if protocol == CATALOGUE:
            for name, top_items in ranking.top_items.items():
                values[name] |= {
                    f"coverage@{k}": catalogue_coverage_at_k(top_items, num_items, k) for k in config.cutoffs
                }
        num_users = len(by_system[MODEL])
        others = {name: value for name, value in values.items() if name != MODEL}
        metrics[protocol] = {**values[MODEL], **others, "num_users": num_users}
    return metrics


def flatten_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns one number a name, `<protocol>/<metric>`, as KFP's Metrics artifact holds them."""
    flat: dict[str, float] = {}
    for protocol, values in metrics.items():
        others = {f"_{name}": group for name, group in values.items() if isinstance(group, Mapping)}
        for suffix, group in {"": values, **others}.items():
            for name, value in group.items():
                if name.endswith("_interval"):
                    flat[f"{protocol}/{name}{suffix}_low"], flat[f"{protocol}/{name}{suffix}_high"] = value
                elif "@" in name or name == "mrr":
                    flat[f"{protocol}/{name}{suffix}"] = value
    return flat
