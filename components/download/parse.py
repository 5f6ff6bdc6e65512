"""Strict parsing of rating files into Arrow tables, block by block.

A block in which every line is good is parsed by Arrow's CSV reader in one go. A block in which anything looks odd is
cut into ever smaller pieces, and the odd ones are parsed line by line: that slower path alone decides what is bad,
and why.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from components.download.text_lines import BlockReader, RejectedLines, TextBlock, require_num_fields, split_line

MAX_TIMESTAMP_S = 253_402_300_799  # 9999-12-31T23:59:59Z; milliseconds since 1973 are beyond it
MAX_RATING = float(np.finfo(np.float32).max)

_ARROW_BLOCK_BYTES = 2 << 20
_PIECE_BYTES = (1 << 17, 1 << 12)  # ever smaller, so that few good lines share the fate of a bad one
_UNIT_SEPARATOR = "\x1f"  # stands in for a separator of two characters, which Arrow does not read
_MAX_ID = np.iinfo(np.int64).max
# The numbers that Arrow reads, without the infinities, NaNs and hexadecimal integers that it reads too.
_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


class TimestampForm(Enum):
    """How a file writes its timestamps."""

    INTEGER_ONLY = "whole seconds since 1970"
    NUMBER = "seconds since 1970, perhaps with decimals"
    DATE = "ISO 8601 without an offset, taken as UTC"
    DATE_WITH_OFFSET = "ISO 8601 with an offset"


@dataclass(frozen=True)
class RatingsFormat:
    """Where the four values of an interaction stand in a line.

    Attributes:
        separator: Between two fields; one character, or `::`.
        quoted: Whether a field may stand in double quotes.
        num_fields: Fields of every line.
        user, item: Field numbers, from 0.
        rating, timestamp: The same; None where the file has no such field: every rating is then 1 and every
            timestamp 0.
        user_type, item_type: int64 or string.
        rating_range: Smallest and largest rating allowed.
        timestamp_form: What to expect; only INTEGER_ONLY forbids the other forms, the rest is a hint for speed.
    """

    separator: str
    quoted: bool
    num_fields: int
    user: int
    item: int
    rating: int | None
    timestamp: int | None
    user_type: pa.DataType
    item_type: pa.DataType
    rating_range: tuple[float, float]
    timestamp_form: TimestampForm

    @property
    def schema(self) -> pa.Schema:
        """The schema of the parsed tables."""
        return interactions_schema(self.user_type, self.item_type)


def interactions_schema(user_type: pa.DataType, item_type: pa.DataType) -> pa.Schema:
    """Returns the schema of the `interactions-*.parquet` files, given the types of the two ids."""
    return pa.schema(
        [
            ("raw_user_id", user_type),
            ("raw_item_id", item_type),
            ("rating", pa.float32()),
            ("timestamp", pa.int64()),
        ]
    )


def movielens_format(separator: str, quoted: bool, rating_range: tuple[float, float]) -> RatingsFormat:
    """Returns the format of files with user, item, rating and timestamp in this order and integer ids."""
    return RatingsFormat(
        separator=separator,
        quoted=quoted,
        num_fields=4,
        user=0,
        item=1,
        rating=2,
        timestamp=3,
        user_type=pa.int64(),
        item_type=pa.int64(),
        rating_range=rating_range,
        timestamp_form=TimestampForm.INTEGER_ONLY,
    )


def parse_ratings(reader: BlockReader, layout: RatingsFormat, rejected: RejectedLines) -> Iterator[pa.Table]:
    """Parses a file, its header (if it has one) already read.

    Args:
        reader: The file.
        layout: How its lines are written.
        rejected: Takes the bad lines.

    Yields:
        Tables of `layout.schema`, in the file's order.
    """
    for block in reader:
        yield pa.concat_tables(_parse_block(block, layout, reader.name, rejected, _PIECE_BYTES))


def parse_id(text: str, role: str) -> int:
    """Reads a raw id.

    Args:
        text: The field.
        role: "user" or "item", for the reason.

    Raises:
        ValueError: It is not a whole number from 0 to 2**63 - 1; the text is the reason.
    """
    text = text.strip(" \t")
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{role} id {_quote(text)} is not an integer")
    number = int(text)
    if number < 0:
        raise ValueError(f"{role} id {number} is negative")
    if number > _MAX_ID:
        raise ValueError(f"{role} id {number} is above {_MAX_ID}")
    return number


def _parse_block(
    block: TextBlock, layout: RatingsFormat, name: str, rejected: RejectedLines, piece_bytes: tuple[int, ...]
) -> Iterator[pa.Table]:
    table = _parse_clean_block(block, layout)
    if table is not None:
        yield table
    elif not piece_bytes:
        yield _parse_line_by_line(block, layout, name, rejected)
    else:
        for piece in block.pieces(piece_bytes[0]):
            yield from _parse_block(piece, layout, name, rejected, piece_bytes[1:])


def _parse_clean_block(block: TextBlock, layout: RatingsFormat) -> pa.Table | None:
    """Parses a block by Arrow, or returns None at the first sign of anything but plain good lines."""
    text, delimiter = block.text, layout.separator
    if b"0x" in text or b"0X" in text or text.count(b"\r") != text.count(b"\r\n"):
        return None
    if len(delimiter) > 1:
        if _UNIT_SEPARATOR.encode() in text:
            return None
        text, delimiter = text.replace(delimiter.encode(), _UNIT_SEPARATOR.encode()), _UNIT_SEPARATOR
    try:
        table = _read_by_arrow(text, delimiter, layout)
        if table.num_rows != block.num_lines:  # blank lines, or line breaks within quotes
            return None
        return _checked(table, layout)
    except pa.ArrowInvalid:
        return None


def _read_by_arrow(text: bytes, delimiter: str, layout: RatingsFormat) -> pa.Table:
    types = {str(layout.user): layout.user_type, str(layout.item): layout.item_type}
    if layout.rating is not None:
        types[str(layout.rating)] = pa.float64()
    if layout.timestamp is not None:
        types[str(layout.timestamp)] = _ARROW_TIMESTAMP_TYPES[layout.timestamp_form]
    return arrow_csv.read_csv(
        pa.py_buffer(text),
        read_options=arrow_csv.ReadOptions(
            column_names=[str(field) for field in range(layout.num_fields)], block_size=_ARROW_BLOCK_BYTES
        ),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, quote_char='"' if layout.quoted else False),
        convert_options=arrow_csv.ConvertOptions(
            column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False
        ),
    )


_ARROW_TIMESTAMP_TYPES = {
    TimestampForm.INTEGER_ONLY: pa.int64(),
    TimestampForm.NUMBER: pa.float64(),
    TimestampForm.DATE: pa.timestamp("us"),
    TimestampForm.DATE_WITH_OFFSET: pa.timestamp("us", "UTC"),
}


def _checked(table: pa.Table, layout: RatingsFormat) -> pa.Table | None:
    """Judges the values that Arrow could convert; None if any of them is not allowed."""
    num_rows = table.num_rows
    columns: list[Any] = []
    for field, id_type in ((layout.user, layout.user_type), (layout.item, layout.item_type)):
        ids = table[str(field)].combine_chunks()
        if pa.types.is_string(id_type):
            ids = pc.utf8_trim(ids, " \t")
            if pc.any(pc.equal(ids, "")).as_py():
                return None
        elif num_rows and ids.to_numpy().min() < 0:
            return None
        columns.append(ids)
    ratings = np.ones(num_rows) if layout.rating is None else table[str(layout.rating)].to_numpy()
    low, high = layout.rating_range
    if not np.all((ratings >= low) & (ratings <= high)):  # a NaN is in no range
        return None
    seconds = np.zeros(num_rows) if layout.timestamp is None else _seconds(table[str(layout.timestamp)])
    if not np.all((seconds >= 0) & (seconds < MAX_TIMESTAMP_S + 1)):
        return None
    columns += [pa.array(ratings.astype(np.float32)), pa.array(seconds.astype(np.int64))]
    return pa.table(columns, schema=layout.schema)


def _seconds(timestamps: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_timestamp(timestamps.type):
        microseconds: np.ndarray = timestamps.cast(pa.int64()).to_numpy()
        return microseconds // 1_000_000
    numbers: np.ndarray = timestamps.to_numpy()
    return numbers


def _parse_line_by_line(block: TextBlock, layout: RatingsFormat, name: str, rejected: RejectedLines) -> pa.Table:
    rows: list[tuple[int | str, int | str, float, int]] = []
    for number, raw_line in block.numbered_lines():
        try:
            rows.append(_parse_line(raw_line, layout))
        except ValueError as error:
            rejected.add(name, number, str(error))
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, layout.schema, strict=True)],
        schema=layout.schema,
    )


def _parse_line(raw_line: bytes, layout: RatingsFormat) -> tuple[int | str, int | str, float, int]:
    try:
        line = raw_line.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    fields = split_line(line, layout.separator, layout.quoted)
    require_num_fields(fields, layout.num_fields)
    user = _parse_typed_id(fields[layout.user], layout.user_type, "user")
    item = _parse_typed_id(fields[layout.item], layout.item_type, "item")
    rating = 1.0 if layout.rating is None else _parse_rating(fields[layout.rating], layout.rating_range)
    timestamp = 0 if layout.timestamp is None else _parse_timestamp(fields[layout.timestamp], layout.timestamp_form)
    return user, item, rating, timestamp


def _parse_typed_id(text: str, id_type: pa.DataType, role: str) -> int | str:
    if not pa.types.is_string(id_type):
        return parse_id(text, role)
    text = text.strip(" \t")
    if not text:
        raise ValueError(f"missing field: the {role} id is empty")
    return text


def _parse_rating(text: str, rating_range: tuple[float, float]) -> float:
    text = text.strip(" \t")
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"rating {_quote(text)} is not a number")
    rating = float(text)
    low, high = rating_range
    if not low <= rating <= high:
        raise ValueError(f"rating {rating:g} is outside {low:g} to {high:g}")
    return rating


def _parse_timestamp(text: str, form: TimestampForm) -> int:
    if form is TimestampForm.INTEGER_ONLY:
        text = text.strip(" \t")
        if not _INTEGER.fullmatch(text):
            raise ValueError(f"timestamp {_quote(text)} is not a whole number of seconds")
        seconds = int(text)
    else:
        seconds = parse_time(text)
    if seconds < 0:
        raise ValueError(f"timestamp {_quote(text)} is before 1970")
    if seconds > MAX_TIMESTAMP_S:
        raise ValueError(f"timestamp {_quote(text)} is beyond the year 9999: give seconds, not milliseconds")
    return seconds


def parse_time(text: str) -> int:
    """Reads seconds since 1970 or an ISO 8601 date (without an offset: UTC); decimals are cut off.

    Raises:
        ValueError: It is neither; the text is the reason.
    """
    text = text.strip(" \t")
    if _NUMBER.fullmatch(text):
        seconds = float(text)
        return math.floor(seconds) if math.isfinite(seconds) else MAX_TIMESTAMP_S + 1
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"timestamp {_quote(text)} is neither seconds since 1970 nor an ISO 8601 date") from None
    return math.floor((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _quote(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
