"""Reading what a source says about its items: titles and genres."""

from collections.abc import Callable, Mapping
from typing import IO

import pyarrow as pa

from components.download.catalog import Layout
from components.download.header import find_columns, header_fields
from components.download.parse import parse_id
from components.download.ratings_folder import items_table
from components.download.text_lines import BlockReader, RejectedLines, require_num_fields, split_line

# The order of the flags in u.item, from u.genre of ml-100k.
ML_100K_GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_FIELDS_BEFORE_FLAGS = 5  # id, title, release date, video release date, address
_NO_GENRES = "(no genres listed)"  # what the newer MovieLens sets write

# raw id, title, genres
Item = tuple[int | str, str, str]


def read_movielens_titles(
    stream: IO[bytes], name: str, layout: Layout, encoding: str, rejected: RejectedLines
) -> pa.Table:
    """Reads `u.item`, `movies.dat` or `movies.csv`.

    Args:
        stream: The file.
        name: What to call it in errors.
        layout: How it is written.
        encoding: Its encoding.
        rejected: Takes the bad lines.

    Returns:
        raw_item_id int64, title and genres string, in the file's order.

    Raises:
        InputError: Too many lines are bad, or a header lacks a column.
    """
    reader = BlockReader(stream, name)
    if layout is Layout.CSV:
        mapping = {"item": "movieId", "title": "title", "genres": "genres"}
        separator, num_fields, columns = find_columns(
            reader.read_header(), ("item", "title", "genres"), (), mapping, name
        )
    elif layout is Layout.DOUBLE_COLON:
        separator, num_fields, columns = "::", 3, {"item": 0, "title": 1, "genres": 2}
    else:
        separator, num_fields, columns = "|", _FIELDS_BEFORE_FLAGS + len(ML_100K_GENRES), {"item": 0, "title": 1}

    def parse(line: str) -> Item:
        fields = _cut(line, separator, layout is Layout.CSV, num_fields)
        genres = fields[columns["genres"]] if "genres" in columns else _flagged_genres(fields[_FIELDS_BEFORE_FLAGS:])
        item = parse_id(fields[columns["item"]], "item")
        return item, fields[columns["title"]].strip(), "" if genres == _NO_GENRES else genres.strip()

    return _read_items(reader, encoding, parse, pa.int64(), rejected)


def read_csv_titles(
    stream: IO[bytes], name: str, item_type: pa.DataType, mapping: Mapping[str, str], rejected: RejectedLines
) -> pa.Table:
    """Reads a user's own titles: a CSV file with an item, a title and optionally a genres column.

    Args:
        stream: The file, UTF-8.
        name: What to call it in errors.
        item_type: Type of the raw item ids, as in the events.
        mapping: Column names by role, as the user gave them; `item` counts only if the file has such a column.
        rejected: Takes the bad lines.

    Returns:
        raw_item_id (`item_type`), title and genres (string), in the file's order.

    Raises:
        InputError: Too many lines are bad, or the header lacks a column.
    """
    reader = BlockReader(stream, name)
    header = reader.read_header()
    # The events and the titles may call the item by different names: try the events' name, then the known ones.
    own = {role: name for role, name in mapping.items() if role in ("title", "genres")}
    if mapping.get("item") in header_fields(header)[1]:
        own["item"] = mapping["item"]
    separator, num_fields, columns = find_columns(header, ("item", "title"), ("genres",), own, name)

    def parse(line: str) -> Item:
        fields = _cut(line, separator, True, num_fields)
        text = fields[columns["item"]].strip(" \t")
        item: int | str = text if pa.types.is_string(item_type) else parse_id(text, "item")
        if item == "":
            raise ValueError("missing field: the item id is empty")
        genres = fields[columns["genres"]] if "genres" in columns else ""
        return item, fields[columns["title"]].strip(), genres.strip()

    return _read_items(reader, "utf-8", parse, item_type, rejected)


def _read_items(
    reader: BlockReader, encoding: str, parse: Callable[[str], Item], item_type: pa.DataType, rejected: RejectedLines
) -> pa.Table:
    first_line = reader.num_lines + 1
    items = []
    for block in reader:
        for number, raw_line in block.numbered_lines():
            try:
                items.append(parse(_decode(raw_line, encoding)))
            except ValueError as error:
                rejected.add(reader.name, number, str(error))
    rejected.judge(reader.name, reader.num_lines + 1 - first_line)
    ids, titles, genres = [row[0] for row in items], [row[1] for row in items], [row[2] for row in items]
    return items_table(ids, titles, genres, item_type)


def _decode(raw_line: bytes, encoding: str) -> str:
    try:
        return raw_line.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError(f"not {encoding.upper()} text") from None


def _cut(line: str, separator: str, quoted: bool, num_fields: int) -> list[str]:
    fields = split_line(line, separator, quoted)
    require_num_fields(fields, num_fields)
    return fields


def _flagged_genres(flags: list[str]) -> str:
    if not set(flags) <= {"0", "1"}:
        raise ValueError("a genre flag is neither 0 nor 1")
    return "|".join(genre for genre, flag in zip(ML_100K_GENRES, flags, strict=True) if flag == "1")
