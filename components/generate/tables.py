"""Writes the tables beside the records: who a dense index is, and which items are held out.

The tables of users are folders of Parquet files, which readers of Parquet take for one table under the folder's name:
no one has to hold all users to write them.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.generate.blocks import Catalog, HeldOut
from components.generate.ratings import read_item_titles, to_arrow
from components.generate.storage import join, list_files, open_reading, writing_file

_HELD_OUT, _USERS, _ITEMS = "held_out.parquet", "users.parquet", "items.parquet"


def write_users(folder: str, file: int, num_files: int, held_out: HeldOut, catalog: Catalog) -> None:
    """Writes one file of held_out.parquet/ and one of users.parquet/, each ordered by dense index.

    Args:
        folder: The artifact's (partial) folder.
        file: In [0, num_files).
        num_files: Part of the files' names.
        held_out: Of all users of the file, in the order of their indices.
        catalog: The vocabularies.
    """
    users = pa.array(held_out.users, pa.int64())
    part = f"{file:05d}-of-{num_files:05d}.parquet"
    _write(
        join(folder, f"{_HELD_OUT}/held_out-{part}"),
        {
            "user_id": users,
            "validation_item_id": pa.array(held_out.validation_items, pa.int64()),
            "test_item_id": pa.array(held_out.test_items, pa.int64()),
        },
    )
    _write(
        join(folder, f"{_USERS}/users-{part}"),
        {
            "user_id": users,
            "raw_user_id": to_arrow(catalog.raw_user_ids[held_out.users]),
            "num_train_interactions": pa.array(held_out.num_train_interactions, pa.int64()),
        },
    )


def write_items(folder: str, catalog: Catalog, item_counts: NDArray[np.int64], titles: str | None) -> None:
    """Writes items.parquet, ordered by dense index.

    Args:
        folder: The artifact's (partial) folder.
        catalog: The vocabularies.
        item_counts: int64 [num_items], training positives of every item in the catalog.
        titles: The place of the ratings' items.parquet, or None when there is none.
    """
    item_titles, genres = read_item_titles(titles, catalog.raw_item_ids)
    _write(
        join(folder, _ITEMS),
        {
            "item_id": pa.array(np.arange(catalog.num_items), pa.int64()),
            "raw_item_id": to_arrow(catalog.raw_item_ids),
            "title": item_titles,
            "genres": genres,
            "num_train_interactions": pa.array(item_counts, pa.int64()),
        },
    )


def read_item_counts(folder: str) -> NDArray[np.int64]:
    """Returns how many training positives each item has, int64 [num_items].

    Args:
        folder: The artifact's (partial) folder.
    """
    return _read_train_counts(join(folder, _ITEMS))


def count_users(folder: str) -> Counter[int]:
    """Returns how many users have each number of training positives.

    Args:
        folder: The artifact's (partial) folder.
    """
    total: Counter[int] = Counter()
    for name in list_files(join(folder, _USERS)):
        counts, num_users = np.unique(_read_train_counts(join(folder, f"{_USERS}/{name}")), return_counts=True)
        total.update(dict(zip(counts.tolist(), num_users.tolist(), strict=True)))
    return total


def _read_train_counts(place: str) -> NDArray[np.int64]:
    # Copied into memory of Arrow's own: of a Python stream, or of bytes, Arrow's threads drop the last reference some
    # time later, and where the process is ending by then, as at the end of this step, it is aborted ("terminate called
    # without an active exception").
    sink = pa.BufferOutputStream()
    with open_reading(place) as stream:
        sink.write(stream.read())
    table = pq.read_table(pa.BufferReader(sink.getvalue()), columns=["num_train_interactions"])
    return np.asarray(table["num_train_interactions"].to_numpy(), np.int64)


def _write(place: str, columns: Mapping[str, Any]) -> None:
    with writing_file(place) as stream:
        pq.write_table(pa.table(dict(columns)), stream)
