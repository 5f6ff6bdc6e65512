"""Reads a `ratings` folder: Parquet in, blocks of columns out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.generate.storage import is_remote, join, list_files, open_reading
from components.ncf.errors import InputError
from components.ncf.interactions import Interactions, RawIds
from components.ncf.manifest import MANIFEST_NAME, Manifest, decode_manifest

# Bounds a block, and what is read at a time to make one, whatever the size of the row groups: 20 MB of interactions.
# Every block is cut into a piece for each partition of the users, so that small ones would make many tiny pieces.
MAX_BLOCK_ROWS = 1 << 20
_MAX_FIXED_BLOCK_ROWS = 1 << 13

_INTERACTION_COLUMNS = ("raw_user_id", "raw_item_id", "rating", "timestamp")
_FIXED_COLUMNS = ("raw_user_id", "raw_item_id", "candidates")
_INTERACTIONS_NAME = re.compile(r"interactions-.*\.parquet")
_TITLES_NAME = "items.parquet"
_ITEM_COLUMNS = ("raw_item_id", "title", "genres")


@dataclass(frozen=True)
class RowGroups:
    """A piece of a Parquet file that one worker reads: consecutive row groups, or a single large one."""

    place: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Ratings:
    """A complete `ratings` folder whose schemas have been checked.

    Attributes:
        folder: Its place.
        manifest: Its manifest.
        interactions: The pieces of `interactions-*.parquet`.
        num_rows: Rows in them.
        fixed: The pieces of `fixed.parquet`; empty when there is none.
        num_fixed_candidates: Candidates of each user in `fixed.parquet`, or 0.
        titles: The place of `items.parquet`, or None when there is none.
    """

    folder: str
    manifest: Manifest
    interactions: tuple[RowGroups, ...]
    num_rows: int
    fixed: tuple[RowGroups, ...]
    num_fixed_candidates: int
    titles: str | None


@dataclass(frozen=True)
class FixedBlock:
    """Some users' test items and candidates, as given with the data set.

    Attributes:
        raw_user_ids: [num_users], int64 or object (str).
        raw_item_ids: [num_users], each user's test item.
        raw_candidates: [num_users, num_candidates].
    """

    raw_user_ids: RawIds
    raw_item_ids: RawIds
    raw_candidates: RawIds


def open_ratings(folder: str) -> Ratings:
    """Looks into a `ratings` folder, reading no more than the files' footers.

    Raises:
        InputError: The folder is not complete, or a file or column is missing, damaged or of the wrong type.
    """
    manifest = decode_manifest(lambda: _read_bytes(join(folder, MANIFEST_NAME)), folder, "ratings")
    try:
        names = list_files(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror or error}).") from error
    places = [join(folder, name) for name in names if _INTERACTIONS_NAME.fullmatch(name)]
    if not places:
        raise InputError(f"{folder} holds no interactions-*.parquet: run download again.")
    id_types: dict[str, tuple[str, str]] = {}
    pieces, num_rows = list[RowGroups](), 0
    for place in places:
        with _opening(place) as file:
            _check(file, place, _INTERACTION_COLUMNS, id_types)
            pieces += _cut_file(place, file.metadata, MAX_BLOCK_ROWS)
            num_rows += file.metadata.num_rows
    has_fixed = "fixed.parquet" in names
    fixed, num_candidates = _open_fixed(join(folder, "fixed.parquet"), id_types) if has_fixed else ((), 0)
    titles = join(folder, _TITLES_NAME) if _TITLES_NAME in names else None
    if titles is not None:
        with _opening(titles) as file:
            _check(file, titles, _ITEM_COLUMNS, id_types)
    return Ratings(folder, manifest, tuple(pieces), num_rows, fixed, num_candidates, titles)


def read_interactions(piece: RowGroups) -> Iterator[Interactions]:
    """Yields the piece as blocks of at most `MAX_BLOCK_ROWS` rows.

    Raises:
        InputError: The piece is damaged or has missing values.
    """
    for batch in _read_batches(piece, _INTERACTION_COLUMNS, MAX_BLOCK_ROWS):
        raw_user_ids, users = _encode(batch.column("raw_user_id"))
        raw_item_ids, items = _encode(batch.column("raw_item_id"))
        ratings = batch.column("rating").cast(pa.float32()).to_numpy(zero_copy_only=False)
        timestamps = batch.column("timestamp").cast(pa.int64()).to_numpy(zero_copy_only=False)
        yield Interactions(raw_user_ids, raw_item_ids, users, items, ratings, timestamps)


def read_fixed(piece: RowGroups, num_candidates: int) -> Iterator[FixedBlock]:
    """Yields the piece of `fixed.parquet` as blocks.

    Raises:
        InputError: The piece is damaged, has missing values, or a user has another number of candidates.
    """
    for batch in _read_batches(piece, _FIXED_COLUMNS, _MAX_FIXED_BLOCK_ROWS):
        raw_user_ids = _raw_ids(batch.column("raw_user_id"))
        candidates = batch.column("candidates")
        lengths = candidates.value_lengths().to_numpy(zero_copy_only=False)
        if np.any(lengths != num_candidates):
            row = int(np.argmax(lengths != num_candidates))
            raise InputError(
                f"{piece.place} gives user {raw_user_ids[row]} {lengths[row]} candidates where others have "
                f"{num_candidates}: every user needs the same number."
            )
        flat = candidates.flatten()
        if flat.null_count:
            raise InputError(f"{piece.place} has {flat.null_count} missing candidates: run download again.")
        raw_candidates = _raw_ids(flat).reshape(-1, num_candidates)
        yield FixedBlock(raw_user_ids, _raw_ids(batch.column("raw_item_id")), raw_candidates)


def read_item_titles(titles: str | None, raw_item_ids: RawIds) -> tuple[pa.Array, pa.Array]:
    """Returns the titles and genres of the given items; null where `items.parquet` does not know an item.

    Args:
        titles: Its place, or None when there is none.
        raw_item_ids: [num_items].
    """
    if titles is None:
        nothing = pa.nulls(len(raw_item_ids), pa.string())
        return nothing, nothing
    with _opening(titles) as file:
        table = file.read(columns=list(_ITEM_COLUMNS)).combine_chunks()
    known = {raw_item_id: row for row, raw_item_id in enumerate(table.column("raw_item_id").to_pylist())}
    rows = pa.array([known.get(raw_item_id) for raw_item_id in raw_item_ids.tolist()], pa.int64())
    return table.column("title").take(rows), table.column("genres").take(rows)


def to_arrow(raw_ids: RawIds) -> pa.Array:
    """Returns raw ids as int64 or string."""
    return pa.array(raw_ids, pa.string() if raw_ids.dtype == object else pa.int64())


def _check(file: pq.ParquetFile, place: str, columns: tuple[str, ...], id_types: dict[str, tuple[str, str]]) -> None:
    """Demands that a Parquet file has these columns and the same types of ids as the files before it."""
    schema = file.schema_arrow
    for name in columns:
        if name not in schema.names:
            raise InputError(f"{place} has no column {name}, only {', '.join(schema.names)}: run download again.")
        kind = _kind_of(place, name, schema.field(name).type)
        known_kind, known_place = id_types.setdefault("raw_item_id" if name == "candidates" else name, (kind, place))
        if kind != known_kind:
            raise InputError(f"{place} has {kind} values in {name} where {known_place} has {known_kind}: use one type.")


def _kind_of(place: str, name: str, type_: pa.DataType) -> str:
    if name in ("title", "genres"):
        return "text"
    if name == "candidates" and (pa.types.is_list(type_) or pa.types.is_large_list(type_)):
        type_ = type_.value_type
    if name == "rating" and (pa.types.is_floating(type_) or pa.types.is_integer(type_)):
        return "number"
    if name != "rating" and pa.types.is_signed_integer(type_):
        return "int64"
    if name not in ("rating", "timestamp") and (pa.types.is_string(type_) or pa.types.is_large_string(type_)):
        return "string"
    wanted = {"rating": "float32", "timestamp": "int64", "candidates": "list of int64 or string"}
    due = wanted.get(name, "int64 or string")
    raise InputError(f"{place} has {type_} values in column {name} where {due} is due: run download again.")


def _open_fixed(place: str, id_types: dict[str, tuple[str, str]]) -> tuple[tuple[RowGroups, ...], int]:
    with _opening(place) as file:
        _check(file, place, _FIXED_COLUMNS, id_types)
        pieces = tuple(_cut_file(place, file.metadata, _MAX_FIXED_BLOCK_ROWS))
        first = next(file.iter_batches(batch_size=1, columns=["candidates"]), None)
    num_candidates = first.column("candidates").value_lengths()[0].as_py() if first is not None and len(first) else 0
    if not num_candidates:
        raise InputError(f"{place} holds no candidates: remove it or run download again.")
    return pieces, num_candidates


def _cut_file(place: str, metadata: pq.FileMetaData, max_rows: int) -> Iterator[RowGroups]:
    """Yields all row groups of a file, each time as many as have at most `max_rows` rows together, or one."""
    indices: list[int] = []
    num_rows = 0
    for index in range(metadata.num_row_groups):
        more = metadata.row_group(index).num_rows
        if indices and num_rows + more > max_rows:
            yield RowGroups(place, tuple(indices))
            indices, num_rows = [], 0
        indices.append(index)
        num_rows += more
    if indices:
        yield RowGroups(place, tuple(indices))


def _read_batches(piece: RowGroups, columns: tuple[str, ...], num_rows: int) -> Iterator[pa.RecordBatch]:
    with _opening(piece.place) as file:
        for batch in file.iter_batches(batch_size=num_rows, row_groups=list(piece.indices), columns=list(columns)):
            for name in columns:
                if batch.column(name).null_count:
                    raise InputError(
                        f"{piece.place} has {batch.column(name).null_count} missing values in column {name} among row "
                        f"groups {piece.indices[0]} to {piece.indices[-1]}: run download again."
                    )
            yield batch


@contextmanager
def _opening(place: str) -> Iterator[Any]:
    """Opens a Parquet file; damage that is found while the block runs becomes an `InputError`."""
    try:
        # Arrow reads local files faster by itself than through a Python stream.
        if is_remote(place):
            with open_reading(place) as stream, pq.ParquetFile(stream, pre_buffer=True) as file:
                yield file
        else:
            with pq.ParquetFile(place) as file:
                yield file
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{place} cannot be read as Parquet ({reason}): run download again.") from error


def _read_bytes(place: str) -> bytes:
    with open_reading(place) as stream:
        return stream.read()


def _encode(column: pa.Array) -> tuple[RawIds, NDArray[np.int32]]:
    """Returns a column's distinct ids, ascending, and each row's index into them."""
    encoded = column.dictionary_encode()
    raw_ids = _raw_ids(encoded.dictionary)
    order = np.argsort(raw_ids)
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return raw_ids[order], place[encoded.indices.to_numpy(zero_copy_only=False)]


def _raw_ids(column: pa.Array) -> RawIds:
    if pa.types.is_integer(column.type):
        return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
    return np.array(column.to_pylist(), dtype=object)
