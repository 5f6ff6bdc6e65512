"""Items that a user never saw, drawn exactly uniformly and without a rejection loop.

A draw is a random rank r among the user's unseen items. The r-th unseen item is r plus the number of seen items
below it: with the seen items ascending and `gap[j] = seen[j] - j` (how many unseen items lie below seen item j), that
number is how many gaps are at most r. Gaps never decrease, so a binary search finds it.

Every draw is a function of its key and counter: blocks may be cut anywhere and drawn in any order.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.ncf.counter_random import threefry2x32, uniform_integers
from components.ncf.interactions import ItemLists

# Bounds what one call works on at a time, so that the intermediate arrays stay in the processor's cache.
_DRAWS_AT_A_TIME = 1 << 16


def sample_train_negatives(
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    places: NDArray[Any],
    positives: ItemLists,
    num_items: int,
    num_negatives: int,
    key: tuple[int, int],
) -> NDArray[np.int32]:
    """Draws the negatives that go with each training positive in one epoch.

    Draw j of (user, item) takes word 0 of Threefry with the counter (user, item * num_negatives + j), whatever else
    is drawn.

    Args:
        users: int32 [num_rows], dense indices.
        items: int32 [num_rows], the positive of each row.
        places: Integers [num_rows], where each row's user stands in `positives`.
        positives: All training positives of those users: the items that are never drawn. No user has all items. The
            held-out items may be drawn, as in the published method.
        num_items: Size of the catalogue.
        num_negatives: Draws per positive; `num_items * num_negatives` is below 2**32.
        key: Two words, from `derive_key` for TRAIN_NEGATIVES and the epoch.

    Returns:
        int32 [num_rows, num_negatives], with replacement.
    """
    counters = items.astype(np.uint32)[:, None] * np.uint32(num_negatives) + np.arange(num_negatives, dtype=np.uint32)
    words, _ = threefry2x32(key, (users[:, None], counters))
    num_unseen = num_items - positives.lengths[places]
    ranks = uniform_integers(words, num_unseen[:, None])
    return unseen_items_at(ranks, places, positives, num_items)


def unseen_items_at(ranks: NDArray[Any], places: NDArray[Any], seen: ItemLists, num_items: int) -> NDArray[np.int32]:
    """Turns ranks among a user's unseen items into those items.

    Args:
        ranks: Integers [num_rows, num_draws], each in [0, number of unseen items of that row's user).
        places: Integers [num_rows], indices into `seen`.
        seen: The items of every user that are left out.
        num_items: Size of the catalogue.

    Returns:
        int32 [num_rows, num_draws].
    """
    # User u's gaps are moved to [u * stride, (u + 1) * stride): all users become one ascending array to search.
    stride = np.int64(num_items + 1)
    gaps = _gaps(seen) + np.repeat(np.arange(len(seen.lengths)) * stride, seen.lengths)
    num_below = np.searchsorted(gaps, ranks + (places * stride)[:, None], side="right")
    items: NDArray[np.int32] = (ranks + num_below - seen.offsets[places][:, None]).astype(np.int32)
    return items


def sample_with_replacement(
    users: NDArray[np.int32], seen: ItemLists, num_items: int, num_draws: int, key: tuple[int, int]
) -> NDArray[np.int32]:
    """Draws items that each user never saw, the same item possibly several times.

    Args:
        users: int32 [num_users], dense indices: the first counter word of the draws.
        seen: Parallel to `users` (not indexed by dense user). No user has seen all items.
        num_items: Size of the catalogue.
        num_draws: Draws per user.
        key: Two words, from `derive_key`.

    Returns:
        int32 [num_users, num_draws], each row in ascending order, so that repeats stand side by side.
    """
    num_unseen = num_items - seen.lengths
    ranks = np.empty((len(users), num_draws), np.int32)
    for rows in _slices(len(users), num_draws):
        words = _random_words(users[rows], num_draws, key)
        ranks[rows] = uniform_integers(words, num_unseen[rows, None])
    ranks.sort(axis=1)
    return _unseen_items_at_sorted(ranks, seen, num_items)


def sample_distinct(
    users: NDArray[np.int32], seen: ItemLists, num_items: int, num_draws: int, key: tuple[int, int]
) -> NDArray[np.int32]:
    """Draws distinct items that each user never saw; every set of that size is equally likely.

    Floyd's algorithm (Bentley and Floyd, "A sample of brilliance", CACM 1987), one step for all users at once. A
    user who has fewer than `num_draws` unseen items gets all of them, and then repeats to fill the row.

    Args:
        users: int32 [num_users], dense indices: the first counter word of the draws.
        seen: Parallel to `users` (not indexed by dense user). No user has seen all items.
        num_items: Size of the catalogue.
        num_draws: Draws per user.
        key: Two words, from `derive_key`.

    Returns:
        int32 [num_users, num_draws], each row in ascending order.
    """
    num_unseen = num_items - seen.lengths
    chosen = np.empty((num_draws, len(users)), np.int32)
    words = np.ascontiguousarray(_random_words(users, num_draws, key).T)
    for draw in range(num_draws):
        last = np.maximum(num_unseen - num_draws + draw, 0)
        rank = uniform_integers(words[draw], last + 1)
        is_taken = (chosen[:draw] == rank.astype(np.int32)).any(axis=0)
        chosen[draw] = np.where(is_taken, last, rank)
    has_too_few = num_unseen < num_draws
    chosen[:, has_too_few] = np.arange(num_draws)[:, None] % num_unseen[has_too_few]
    return _unseen_items_at_sorted(np.sort(chosen.T, axis=1), seen, num_items)


def duplicate_mask(candidates: NDArray[np.int32], positives: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Marks the candidates that must not count: every repeat of an earlier one, and the positive itself.

    Args:
        candidates: int32 [num_users, num_candidates], in any order.
        positives: int32 [num_users], the held-out item that is ranked among them.

    Returns:
        bool [num_users, num_candidates].
    """
    mask: NDArray[np.bool_] = candidates == positives[:, None]
    if np.all(candidates[:, 1:] >= candidates[:, :-1]):
        mask[:, 1:] |= candidates[:, 1:] == candidates[:, :-1]
        return mask
    order = np.argsort(candidates, axis=1, kind="stable")
    ascending = np.take_along_axis(candidates, order, axis=1)
    is_repeat = np.zeros_like(mask)
    np.put_along_axis(is_repeat, order[:, 1:], ascending[:, 1:] == ascending[:, :-1], axis=1)
    return mask | is_repeat


def _gaps(seen: ItemLists) -> NDArray[np.int64]:
    """For each seen item, how many unseen items of its user lie below it: int64 [num_rows]."""
    return seen.items - (np.arange(len(seen.items)) - np.repeat(seen.offsets[:-1], seen.lengths))


def _unseen_items_at_sorted(ranks: NDArray[np.int32], seen: ItemLists, num_items: int) -> NDArray[np.int32]:
    """The same as `unseen_items_at` for rows of ascending ranks, by merging them with the seen items.

    There are more ranks than seen items, so the seen items are looked up among the ranks: an item stands before all
    ranks from some place on, and running totals of those places count the items before each rank.
    """
    # User u's ranks and gaps are moved to [u * stride, (u + 1) * stride): all rows become one ascending array.
    stride = np.int64(num_items + 1)
    shifts = np.arange(len(ranks)) * stride
    flat_ranks = (ranks + shifts[:, None]).ravel()
    places = np.searchsorted(flat_ranks, _gaps(seen) + np.repeat(shifts, seen.lengths))
    num_before = np.cumsum(np.bincount(places, minlength=ranks.size)[: ranks.size]).reshape(ranks.shape)
    return (ranks + num_before - seen.offsets[:-1, None]).astype(np.int32)


def _random_words(users: NDArray[np.int32], num_draws: int, key: tuple[int, int]) -> NDArray[np.uint32]:
    """Draws uint32 [num_users, num_draws]: both words of the counters (user, 0), (user, 1), ..."""
    num_counters = (num_draws + 1) // 2
    first, second = threefry2x32(key, (users[:, None], np.arange(num_counters)))
    return np.concatenate((first, second), axis=1)[:, :num_draws]


def _slices(num_users: int, num_draws: int) -> list[slice]:
    step = max(1, _DRAWS_AT_A_TIME // max(1, num_draws))
    return [slice(start, start + step) for start in range(0, num_users, step)]
