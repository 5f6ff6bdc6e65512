"""Turns the raw rows of a partition of the users into clean histories."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.generate.blocks import Counts, GivenTestItems
from components.ncf.errors import InputError
from components.ncf.interactions import Interactions, concatenate, deduplicate, drop_inactive_users, index_of


def clean(blocks: Sequence[Interactions], min_ratings: int) -> tuple[Interactions, Counts]:
    """Merges all rows of some users, deduplicates them and drops the users who have too few left.

    Args:
        blocks: At least one.
        min_ratings: Distinct items that a user must have.

    Returns:
        The rows that are left, ordered by (user, item), and the counts before and after.
    """
    read = concatenate(blocks)
    distinct = deduplicate(read)
    kept = drop_inactive_users(distinct, min_ratings)
    counts = Counts(read.num_rows, distinct.num_rows, kept.num_rows, len(read.raw_user_ids), len(kept.raw_user_ids))
    return kept, counts


def find_test_items(kept: Interactions, given: Sequence[GivenTestItems]) -> NDArray[np.int32]:
    """Finds the test item of each user among the given ones.

    Args:
        kept: Clean histories, ordered by (user, item).
        given: Every given test item of these users, and perhaps of users who were dropped.

    Returns:
        int32 [num_users], indices into `kept.raw_item_ids`.

    Raises:
        InputError: A user has no test item, or two, or one that the user never interacted with.
    """
    if not kept.num_rows:
        return np.zeros(0, np.int32)
    raw_user_ids = np.concatenate([kept.raw_user_ids[:0], *(block.raw_user_ids for block in given)])
    raw_item_ids = np.concatenate([kept.raw_item_ids[:0], *(block.raw_item_ids for block in given)])
    order = np.argsort(raw_user_ids, kind="stable")
    raw_user_ids, raw_item_ids = raw_user_ids[order], raw_item_ids[order]
    repeated = raw_user_ids[1:][raw_user_ids[1:] == raw_user_ids[:-1]]
    if len(repeated):
        raise InputError(f"fixed.parquet names user {repeated[0]} more than once: give each user one test item.")
    rows = index_of(kept.raw_user_ids, raw_user_ids)
    if np.any(rows < 0):
        raise InputError(
            f"fixed.parquet has no row for user {kept.raw_user_ids[np.argmin(rows)]}: it must name the test item and "
            "the candidates of every user."
        )
    test_items = index_of(raw_item_ids[rows], kept.raw_item_ids)
    first_rows = np.flatnonzero(np.diff(kept.users, prepend=-1))
    was_seen = np.logical_or.reduceat(kept.items == test_items[kept.users], first_rows)
    if not was_seen.all():
        user = int(np.argmin(was_seen))
        raise InputError(
            f"fixed.parquet names item {raw_item_ids[rows[user]]} as the test item of user {kept.raw_user_ids[user]}, "
            "who has no interaction with it: the interactions must include the test items."
        )
    return test_items
