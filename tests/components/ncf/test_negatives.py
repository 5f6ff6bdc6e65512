from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from components.ncf.counter_random import Stream, derive_key, threefry2x32
from components.ncf.interactions import ItemLists, offsets_of
from components.ncf.negatives import (
    duplicate_mask,
    sample_distinct,
    sample_train_negatives,
    sample_with_replacement,
    unseen_items_at,
)

NUM_ITEMS = 40
KEY = derive_key(9, Stream.LOO_99)


def lists_of(seen: list[list[int]]) -> ItemLists:
    items = [item for items in seen for item in sorted(items)]
    return ItemLists(offsets_of(np.array([len(items) for items in seen])), np.array(items, np.int32))


def unseen_by(items: list[int], num_items: int = NUM_ITEMS) -> list[int]:
    return [item for item in range(num_items) if item not in items]


seen_lists = st.lists(
    st.one_of(
        st.lists(st.integers(0, NUM_ITEMS - 1), unique=True, max_size=NUM_ITEMS - 1),
        st.sampled_from([[], [0], [NUM_ITEMS - 1], list(range(NUM_ITEMS - 1)), list(range(1, NUM_ITEMS))]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(seen_lists)
def test_every_rank_is_that_unseen_item(seen: list[list[int]]) -> None:
    users = np.repeat(np.arange(len(seen), dtype=np.int32), [len(unseen_by(items)) for items in seen])[::-1]
    expected = [item for items in seen for item in unseen_by(items)][::-1]
    ranks = np.concatenate([np.arange(len(unseen_by(items)), dtype=np.int32) for items in seen])[::-1, None]
    assert unseen_items_at(ranks, users, lists_of(seen), NUM_ITEMS).ravel().tolist() == expected


@settings(max_examples=50, deadline=None)
@given(seen_lists, st.integers(1, 5), st.integers(0, 3))
def test_a_train_negative_is_the_drawn_rank_of_its_user_item_and_draw(
    seen: list[list[int]], num_negatives: int, epoch: int
) -> None:
    rng = np.random.default_rng(0)
    users = rng.integers(0, len(seen), 20).astype(np.int32)
    items = rng.integers(0, NUM_ITEMS, 20).astype(np.int32)
    key = derive_key(7, Stream.TRAIN_NEGATIVES, epoch)
    # The user's index is part of the draw, its place among the lists is not.
    drawn = sample_train_negatives(users + 100, items, users, lists_of(seen), NUM_ITEMS, num_negatives, key)
    assert drawn.shape == (20, num_negatives)
    for row, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
        unseen = unseen_by(seen[user])
        for draw in range(num_negatives):
            word, _ = threefry2x32(key, (user + 100, item * num_negatives + draw))
            assert drawn[row, draw] == unseen[(int(word) * len(unseen)) >> 32]


def test_train_negatives_are_uniform_and_differ_between_epochs() -> None:
    seen = [[3, 4, 5, 20], list(range(0, 40, 2))]
    users = np.repeat(np.array([0, 1], np.int32), 2_000)
    items = np.tile(np.arange(2_000, dtype=np.int32), 2)
    keys = [derive_key(1, Stream.TRAIN_NEGATIVES, epoch) for epoch in (0, 1)]
    epochs = [sample_train_negatives(users, items, users, lists_of(seen), NUM_ITEMS, 4, key) for key in keys]
    for user in (0, 1):
        for drawn in epochs:
            counts = np.bincount(drawn[users == user].ravel(), minlength=NUM_ITEMS)
            assert not counts[seen[user]].any()
            assert stats.chisquare(counts[unseen_by(seen[user])]).pvalue > 1e-3
    # Two independent draws over 36 and 20 unseen items agree about once in that many.
    assert np.mean(epochs[0] == epochs[1]) == pytest.approx((1 / 36 + 1 / 20) / 2, abs=0.01)


def random_seen(num_users: int, num_items: int) -> list[list[int]]:
    rng = np.random.default_rng(2)
    return [rng.permutation(num_items)[: rng.integers(0, num_items - 1)].tolist() for _ in range(num_users)]


@pytest.mark.parametrize("num_draws", [1, 2, 7, 99])
def test_draws_with_replacement_are_the_drawn_ranks_in_order(num_draws: int) -> None:
    seen = random_seen(30, NUM_ITEMS)
    users = np.arange(100, 130, dtype=np.int32)
    drawn = sample_with_replacement(users, lists_of(seen), NUM_ITEMS, num_draws, KEY)
    num_counters = -(-num_draws // 2)
    for place, user in enumerate(users.tolist()):
        pairs = [threefry2x32(KEY, (user, counter)) for counter in range(num_counters)]
        words = [int(pair[0]) for pair in pairs] + [int(pair[1]) for pair in pairs]
        unseen = unseen_by(seen[place])
        expected = sorted(unseen[(word * len(unseen)) >> 32] for word in words[:num_draws])
        assert drawn[place].tolist() == expected


@pytest.mark.parametrize("sample", [sample_with_replacement, sample_distinct])
def test_a_block_of_users_may_be_cut_anywhere(sample: object) -> None:
    assert callable(sample)
    seen = lists_of(random_seen(300, 1_200))
    users = np.arange(300, dtype=np.int32)
    together = sample(users, seen, 1_200, 333, KEY)
    for some in (np.arange(120), np.arange(120, 300), np.array([299, 5])):
        assert np.array_equal(sample(users[some], seen.take(some), 1_200, 333, KEY), together[some])


def test_draws_with_replacement_are_uniform() -> None:
    seen = lists_of([[0, 7, 8, 39]] * 500)
    drawn = sample_with_replacement(np.arange(500, dtype=np.int32), seen, NUM_ITEMS, 99, KEY)
    counts = np.bincount(drawn.ravel(), minlength=NUM_ITEMS)
    assert not counts[[0, 7, 8, 39]].any()
    assert stats.chisquare(counts[unseen_by([0, 7, 8, 39])]).pvalue > 1e-3


@settings(max_examples=50, deadline=None)
@given(seen_lists, st.integers(1, NUM_ITEMS + 5))
def test_distinct_draws_are_distinct_and_unseen(seen: list[list[int]], num_draws: int) -> None:
    drawn = sample_distinct(np.arange(len(seen), dtype=np.int32), lists_of(seen), NUM_ITEMS, num_draws, KEY)
    assert drawn.shape == (len(seen), num_draws)
    for items, row in zip(seen, drawn.tolist(), strict=True):
        unseen = unseen_by(items)
        assert set(row) <= set(unseen)
        assert len(set(row)) == min(num_draws, len(unseen))
        assert row == sorted(row)


def test_every_set_of_three_of_six_unseen_items_is_as_likely() -> None:
    seen = [2, 5, 6, 9]
    drawn = sample_distinct(np.arange(20_000, dtype=np.int32), lists_of([seen] * 20_000), 10, 3, KEY)
    counts = Counter(map(tuple, drawn.tolist()))
    sets = list(combinations(unseen_by(seen, 10), 3))
    assert set(counts) == set(sets)
    assert stats.chisquare([counts[some] for some in sets]).pvalue > 1e-3


def test_large_distinct_draws_are_uniform_over_items() -> None:
    drawn = sample_distinct(np.arange(3_000, dtype=np.int32), lists_of([[]] * 3_000), 150, 99, KEY)
    counts = np.bincount(drawn.ravel(), minlength=150)
    # Without replacement an item's count varies less than a multinomial one, by the factor (150 - 99) / 149.
    statistic = np.sum((counts - 1_980.0) ** 2 / 1_980) * 149 / (150 - 99)
    assert 1e-3 < stats.chi2.sf(statistic, 149) < 1 - 1e-3


def masked_by_hand(candidates: NDArray[np.int32], positives: NDArray[np.int32]) -> list[list[bool]]:
    return [
        [item == positive or item in row[:place] for place, item in enumerate(row)]
        for row, positive in zip(candidates.tolist(), positives.tolist(), strict=True)
    ]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.integers(1, 15), st.booleans(), st.integers(0, 1_000))
def test_the_mask_marks_repeats_and_the_positive(
    num_users: int, num_candidates: int, num_items: int, is_sorted: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    candidates = rng.integers(0, num_items, (num_users, num_candidates)).astype(np.int32)
    if is_sorted:
        candidates.sort(axis=1)
    positives = rng.integers(0, num_items, num_users).astype(np.int32)
    assert duplicate_mask(candidates, positives).tolist() == masked_by_hand(candidates, positives)
