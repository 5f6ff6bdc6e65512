"""Ranks the held-out items by protocol and turns the ranks into metrics with intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluate.config import EvaluateConfig
from components.ncf.examples import Candidates
from components.ncf.metrics import bootstrap_interval, discounted_gains_at_k, hits_at_k
from components.ncf.ranking import ScoreCandidates, rank_held_out_items

BASELINE = "popularity"

Ranks = NDArray[np.int64]
# By protocol, then by who ranked ("model" or the baseline): int64 [num_users].
RanksByProtocol = dict[str, dict[str, Ranks]]


def popularity_scorer(num_train_interactions: NDArray[np.int64]) -> ScoreCandidates:
    """Returns a scorer that gives every user the same scores: how often an item was interacted with in training.

    Args:
        num_train_interactions: int64 [num_items].
    """
    counts = num_train_interactions.astype(np.float32)
    return lambda _users, items: counts[items]


def rank_by_protocol(
    candidates_by_protocol: Mapping[str, Candidates], scorers: Mapping[str, ScoreCandidates]
) -> RanksByProtocol:
    """Ranks every protocol's held-out items with every scorer."""
    return {
        protocol: {name: rank_held_out_items(score, candidates) for name, score in scorers.items()}
        for protocol, candidates in candidates_by_protocol.items()
    }


def metrics_of_ranks(ranks: Ranks, config: EvaluateConfig) -> dict[str, Any]:
    """Returns `hr@k`, `ndcg@k` and their 95 % intervals `hr@k_interval`, `ndcg@k_interval` at every cutoff."""
    metrics: dict[str, Any] = {}
    for cutoff in config.cutoffs:
        for name, per_user in (("hr", hits_at_k(ranks, cutoff)), ("ndcg", discounted_gains_at_k(ranks, cutoff))):
            metrics[f"{name}@{cutoff}"] = float(per_user.mean())
            interval = bootstrap_interval(per_user, config.num_bootstrap_samples, config.seed)
            metrics[f"{name}@{cutoff}_interval"] = list(interval)
    return metrics


def metrics_by_protocol(ranks: RanksByProtocol, config: EvaluateConfig) -> dict[str, dict[str, Any]]:
    """Returns each protocol's metrics, those of the baseline beneath its name."""
    return {
        protocol: {
            **metrics_of_ranks(by_scorer["model"], config),
            BASELINE: metrics_of_ranks(by_scorer[BASELINE], config),
            "num_users": len(by_scorer["model"]),
        }
        for protocol, by_scorer in ranks.items()
    }


def flatten_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns one number a name, `<protocol>/<metric>`, as KFP's Metrics artifact holds them."""
    flat = {}
    for protocol, values in metrics.items():
        for suffix, group in (("", values), (f"_{BASELINE}", values[BASELINE])):
            for name, value in group.items():
                if name.endswith("_interval"):
                    flat[f"{protocol}/{name}{suffix}_low"], flat[f"{protocol}/{name}{suffix}_high"] = value
                elif "@" in name:
                    flat[f"{protocol}/{name}{suffix}"] = value
    return flat
