from collections import Counter, defaultdict
from pathlib import Path

import pytest

from benchmarks.make_ratings import NUM_ITEMS, users_of, write_ratings_csv

NUM_ROWS = 400_000


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    write_ratings_csv(path, NUM_ROWS, seed=1)
    return path.read_text().splitlines()


def test_users_scale_with_the_rows_and_are_those_of_ml_20m_at_its_size() -> None:
    assert users_of(20_000_263) == 138_493
    assert users_of(10_000_132) == 69_247


def test_made_ratings_have_the_shape_of_movielens(lines: list[str]) -> None:
    assert lines[0] == "user_id,item_id,rating,timestamp"
    items_of_user: dict[int, list[int]] = defaultdict(list)
    for line in lines[1:]:
        user, item, rating, timestamp = line.split(",")
        items_of_user[int(user)].append(int(item))
        assert float(rating) in {half / 2 for half in range(1, 11)}
        assert 800_000_000 <= int(timestamp) < 1_500_000_000
    assert list(items_of_user) == list(range(1, users_of(NUM_ROWS) + 1))
    assert sum(map(len, items_of_user.values())) == NUM_ROWS
    for items in items_of_user.values():
        assert items == sorted(set(items))  # distinct, and ordered as MovieLens orders them
        assert 20 <= len(items) <= 9_254
    popularity = Counter(item for items in items_of_user.values() for item in items)
    assert set(popularity) == set(range(1, NUM_ITEMS + 1))
    assert popularity[1] > 100 * popularity[NUM_ITEMS // 2]


def test_same_seed_makes_the_same_bytes_and_another_seed_does_not(lines: list[str], tmp_path: Path) -> None:
    for seed in (1, 2):
        write_ratings_csv(tmp_path / "again.csv", NUM_ROWS, seed)
        assert ((tmp_path / "again.csv").read_text().splitlines() == lines) == (seed == 1)


def test_too_few_ratings_for_the_catalogue_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="10000 rows are too few for 26744 items"):
        write_ratings_csv(tmp_path / "few.csv", 10_000, 1)


def test_many_users_of_few_ratings_can_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    write_ratings_csv(path, 130_000, 1, num_users=6_000)
    users = Counter(line.split(",")[0] for line in path.read_text().splitlines()[1:])
    assert (len(users), sum(users.values()), min(users.values())) == (6_000, 130_000, 20)
    with pytest.raises(ValueError, match="130000 rows are too few for 7000 users with 20 each"):
        write_ratings_csv(path, 130_000, 1, num_users=7_000)
