"""Finding the columns of somebody's own CSV file by the names in its header."""

import re
from collections.abc import Mapping

from components.download.text_lines import split_line
from components.ncf.errors import InputError

# Compared in lower case without anything but letters and digits: "userId", "USER_ID" and "user id" are one name.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "user": ("user", "userid", "useridx", "uid", "customer", "customerid", "visitorid", "memberid", "reviewerid"),
    "item": (
        "item",
        "itemid",
        "itemidx",
        "iid",
        "movieid",
        "movie",
        "product",
        "productid",
        "sku",
        "asin",
        "articleid",
    ),
    "rating": ("rating", "ratings", "score", "stars", "overall"),
    "timestamp": (
        "timestamp",
        "time",
        "unixtime",
        "unixreviewtime",
        "datetime",
        "date",
        "ts",
        "createdat",
        "eventtime",
    ),
    "title": ("title", "name", "itemname", "movietitle", "productname"),
    "genres": ("genres", "genre", "category", "categories"),
}


def parse_column_mapping(columns: str) -> dict[str, str]:
    """Reads the `columns` parameter, for example `user=customer,item=sku`.

    Returns:
        The file's column name for each of user, item, rating, timestamp, title and genres that is given.

    Raises:
        InputError: It is not of that form.
    """
    mapping = {}
    for part in columns.split(",") if columns else ():
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if role not in ALIASES or not equals or not name or role in mapping:
            raise InputError(
                f"download.columns has a part {part!r} that cannot be used: write role=column once per role, separated "
                f"by commas; the roles are {', '.join(ALIASES)}."
            )
        mapping[role] = name
    return mapping


def header_fields(header: str) -> tuple[str, list[str]]:
    """Cuts a header line by whichever of comma, semicolon and tab gives the most fields.

    Returns:
        The separator, and the column names.
    """
    cut: dict[str, list[str]] = {}
    for candidate in (",", ";", "\t"):
        try:
            cut[candidate] = split_line(header, candidate, quoted=True)
        except ValueError:
            cut[candidate] = []
    separator = max(cut, key=lambda candidate: len(cut[candidate]))
    return separator, [field.strip() for field in cut[separator]]


def find_columns(
    header: str, required: tuple[str, ...], optional: tuple[str, ...], mapping: Mapping[str, str], file: str
) -> tuple[str, int, dict[str, int]]:
    """Finds out what stands where in a CSV file.

    Args:
        header: Its first line.
        required: Roles that must be there, each a key of `ALIASES`.
        optional: Roles that may be there.
        mapping: Column names by role, as the user gave them; they come before the known names.
        file: What to call the file in errors.

    Returns:
        The separator, the number of fields, and each found role's field number, from 0.

    Raises:
        InputError: A column is missing, or a name is there twice.
    """
    separator, fields = header_fields(header)
    positions = {}
    for role in (*required, *optional):
        candidates = _positions_of(role, fields, mapping)
        if len(candidates) > 1:
            names = " and ".join(fields[position] for position in candidates)
            raise InputError(f"{file}, line 1: {names} can each be the {role}: {_columns_advice(role)}.")
        if candidates:
            positions[role] = candidates[0]
        elif role in required or role in mapping:
            wanted = f"column {mapping[role]!r}" if role in mapping else f"column for the {role}"
            raise InputError(f"{file}, line 1: no {wanted} among {_listed(fields)}: {_columns_advice(role)}.")
    return separator, len(fields), positions


def _positions_of(role: str, fields: list[str], mapping: Mapping[str, str]) -> list[int]:
    if role in mapping:
        return [position for position, field in enumerate(fields) if field == mapping[role]]
    # The aliases are in order of preference: an exact "user" beats a "customer" beside it.
    plain = [re.sub(r"[^a-z0-9]", "", field.lower()) for field in fields]
    for alias in ALIASES[role]:
        if found := [position for position, field in enumerate(plain) if field == alias]:
            return found
    return []


def _columns_advice(role: str) -> str:
    return f"the file needs a header; name the column with --set download.columns={role}=<its name>"


def _listed(fields: list[str]) -> str:
    shown = ", ".join(repr(field[:40]) for field in fields[:12])
    return shown + (f" and {len(fields) - 12} more" if len(fields) > 12 else "")
