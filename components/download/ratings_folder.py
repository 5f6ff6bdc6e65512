"""Writing the files of the `ratings` artifact."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.download.parse import interactions_schema
from components.ncf.errors import InputError
from components.ncf.manifest import file_digest

ROWS_PER_GROUP = 1 << 17
ROWS_PER_FILE = 1 << 22

_COMPRESSION = "zstd"
_DISTINCT_EVERY_ROWS = 1 << 20


class InteractionsWriter:
    """Writes `interactions-00000.parquet`, `interactions-00001.parquet` … and counts what goes by.

    The bytes depend on the rows and their order alone, not on how the tables are cut: every file has ROWS_PER_FILE
    rows and every row group ROWS_PER_GROUP, but the last.
    """

    def __init__(self, folder: Path, user_type: pa.DataType, item_type: pa.DataType) -> None:
        """Prepares to write.

        Args:
            folder: The artifact's (partial) folder.
            user_type: Type of `raw_user_id`: int64 or string.
            item_type: Type of `raw_item_id`: int64 or string.
        """
        self.schema = interactions_schema(user_type, item_type)
        self.num_interactions = 0
        self._folder = folder
        self._sink: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None
        self._num_files = 0
        self._rows_in_file = 0
        self._pending: list[pa.Table] = []
        self._num_pending = 0
        self._users = _DistinctValues(user_type)
        self._items = _DistinctValues(item_type)
        self._rating_range = [np.inf, -np.inf]
        self._timestamp_range = [np.iinfo(np.int64).max, np.iinfo(np.int64).min]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write_groups(down_to=1)
                if not self._num_files:  # readers find the schema even where there is no row
                    self._roll_file()
                self._finish_file()
        finally:
            if self._sink is not None:  # a full disk may have stopped the writer, which then keeps the file open
                self._sink.close()

    def write(self, table: pa.Table) -> None:
        """Appends interactions.

        Args:
            table: Of the writer's schema.
        """
        if not table.num_rows:
            return
        self.num_interactions += table.num_rows
        self._users.add(table["raw_user_id"])
        self._items.add(table["raw_item_id"])
        _widen(self._rating_range, table["rating"].to_numpy())
        _widen(self._timestamp_range, table["timestamp"].to_numpy())
        self._pending.append(table)
        self._num_pending += table.num_rows
        self._write_groups(down_to=ROWS_PER_GROUP)

    def users(self) -> pa.Array:
        """Returns the distinct raw user ids, in order of first appearance."""
        return self._users.values()

    def items(self) -> pa.Array:
        """Returns the distinct raw item ids, in order of first appearance."""
        return self._items.values()

    def description(self) -> dict[str, Any]:
        """Returns the part of the manifest that follows from the interactions."""
        return {
            "digest": interactions_digest(self._folder),
            "counts": {
                "interactions": self.num_interactions,
                "users": len(self.users()),
                "items": len(self.items()),
            },
            "rating_range": [float(value) for value in self._rating_range] if self.num_interactions else None,
            "timestamp_range": [int(value) for value in self._timestamp_range] if self.num_interactions else None,
        }

    def _write_groups(self, down_to: int) -> None:
        if self._num_pending < down_to:
            return
        table = pa.concat_tables(self._pending)
        start = 0
        while table.num_rows - start >= down_to:
            if self._writer is None or self._rows_in_file >= ROWS_PER_FILE:
                self._roll_file()
            group = table.slice(start, ROWS_PER_GROUP)
            assert self._writer is not None
            self._writer.write_table(group, row_group_size=ROWS_PER_GROUP)
            self._rows_in_file += group.num_rows
            start += group.num_rows
        self._pending = [table.slice(start)] if start < table.num_rows else []
        self._num_pending = table.num_rows - start

    def _roll_file(self) -> None:
        self._finish_file()
        self._sink = pa.OSFile(str(self._folder / f"interactions-{self._num_files:05}.parquet"), "wb")
        self._writer = pq.ParquetWriter(self._sink, self.schema, compression=_COMPRESSION)
        self._num_files += 1
        self._rows_in_file = 0

    def _finish_file(self) -> None:
        if self._writer is not None and self._sink is not None:
            self._writer.close()
            self._sink.close()
        self._writer = self._sink = None


class _DistinctValues:
    """The distinct values of a long column, in memory that depends on how many they are."""

    def __init__(self, value_type: pa.DataType) -> None:
        self._distinct = pa.array([], value_type)
        self._new: list[pa.Array] = []
        self._num_new = 0

    def add(self, column: pa.ChunkedArray) -> None:
        distinct = pc.unique(column)
        self._new.append(distinct)
        self._num_new += len(distinct)
        if self._num_new >= _DISTINCT_EVERY_ROWS:
            self._merge()

    def values(self) -> pa.Array:
        self._merge()
        return self._distinct

    def _merge(self) -> None:
        self._distinct = pc.unique(pa.chunked_array([self._distinct, *self._new]))
        self._new, self._num_new = [], 0


def _widen(known: list[Any], values: np.ndarray) -> None:
    known[:] = [min(known[0], values.min()), max(known[1], values.max())]


def interactions_files(folder: Path) -> list[Path]:
    """Returns the interactions files of a `ratings` folder, in order."""
    return sorted(folder.glob("interactions-*.parquet"))


def interactions_digest(folder: Path) -> str:
    """Returns the sha256 over the names and sha256 digests of the interactions files, in order."""
    digest = hashlib.sha256()
    for path in interactions_files(folder):
        digest.update(f"{file_digest(path)}  {path.name}\n".encode())
    return digest.hexdigest()


def write_items(folder: Path, rated: pa.Array, titled: pa.Table) -> None:
    """Writes `items.parquet`: what the source says about its items, and a row for each item it says nothing about.

    Args:
        folder: The artifact's (partial) folder.
        rated: The distinct raw ids of the interactions.
        titled: raw_item_id (of the same type), title, genres (string), in the source's order. Of several rows with one
            id the first counts.
    """
    _, first_rows = np.unique(titled["raw_item_id"].to_numpy(), return_index=True)
    titled = titled.take(pa.array(np.sort(first_rows)))
    untitled = rated.filter(pc.invert(pc.is_in(rated, value_set=titled["raw_item_id"].combine_chunks())))
    empty = pa.array([""] * len(untitled), pa.string())
    rows = pa.table([untitled, empty, empty], schema=titled.schema)
    pq.write_table(pa.concat_tables([titled, rows]), folder / "items.parquet", compression=_COMPRESSION)


def items_table(ids: Sequence[int | str], titles: list[str], genres: list[str], item_type: pa.DataType) -> pa.Table:
    """Makes a table of items.

    Args:
        ids: Raw item ids.
        titles: The title of each.
        genres: The genres of each, separated by `|`.
        item_type: int64 or string.
    """
    return pa.table(
        {
            "raw_item_id": pa.array(ids, item_type),
            "title": pa.array(titles, pa.string()),
            "genres": pa.array(genres, pa.string()),
        }
    )


def require_interactions(writer: InteractionsWriter, name: str) -> None:
    """Refuses a data set without a single good line.

    Raises:
        InputError: Nothing was written.
    """
    if not writer.num_interactions:
        raise InputError(f"{name} holds no interactions: give a file with one line per event.")
