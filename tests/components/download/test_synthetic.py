from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from components.download.catalog import CATALOG, SyntheticSize
from components.download.synthetic import SyntheticWorld, hit_probability

DEFAULT = SyntheticSize(CATALOG["synthetic"].num_users, CATALOG["synthetic"].num_items)


@cache
def world(seed: int = 1, num_users: int = DEFAULT.num_users, num_items: int = DEFAULT.num_items) -> SyntheticWorld:
    return SyntheticWorld(SyntheticSize(num_users, num_items), seed)


def interactions(made: SyntheticWorld) -> pa.Table:
    return pa.concat_tables(made.tables())


def draws_by_user(made: SyntheticWorld) -> list[np.ndarray]:
    return np.split(made.draws, made.offsets[1:-1])


def test_a_seed_gives_the_same_rows_again_and_another_seed_other_ones() -> None:
    again = SyntheticWorld(DEFAULT, 1)
    assert interactions(again) == interactions(world())
    assert again.items() == world().items()
    assert interactions(world(seed=2)) != interactions(world())


def test_the_catalogue_tells_the_truth_for_every_seed() -> None:
    for seed in (1, 2, 3):
        table = interactions(world(seed))
        assert table.num_rows == CATALOG["synthetic"].num_interactions
        assert len(table["raw_user_id"].unique()) == CATALOG["synthetic"].num_users
        assert len(table["raw_item_id"].unique()) == CATALOG["synthetic"].num_items


def test_activity_is_lognormal_above_twenty() -> None:
    activity = world().activity
    assert activity.min() >= 20
    assert activity.max() <= DEFAULT.num_items // 2
    logs = np.log(activity[activity < activity.max()] - 20 + 0.5)
    assert abs(stats.skew(logs)) < 0.2
    assert stats.skew(activity) > 1.5


def test_items_have_a_long_tail() -> None:
    counts = np.sort(np.bincount(world().draws, minlength=DEFAULT.num_items))[::-1]
    assert counts[: DEFAULT.num_items // 10].sum() > 0.4 * counts.sum()
    assert np.median(counts) < 0.5 * counts.mean()


def test_nobody_sees_an_item_twice() -> None:
    table = interactions(world())
    assert table.group_by(["raw_user_id", "raw_item_id"]).aggregate([]).num_rows == table.num_rows


def test_timestamps_follow_the_order_of_drawing() -> None:
    made = world()
    table = interactions(made).sort_by([("raw_user_id", "ascending"), ("timestamp", "ascending")])
    assert np.array_equal(table["raw_item_id"].to_numpy(), made.raw_item_ids[made.draws])
    users, timestamps = table["raw_user_id"].to_numpy(), table["timestamp"].to_numpy()
    assert np.all(np.diff(timestamps)[np.diff(users) == 0] >= 1)
    assert timestamps.min() >= np.datetime64("2016-01-01", "s").astype(int)
    assert timestamps.max() < np.datetime64("2022-01-01", "s").astype(int)


def test_the_rows_do_not_give_the_order_away() -> None:
    items = interactions(world())["raw_item_id"].to_numpy()[: world().activity[0]]
    assert np.all(np.diff(items) > 0)


def test_ratings_are_half_stars_and_follow_taste() -> None:
    made, table = world(), interactions(world())
    ratings = table["rating"].to_numpy()
    assert set(np.unique(ratings)) <= {halves / 2 for halves in range(1, 11)}
    owners = table["raw_user_id"].to_numpy() - 1
    items = np.searchsorted(made.raw_item_ids, table["raw_item_id"].to_numpy())
    affinities = (made.tastes[owners] * made.characters[items]).sum(axis=1)
    assert np.corrcoef(ratings, affinities)[0, 1] > 0.3


def test_first_draws_have_softmax_probabilities() -> None:
    made = world(num_users=20_000, num_items=140)
    logits = made.logits(np.arange(20_000))
    expected = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).sum(axis=0)
    observed = np.bincount(made.draws[made.offsets[:-1]], minlength=140)
    common = expected > 5
    chi_square = ((observed - expected) ** 2 / expected)[common].sum()
    assert common.sum() > 30
    assert stats.chi2.sf(chi_square, common.sum()) > 1e-3


def test_the_last_draw_has_softmax_probabilities_over_what_was_left() -> None:
    # The probability of all items that rank above the last one, plus half of its own, is uniform if it was drawn so.
    made = world()
    logits = made.logits(np.arange(DEFAULT.num_users))
    above = []
    for user, items in enumerate(draws_by_user(made)):
        left = np.setdiff1d(np.arange(DEFAULT.num_items), items[:-1])
        probability = np.exp(logits[user, left]) / np.exp(logits[user, left]).sum()
        last = logits[user, items[-1]]
        above.append(probability[logits[user, left] > last].sum() + probability[logits[user, left] == last].sum() / 2)
    assert np.mean(above) == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / len(above)))


@pytest.mark.parametrize(
    ("num_users", "num_items", "repetitions"),
    [(DEFAULT.num_users, DEFAULT.num_items, 20), (60, 1_500, 400)],
    ids=["default", "many_items_that_nobody_drew"],
)
def test_the_best_hit_rate_is_what_simulated_candidates_give(num_users: int, num_items: int, repetitions: int) -> None:
    made, rng = world(1, num_users, num_items), np.random.default_rng(1)
    logits = made.logits(np.arange(num_users))
    rated = np.unique(made.draws)
    hits = []
    for user, items in enumerate(draws_by_user(made)):
        never_seen = np.setdiff1d(rated, items)
        shuffled = rng.permuted(np.tile(never_seen, (repetitions, 1)), axis=1)
        rivals = (logits[user, shuffled[:, :99]] >= logits[user, items[-1]]).sum(axis=1)
        hits += [*(rivals < 10)]
    # Candidates vary, users do not: the spread of each user's share of hits is at most that of a coin.
    assert np.mean(hits) == pytest.approx(made.best_hit_rate(), abs=4 * 0.5 / np.sqrt(len(hits)))


def test_hit_probability_is_the_hypergeometric_distribution() -> None:
    rng = np.random.default_rng(0)
    num_candidates = rng.integers(99, 3_000, 500)
    num_rivals = (num_candidates * rng.random(500) ** 2).astype(np.int64)
    num_rivals[:3], num_rivals[3:6] = 0, num_candidates[3:6]
    expected = stats.hypergeom.cdf(9, num_candidates, num_rivals, 99)
    assert hit_probability(num_candidates, num_rivals) == pytest.approx(expected, abs=1e-9)


def popularity_hit_rate(made: SyntheticWorld) -> float:
    users = draws_by_user(made)
    training_counts = np.bincount(np.concatenate([items[:-1] for items in users]), minlength=made.size.num_items)
    rated, rates = np.unique(made.draws), []
    for items in users:
        never_seen = np.setdiff1d(rated, items)
        rivals = (training_counts[never_seen] >= training_counts[items[-1]]).sum()
        rates.append(stats.hypergeom.cdf(9, len(never_seen), rivals, 99))
    return float(np.mean(rates))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_there_is_something_to_learn(seed: int) -> None:
    assert 0.75 < world(seed).best_hit_rate() < 0.85
    assert 0.33 < popularity_hit_rate(world(seed)) < 0.45


def test_small_sizes_leave_enough_unseen() -> None:
    made = world(num_users=30, num_items=140)
    assert made.activity.max() == 40
    assert 0 < made.best_hit_rate() <= 1


def test_titles_differ_and_genres_follow_the_factors() -> None:
    made = world(num_users=2, num_items=4_000)
    rows = made.items().to_pylist()
    titles = {row["title"].rsplit(" (", 1)[0] for row in rows}
    assert len(titles) == 4_000
    for row, character in zip(rows, made.characters, strict=True):
        genres = row["genres"].split("|")
        strongest = int(np.argmax(np.abs(character)))
        poles = (("Comedy", "Drama"), ("Sci-Fi", "Western"), ("Thriller", "Romance"))
        assert genres[0] == poles[strongest][int(character[strongest] < 0)]
        assert len(genres) == max(1, (np.abs(character) > 0.5).sum())
