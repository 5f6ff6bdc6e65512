from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.ncf.interactions import (
    Interactions,
    ItemLists,
    concatenate,
    deduplicate,
    drop_inactive_users,
    hash_of_ids,
    index_of,
    partition_by_user,
    partition_of_ids,
    rows_by_key,
    union_of,
)

Row = tuple[Any, Any, float, int]

rows_of_ints = st.lists(
    st.tuples(
        st.integers(-3, 5),
        st.sampled_from([-(2**62), 1, 2, 2**40, 2**62]),
        st.sampled_from([1.0, 2.5]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=40,
)
rows_of_strings = st.lists(
    st.tuples(st.sampled_from(["", "a", "b", "é", "aa"]), st.text(max_size=2), st.just(1.0), st.integers(0, 2)),
    min_size=1,
    max_size=40,
)


def block_of(rows: list[Row]) -> Interactions:
    users, items = sorted({row[0] for row in rows}), sorted({row[1] for row in rows})
    dtype: Any = object if isinstance(users[0], str) else np.int64
    return Interactions(
        np.array(users, dtype),
        np.array(items, dtype),
        np.array([users.index(row[0]) for row in rows], np.int32),
        np.array([items.index(row[1]) for row in rows], np.int32),
        np.array([row[2] for row in rows], np.float32),
        np.array([row[3] for row in rows], np.int64),
    )


def rows_of(block: Interactions) -> list[Row]:
    return list(
        zip(
            block.raw_user_ids[block.users].tolist(),
            block.raw_item_ids[block.items].tolist(),
            block.ratings.tolist(),
            block.timestamps.tolist(),
            strict=True,
        )
    )


def assert_well_formed(block: Interactions) -> None:
    """The raw ids are ascending, distinct and all in use."""
    for raw_ids, rows in ((block.raw_user_ids, block.users), (block.raw_item_ids, block.items)):
        assert raw_ids.tolist() == sorted(set(raw_ids.tolist()))
        assert set(rows.tolist()) == set(range(len(raw_ids)))
        assert rows.dtype == np.int32


@settings(max_examples=100, deadline=None)
@given(st.one_of(rows_of_ints, rows_of_strings), st.integers(1, 5))
def test_concatenated_blocks_hold_all_rows_in_order(rows: list[Row], num_blocks: int) -> None:
    blocks = [block_of(rows[start::num_blocks]) for start in range(num_blocks) if rows[start::num_blocks]]
    together = concatenate(blocks)
    assert_well_formed(together)
    assert rows_of(together) == [row for start in range(num_blocks) for row in rows[start::num_blocks]]


@settings(max_examples=200, deadline=None)
@given(st.one_of(rows_of_ints, rows_of_strings), st.randoms())
def test_deduplication_keeps_the_latest_then_the_highest_rated(rows: list[Row], random: Any) -> None:
    best: dict[tuple[Any, Any], tuple[int, float]] = {}
    for user, item, rating, timestamp in rows:
        best[user, item] = max(best.get((user, item), (-1, 0.0)), (timestamp, rating))
    expected = [(user, item, rating, timestamp) for (user, item), (timestamp, rating) in sorted(best.items())]
    shuffled = random.sample(rows, len(rows))
    for given_rows in (rows, shuffled):
        distinct = deduplicate(block_of(given_rows))
        assert_well_formed(distinct)
        assert rows_of(distinct) == expected


def test_of_two_equally_late_ratings_the_higher_one_is_kept() -> None:
    rows = [("u", "i", 4.0, 10), ("u", "i", 5.0, 10), ("u", "i", 3.0, 11), ("v", "i", 1.0, 5), ("v", "i", 2.0, 5)]
    assert rows_of(deduplicate(block_of(rows))) == [("u", "i", 3.0, 11), ("v", "i", 2.0, 5)]


@settings(max_examples=50, deadline=None)
@given(rows_of_ints, st.integers(1, 6))
def test_inactive_users_are_dropped_with_all_their_rows(rows: list[Row], min_ratings: int) -> None:
    distinct = deduplicate(block_of(rows))
    all_rows = rows_of(distinct)
    expected = [row for row in all_rows if sum(row[0] == other[0] for other in all_rows) >= min_ratings]
    kept = drop_inactive_users(distinct, min_ratings)
    assert rows_of(kept) == expected
    assert kept.raw_item_ids.tolist() == sorted({row[1] for row in expected})


@settings(max_examples=50, deadline=None)
@given(st.one_of(rows_of_ints, rows_of_strings), st.integers(1, 9))
def test_partitions_hold_every_row_once_and_whole_users(rows: list[Row], num_partitions: int) -> None:
    found: list[Row] = []
    partition_of_user: dict[Any, int] = {}
    # Two blocks, as of two files: a user's rows go to one partition whichever block they are in.
    for block in (block_of(rows), block_of(rows[: len(rows) // 2 + 1])):
        for partition, piece in partition_by_user(block, num_partitions):
            assert 0 <= partition < num_partitions
            assert_well_formed(piece)
            for row in rows_of(piece):
                assert partition_of_user.setdefault(row[0], partition) == partition
                found.append(row)
    assert sorted(found) == sorted(rows + rows[: len(rows) // 2 + 1])


@pytest.mark.parametrize("kind", ["consecutive", "multiples_of_1024", "strings"])
def test_partitions_are_balanced(kind: str) -> None:
    numbers = np.arange(20_000, dtype=np.int64)
    raw_ids = {
        "consecutive": numbers,
        "multiples_of_1024": numbers * 1024,
        "strings": np.array([f"user-{number}" for number in numbers], object),
    }[kind]
    partitions = partition_of_ids(raw_ids, 16)
    counts = np.bincount(partitions, minlength=16)
    assert counts.min() > 1_000
    assert counts.max() < 1_500
    # Each is a range of hashes: epochs number their rows by that order.
    assert np.all(np.diff(partitions[np.argsort(hash_of_ids(raw_ids))]) >= 0)


@pytest.mark.parametrize("greatest", [3, 70_000])
def test_rows_by_key_are_in_order(greatest: int) -> None:
    keys = np.random.default_rng(0).integers(0, greatest + 1, 300)
    keys[5] = greatest
    expected = {key: [row for row in range(300) if keys[row] == key] for key in sorted(set(keys.tolist()))}
    assert [(key, rows.tolist()) for key, rows in rows_by_key(keys)] == list(expected.items())


def test_index_of_ids_that_are_missing_is_minus_one() -> None:
    vocabulary = np.array([2, 5, 9])
    assert index_of(np.array([5, 1, 9, 10, 2]), vocabulary).tolist() == [1, -1, 2, -1, 0]
    assert index_of(np.array(["b", "zz"], object), np.array(["a", "b"], object)).tolist() == [1, -1]
    assert index_of(np.array([1, 2]), np.zeros(0, np.int64)).tolist() == [-1, -1]


def test_the_union_is_in_the_order_of_code_points() -> None:
    arrays = [np.array(["a", "é", "Z"], object), np.array(["z", "a"], object)]
    assert union_of(arrays).tolist() == ["Z", "a", "z", "é"]
    assert union_of([]).tolist() == []


item_lists = st.lists(st.sets(st.integers(0, 20), max_size=8), min_size=1, max_size=6)


def lists_of(seen: ItemLists) -> list[list[int]]:
    return [seen.items[start:end].tolist() for start, end in zip(seen.offsets[:-1], seen.offsets[1:], strict=True)]


@settings(max_examples=100, deadline=None)
@given(item_lists, item_lists, st.data())
def test_item_lists_are_built_joined_and_picked(first: list[set[int]], second: list[set[int]], data: Any) -> None:
    blocks = []
    for lists in (first, second):
        pairs = data.draw(st.permutations([(user, item) for user, items in enumerate(lists) for item in items]))
        users, items = ([pair[side] for pair in pairs] for side in (0, 1))
        blocks.append(ItemLists.from_pairs(np.array(users, np.int32), np.array(items, np.int32), len(lists)))
    expected = [sorted(items) for items in first + second]
    together = ItemLists.concatenate(blocks)
    assert lists_of(together) == expected
    assert together.lengths.tolist() == [len(items) for items in expected]
    picked = data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=10))
    assert lists_of(together.take(np.array(picked, np.int64))) == [expected[user] for user in picked]
