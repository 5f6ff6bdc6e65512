"""Ranking metrics of the leave-one-out protocols, as pure functions of the held-out item's rank.

Each user has one held-out item, the positive, ranked among that user's candidates. Everything else follows from that
rank, 0 being best. HR@K and NDCG@K are those of He et al., "Neural Collaborative Filtering", WWW 2017, section 4.1.
With one relevant item per user the ideal gain is 1: NDCG@K is 1 / log2(rank + 2) inside the cutoff and 0 outside.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from components.ncf.counter_random import Stream, derive_key

Floats = NDArray[np.float64]
Interval = tuple[float, float]

# Bounds the memory of one block of bootstrap draws to some 50 MB.
_DRAWS_PER_BLOCK = 1 << 22
# A binomial draw costs about as much as drawing and gathering this many single users (measured, numpy 2.4).
_BINOMIAL_COST = 16


def positive_ranks(
    candidate_scores: NDArray[np.float32], positive_scores: NDArray[np.float32], duplicate_mask: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Ranks each user's positive among that user's candidates.

    A tie counts against the positive, so that a scorer that gives every item the same score hits nothing.

    Args:
        candidate_scores: float32 [num_users, num_candidates]. The positive is not among the candidates.
        positive_scores: float32 [num_users].
        duplicate_mask: bool [num_users, num_candidates]. True where a candidate does not take part: its
            score is not read.

    Returns:
        int64 [num_users]: how many candidates score at least as high as the positive. 0 is best.

    Raises:
        ValueError: The shapes disagree, or a score that takes part is not finite.
    """
    num_users = len(positive_scores)
    if candidate_scores.shape != duplicate_mask.shape or candidate_scores.shape[:1] != (num_users,):
        raise ValueError(
            f"candidate_scores {candidate_scores.shape}, positive_scores {positive_scores.shape} and "
            f"duplicate_mask {duplicate_mask.shape} do not describe the same users and candidates"
        )
    takes_part = ~duplicate_mask
    not_finite = (~np.isfinite(candidate_scores) & takes_part).any(axis=1) | ~np.isfinite(positive_scores)
    if not_finite.any():
        raise ValueError(
            f"{not_finite.sum()} of {num_users} users have a score that is not finite, the first is user "
            f"{not_finite.argmax()}: the model has diverged, train it with a lower learning rate"
        )
    at_least_as_high = (candidate_scores >= positive_scores[:, None]) & takes_part
    return np.asarray(np.sum(at_least_as_high, axis=1), dtype=np.int64)


def hits_at_k(positive_ranks: ArrayLike, k: int) -> Floats:
    """Returns 1.0 for each user whose positive is among the first `k`, else 0.0: float64 [num_users].

    Args:
        positive_ranks: int64 [num_users], 0 is best.
        k: The cutoff, at least 1.
    """
    return (_checked_ranks(positive_ranks) < _checked_cutoff(k)).astype(np.float64)


def discounted_gains_at_k(positive_ranks: ArrayLike, k: int) -> Floats:
    """Returns each user's NDCG@k, 1 / log2(rank + 2) inside the cutoff and 0.0 outside: float64 [num_users].

    Args:
        positive_ranks: int64 [num_users], 0 is best.
        k: The cutoff, at least 1.
    """
    ranks = _checked_ranks(positive_ranks)
    return np.asarray((ranks < _checked_cutoff(k)) / np.log2(ranks + 2.0), dtype=np.float64)


def reciprocal_ranks(positive_ranks: ArrayLike) -> Floats:
    """Returns 1 / (rank + 1) for each user: float64 [num_users]. `positive_ranks`: int64 [num_users], 0 is best."""
    return np.asarray(1.0 / (_checked_ranks(positive_ranks) + 1.0), dtype=np.float64)


def hit_rate_at_k(positive_ranks: ArrayLike, k: int) -> float:
    """HR@k: the share of users whose positive is among the first `k`.

    Raises:
        ValueError: There is no user, a rank is negative, or `k` is below 1.
    """
    return float(hits_at_k(positive_ranks, k).mean())


def recall_at_k(positive_ranks: ArrayLike, k: int) -> float:
    """Recall@k: with one relevant item per user, the share of it that is found is the hit rate; see there."""
    return hit_rate_at_k(positive_ranks, k)


def ndcg_at_k(positive_ranks: ArrayLike, k: int) -> float:
    """NDCG@k: the mean over users of `discounted_gains_at_k`.

    Raises:
        ValueError: There is no user, a rank is negative, or `k` is below 1.
    """
    return float(discounted_gains_at_k(positive_ranks, k).mean())


def mean_reciprocal_rank(positive_ranks: ArrayLike) -> float:
    """MRR: the mean over users of 1 / (rank + 1), without a cutoff.

    Raises:
        ValueError: There is no user, or a rank is negative.
    """
    return float(reciprocal_ranks(positive_ranks).mean())


def bootstrap_interval(
    per_user_values: NDArray[np.float64], num_samples: int, seed: int, confidence: float = 0.95
) -> Interval:
    """Percentile bootstrap over users (Efron and Tibshirani 1993, chapter 13) of the mean of `per_user_values`.

    Drawing n users with replacement is the same as drawing, from a multinomial, how often each distinct value occurs.
    Hits have two distinct values and NDCG@k has k + 1, so that those resamples cost next to nothing; values that are
    nearly all different are drawn user by user, in blocks of bounded memory. Both are exact resampling, and the same
    seed gives the same interval.

    Args:
        per_user_values: float64 [num_users], one metric's value for each user.
        num_samples: How many resamples of the users are drawn.
        seed: In [0, 2**64).
        confidence: The share of resampled means that the interval covers.

    Returns:
        The low and the high end.

    Raises:
        ValueError: There is no user, a value is not finite, or an argument is out of range.
    """
    values = np.asarray(per_user_values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(
            f"per_user_values must be one value for each of at least one user, not of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"the value of user {(~np.isfinite(values)).argmax()} is not finite")
    if num_samples < 1 or not 0.0 < confidence < 1.0:
        raise ValueError(f"num_samples {num_samples} must be at least 1 and confidence {confidence} between 0 and 1")
    means = np.concatenate(list(_resampled_means(values, num_samples, seed)))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def catalogue_coverage_at_k(top_items: NDArray[np.int32], num_items: int, k: int) -> float:
    """Returns the share of the catalogue that is among the first `k` items of at least one user.

    Aggregate diversity, as in Adomavicius and Kwon, "Improving aggregate recommendation diversity using ranking-based
    techniques" (TKDE 2012), relative to the catalogue.

    Args:
        top_items: int32 [num_users, depth], the best first, -1 for none; `depth` is at least `k`.
        num_items: Size of the catalogue.
        k: The cutoff, at least 1.
    """
    if not 1 <= k <= top_items.shape[1]:
        raise ValueError(f"the cutoff k is {k}, but the lists hold {top_items.shape[1]} items")
    first = top_items[:, :k]
    return len(np.unique(first[first >= 0])) / num_items


@dataclass(frozen=True)
class Band:
    """The hit rate of one group of users.

    Attributes:
        label: What the group is.
        num_users: How many users are in it, at least one.
        hit_rate: HR@k over those users.
        interval: Its bootstrap interval.
    """

    label: str
    num_users: int
    hit_rate: float
    interval: Interval


def hit_rate_by_band(
    positive_ranks: ArrayLike,
    bands: ArrayLike,
    labels: Sequence[str],
    k: int,
    num_samples: int,
    seed: int,
    confidence: float = 0.95,
) -> tuple[Band, ...]:
    """HR@k of groups of users.

    Args:
        positive_ranks: int64 [num_users], 0 is best.
        bands: int64 [num_users], each user's group.
        labels: One for each group; a group without users is left out.
        k: The cutoff, at least 1.
        num_samples: As in `bootstrap_interval`.
        seed: As in `bootstrap_interval`.
        confidence: As in `bootstrap_interval`.

    Raises:
        ValueError: As in `hit_rate_at_k` and `bootstrap_interval`, or the two arrays differ in length.
    """
    hits, band_of_user = hits_at_k(positive_ranks, k), np.asarray(bands)
    if hits.shape != band_of_user.shape:
        raise ValueError(f"{len(hits)} ranks do not match the groups of {len(band_of_user)} users")
    result = []
    for band in np.unique(band_of_user):
        in_band = hits[band_of_user == band]
        interval = bootstrap_interval(in_band, num_samples, seed, confidence)
        result.append(Band(labels[band], len(in_band), float(in_band.mean()), interval))
    return tuple(result)


def activity_bands(num_training_interactions: ArrayLike) -> tuple[NDArray[np.int64], list[str]]:
    """Groups users by quartile of activity, from the least to the most active.

    Args:
        num_training_interactions: int64 [num_users].

    Returns:
        The group of each user, int64 [num_users], and the labels of the groups: their least and greatest number of
        interactions joined by an en dash, or the one number. Four groups; fewer where so many users are equally active
        that a quartile would be empty.
    """
    counts = np.asarray(num_training_interactions)
    _, bands = np.unique(activity_quartiles(counts), return_inverse=True)
    in_bands = (counts[bands == band] for band in range(bands.max() + 1))
    return bands.astype(np.int64), [_range_label(int(part.min()), int(part.max())) for part in in_bands]


def popularity_bands(num_training_interactions: ArrayLike) -> NDArray[np.int64]:
    """Parts the catalogue into head, middle and tail: 0, 1, 2, int64 [num_items].

    The head are the most popular items that together have a third of all interactions, the tail the least popular ones
    that have the last third. Equally popular items are never parted.

    Args:
        num_training_interactions: int64 [num_items].
    """
    counts = np.asarray(num_training_interactions, dtype=np.int64)
    distinct, place = np.unique(-counts, return_inverse=True)
    per_count = np.bincount(place) * -distinct
    # How many interactions the items that are more popular have, as a share.
    before = (np.cumsum(per_count) - per_count) / max(per_count.sum(), 1)
    return np.asarray(np.searchsorted([1 / 3, 2 / 3], before, side="right")[place], dtype=np.int64)


def activity_quartiles(num_training_interactions: ArrayLike) -> NDArray[np.int64]:
    """Returns each user's quartile, 0 for the least active to 3: int64 [num_users].

    Equally active users are never parted: a quartile ends at the first number of interactions that at least a quarter
    (half, three quarters) of the users do not exceed.
    """
    counts = np.asarray(num_training_interactions)
    upper_ends = np.quantile(counts, [0.25, 0.5, 0.75], method="inverted_cdf")
    return np.searchsorted(upper_ends, counts, side="left").astype(np.int64)


def _range_label(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"  # noqa: RUF001


def _checked_ranks(positive_ranks: ArrayLike) -> NDArray[np.int64]:
    ranks = np.asarray(positive_ranks)
    if ranks.ndim != 1 or not len(ranks):
        raise ValueError(f"positive_ranks must be one rank for each of at least one user, not of shape {ranks.shape}")
    if ranks.dtype.kind not in "iu" or ranks.min() < 0:
        raise ValueError("positive_ranks must be integers from 0 up, 0 being best")
    return ranks.astype(np.int64)


def _checked_cutoff(k: int) -> int:
    if k < 1:
        raise ValueError(f"the cutoff k is {k}, but a list of recommendations has at least 1 item")
    return k


def _resampled_means(values: Floats, num_samples: int, seed: int) -> Iterator[Floats]:
    """Yields blocks of means of `values` resampled with replacement, `num_samples` in all."""
    generator = np.random.default_rng(derive_key(seed, Stream.BOOTSTRAP))
    num_users = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    by_value = len(distinct) * _BINOMIAL_COST <= num_users
    width = len(distinct) if by_value else num_users
    for start in range(0, num_samples, block := max(1, _DRAWS_PER_BLOCK // width)):
        num_rows = min(block, num_samples - start)
        if by_value:
            yield generator.multinomial(num_users, counts / num_users, size=num_rows) @ distinct / num_users
        else:
            yield values[generator.integers(num_users, size=(num_rows, num_users), dtype=np.int32)].mean(axis=1)
