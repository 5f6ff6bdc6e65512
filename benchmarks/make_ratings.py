"""Writes ratings of the shape of ml-20m, of any size, for measurements: no real person's data, and no network."""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

ML_20M_ROWS = 20_000_263
ML_20M_USERS = 138_493
NUM_ITEMS = 26_744
MIN_RATINGS = 20
MAX_RATINGS = 9_254

# What a user rates beyond MIN_RATINGS is log-normal. In ml-20m the median of it is 48 and the mean 124; the mean
# follows from the median by exp(spread**2 / 2).
_ACTIVITY_SPREAD = 1.38
# An item of popularity rank r is drawn with a probability in proportion to (r + offset)**-exponent. In ml-20m the most
# popular item has 0.34 % of the ratings and the median one 18 of 20 M; both hold here.
_POPULARITY_OFFSET = 382.0
_POPULARITY_EXPONENT = 2.3

_USERS_AT_A_TIME = 4_000
_FIRST_SECOND = 800_000_000
_NUM_SECONDS = 600_000_000
_MAX_USER_SECONDS = 30 * 86_400


def users_of(num_rows: int) -> int:
    """Returns the number of users that keeps ml-20m's ratings per user, for a data set of so many rows."""
    return round(ML_20M_USERS * num_rows / ML_20M_ROWS)


def write_ratings_csv(path: Path, num_rows: int, seed: int, num_users: int | None = None) -> None:
    """Writes ratings, ordered by user and then by item as MovieLens has them.

    The columns are user_id, item_id, rating, timestamp. There are `users_of(num_rows)` users with MIN_RATINGS to
    MAX_RATINGS distinct items each, and NUM_ITEMS items, each rated at least once; lower item ids are more popular. The
    bytes follow from the arguments. Memory is bounded by the number of users and by a block of a few thousand of them.

    Args:
        path: The file to write.
        num_rows: Its exact number of ratings.
        seed: Of every draw.
        num_users: Instead of `users_of(num_rows)`: few rows of many users keep ml-20m's tables with less to train on.
    """
    schema = pa.schema(
        [("user_id", pa.int64()), ("item_id", pa.int64()), ("rating", pa.float32()), ("timestamp", pa.int64())]
    )
    options = pa_csv.WriteOptions(quoting_style="none")
    with path.open("wb") as stream:
        stream.write(",".join(schema.names).encode() + b"\n")
        options.include_header = False
        with pa_csv.CSVWriter(stream, schema, write_options=options) as writer:
            for columns in _draw_blocks(num_rows, seed, num_users or users_of(num_rows)):
                writer.write_table(pa.table(columns, schema=schema))


def _draw_blocks(num_rows: int, seed: int, num_users: int) -> Iterator[list[NDArray[np.generic]]]:
    """Yields user, item, rating and timestamp of some thousand users at a time."""
    activity = draw_activity(num_rows, num_users, np.random.default_rng((seed, 0)))
    weights = (np.arange(NUM_ITEMS) + _POPULARITY_OFFSET) ** -_POPULARITY_EXPONENT
    cumulative = np.cumsum(weights / weights.sum())
    # Every item falls to one user for certain, so that the catalogue is whole.
    owners = np.arange(NUM_ITEMS) * len(activity) // NUM_ITEMS
    for block, start in enumerate(range(0, len(activity), _USERS_AT_A_TIME)):
        rng = np.random.default_rng((seed, 1, block))
        sizes = activity[start : start + _USERS_AT_A_TIME]
        low, high = np.searchsorted(owners, (start, start + len(sizes)))
        owned = (owners[low:high] - start) * NUM_ITEMS + np.arange(low, high)
        users, items = np.divmod(_draw_distinct_pairs(sizes, owned, cumulative, rng), NUM_ITEMS)
        first_seconds = _FIRST_SECOND + rng.integers(0, _NUM_SECONDS, len(sizes))
        seconds = first_seconds[users] + rng.integers(0, _MAX_USER_SECONDS, len(users))
        ratings = rng.integers(1, 11, len(users)).astype(np.float32) / 2
        yield [start + users + 1, items + 1, ratings, seconds]


def draw_activity(num_rows: int, num_users: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Returns how many items each user rates, int64 [num_users], with the sum num_rows.

    Raises:
        ValueError: There are too few rows for every item to fall to a user, or for every user to have MIN_RATINGS.
    """
    if num_users * MIN_RATINGS < 2 * NUM_ITEMS:
        raise ValueError(f"{num_rows} rows are too few for {NUM_ITEMS} items: take 400000 or more.")
    if num_users * MIN_RATINGS > num_rows:
        raise ValueError(f"{num_rows} rows are too few for {num_users} users with {MIN_RATINGS} each.")
    raw = rng.lognormal(0.0, _ACTIVITY_SPREAD, num_users)
    low, high = 0.0, float(MAX_RATINGS)
    while high - low > 1e-9:
        middle = (low + high) / 2
        too_many = _activity(raw, middle).sum() > num_rows
        low, high = (low, middle) if too_many else (middle, high)
    activity = _activity(raw, low)
    rest = num_rows - activity.sum()
    growing = np.flatnonzero(activity < MAX_RATINGS)[:rest]
    activity[growing] += 1
    return activity


def _activity(raw: NDArray[np.float64], scale: float) -> NDArray[np.int64]:
    return np.minimum(MIN_RATINGS + (raw * scale).astype(np.int64), MAX_RATINGS)


def _draw_distinct_pairs(
    sizes: NDArray[np.int64], owned: NDArray[np.int64], cumulative: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Returns distinct pairs, ascending, each as user * NUM_ITEMS + item: sizes[user] of each, those owned first."""
    complete, growing, lacking, excess = [], owned, sizes, 1.2
    while np.any(lacking):
        users = np.repeat(np.arange(len(sizes)), np.ceil(lacking * excess).astype(np.int64))
        # The last sum may fall short of 1 by a rounding error.
        items = np.minimum(np.searchsorted(cumulative, rng.random(len(users)), side="right"), NUM_ITEMS - 1)
        growing = np.union1d(growing, users * NUM_ITEMS + items)
        lacking = np.where(lacking > 0, sizes - np.bincount(growing // NUM_ITEMS, minlength=len(sizes)), 0)
        is_complete = lacking[growing // NUM_ITEMS] <= 0
        complete.append(growing[is_complete])
        growing, lacking = growing[~is_complete], np.maximum(lacking, 0)
        excess *= 2  # who has most of the popular items already needs many draws for one more
    pairs = np.sort(np.concatenate(complete))
    # Too many were drawn: of each user, the owned ones and then a random choice stay.
    priority = rng.random(len(pairs))
    priority[np.searchsorted(pairs, owned)] = -1.0
    users = pairs // NUM_ITEMS
    order = np.lexsort((priority, users))
    counts = np.bincount(users, minlength=len(sizes))
    place = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(pairs[order][place < sizes[users]])


@click.command()
@click.option("--rows", type=int, default=ML_20M_ROWS, show_default=True, help="Ratings to write.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--users", type=int, help="Their users.  [default: in proportion to the rows, as ml-20m has them]")
@click.argument("path", type=click.Path(path_type=Path))
def main(rows: int, seed: int, users: int | None, path: Path) -> None:
    """Write ratings of the shape of ml-20m to PATH."""
    write_ratings_csv(path, rows, seed, users)
    click.echo(f"{path}: {rows:,} ratings of {users or users_of(rows):,} users, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
