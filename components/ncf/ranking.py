"""Ranks each user's held-out item, among its candidates or in the whole catalogue, in blocks of one static shape."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.ncf.errors import InputError
from components.ncf.examples import Candidates
from components.ncf.interactions import ItemLists
from components.ncf.metrics import positive_ranks

# Scores users int32 [b] and items int32 [b, c] as float32 [b, c]. It is always called with the same shapes, so that
# a compiled function is compiled once.
ScoreCandidates = Callable[[NDArray[np.int32], NDArray[np.int32]], NDArray[np.float32]]

# Scores users int32 [b] for every item, float32 [b, num_items].
ScoreCatalogue = Callable[[NDArray[np.int32]], NDArray[np.float32]]

# Scores computed at once: the widest activation of a block of 2**17 rows and 256 columns takes 128 MiB.
_SCORES_PER_BLOCK = 1 << 17
# The same where nothing but the scores has to be held.
_CATALOGUE_SCORES_PER_BLOCK = 1 << 19


class Scorer(Protocol):
    """A model or a baseline, for evaluation: higher scores are better."""

    def score_candidates(self, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores each user's own candidates; see `ScoreCandidates`."""

    def score_catalogue(self, users: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores every item for each user; see `ScoreCatalogue`."""


@dataclass(frozen=True)
class CatalogueRanks:
    """What ranking the whole catalogue gives.

    Attributes:
        ranks: int64 [num_users], those of the held-out items, 0 being best.
        top_items: int32 [num_users, depth], the best items that the user had not had, the best first; -1 where there
            are no more.
    """

    ranks: NDArray[np.int64]
    top_items: NDArray[np.int32]


def rank_held_out_items(score: ScoreCandidates, candidates: Candidates, num_threads: int) -> NDArray[np.int64]:
    """Returns int64 [num_users]: how many candidates score at least as high as the held-out item (0 is best).

    Args:
        score: Scores the candidates.
        candidates: Of each user.
        num_threads: From how many threads to call `score`: one where its calls must keep their order, as those of a
            model on several devices must.

    Raises:
        InputError: A score is not finite.
    """
    num_users, num_candidates = candidates.items.shape
    users_per_block = max(1, min(num_users, _SCORES_PER_BLOCK // (num_candidates + 1)))
    ranks = np.empty(num_users, np.int64)

    def rank_block(start: int) -> None:
        stop = min(start + users_per_block, num_users)
        # The last block is filled up with its own first users: their ranks are computed and dropped.
        block = np.resize(np.arange(start, stop), users_per_block)
        items = np.concatenate([candidates.items[block], candidates.positives[block, None]], axis=1)
        scores = score(candidates.users[block], items)[: stop - start]
        mask = candidates.duplicate_mask[start:stop]
        try:
            ranks[start:stop] = positive_ranks(scores[:, :-1], scores[:, -1], mask)
        except ValueError as error:
            raise InputError(f"The candidates of users {start} to {stop - 1} cannot be ranked: {error}.") from error

    _run_in_threads(rank_block, range(0, num_users, users_per_block), num_threads)
    return ranks


def rank_in_catalogue(
    score: ScoreCatalogue,
    users: NDArray[np.int32],
    positives: NDArray[np.int32],
    seen: ItemLists,
    num_items: int,
    depth: int,
) -> CatalogueRanks:
    """Ranks each user's held-out item among all items that the user had not had. Ties count as in `positive_ranks`.

    Args:
        score: Scores the catalogue.
        users: int32 [num_users], dense.
        positives: int32 [num_users], the held-out item of each of `users`; not among its seen items.
        seen: The items that each dense user had.
        num_items: Size of the catalogue.
        depth: How many of the best items to return.

    Raises:
        InputError: A score is not finite.
    """
    ranks = np.empty(len(users), np.int64)
    top_items = np.empty((len(users), depth), np.int32)

    def rank_block(block: slice, scores: NDArray[np.float32]) -> None:
        positive_scores = scores[np.arange(len(scores)), positives[block]]
        # The held-out item itself is one of those that score as high.
        ranks[block] = np.sum(scores >= positive_scores[:, None], axis=1) - 1
        top_items[block] = best_items(scores, depth)

    for_each_block(score, users, seen, num_items, rank_block)
    return CatalogueRanks(ranks, top_items)


def users_per_block(num_users: int, num_items: int) -> int:
    """Returns how many users' scores for the whole catalogue `for_each_block` computes at once."""
    return max(1, min(num_users, _CATALOGUE_SCORES_PER_BLOCK // num_items))


def for_each_block(
    score: ScoreCatalogue,
    users: NDArray[np.int32],
    seen: ItemLists,
    num_items: int,
    work: Callable[[slice, NDArray[np.float32]], None],
) -> None:
    """Scores the catalogue for blocks of users and hands them on, in a thread for each processor.

    Args:
        score: Scores the catalogue; it is called from several threads.
        users: int32 [num_users], dense.
        seen: The items that each dense user had.
        num_items: Size of the catalogue.
        work: Takes which of `users`, and their scores, float32 [b, num_items], -inf where an item was seen.

    Raises:
        InputError: A score is not finite.
    """
    block_size = users_per_block(len(users), num_items)

    def score_and_work(start: int) -> None:
        stop = min(start + block_size, len(users))
        # The last block is filled up with its own first users, so that all blocks have one shape.
        filled = users[np.resize(np.arange(start, stop), block_size)]
        scores = np.array(score(filled)[: stop - start])
        if not np.isfinite(scores).all():
            raise InputError(
                f"The scores of users {start} to {stop - 1} are not all finite: the model has diverged, train it with "
                "a lower learning rate."
            )
        had = seen.take(users[start:stop])
        scores[np.repeat(np.arange(stop - start), had.lengths), had.items] = -np.inf
        work(slice(start, stop), scores)

    _run_in_threads(score_and_work, range(0, len(users), block_size), num_processors())


def num_processors() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def _run_in_threads(work: Callable[[int], None], starts: Iterable[int], num_threads: int) -> None:
    if num_threads == 1:  # no other than this one
        for start in starts:
            work(start)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        futures = [pool.submit(work, start) for start in starts]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def best_items(scores: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """Returns each row's `k` best items, the best first; equal scores keep the order of the catalogue.

    Args:
        scores: float32 [b, num_items], -inf where an item must not be returned.
        k: At least 1.

    Returns:
        int32 [b, k], -1 where a row has fewer items.
    """
    num_rows, num_items = scores.shape
    last = max(num_items - k, 0)
    least = np.maximum(np.partition(scores, last, axis=1)[:, last], np.finfo(np.float32).min)
    rows, items = np.nonzero(scores >= least[:, None])
    order = np.lexsort((items, -scores[rows, items], rows))
    rows, items = rows[order], items[order]
    places = np.arange(len(rows)) - np.searchsorted(rows, np.arange(num_rows))[rows]
    best = np.full((num_rows, k), -1, np.int32)
    is_best = places < k
    best[rows[is_best], places[is_best]] = items[is_best]
    return best
