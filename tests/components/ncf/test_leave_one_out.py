from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from components.ncf.counter_random import Stream, derive_key, threefry2x32
from components.ncf.leave_one_out import LeaveOneOut, leave_one_out

SEED = 5

histories = st.lists(
    st.dictionaries(st.integers(0, 30), st.integers(-2, 2), min_size=3, max_size=12), min_size=1, max_size=6
)


def split(lists: list[dict[int, int]], test_items: list[int] | None = None, seed: int = SEED) -> LeaveOneOut:
    """Splits users given as {item: timestamp}. Dense users are 10, 13, 16, ..."""
    rows = [(10 + 3 * user, item, items[item]) for user, items in enumerate(lists) for item in sorted(items)]
    users, items, timestamps = (np.array(column) for column in zip(*rows, strict=True))
    given_items = None if test_items is None else np.array(test_items, np.int32)
    return leave_one_out(users.astype(np.int32), items.astype(np.int32), timestamps, seed, given_items)


def in_order_of_time(user: int, items: dict[int, int]) -> list[int]:
    key = derive_key(SEED, Stream.TIE_BREAK)

    def place(item: int) -> tuple[int, int, int]:
        high, low = threefry2x32(key, (user, item))
        return items[item], int(high), int(low)

    return sorted(items, key=place)


def test_the_latest_is_the_test_item_and_the_second_latest_the_validation_item() -> None:
    result = split([{7: 30, 8: 10, 9: 20, 1: 5}, {0: 1, 1: 3, 2: 2}])
    assert result.users.tolist() == [10, 13]
    assert result.test_items.tolist() == [7, 1]
    assert result.validation_items.tolist() == [9, 2]
    users, items = result.train_pairs()
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == [(10, 1), (10, 8), (13, 0)]
    assert result.seen.items.tolist() == [1, 7, 8, 9, 0, 1, 2]
    assert result.seen.offsets.tolist() == [0, 4, 7]


@settings(max_examples=200, deadline=None)
@given(histories)
def test_equal_timestamps_are_ordered_by_their_hash(lists: list[dict[int, int]]) -> None:
    result = split(lists)
    for place, items in enumerate(lists):
        order = in_order_of_time(10 + 3 * place, items)
        assert [result.validation_items[place], result.test_items[place]] == order[-2:]
    pairs = set(zip(*(column.tolist() for column in result.train_pairs()), strict=True))
    assert pairs == {
        (10 + 3 * place, item)
        for place, items in enumerate(lists)
        for item in in_order_of_time(10 + 3 * place, items)[:-2]
    }


@settings(max_examples=200, deadline=None)
@given(histories)
def test_recency_counts_the_later_training_positives_of_the_user(lists: list[dict[int, int]]) -> None:
    result = split(lists)
    recencies = {
        (int(user), int(item)): int(recency)
        for user, item, recency in zip(*result.train_pairs(), result.recencies, strict=True)
    }
    assert recencies == {
        (10 + 3 * place, item): recency
        for place, items in enumerate(lists)
        for recency, item in enumerate(reversed(in_order_of_time(10 + 3 * place, items)[:-2]))
    }


@settings(max_examples=100, deadline=None)
@given(histories, st.data())
def test_given_test_items_leave_the_latest_of_the_others_for_validation(lists: list[dict[int, int]], data: Any) -> None:
    test_items = [data.draw(st.sampled_from(sorted(items))) for items in lists]
    result = split(lists, test_items)
    assert result.test_items.tolist() == test_items
    for place, items in enumerate(lists):
        others = [item for item in in_order_of_time(10 + 3 * place, items) if item != test_items[place]]
        assert result.validation_items[place] == others[-1]


def test_with_equal_timestamps_every_item_is_as_likely_to_be_held_out() -> None:
    result = split([dict.fromkeys(range(10), 0) for _ in range(4_000)])
    assert stats.chisquare(np.bincount(result.test_items, minlength=10)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(result.validation_items, minlength=10)).pvalue > 1e-3


def test_another_seed_breaks_ties_differently() -> None:
    lists = [dict.fromkeys(range(10), 0) for _ in range(100)]
    assert np.mean(split(lists).test_items != split(lists, seed=6).test_items) > 0.5
