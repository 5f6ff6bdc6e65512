"""Writes the tables beside the records: who a dense index is, and which items are held out."""

import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.generate.blocks import Catalog, HeldOut
from components.generate.ratings import read_item_titles, to_arrow


def write_tables(folder: Path, catalog: Catalog, held_out: HeldOut, ratings: Path) -> None:
    """Writes held_out.parquet, users.parquet and items.parquet, each ordered by dense index.

    Args:
        folder: The artifact's (partial) folder.
        catalog: The vocabularies.
        held_out: Of all users, in any order.
        ratings: The `ratings` folder, whose items.parquet has the titles.
    """
    order = np.argsort(held_out.users, kind="stable")
    users = pa.array(held_out.users[order], pa.int64())
    titles, genres = read_item_titles(ratings, catalog.raw_item_ids)
    tables = {
        "held_out.parquet": {
            "user_id": users,
            "validation_item_id": pa.array(held_out.validation_items[order], pa.int64()),
            "test_item_id": pa.array(held_out.test_items[order], pa.int64()),
        },
        "users.parquet": {
            "user_id": users,
            "raw_user_id": to_arrow(catalog.raw_user_ids),
            "num_train_interactions": pa.array(held_out.num_train_interactions[order], pa.int64()),
        },
        "items.parquet": {
            "item_id": pa.array(np.arange(catalog.num_items), pa.int64()),
            "raw_item_id": to_arrow(catalog.raw_item_ids),
            "title": titles,
            "genres": genres,
            "num_train_interactions": pa.array(held_out.item_counts, pa.int64()),
        },
    }
    for name, columns in tables.items():
        unfinished = folder / f".{name}.{uuid.uuid4().hex}"
        pq.write_table(pa.table(columns), unfinished)
        unfinished.replace(folder / name)
