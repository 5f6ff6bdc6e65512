"""Ranking in the whole catalogue against sorting by hand."""

import threading
import time

import numpy as np
import pytest

from components.ncf import ranking
from components.ncf.errors import InputError
from components.ncf.examples import Candidates
from components.ncf.interactions import ItemLists
from components.ncf.ranking import best_items, rank_held_out_items, rank_in_catalogue


def best_by_sorting(scores, k):
    """Sorts all items by score and then by index, in Python."""
    result = []
    for row in scores.tolist():
        items = sorted((item for item in range(len(row)) if row[item] > -np.inf), key=lambda item: (-row[item], item))
        result.append((items + k * [-1])[:k])
    return result


@pytest.mark.parametrize("k", [1, 3, 12, 20])
@pytest.mark.parametrize("num_levels", [1, 3, 1000])
def test_best_items_are_those_of_sorting(k, num_levels):
    rng = np.random.default_rng(num_levels)
    scores = rng.integers(num_levels, size=(40, 12)).astype(np.float32) - 5
    scores[rng.random(scores.shape) < 0.4] = -np.inf
    scores[0] = -np.inf
    assert best_items(scores, k).tolist() == best_by_sorting(scores, k)


@pytest.mark.parametrize("users_per_block", [1, 3, 100])
def test_blocks_change_nothing_and_have_one_shape(monkeypatch, users_per_block):
    monkeypatch.setattr(ranking, "_CATALOGUE_SCORES_PER_BLOCK", 9 * users_per_block)
    rng = np.random.default_rng(0)
    table = rng.integers(4, size=(20, 9)).astype(np.float32)
    users = rng.permutation(20)[:14].astype(np.int32)
    seen = ItemLists.from_pairs(np.repeat(np.arange(20), 2), np.tile([2, 7], 20), 20)
    positives = rng.choice([0, 1, 3, 4, 5, 6, 8], 14)
    shapes = set()

    def score(block):
        shapes.add(block.shape)
        return table[block]

    result = rank_in_catalogue(score, users, positives, seen, 9, depth=3)
    assert len(shapes) == 1
    for row, (user, positive) in enumerate(zip(users, positives, strict=True)):
        others = [item for item in range(9) if item not in (2, 7, positive)]
        assert result.ranks[row] == sum(table[user, item] >= table[user, positive] for item in others)
        unseen = table[user].copy()
        unseen[[2, 7]] = -np.inf
        assert result.top_items[row].tolist() == best_by_sorting(unseen[None], 3)[0]


def test_a_constant_scorer_ranks_every_held_out_item_last():
    seen = ItemLists.from_pairs(np.array([0, 1]), np.array([3, 4]), 2)
    users, positives = np.arange(2, dtype=np.int32), np.array([1, 1])
    result = rank_in_catalogue(lambda users: np.zeros((len(users), 6), np.float32), users, positives, seen, 6, 2)
    assert result.ranks.tolist() == [4, 4]


def test_a_score_that_is_not_finite_is_named():
    seen = ItemLists.from_pairs(np.zeros(0, int), np.zeros(0, int), 3)
    scores = np.zeros((3, 5), np.float32)
    scores[1, 2] = np.nan
    users = np.arange(3, dtype=np.int32)
    with pytest.raises(InputError, match=r"users 0 to 2 are not all finite.*lower learning rate"):
        rank_in_catalogue(lambda users: scores[users], users, np.zeros(3, int), seen, 5, 1)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("scores_per_block", [5, 20, 1000])
def test_candidates_are_ranked_the_same_in_any_blocks_and_threads(monkeypatch, num_threads, scores_per_block):
    monkeypatch.setattr(ranking, "_SCORES_PER_BLOCK", scores_per_block)
    rng = np.random.default_rng(0)
    table = rng.integers(4, size=(11, 9)).astype(np.float32)
    users, positives = rng.permutation(11).astype(np.int32), rng.integers(9, size=11, dtype=np.int32)
    items = rng.integers(9, size=(11, 4), dtype=np.int32)
    duplicates = rng.random(items.shape) < 0.2
    threads = set()

    def score(block, candidates):
        threads.add(threading.get_ident())
        time.sleep(0.002)
        return table[block[:, None], candidates]

    ranks = rank_held_out_items(score, Candidates(users, items, positives, duplicates), num_threads)
    assert ranks.tolist() == [
        sum(
            table[user, item] >= table[user, positive]
            for item, is_duplicate in zip(row, mask, strict=True)
            if not is_duplicate
        )
        for user, positive, row, mask in zip(users, positives, items, duplicates, strict=True)
    ]
    assert len(threads) <= num_threads
    assert (threads == {threading.get_ident()}) == (num_threads == 1)
