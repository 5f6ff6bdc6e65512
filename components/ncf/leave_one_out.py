"""The leave-one-out split: each user's latest item is the test item, the second latest the validation item.

Section 4.1 of He et al., "Neural Collaborative Filtering" (WWW 2017), with a validation item beside the test item so
that no choice is made on the latter.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.ncf.counter_random import Stream, derive_key, threefry2x32
from components.ncf.interactions import ItemLists, offsets_of


@dataclass(frozen=True)
class LeaveOneOut:
    """A block of users whose two latest items are held out.

    Attributes:
        users: int32 [num_users], dense indices, ascending.
        seen: Every item of each of `users`, the held-out ones included.
        is_train: bool [num_rows], parallel to `seen.items`: False on the two held-out items of each user.
        validation_items: int32 [num_users].
        test_items: int32 [num_users].
        recencies: int32 [num_rows - 2 * num_users], parallel to `train_pairs`: how many training positives of the same
            user are later, 0 for the latest.
    """

    users: NDArray[np.int32]
    seen: ItemLists
    is_train: NDArray[np.bool_]
    validation_items: NDArray[np.int32]
    test_items: NDArray[np.int32]
    recencies: NDArray[np.int32]

    def train_pairs(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Returns the training positives: users and items, int32 [num_rows - 2 * num_users] each."""
        users = np.repeat(self.users, self.seen.lengths)
        return users[self.is_train], self.seen.items[self.is_train]


def leave_one_out(
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    timestamps: NDArray[np.int64],
    seed: int,
    test_items: NDArray[np.int32] | None = None,
) -> LeaveOneOut:
    """Splits the complete histories of some users.

    Equal timestamps are put in a random order that depends on (seed, user, item) alone, never on the rows' order.

    Args:
        users: int32 [num_rows], dense indices, ascending; each user has at least three rows.
        items: int32 [num_rows], dense indices, ascending within a user, no pair twice.
        timestamps: int64 [num_rows].
        seed: The step's seed.
        test_items: int32 [distinct users] when the test items are given whatever their timestamps; each is one of
            its user's items.
    """
    first_rows = np.flatnonzero(np.diff(users, prepend=-1))
    seen = ItemLists(offsets_of(np.diff(first_rows, append=len(users))), items)
    key = derive_key(seed, Stream.TIE_BREAK)
    if test_items is None:
        test_rows = _latest_rows(seen.offsets, users, items, timestamps, key)
    else:
        test_rows = np.flatnonzero(items == np.repeat(test_items, seen.lengths))
    is_train = np.ones(len(users), bool)
    is_train[test_rows] = False
    others = np.flatnonzero(is_train)
    offsets = seen.offsets - np.arange(len(seen.offsets))
    validation_rows = others[_latest_rows(offsets, users[others], items[others], timestamps[others], key)]
    is_train[validation_rows] = False
    train_offsets = seen.offsets - 2 * np.arange(len(seen.offsets))
    rows = np.flatnonzero(is_train)
    recencies = _recencies(train_offsets, users[rows], items[rows], timestamps[rows], key)
    return LeaveOneOut(users[first_rows], seen, is_train, items[validation_rows], items[test_rows], recencies)


def _recencies(
    offsets: NDArray[np.int64],
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    timestamps: NDArray[np.int64],
    key: tuple[int, int],
) -> NDArray[np.int32]:
    """Counts the later rows of the same segment, int32 [num_rows]; ties are broken as those for the held-out items."""
    words = threefry2x32(key, (users, items))
    order = np.lexsort((words[1], words[0], timestamps, users))
    recencies = np.empty(len(users), np.int32)
    # Sorting by users first leaves every segment where it is.
    recencies[order] = np.repeat(offsets[1:], np.diff(offsets)) - 1 - np.arange(len(users))
    return recencies


def _latest_rows(
    offsets: NDArray[np.int64],
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    timestamps: NDArray[np.int64],
    key: tuple[int, int],
) -> NDArray[np.int64]:
    """Returns each segment's latest row, int64 [num_segments]."""
    rows, lengths = _greatest(timestamps, np.diff(offsets))
    if len(rows) == len(lengths):
        return rows
    words = threefry2x32(key, (users[rows], items[rows]))
    among_tied, lengths = _greatest((words[0].astype(np.uint64) << np.uint64(32)) | words[1], lengths)
    rows = rows[among_tied]
    # Two items of one user share all 64 bits about once in 2**64 pairs; then the greater item is the later one.
    return rows[np.cumsum(lengths) - 1]


def _greatest(values: NDArray[Any], lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Finds the greatest value of each of the consecutive segments of the given lengths.

    Returns:
        The rows that hold it, ascending, and how many of them each segment has (at least one).
    """
    starts = offsets_of(lengths)[:-1]
    is_greatest = values == np.repeat(np.maximum.reduceat(values, starts), lengths)
    return np.flatnonzero(is_greatest), np.add.reduceat(is_greatest, starts, dtype=np.int64)
