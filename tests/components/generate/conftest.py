import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.generate.config import GenerateConfig
from components.ncf.records import read_examples

Row = tuple[Any, Any, float, int]
WriteRatings = Callable[..., Path]


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """Interactions of 150 users with 200 items: long tails, repeats, equal timestamps, and users with too few.

    One more user has 130 items, the latest of which nobody else has.
    """
    rng = np.random.default_rng(4)
    popularity = 1 / (np.arange(200) + 5)
    popularity /= popularity.sum()
    rows: list[Row] = []
    for user in range(150):
        items = rng.choice(200, size=3 + int(rng.exponential(20)), p=popularity)
        days = rng.integers(0, 40, len(items))
        ratings = rng.integers(1, 6, len(items))
        for item, rating, day in zip(items.tolist(), ratings.tolist(), days.tolist(), strict=True):
            rows.append((user * 7 - 30, item * 11 + 3, float(rating), 1_000_000 + 86_400 * day))
    rows += [(5_000, item * 11 + 3, 1.0, 2_000_000 + item) for item in [*range(130), 777]]
    return rows


@pytest.fixture(scope="session")
def write_ratings_below() -> WriteRatings:
    """Writes a `ratings` folder, as download does, below a given one."""

    def write(
        parent: Path,
        rows: Sequence[Row],
        name: str = "ratings",
        num_files: int = 1,
        row_group_size: int = 100,
        fixed: Sequence[tuple[Any, Any, list[Any]]] | None = None,
        **manifest: Any,
    ) -> Path:
        folder = parent / name
        folder.mkdir()
        id_type = pa.string() if rows and isinstance(rows[0][0], str) else pa.int64()
        types = (id_type, id_type, pa.float32(), pa.int64())
        names = ("raw_user_id", "raw_item_id", "rating", "timestamp")
        for file in range(num_files):
            columns = [
                pa.array([row[place] for row in rows[file::num_files]], type_) for place, type_ in enumerate(types)
            ]
            path = folder / f"interactions-{file:05d}-of-{num_files:05d}.parquet"
            pq.write_table(pa.table(columns, names), path, row_group_size=row_group_size)
        # The first item is left out: an item without a title is no mistake.
        items = sorted({row[1] for row in rows})[1:]
        titles = pa.table(
            [pa.array(items, id_type), [f"Title {item}" for item in items], ["Drama|Comedy"] * len(items)],
            ["raw_item_id", "title", "genres"],
        )
        pq.write_table(titles, folder / "items.parquet")
        if fixed is not None:
            users, positives, candidates = zip(*fixed, strict=True)
            table = pa.table(
                [pa.array(users, id_type), pa.array(positives, id_type), pa.array(candidates, pa.list_(id_type))],
                ["raw_user_id", "raw_item_id", "candidates"],
            )
            pq.write_table(table, folder / "fixed.parquet", row_group_size=20)
        content = {"kind": "ratings", "format_version": 1, "dataset": "test", "digest": "abc123", **manifest}
        (folder / "manifest.json").write_text(json.dumps(content))
        return folder

    return write


@pytest.fixture
def write_ratings(write_ratings_below: WriteRatings, tmp_path: Path) -> WriteRatings:
    """Writes a `ratings` folder below the test's own."""
    return partial(write_ratings_below, tmp_path)


@pytest.fixture(scope="session")
def config() -> GenerateConfig:
    return GenerateConfig(
        min_ratings=5,
        protocols=("loo-99", "loo-999-masked"),
        num_shards=3,
        eval_prebatch_size=4_000,
        offline_epochs=0,
        num_offline_negatives=4,
        train_prebatch_size=700,
        beam_runner="in_memory",
        beam_options=("direct_running_mode=multi_threading", "direct_num_workers=2"),
        seed=8,
    )


@pytest.fixture(scope="session")
def read_column_files() -> Callable[[Path, str], list[dict[str, list[int]]]]:
    """Reads the record files of one folder below an artifact, in order of their names: one dict per Example."""

    def read(artifact: Path, folder: str) -> list[dict[str, list[int]]]:
        return [
            {name: values.tolist() for name, values in example.items()}
            for path in sorted((artifact / folder).iterdir())
            for example in read_examples(path)
        ]

    return read
