"""Reading somebody's own events from a CSV file."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from components.download.header import find_columns
from components.download.parse import MAX_RATING, RatingsFormat, TimestampForm, parse_ratings, parse_time
from components.download.ratings_folder import InteractionsWriter
from components.download.text_lines import BlockReader, RejectedLines, TextBlock, require_num_fields, split_line

# A whole number that writing it back reproduces: "007" is a name, not the number 7.
_CANONICAL_INTEGER = r"^[ \t]*-?(0|[1-9][0-9]{0,17})[ \t]*$"


@dataclass(frozen=True)
class _Columns:
    separator: str
    num_fields: int
    positions: dict[str, int]


def read_csv_events(
    path: Path,
    name: str,
    mapping: dict[str, str],
    rejected: RejectedLines,
    make_writer: Callable[[pa.DataType, pa.DataType], InteractionsWriter],
) -> InteractionsWriter:
    """Reads the events of a CSV file with a header into interactions.

    The file is read twice: the ids are integers only if every id of the file is one.

    Args:
        path: The file, UTF-8.
        name: What to call it in errors.
        mapping: Column names by role, as the user gave them.
        rejected: Takes the bad lines.
        make_writer: Makes a writer for the given types of user and item id.

    Returns:
        The writer, closed.

    Raises:
        InputError: The header lacks a column, or too many lines are bad.
    """
    with path.open("rb") as stream:
        layout = _infer_format(BlockReader(stream, name), mapping)
    with path.open("rb") as stream, make_writer(layout.user_type, layout.item_type) as writer:
        reader = BlockReader(stream, name)
        reader.read_header()
        for table in parse_ratings(reader, layout, rejected):
            writer.write(table)
        rejected.judge(name, reader.num_lines - 1)
    return writer


def _infer_format(reader: BlockReader, mapping: dict[str, str]) -> RatingsFormat:
    header = reader.read_header()
    separator, num_fields, positions = find_columns(
        header, ("user", "item"), ("rating", "timestamp"), mapping, reader.name
    )
    columns = _Columns(separator, num_fields, positions)
    integer_roles = {"user", "item"}
    timestamp_form: TimestampForm | None = None
    for block in reader:
        if timestamp_form is None:
            timestamp_form = _timestamp_form(block, columns)
        integer_roles &= _integer_roles(block, columns, integer_roles)
        if not integer_roles:
            break
    return RatingsFormat(
        separator=separator,
        quoted=True,
        num_fields=num_fields,
        user=positions["user"],
        item=positions["item"],
        rating=positions.get("rating"),
        timestamp=positions.get("timestamp"),
        user_type=pa.int64() if "user" in integer_roles else pa.string(),
        item_type=pa.int64() if "item" in integer_roles else pa.string(),
        rating_range=(-MAX_RATING, MAX_RATING),
        timestamp_form=timestamp_form or TimestampForm.NUMBER,
    )


def _integer_roles(block: TextBlock, columns: _Columns, roles: set[str]) -> set[str]:
    """Returns those of the roles whose column holds nothing but whole numbers in this block."""
    values_by_role = _read_by_arrow(block, columns, roles)
    if values_by_role is None:
        values_by_role = {role: pa.array(_read_line_by_line(block, columns, role), pa.string()) for role in roles}
    return {role for role, values in values_by_role.items() if _all_integers(values)}


def _all_integers(values: Any) -> bool:
    values = values.filter(pc.not_equal(values, ""))  # an empty id makes a bad line, not a column of names
    return bool(pc.all(pc.match_substring_regex(values, _CANONICAL_INTEGER), min_count=0).as_py())


def _read_by_arrow(block: TextBlock, columns: _Columns, roles: set[str]) -> dict[str, Any] | None:
    names = {role: str(columns.positions[role]) for role in roles}
    try:
        table = arrow_csv.read_csv(
            pa.py_buffer(block.text),
            read_options=arrow_csv.ReadOptions(column_names=[str(field) for field in range(columns.num_fields)]),
            parse_options=arrow_csv.ParseOptions(delimiter=columns.separator),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names.values(), pa.string()),
                include_columns=list(names.values()),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    return {role: table[name] for role, name in names.items()} if table.num_rows == block.num_lines else None


def _read_line_by_line(block: TextBlock, columns: _Columns, role: str) -> list[str]:
    values = []
    for _, raw_line in block.numbered_lines():
        with suppress(ValueError):  # bad lines are for the parser to judge
            fields = split_line(raw_line.decode("utf-8", errors="replace"), columns.separator, quoted=True)
            require_num_fields(fields, columns.num_fields)
            values.append(fields[columns.positions[role]])
    return values


def _timestamp_form(block: TextBlock, columns: _Columns) -> TimestampForm:
    """Guesses from the first lines how timestamps are written; a wrong guess costs time, never a line."""
    if "timestamp" not in columns.positions:
        return TimestampForm.NUMBER
    head = TextBlock(block.text[:4096].rpartition(b"\n")[0] or block.text, block.first_line)
    for text in _read_line_by_line(head, columns, "timestamp"):
        try:
            parse_time(text)
        except ValueError:
            continue
        if "-" not in text[1:]:
            return TimestampForm.NUMBER
        return TimestampForm.DATE_WITH_OFFSET if re.search(r"(Z|[+-]\d\d:?\d\d)$", text) else TimestampForm.DATE
    return TimestampForm.NUMBER
