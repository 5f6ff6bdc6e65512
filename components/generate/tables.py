"""Writes the tables beside the records: who a dense index is, and which items are held out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.generate.blocks import Catalog, HeldOut
from components.generate.ratings import read_item_titles, to_arrow
from components.generate.storage import join, open_reading, writing_file


def write_tables(folder: str, catalog: Catalog, held_out: HeldOut, titles: str | None) -> None:
    """Writes held_out.parquet, users.parquet and items.parquet, each ordered by dense index.

    Args:
        folder: The artifact's (partial) folder.
        catalog: The vocabularies.
        held_out: Of all users.
        titles: The place of the ratings' items.parquet, or None when there is none.
    """
    users = pa.array(held_out.users, pa.int64())
    item_titles, genres = read_item_titles(titles, catalog.raw_item_ids)
    _write(
        join(folder, "held_out.parquet"),
        {
            "user_id": users,
            "validation_item_id": pa.array(held_out.validation_items, pa.int64()),
            "test_item_id": pa.array(held_out.test_items, pa.int64()),
        },
    )
    _write(
        join(folder, "users.parquet"),
        {
            "user_id": users,
            "raw_user_id": to_arrow(catalog.raw_user_ids),
            "num_train_interactions": pa.array(held_out.num_train_interactions, pa.int64()),
        },
    )
    _write(
        join(folder, "items.parquet"),
        {
            "item_id": pa.array(np.arange(catalog.num_items), pa.int64()),
            "raw_item_id": to_arrow(catalog.raw_item_ids),
            "title": item_titles,
            "genres": genres,
            "num_train_interactions": pa.array(held_out.item_counts, pa.int64()),
        },
    )


def read_train_counts(folder: str, name: str) -> NDArray[np.int64]:
    """Returns how many training positives each user or item has, int64 by dense index.

    Args:
        folder: The artifact's (partial) folder.
        name: "users.parquet" or "items.parquet".
    """
    with open_reading(join(folder, name)) as stream:
        table = pq.read_table(stream, columns=["num_train_interactions"])
    return np.asarray(table["num_train_interactions"].to_numpy(), np.int64)


def _write(place: str, columns: Mapping[str, Any]) -> None:
    with writing_file(place) as stream:
        pq.write_table(pa.table(dict(columns)), stream)
