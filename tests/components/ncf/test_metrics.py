"""The ranking metrics against plain recomputation, brute force and scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, top_k_accuracy_score

from components.ncf.metrics import (
    activity_bands,
    activity_quartiles,
    bootstrap_interval,
    catalogue_coverage_at_k,
    discounted_gains_at_k,
    hit_rate_at_k,
    hit_rate_by_band,
    hits_at_k,
    mean_reciprocal_rank,
    ndcg_at_k,
    popularity_bands,
    positive_ranks,
    recall_at_k,
    reciprocal_ranks,
)

CUTOFFS = (1, 5, 10, 20)


def random_world(seed, num_users=200, num_candidates=30, num_levels=12):
    """Scores with many ties, and a mask over a third of the candidates."""
    rng = np.random.default_rng(seed)
    candidates = rng.integers(num_levels, size=(num_users, num_candidates)).astype(np.float32)
    positives = rng.integers(num_levels, size=num_users).astype(np.float32)
    return candidates, positives, rng.random(candidates.shape) < 1 / 3


def brute_force_rank(candidates, positive, mask):
    """Sorts the list that a user would see, the positive last among equals, and looks the positive up in it."""
    shown = [(-score, 0) for score, masked in zip(candidates, mask, strict=True) if not masked] + [(-positive, 1)]
    return sorted(shown).index((-positive, 1))


@pytest.mark.parametrize("seed", range(5))
def test_ranks_equal_brute_force_with_ties_and_masks(seed):
    candidates, positives, mask = random_world(seed)
    ranks = positive_ranks(candidates, positives, mask)
    assert ranks.dtype == np.int64
    assert ranks.tolist() == [brute_force_rank(*row) for row in zip(candidates, positives, mask, strict=True)]


def test_positive_above_every_candidate_has_rank_0():
    assert positive_ranks(np.float32([[1, 2, 3]]), np.float32([4]), np.zeros((1, 3), bool)).tolist() == [0]


def test_a_tie_counts_against_the_positive():
    assert positive_ranks(np.float32([[1, 2, 2]]), np.float32([2]), np.zeros((1, 3), bool)).tolist() == [2]


def test_a_masked_candidate_does_not_count_even_above_the_positive():
    mask = np.array([[False, True, True]])
    assert positive_ranks(np.float32([[9, 9, np.nan]]), np.float32([5]), mask).tolist() == [1]


def test_float32_scores_that_differ_in_the_last_bit_are_not_a_tie():
    score = np.float32(0.7)
    ranks = positive_ranks(np.array([[np.nextafter(score, np.float32(0))]]), np.array([score]), np.zeros((1, 1), bool))
    assert ranks.tolist() == [0]


@pytest.mark.parametrize("num_candidates", [10, 99, 999])
def test_constant_scorer_hits_exactly_nothing(num_candidates):
    shape = (50, num_candidates)
    ranks = positive_ranks(np.full(shape, 0.5, np.float32), np.full(50, 0.5, np.float32), np.zeros(shape, bool))
    assert hit_rate_at_k(ranks, 10) == 0.0
    assert ndcg_at_k(ranks, 10) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_names_the_first_user(bad):
    candidates, positives, mask = random_world(0)
    mask[:] = False
    candidates[[150, 42], 3] = bad
    with pytest.raises(ValueError, match=r"2 of 200 users .* first is user 42:"):
        positive_ranks(candidates, positives, mask)
    positives[7] = bad
    with pytest.raises(ValueError, match=r"first is user 7:"):
        positive_ranks(candidates, positives, mask)


def test_shapes_that_disagree_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 5\).*\(2,\)"):
        positive_ranks(np.zeros((3, 5), np.float32), np.zeros(2, np.float32), np.zeros((3, 5), bool))


@pytest.mark.parametrize("k", CUTOFFS)
def test_metrics_equal_four_plain_lines(k):
    ranks = np.random.default_rng(3).integers(30, size=500)
    hits = [1.0 if rank < k else 0.0 for rank in ranks.tolist()]
    gains = [1.0 / math.log(rank + 2, 2) if rank < k else 0.0 for rank in ranks.tolist()]
    assert hits_at_k(ranks, k).tolist() == hits
    assert hit_rate_at_k(ranks, k) == pytest.approx(math.fsum(hits) / 500, rel=1e-12)
    assert discounted_gains_at_k(ranks, k).tolist() == pytest.approx(gains, rel=1e-12)
    assert ndcg_at_k(ranks, k) == pytest.approx(math.fsum(gains) / 500, rel=1e-12)


def test_reciprocal_rank_is_the_inverse_of_the_place_in_the_list():
    assert reciprocal_ranks([0, 1, 3]).tolist() == [1.0, 0.5, 0.25]
    assert mean_reciprocal_rank([0, 1, 3]) == pytest.approx(1.75 / 3)


def test_ndcg_of_positive_at_rank_0_is_1():
    assert ndcg_at_k([0], 10) == 1.0


def test_ndcg_of_positive_at_rank_2_is_discounted_by_log2_of_4():
    assert ndcg_at_k([2], 10) == 1 / 2


def test_rank_9_is_inside_a_cutoff_of_10_and_rank_10_is_outside():
    assert (hit_rate_at_k([9], 10), hit_rate_at_k([10], 10)) == (1.0, 0.0)
    assert (ndcg_at_k([9], 10), ndcg_at_k([10], 10)) == (pytest.approx(1 / math.log2(11)), 0.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", CUTOFFS)
def test_metrics_agree_with_scikit_learn_where_no_scores_tie(seed, k):
    scores = np.random.default_rng(seed).permuted(np.tile(np.arange(40, dtype=np.float32), (300, 1)), axis=1)
    ranks = positive_ranks(scores[:, 1:], scores[:, 0], np.zeros((300, 39), bool))
    relevance = np.zeros((300, 40))
    relevance[:, 0] = 1
    assert ndcg_at_k(ranks, k) == pytest.approx(ndcg_score(relevance, scores, k=k), rel=1e-12)
    by_scikit_learn = top_k_accuracy_score(np.zeros(300), scores, k=k, labels=np.arange(40))
    assert hit_rate_at_k(ranks, k) == pytest.approx(by_scikit_learn, rel=1e-12)


@pytest.mark.parametrize("metric", [hit_rate_at_k, ndcg_at_k])
def test_metrics_refuse_no_users_negative_or_fractional_ranks_and_no_cutoff(metric):
    for ranks, k in (([], 10), ([-1], 10), ([0.5], 10), ([0], 0)):
        with pytest.raises(ValueError, match=r"rank|cutoff"):
            metric(ranks, k)


def test_same_seed_same_interval_other_seed_other_interval():
    values = np.random.default_rng(0).random(300)
    hits = (values < 0.4).astype(float)
    for case in (values, hits):
        assert bootstrap_interval(case, 200, seed=5) == bootstrap_interval(case, 200, seed=5)
        assert bootstrap_interval(case, 200, seed=5) != bootstrap_interval(case, 200, seed=6)


def test_interval_of_hits_is_that_of_the_binomial_distribution():
    from scipy.stats import binom

    hits = np.repeat([1.0, 0.0], [680, 320])
    low, high = bootstrap_interval(hits, 20_000, seed=1)
    assert low == pytest.approx(binom.ppf(0.025, 1000, 0.68) / 1000, abs=0.0015)
    assert high == pytest.approx(binom.ppf(0.975, 1000, 0.68) / 1000, abs=0.0015)


@pytest.mark.parametrize("distinct", [4, 2000])
def test_interval_equals_a_plain_bootstrap_for_few_and_for_many_distinct_values(distinct):
    rng = np.random.default_rng(2)
    values = rng.integers(distinct, size=2000) / distinct
    plain = np.quantile([rng.choice(values, size=2000).mean() for _ in range(4000)], [0.05, 0.95])
    width = plain[1] - plain[0]
    assert bootstrap_interval(values, 4000, seed=1, confidence=0.9) == pytest.approx(plain, abs=0.05 * width)


def test_95_percent_interval_covers_the_true_hit_rate_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(400):
        low, high = bootstrap_interval((rng.random(500) < 0.3).astype(float), 500, seed)
        covered += low <= 0.3 <= high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("user", [0, 59])
def test_every_user_can_be_drawn_the_first_and_the_last_included(user):
    values = np.arange(60) / 60
    values[user] = 1e6
    assert bootstrap_interval(values, 100, seed=0)[1] > 1e6 / 60


def test_interval_of_equal_values_is_that_value():
    assert bootstrap_interval(np.full(50, 0.25), 100, seed=0) == (0.25, 0.25)


@pytest.mark.parametrize("num_distinct", [3, 400])
def test_interval_does_not_depend_on_the_size_of_the_blocks(monkeypatch, num_distinct):
    values = np.random.default_rng(0).integers(num_distinct, size=400) / num_distinct
    whole = bootstrap_interval(values, 101, seed=3)
    monkeypatch.setattr("components.ncf.metrics._DRAWS_PER_BLOCK", 10 * num_distinct)
    assert bootstrap_interval(values, 101, seed=3) == whole
    assert whole[0] < values.mean() < whole[1]


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [[0.5]]])
def test_interval_refuses_values_that_have_none(values):
    with pytest.raises(ValueError, match=r"value of user 1 is not finite|at least one user"):
        bootstrap_interval(np.array(values), 100, seed=0)


@pytest.mark.parametrize(("num_samples", "confidence"), [(0, 0.95), (10, 1.0), (10, 0.0)])
def test_interval_refuses_arguments_out_of_range(num_samples, confidence):
    with pytest.raises(ValueError, match="num_samples"):
        bootstrap_interval(np.ones(3), num_samples, 0, confidence)


def test_bands_of_activity_hold_a_quarter_of_the_users_each_and_name_their_range():
    counts = np.random.default_rng(0).permutation(np.arange(20, 1220, 10))
    ranks = np.where(counts < 320, 0, 50)
    bands = hit_rate_by_band(ranks, *activity_bands(counts), 10, num_samples=100, seed=0)
    assert [(band.label, band.num_users, band.hit_rate) for band in bands] == [
        ("20\N{EN DASH}310", 30, 1.0),
        ("320\N{EN DASH}610", 30, 0.0),
        ("620\N{EN DASH}910", 30, 0.0),
        ("920\N{EN DASH}1,210", 30, 0.0),
    ]
    assert [band.interval for band in bands] == [(1.0, 1.0)] + 3 * [(0.0, 0.0)]


def test_a_bands_rate_and_interval_are_those_of_its_users_alone():
    rng = np.random.default_rng(1)
    counts, ranks = rng.integers(5, 400, size=1000), rng.integers(40, size=1000)
    for band in hit_rate_by_band(ranks, *activity_bands(counts), 10, num_samples=300, seed=4, confidence=0.9):
        low, high = (int(end) for end in band.label.split("\N{EN DASH}"))
        chosen = ranks[(counts >= low) & (counts <= high)]
        assert band.num_users == len(chosen)
        assert band.hit_rate == pytest.approx(sum(chosen < 10) / len(chosen))
        assert band.interval == bootstrap_interval((chosen < 10) * 1.0, 300, seed=4, confidence=0.9)


def test_equally_active_users_share_a_band():
    counts = np.repeat([20, 21, 300], [80, 15, 5])
    bands = hit_rate_by_band(np.zeros(100, int), *activity_bands(counts), 10, num_samples=10, seed=0)
    assert [(band.label, band.num_users) for band in bands] == [("20", 80), ("21\N{EN DASH}300", 20)]
    assert activity_quartiles([7, 7, 7]).tolist() == [0, 0, 0]
    assert activity_quartiles([40, 10, 20, 30]).tolist() == [3, 0, 1, 2]


def test_a_quartile_ends_at_a_number_of_interactions_that_some_user_has():
    assert activity_quartiles([10, 20]).tolist() == [0, 2]


def test_bands_refuse_ranks_and_counts_of_different_users():
    with pytest.raises(ValueError, match="3 ranks do not match the groups of 2"):
        hit_rate_by_band([0, 1, 2], [0, 1], "ab", 10, num_samples=10, seed=0)


def test_a_band_without_users_is_left_out():
    bands = hit_rate_by_band([0, 30], [2, 0], ["few", "some", "many"], 10, num_samples=10, seed=0)
    assert [(band.label, band.num_users, band.hit_rate) for band in bands] == [("few", 1, 0.0), ("many", 1, 1.0)]


def test_head_middle_and_tail_have_a_third_of_the_interactions_each():
    # 300 interactions: one item has the first hundred, four the second, a hundred items the last.
    counts = np.random.default_rng(0).permutation([100, *4 * [25], *100 * [1]])
    bands = popularity_bands(counts)
    assert [counts[bands == band].sum() for band in range(3)] == [100, 100, 100]
    assert [np.count_nonzero(bands == band) for band in range(3)] == [1, 4, 100]


def test_equally_popular_items_share_a_band_and_unpopular_ones_are_the_tail():
    assert popularity_bands([5, 5, 5]).tolist() == [0, 0, 0]
    assert popularity_bands([90, 0, 9, 1]).tolist() == [0, 2, 2, 2]


def test_coverage_counts_the_items_that_anybody_is_shown():
    top_items = np.array([[4, 2, 7], [4, 1, -1]])
    assert catalogue_coverage_at_k(top_items, 10, 1) == pytest.approx(1 / 10)
    assert catalogue_coverage_at_k(top_items, 10, 2) == pytest.approx(3 / 10)
    assert catalogue_coverage_at_k(top_items, 10, 3) == pytest.approx(4 / 10)
    with pytest.raises(ValueError, match="the cutoff k is 4"):
        catalogue_coverage_at_k(top_items, 10, 4)


@pytest.mark.parametrize("seed", range(3))
def test_mrr_and_recall_agree_with_scikit_learn(seed):
    scores = np.random.default_rng(seed).permuted(np.tile(np.arange(40, dtype=np.float32), (300, 1)), axis=1)
    ranks = positive_ranks(scores[:, 1:], scores[:, 0], np.zeros((300, 39), bool))
    relevance = np.zeros((300, 40), int)
    relevance[:, 0] = 1
    # With one relevant item, its average precision is its reciprocal rank.
    assert mean_reciprocal_rank(ranks) == pytest.approx(label_ranking_average_precision_score(relevance, scores))
    by_scikit_learn = top_k_accuracy_score(np.zeros(300), scores, k=10, labels=np.arange(40))
    assert recall_at_k(ranks, 10) == pytest.approx(by_scikit_learn)
