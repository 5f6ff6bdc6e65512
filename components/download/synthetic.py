"""A MovieLens-shaped data set generated from known latent factors, so that the best reachable HR@10 is known.

Each user draws items one after the other, without replacement, with probability proportional to exp(logit), where
logit(user, item) = popularity(item) + PREFERENCE_SCALE * <taste(user), character(item)>. Tastes and characters are
unit vectors of three factors, popularity is a power law of the item's rank. Draws are made by the Gumbel trick:
adding independent Gumbel noise to the logits and sorting in descending order gives exactly that sequential draw
(Yellott 1977; Kool et al., "Stochastic Beams and Where to Find Them", ICML 2019).

All numbers come from `components.ncf.counter_random`: the same seed gives the same interactions everywhere.
"""

from collections.abc import Iterator
from functools import cached_property
from statistics import NormalDist

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.download.catalog import MIN_INTERACTIONS, NUM_EVAL_NEGATIVES, SyntheticSize
from components.download.parse import interactions_schema
from components.download.ratings_folder import items_table
from components.ncf.counter_random import Stream, derive_key, threefry2x32

# Chosen so that the best HR@10 (loo-99) is near 0.8, ranking by popularity gives less than half of it, and a small
# collaborative model comes within a tenth of the best.
NUM_FACTORS = 3
PREFERENCE_SCALE = 6.0
POPULARITY_EXPONENT = 2.5
POPULARITY_HEAD = 1 / 80  # share of the catalogue over which popularity is nearly flat

MEAN_INTERACTIONS = 67
ACTIVITY_SIGMA = 0.8  # of the lognormal number of interactions beyond the minimum
CUTOFF = 10

_FIRST_START_S = 1_451_606_400  # 2016-01-01
_START_SPAN_S = 5 * 365 * 86_400
_MEAN_GAP_S = 5 * 3_600
_CELLS_PER_CHUNK = 1 << 17

# Two genres per factor, one at each end.
_GENRES = ("Comedy", "Drama", "Sci-Fi", "Western", "Thriller", "Romance")
_NOUNS = (
    ("Wedding", "Parrot", "Neighbor", "Holiday", "Detour", "Butler", "Circus", "Reunion", "Bakery", "Cousin"),
    ("Harvest", "Orchard", "Verdict", "Inheritance", "Lighthouse", "Teacher", "Winter", "Letter", "River", "Portrait"),
    ("Orbit", "Signal", "Android", "Nebula", "Colony", "Paradox", "Engine", "Horizon", "Satellite", "Machine"),
    ("Canyon", "Sheriff", "Stagecoach", "Prairie", "Saddle", "Outlaw", "Frontier", "Mustang", "Saloon", "Desert"),
    ("Witness", "Cipher", "Alibi", "Corridor", "Hostage", "Informant", "Vault", "Shadow", "Stranger", "Pursuit"),
    ("Garden", "Promise", "Waltz", "Summer", "Serenade", "Balcony", "Violin", "Voyage", "Moonlight", "Bouquet"),
)
_ADJECTIVES = (
    *("Silent", "Golden", "Broken", "Distant", "Hidden", "Crimson", "Restless", "Forgotten", "Paper", "Northern"),
    *("Last", "Little", "Burning", "Velvet", "Hollow", "Wandering", "Second", "Midnight", "Gentle", "Electric"),
    *("Lonely", "Brave", "Painted", "Secret", "Endless", "Frozen", "Honest", "Savage", "Quiet", "Scarlet"),
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class SyntheticWorld:
    """Everything about one generated data set; the parts are computed when first asked for.

    Attributes:
        size: Its size.
        raw_user_ids: int64 [num_users], ascending from 1.
        raw_item_ids: int64 [num_items], ascending with gaps.
        tastes: float64 [num_users, NUM_FACTORS], unit vectors.
        characters: float64 [num_items, NUM_FACTORS], unit vectors.
        popularity: float64 [num_items], logits.
        activity: int64 [num_users], interactions of each user.
    """

    def __init__(self, size: SyntheticSize, seed: int) -> None:
        """Draws users and items, not yet their interactions.

        Args:
            size: The data set's size.
            seed: In [0, 2**64).
        """
        self.size = size
        self._seed = seed
        item_rows, user_rows = np.arange(size.num_items), np.arange(size.num_users)
        self.raw_user_ids = user_rows + 1
        self.raw_item_ids = np.cumsum(1 + np.floor(3 * self._uniform("item id gaps", item_rows, 0)).astype(np.int64))
        self.tastes = _unit_vectors(self._normal("tastes", user_rows[:, None], np.arange(NUM_FACTORS)))
        self.characters = _unit_vectors(self._normal("characters", item_rows[:, None], np.arange(NUM_FACTORS)))
        ranks = np.argsort(np.argsort(self._uniform("popularity ranks", item_rows, 0)))
        self.popularity = -POPULARITY_EXPONENT * np.log(ranks / size.num_items + POPULARITY_HEAD)
        self.activity = _activity(size)[np.argsort(self._uniform("activity order", user_rows, 0))]

    @cached_property
    def draws(self) -> Integers:
        """The items of all users, int64 [sum of activity]: user after user, each in the order of drawing."""
        chunks = []
        for users in self._user_chunks():
            cells = (users[:, None], np.arange(self.size.num_items))
            gumbel = -np.log(-np.log(self._uniform("gumbel noise", *cells)))
            order = np.argsort(-(self.logits(users) + gumbel), axis=1)
            chunks.append(order[np.arange(self.size.num_items) < self.activity[users][:, None]])
        return np.concatenate(chunks)

    @cached_property
    def offsets(self) -> Integers:
        """Where each user's draws start and end, int64 [num_users + 1]."""
        return np.concatenate([[0], np.cumsum(self.activity)])

    def logits(self, users: Integers) -> Floats:
        """Returns the true logits of every item, float64 [len(users), num_items]."""
        affinities: Floats = self.tastes[users] @ self.characters.T
        return self.popularity + PREFERENCE_SCALE * affinities

    def tables(self) -> Iterator[pa.Table]:
        """Yields the interactions, user after user, each user's in the order of the raw item ids."""
        schema = interactions_schema(pa.int64(), pa.int64())
        for users in self._user_chunks():
            draws = slice(self.offsets[users[0]], self.offsets[users[-1] + 1])
            items, owners = self.draws[draws], np.repeat(users, self.activity[users])
            order = np.lexsort((items, owners))
            columns = (
                self.raw_user_ids[owners],
                self.raw_item_ids[items],
                self._ratings(owners, items).astype(np.float32),
                self._timestamps(users),
            )
            yield pa.table([pa.array(column[order]) for column in columns], schema=schema)

    def items(self) -> pa.Table:
        """Returns raw_item_id, a made-up title and the genres of every item."""
        titles, genres, uses = [], [], dict.fromkeys(range(len(_GENRES)), 0)
        years = 1950 + np.floor(70 * self._uniform("years", np.arange(self.size.num_items), 0)).astype(int)
        for character, year in zip(self.characters, years, strict=True):
            poles = 2 * np.arange(NUM_FACTORS) + (character < 0)
            strength = np.abs(character)
            by_strength = np.argsort(-strength)
            main = int(poles[by_strength[0]])
            titles.append(f"{_title(main, uses[main])} ({year})")
            uses[main] += 1
            genres.append("|".join(_GENRES[poles[f]] for f in by_strength if f == by_strength[0] or strength[f] > 0.5))
        return items_table(self.raw_item_ids.tolist(), titles, genres, pa.int64())

    def best_hit_rate(self) -> float:
        """Returns the HR@10 that ranking by the true logits has under `loo-99`, an expectation over candidates, exact.

        Given the items that a user drew before, the held-out last one is distributed as exp(logit) over the others,
        and candidates are drawn uniformly. So the true logits order the candidates by the probability of being
        the held-out item: no ranking has a higher expected hit rate.

        If r of the user's m never-seen items have a logit at least as high as the held-out item's, the number of
        them among the 99 candidates is hypergeometric, and a hit is at most nine of them. Only items that some user
        drew count: nobody could rank the others.
        """
        known = np.zeros(self.size.num_items, bool)
        known[self.draws] = True
        hit_rates = []
        for users in self._user_chunks():
            logits = self.logits(users)
            rows = np.arange(len(users))
            last = self.draws[self.offsets[users + 1] - 1]
            candidates = np.tile(known, (len(users), 1))
            draws = self.draws[self.offsets[users[0]] : self.offsets[users[-1] + 1]]
            candidates[np.repeat(rows, self.activity[users]), draws] = False
            rivals = candidates & (logits >= logits[rows, last][:, None])
            hit_rates.append(hit_probability(candidates.sum(axis=1), rivals.sum(axis=1)))
        return float(np.mean(np.concatenate(hit_rates)))

    def _ratings(self, owners: Integers, items: Integers) -> Floats:
        affinities = np.einsum("nf,nf->n", self.tastes[owners], self.characters[items])
        opinions = 3.4 + 0.9 * affinities + 0.6 * self._normal("opinions", owners, items)
        halves: Floats = np.clip(np.round(2 * opinions), 1, 10) / 2
        return halves

    def _timestamps(self, users: Integers) -> Integers:
        starts = _FIRST_START_S + np.floor(_START_SPAN_S * self._uniform("starts", users, 0)).astype(np.int64)
        owners = np.repeat(users, self.activity[users])
        places = np.arange(len(owners)) - np.repeat(self.offsets[users] - self.offsets[users[0]], self.activity[users])
        gaps = 1 + np.floor(-_MEAN_GAP_S * np.log(self._uniform("gaps", owners, places))).astype(np.int64)
        elapsed = np.cumsum(gaps)
        before = np.concatenate([[0], elapsed])[self.offsets[users] - self.offsets[users[0]]]
        timestamps: Integers = np.repeat(starts - before, self.activity[users]) + elapsed
        return timestamps

    def _user_chunks(self) -> Iterator[Integers]:
        step = max(_CELLS_PER_CHUNK // self.size.num_items, 1)
        for start in range(0, self.size.num_users, step):
            yield np.arange(start, min(start + step, self.size.num_users))

    def _words(self, purpose: str, row: Integers, column: Integers | int) -> tuple[Integers, Integers]:
        key = derive_key(self._seed, Stream.SYNTHETIC, epoch=_PURPOSES.index(purpose))
        high, low = threefry2x32(key, (row, column))
        return high.astype(np.int64), low.astype(np.int64)

    def _uniform(self, purpose: str, row: Integers, column: Integers | int) -> Floats:
        """Returns multiples of 2**-52 plus half of that: never 0, never 1."""
        high, low = self._words(purpose, row, column)
        return np.asarray((((high >> 6) << 26 | (low >> 6)) + 0.5) * 2.0**-52, np.float64)

    def _normal(self, purpose: str, row: Integers, column: Integers | int) -> Floats:
        """Returns standard normal numbers, by the Box-Muller transform of the two words."""
        high, low = self._words(purpose, row, column)
        radius = np.sqrt(-2 * np.log((high + 0.5) * 2.0**-32))
        return np.asarray(radius * np.cos(2 * np.pi * low * 2.0**-32), np.float64)


# What numbers are drawn for: a place in this list is a part of their key, so new purposes go to its end.
_PURPOSES = (
    *("item id gaps", "tastes", "characters", "popularity ranks", "activity order"),
    *("gumbel noise", "years", "opinions", "starts", "gaps"),
)


def hit_probability(num_candidates: Integers, num_rivals: Integers) -> Floats:
    """Returns the probability that at most nine rivals are among 99 distinct candidates.

    Args:
        num_candidates: int64 [n], items to draw the 99 from, at least 99.
        num_rivals: int64 [n], how many of them rank at or above the held-out item.

    Returns:
        float64 [n]: the cumulative hypergeometric distribution at CUTOFF - 1.
    """
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, num_candidates.max() + 1)))])

    def log_choose(n: Integers, k: int) -> Floats:
        possible = (k <= n) & (n >= 0)
        n = np.where(possible, n, k)
        log_ways: Floats = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
        return np.where(possible, log_ways, -np.inf)

    log_all = log_choose(num_candidates, NUM_EVAL_NEGATIVES)
    probability = np.zeros(len(num_rivals))
    for drawn in range(CUTOFF):
        rest = log_choose(num_candidates - num_rivals, NUM_EVAL_NEGATIVES - drawn)
        probability += np.exp(log_choose(num_rivals, drawn) + rest - log_all)
    return np.minimum(probability, 1.0)


def _activity(size: SyntheticSize) -> Integers:
    """Returns lognormal numbers of interactions: the quantiles, so that their sum does not depend on the seed."""
    normal = NormalDist()
    quantiles = np.array([normal.inv_cdf((user + 0.5) / size.num_users) for user in range(size.num_users)])
    beyond = np.exp(ACTIVITY_SIGMA * quantiles)
    counts = MIN_INTERACTIONS + np.round((MEAN_INTERACTIONS - MIN_INTERACTIONS) * beyond / beyond.mean())
    most = min(size.num_items // 2, size.num_items - NUM_EVAL_NEGATIVES - 1)
    activity: Integers = np.minimum(counts, most).astype(np.int64)
    return activity


def _unit_vectors(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _title(genre: int, use: int) -> str:
    nouns = _NOUNS[genre]
    # Both indices walk on, so that neighbours in the list differ in both words.
    edition, place = divmod(use, len(nouns) * len(_ADJECTIVES))
    noun, adjective = (
        nouns[place % len(nouns)],
        _ADJECTIVES[(place // len(nouns) + 7 * place + 5 * genre) % len(_ADJECTIVES)],
    )
    return f"The {adjective} {noun}" + (f" {edition + 1}" if edition else "")
