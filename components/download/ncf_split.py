"""Reading the split files of the NCF paper (He et al., "Neural Collaborative Filtering", WWW 2017).

`<prefix>.train.rating` and `.test.rating` have the lines `user item rating timestamp`, `.test.negative` the lines
`(user,item) candidate candidate …`, all separated by tabs.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.download.parse import MAX_RATING, movielens_format, parse_id, parse_ratings
from components.download.ratings_folder import InteractionsWriter
from components.download.text_lines import BlockReader, RejectedLines
from components.ncf.errors import InputError

_log = logging.getLogger(__name__)

SUFFIXES = (".train.rating", ".test.rating", ".test.negative")

_FORMAT = movielens_format("\t", quoted=False, rating_range=(-MAX_RATING, MAX_RATING))
_PAIR = re.compile(r"\(\s*([^,()]*),([^,()]*)\)")

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class _TestSplit:
    """The evaluation rows of the paper.

    Attributes:
        users: int64 [num_users].
        positives: int64 [num_users], the held-out item of each.
        candidates: int64 [num_users, num_candidates], what it is ranked against.
        lines: int64 [num_users], where each row stands in the file.
    """

    users: Ids
    positives: Ids
    candidates: Ids
    lines: Ids


def read_ncf_split(paths: dict[str, Path], folder: Path, rejected: RejectedLines) -> InteractionsWriter:
    """Reads the three files into interactions (train, then test) and `fixed.parquet`.

    Args:
        paths: The three files by suffix; their names stand in errors.
        folder: The artifact's (partial) folder.
        rejected: Takes the bad lines of `.train.rating`. The test files must be without fault: they belong together.

    Returns:
        The writer, closed.

    Raises:
        InputError: Too many lines are bad, or the files contradict each other.
    """
    train, test, negative = (paths[suffix] for suffix in SUFFIXES)
    with InteractionsWriter(folder, pa.int64(), pa.int64()) as writer:
        train_table, num_lines = _read_ratings(train, rejected)
        rejected.judge(train.name, num_lines)
        test_table, _ = _read_ratings(test, rejected)
        rejected.refuse_any(test.name)
        writer.write(train_table)
        writer.write(test_table)
    split = _read_negatives(negative, negative.name)
    _require_same_pairs(split, test_table, test.name, negative.name)
    _require_sound_candidates(split, train_table, writer, negative.name)
    _write_fixed(split, folder)
    return writer


def _read_ratings(path: Path, rejected: RejectedLines) -> tuple[pa.Table, int]:
    with path.open("rb") as stream:
        reader = BlockReader(stream, path.name)
        tables = list(parse_ratings(reader, _FORMAT, rejected))
    return pa.concat_tables([_FORMAT.schema.empty_table(), *tables]), reader.num_lines


def _read_negatives(path: Path, name: str) -> _TestSplit:
    users, positives, candidates, lines = [], [], [], []
    with path.open("rb") as stream:
        for block in BlockReader(stream, name):
            for number, raw_line in block.numbered_lines():
                try:
                    user, positive, row = _parse_negatives(raw_line.decode("ascii", errors="replace"))
                except ValueError as error:
                    raise InputError(f"{name}, line {number} is bad ({error}): mend the file.") from None
                users.append(user)
                positives.append(positive)
                candidates.append(row)
                lines.append(number)
    for row, number in zip(candidates, lines, strict=True):
        if len(row) != len(candidates[0]):
            raise InputError(
                f"{name}, line {number} has {len(row)} candidates where line {lines[0]} has {len(candidates[0])}: "
                "give every user as many."
            )
    num_candidates = len(candidates[0]) if candidates else 0
    return _TestSplit(
        users=np.array(users, np.int64),
        positives=np.array(positives, np.int64),
        candidates=np.array(candidates, np.int64).reshape(len(users), num_candidates),
        lines=np.array(lines, np.int64),
    )


def _parse_negatives(line: str) -> tuple[int, int, Ids]:
    pair, *fields = line.rstrip("\t ").split("\t")
    match = _PAIR.fullmatch(pair.strip())
    if match is None:
        raise ValueError(f"it starts with {pair[:40]!r} where (user,item) is needed")
    if not fields:
        raise ValueError("missing field: no candidates")
    row = np.array([parse_id(field, "item") for field in fields], np.int64)
    return parse_id(match[1], "user"), parse_id(match[2], "item"), row


def _require_same_pairs(split: _TestSplit, test: pa.Table, test_name: str, negative_name: str) -> None:
    test_users, test_items = test["raw_user_id"].to_numpy(), test["raw_item_id"].to_numpy()
    repeated, counts = np.unique(test_users, return_counts=True)
    if np.any(counts > 1):
        raise InputError(f"{test_name} holds user {repeated[counts > 1][0]} twice: give each user one held-out item.")
    if not len(test_users):
        raise InputError(f"{test_name} is empty: give one held-out item per user.")
    if len(split.users) != len(test_users):
        raise InputError(
            f"{negative_name} has {len(split.users)} lines and {test_name} has {len(test_users)}: "
            "both need one per user."
        )
    ours, theirs = np.argsort(split.users, kind="stable"), np.argsort(test_users, kind="stable")
    differs = (split.users[ours] != test_users[theirs]) | (split.positives[ours] != test_items[theirs])
    if np.any(differs):
        row = ours[np.argmax(differs)]
        raise InputError(
            f"{negative_name}, line {split.lines[row]}: ({split.users[row]},{split.positives[row]}) is not in "
            f"{test_name}: both files must hold out the same items."
        )


def _require_sound_candidates(split: _TestSplit, train: pa.Table, writer: InteractionsWriter, name: str) -> None:
    holds_positive = (split.candidates == split.positives[:, None]).any(axis=1)
    if np.any(holds_positive):
        row = int(np.argmax(holds_positive))
        raise InputError(
            f"{name}, line {split.lines[row]}: the held-out item {split.positives[row]} is among its own candidates: "
            "leave it out there."
        )
    known = np.isin(split.candidates, writer.items().to_numpy())
    if not np.all(known):
        row, column = (int(index[0]) for index in np.nonzero(~known))
        raise InputError(
            f"{name}, line {split.lines[row]}: candidate {split.candidates[row, column]} occurs in no rating: "
            "a model cannot score it."
        )
    train_pairs = _pairs(train["raw_user_id"].to_numpy(), train["raw_item_id"].to_numpy(), writer)
    leaked = np.isin(_pairs(split.users, split.positives, writer), train_pairs)
    if np.any(leaked):
        row = int(np.argmax(leaked))
        raise InputError(
            f"{name}, line {split.lines[row]}: the held-out item {split.positives[row]} of user {split.users[row]} "
            "is in the training file too: leave it out there."
        )
    users = np.repeat(split.users, split.candidates.shape[1])
    num_seen = np.count_nonzero(np.isin(_pairs(users, split.candidates.ravel(), writer), train_pairs))
    if num_seen:
        _log.warning("%s: %d candidates are training items of their user; they are kept as they are", name, num_seen)


def _pairs(users: Ids, items: Ids, writer: InteractionsWriter) -> Ids:
    """Numbers (user, item) pairs: equal numbers for equal pairs, different ones otherwise."""
    known_users, known_items = np.sort(writer.users().to_numpy()), np.sort(writer.items().to_numpy())
    pairs: Ids = np.searchsorted(known_users, users) * len(known_items) + np.searchsorted(known_items, items)
    return pairs


def _write_fixed(split: _TestSplit, folder: Path) -> None:
    offsets = np.arange(len(split.users) + 1, dtype=np.int32) * split.candidates.shape[1]
    table = pa.table(
        {
            "raw_user_id": pa.array(split.users),
            "raw_item_id": pa.array(split.positives),
            "candidates": pa.ListArray.from_arrays(pa.array(offsets), pa.array(split.candidates.ravel())),
        }
    )
    pq.write_table(table, folder / "fixed.parquet", compression="zstd")
