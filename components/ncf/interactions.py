"""Interactions as columns: blocks of thousands of rows that are merged, cleaned and cut without a Python loop per row.

Raw ids are held once per block, sorted; rows refer to them by index. Sorting and merging therefore never move a
string, and an index into a block's sorted ids keeps its order when the ids of all blocks are merged.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.ncf.counter_random import threefry2x32, uniform_integers

# int64, or objects that are all `str`.
RawIds = NDArray[Any]

# Any fixed key will do: the partition decides where a user is worked on, never what comes out.
_PARTITION_KEY = (0x9E3779B9, 0x85EBCA6B)


@dataclass(frozen=True)
class Interactions:
    """A block of rows, each one user's interaction with one item.

    Attributes:
        raw_user_ids: int64 or object (str) [num_users], distinct, ascending, each used by at least one row.
        raw_item_ids: The same for items, [num_items].
        users: int32 [num_rows], indices into `raw_user_ids`.
        items: int32 [num_rows], indices into `raw_item_ids`.
        ratings: float32 [num_rows].
        timestamps: int64 [num_rows], seconds since 1970.
    """

    raw_user_ids: RawIds
    raw_item_ids: RawIds
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    ratings: NDArray[np.float32]
    timestamps: NDArray[np.int64]

    @property
    def num_rows(self) -> int:
        """How many interactions the block holds."""
        return len(self.users)

    def take(self, rows: NDArray[Any]) -> "Interactions":
        """Returns the rows of an index or boolean array, without the raw ids that none of them uses."""
        raw_user_ids, users = _drop_unused(self.raw_user_ids, self.users[rows])
        raw_item_ids, items = _drop_unused(self.raw_item_ids, self.items[rows])
        return Interactions(raw_user_ids, raw_item_ids, users, items, self.ratings[rows], self.timestamps[rows])


@dataclass(frozen=True)
class ItemLists:
    """One ascending list of distinct items per user, all in one array (compressed sparse rows).

    Attributes:
        offsets: int64 [num_users + 1]. The items of user u are `items[offsets[u]:offsets[u + 1]]`.
        items: int32 [num_rows], dense item indices.
    """

    offsets: NDArray[np.int64]
    items: NDArray[np.int32]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [num_users], how many items each user has."""
        return np.diff(self.offsets)

    def take(self, users: NDArray[Any]) -> "ItemLists":
        """Returns the lists of the given users (indices), in that order."""
        lengths = self.lengths[users]
        offsets = offsets_of(lengths)
        shift = np.repeat(self.offsets[:-1][users] - offsets[:-1], lengths)
        return ItemLists(offsets, self.items[shift + np.arange(offsets[-1])])

    @staticmethod
    def concatenate(blocks: "Sequence[ItemLists]") -> "ItemLists":
        """Returns the lists of all blocks, one block after the other."""
        lengths = [np.zeros(0, np.int64), *(block.lengths for block in blocks)]
        items = [np.zeros(0, np.int32), *(block.items for block in blocks)]
        return ItemLists(offsets_of(np.concatenate(lengths)), np.concatenate(items))

    @staticmethod
    def from_pairs(users: NDArray[Any], items: NDArray[Any], num_users: int) -> "ItemLists":
        """Builds the lists of users 0 to num_users - 1 from distinct (user, item) pairs in any order."""
        order = np.lexsort((items, users))
        return ItemLists(offsets_of(np.bincount(users, minlength=num_users)), items[order].astype(np.int32))


def offsets_of(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Returns int64 [n + 1]: where each of n consecutive segments begins, and where the last one ends."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def union_of(raw_ids: Sequence[RawIds]) -> RawIds:
    """Returns the distinct ids of all arrays, ascending."""
    return np.unique(np.concatenate(raw_ids)) if raw_ids else np.zeros(0, np.int64)


def concatenate(blocks: Sequence[Interactions]) -> Interactions:
    """Returns the rows of all blocks, one block after the other, over the union of their raw ids.

    Args:
        blocks: At least one; their raw ids have one type.
    """
    raw_user_ids = union_of([block.raw_user_ids for block in blocks])
    raw_item_ids = union_of([block.raw_item_ids for block in blocks])
    return Interactions(
        raw_user_ids,
        raw_item_ids,
        np.concatenate([_index_in(raw_user_ids, block.raw_user_ids)[block.users] for block in blocks]),
        np.concatenate([_index_in(raw_item_ids, block.raw_item_ids)[block.items] for block in blocks]),
        np.concatenate([block.ratings for block in blocks]),
        np.concatenate([block.timestamps for block in blocks]),
    )


def deduplicate(block: Interactions) -> Interactions:
    """Keeps one row per (user, item): the latest, and among equally late ones the highest rated.

    Returns:
        Rows ordered by (user, item). The result does not depend on the order of the given rows.
    """
    pairs = block.users.astype(np.int64) * len(block.raw_item_ids) + block.items
    order = np.argsort(pairs)
    ordered_pairs = pairs[order]
    if np.any(ordered_pairs[1:] == ordered_pairs[:-1]):
        order = np.lexsort((block.ratings, block.timestamps, pairs))
        ordered_pairs = pairs[order]
        order = order[np.append(ordered_pairs[1:] != ordered_pairs[:-1], True)]
    return block.take(order)


def drop_inactive_users(block: Interactions, min_ratings: int) -> Interactions:
    """Drops the rows of users who have fewer than `min_ratings` rows; the order of the others stays."""
    num_ratings = np.bincount(block.users, minlength=len(block.raw_user_ids))
    if num_ratings.min(initial=min_ratings) >= min_ratings:
        return block
    return block.take(num_ratings[block.users] >= min_ratings)


def partition_by_user(block: Interactions, num_partitions: int) -> Iterator[tuple[int, Interactions]]:
    """Cuts a block so that all rows of a user, of whatever block, fall into the same partition.

    Yields:
        (partition, rows) for each partition in [0, num_partitions) that has any row.
    """
    for partition, rows in rows_by_key(partition_of_ids(block.raw_user_ids, num_partitions)[block.users]):
        yield partition, block.take(rows)


def rows_by_key(keys: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yields each key that occurs, ascending, with the rows that have it, ascending.

    Args:
        keys: Integers [num_rows], at least 0.
    """
    if keys.max(initial=0) < 1 << 16:
        # Numpy sorts 16-bit integers by radix, thirty times as fast (measured).
        keys = keys.astype(np.uint16)
    order = np.argsort(keys, kind="stable")
    num_rows = np.bincount(keys)
    offsets = offsets_of(num_rows)
    for key in np.flatnonzero(num_rows).tolist():
        yield key, order[offsets[key] : offsets[key + 1]]


def partition_of_ids(raw_ids: RawIds, num_partitions: int) -> NDArray[np.int32]:
    """Returns the partition of each id, int32 [num_ids] in [0, num_partitions): ascending ranges of the ids' hashes."""
    return uniform_integers(hash_of_ids(raw_ids), num_partitions).astype(np.int32)


def hash_of_ids(raw_ids: RawIds) -> NDArray[np.uint32]:
    """Returns a hash of each id, uint32 [num_ids], the same in every process."""
    if raw_ids.dtype == object:
        words = np.array([zlib.crc32(raw_id.encode()) for raw_id in raw_ids], np.uint32)
        high = np.zeros_like(words)
    else:
        words, high = raw_ids.astype(np.uint32), (raw_ids >> 32).astype(np.uint32)
    hashes, _ = threefry2x32(_PARTITION_KEY, (words, high))
    return hashes


def index_of(raw_ids: RawIds, vocabulary: RawIds) -> NDArray[np.int32]:
    """Returns each id's place in the ascending vocabulary, int32 [num_ids], or -1 where it is not part of it."""
    if not len(vocabulary):
        return np.full(len(raw_ids), -1, np.int32)
    places = np.minimum(np.searchsorted(vocabulary, raw_ids), len(vocabulary) - 1)
    return np.where(vocabulary[places] == raw_ids, places, -1).astype(np.int32)


def _index_in(union: RawIds, raw_ids: RawIds) -> NDArray[np.int32]:
    return np.searchsorted(union, raw_ids).astype(np.int32)


def _drop_unused(raw_ids: RawIds, rows: NDArray[np.int32]) -> tuple[RawIds, NDArray[np.int32]]:
    is_used = np.zeros(len(raw_ids), bool)
    is_used[rows] = True
    if is_used.all():
        return raw_ids, rows
    new_index = (np.cumsum(is_used) - 1).astype(np.int32)
    return raw_ids[is_used], new_index[rows]
