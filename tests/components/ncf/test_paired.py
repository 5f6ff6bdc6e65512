"""The paired bootstrap against drawing users by hand, scipy and the t-interval."""

import math
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from components.ncf.metrics import bootstrap_interval, discounted_gains_at_k, hits_at_k
from components.ncf.paired import PairedDifference, paired_bootstrap


def correlated_ranks(seed, num_users=800):
    """Two systems that find the same users easy: the ranks of a user move together."""
    rng = np.random.default_rng(seed)
    hardness = rng.exponential(12.0, num_users)
    return tuple(rng.poisson(hardness * factor) for factor in (1.0, 1.15))


@pytest.mark.parametrize("metric", [hits_at_k, discounted_gains_at_k])
def test_the_interval_equals_that_of_users_drawn_one_by_one(metric):
    first, second = (metric(ranks, 10) for ranks in correlated_ranks(0))
    paired = paired_bootstrap(first, second, num_samples=20_000, seed=3, confidence=0.9)
    rng = np.random.default_rng(99)
    means = []
    for _ in range(20_000):
        users = rng.integers(len(first), size=len(first))
        means.append(first[users].mean() - second[users].mean())
    # The ends of two samples of 20,000 differ by some hundredths of their spread.
    spread = np.std(means)
    assert paired.difference == pytest.approx(first.mean() - second.mean(), abs=1e-9)
    assert paired.low == pytest.approx(np.quantile(means, 0.05), abs=0.06 * spread)
    assert paired.high == pytest.approx(np.quantile(means, 0.95), abs=0.06 * spread)
    assert paired.num_users == 800


def test_the_interval_agrees_with_scipy():
    first, second = (discounted_gains_at_k(ranks, 20) for ranks in correlated_ranks(1))
    paired = paired_bootstrap(first, second, num_samples=10_000, seed=1)
    by_scipy = stats.bootstrap(
        (first, second),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(5),
    )
    assert paired.low == pytest.approx(by_scipy.confidence_interval.low, abs=0.08 * by_scipy.standard_error)
    assert paired.high == pytest.approx(by_scipy.confidence_interval.high, abs=0.08 * by_scipy.standard_error)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_interval_of_many_users_is_the_t_interval(confidence):
    rng = np.random.default_rng(2)
    first = rng.normal(size=40_000)
    second = first + rng.normal(0.01, 0.5, size=40_000)
    paired = paired_bootstrap(first, second, num_samples=4_000, seed=1, confidence=confidence)
    low, high = stats.t.interval(confidence, 39_999, loc=(first - second).mean(), scale=stats.sem(first - second))
    assert paired.low == pytest.approx(low, abs=0.1 * (high - low))
    assert paired.high == pytest.approx(high, abs=0.1 * (high - low))


def test_what_users_have_in_common_cancels():
    first, second = (hits_at_k(ranks, 10) for ranks in correlated_ranks(4))
    paired = paired_bootstrap(first, second, num_samples=2_000, seed=1)
    apart = sum(np.diff(bootstrap_interval(values, 2_000, 1))[0] ** 2 for values in (first, second)) ** 0.5
    assert paired.high - paired.low < 0.9 * apart


def test_a_system_is_no_better_than_itself_and_swapping_turns_the_sign():
    first, second = (hits_at_k(ranks, 10) for ranks in correlated_ranks(0))
    assert paired_bootstrap(first, first, 100, 1) == PairedDifference(0.0, 0.0, 0.0, 800, 0)
    assert paired_bootstrap(first, second, 100, 1).difference == -paired_bootstrap(second, first, 100, 1).difference


def test_the_same_seed_gives_the_same_interval_and_another_another():
    values = [discounted_gains_at_k(ranks, 10) for ranks in correlated_ranks(0)]
    assert paired_bootstrap(*values, 500, 7) == paired_bootstrap(*values, 500, 7)
    assert paired_bootstrap(*values, 500, 7) != paired_bootstrap(*values, 500, 8)


def test_differences_that_are_all_different_take_bounded_memory():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 100_000))
    tracemalloc.start()
    paired_bootstrap(first, second, 300, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All 300 resamples at once would be 300 x 100,000 x 8 bytes = 240 MB, and their indices half as much again.
    assert peak < 150e6


def test_values_of_other_users_are_refused():
    with pytest.raises(ValueError, match="3 values do not pair with 2"):
        paired_bootstrap(np.zeros(3), np.zeros(2), 100, 1)
    with pytest.raises(ValueError, match="user 1 is not finite"):
        paired_bootstrap(np.zeros(3), np.array([0.0, math.nan, 0.0]), 100, 1)
