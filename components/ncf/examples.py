"""Reads the record files of an `examples` folder into arrays, each checked against its sha256 in the manifest."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from components.ncf.errors import InputError
from components.ncf.interactions import ItemLists
from components.ncf.manifest import Manifest, file_digest
from components.ncf.records import read_example_at, read_examples, record_places

Table = TypeVar("Table")


@dataclass(frozen=True)
class Candidates:
    """What each user's held-out item is ranked against.

    Attributes:
        users: int32 [num_users], dense, ascending.
        items: int32 [num_users, num_candidates], without the held-out item.
        positives: int32 [num_users], the held-out item.
        duplicate_mask: bool [num_users, num_candidates], True where a candidate must not be counted.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    positives: NDArray[np.int32]
    duplicate_mask: NDArray[np.bool_]


class RecordIndex:
    """Reads any range of the rows in a subfolder's record files, without what lies before it.

    Rows are numbered through the files in the order of their names.
    """

    def __init__(self, folder: Path, manifest: Manifest, subfolder: str) -> None:
        """Looks the files up in the manifest; opens none.

        Raises:
            InputError: The manifest lists no files there.
        """
        self._folder = folder
        self._files = _listed_files(folder, manifest, subfolder)
        self._ends = np.cumsum([entry["num_rows"] for entry in self._files])
        self._places: dict[int, list[int]] = {}

    @property
    def num_rows(self) -> int:
        """Rows of all files, with their padding."""
        return int(self._ends[-1])

    def read(self, start: int, stop: int) -> dict[str, NDArray[np.int64]]:
        """Returns each feature of the rows in [start, stop), int64 [stop - start].

        Raises:
            InputError: A file is missing or damaged. Each is checked when it is first read.
        """
        parts = []
        for number, end in enumerate(self._ends.tolist()):
            first = end - self._files[number]["num_rows"]
            if first < stop and start < end:
                parts.append(self._read_file(number, max(start - first, 0), min(stop, end) - first))
        # An empty range has the features of the first row, none of them.
        parts = parts or [{name: rows[:0] for name, rows in self._read_file(0, 0, 1).items()}]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _read_file(self, number: int, start: int, stop: int) -> dict[str, NDArray[np.int64]]:
        path = self._folder / self._files[number]["path"]
        with _explaining_missing_files(path):
            if number not in self._places:
                _check_digest(path, self._files[number])
                self._places[number] = record_places(path)
            places = self._places[number]
            # All records of a file but the last hold as many rows as the first.
            rows_per_record = len(next(iter(read_example_at(path, places[0]).values())))
            records = range(start // rows_per_record, -(-stop // rows_per_record))
            examples = [read_example_at(path, places[record]) for record in records]
        skipped = records.start * rows_per_record
        return {
            name: np.concatenate([example[name] for example in examples])[start - skipped : stop - skipped]
            for name in examples[0]
        }


def read_positives(
    folder: Path, manifest: Manifest, features: Sequence[str] = ("user_id", "item_id")
) -> dict[str, NDArray[np.int32]]:
    """Reads the training positives.

    Args:
        folder: The `examples` folder.
        manifest: Its manifest.
        features: Which columns: "user_id", "item_id" or "recency", how many later training positives the user has.

    Returns:
        Each of them, int32 [num_positives], in the order of the files.

    Raises:
        InputError: The files lack a feature, are missing or damaged.
    """
    blocks: dict[str, list[NDArray[np.int32]]] = {name: [] for name in features}
    for example in _read_examples(folder, manifest, "positives"):
        for name, parts in blocks.items():
            if name not in example:
                raise InputError(f"The positives in {folder} have no feature {name}: run generate again.")
            parts.append(example[name].astype(np.int32))
    return {name: np.concatenate(parts) for name, parts in blocks.items()}


def read_table(folder: Path, name: str, read: Callable[[Path], Table]) -> Table:
    """Reads one of the Parquet tables of an `examples` folder.

    Args:
        folder: The folder.
        name: "users", "items" or "held_out".
        read: Reads the file or the folder of files; raises `OSError` or `ValueError`, as pyarrow does.

    Raises:
        InputError: It is missing or damaged.
    """
    path = folder / f"{name}.parquet"
    try:
        return read(path)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is missing or damaged ({reason}): generate the examples again.") from error


def read_seen_items(folder: Path, manifest: Manifest, later_items: Sequence[NDArray[Any]]) -> ItemLists:
    """Returns what each user had: the training positives and, of each array in `later_items`, one more.

    Args:
        folder: The `examples` folder.
        manifest: Its manifest.
        later_items: Integers [num_users] each, items in the order of the dense users, none a training positive.

    Raises:
        InputError: The files are missing or damaged.
    """
    users, items = read_positives(folder, manifest).values()
    everybody = np.arange(manifest["num_users"], dtype=np.int32)
    users = np.concatenate([users, *(everybody for _ in later_items)])
    return ItemLists.from_pairs(users, np.concatenate([items, *later_items]), manifest["num_users"])


def read_candidates(folder: Path, manifest: Manifest, protocol: str) -> Candidates:
    """Reads the candidates of one protocol, or those of the validation item ("validation").

    Raises:
        InputError: The folder holds no candidates of this protocol, or a file is damaged.
    """
    description = manifest["protocols"].get(protocol)
    if description is None:
        raise InputError(
            f"{folder} holds no candidates for the protocol {protocol!r}, only for "
            f"{', '.join(manifest['protocols'])}: generate it again with that protocol."
        )
    group_size = description["num_candidates"] + 1
    users, items, masks = [], [], []
    for features in _read_examples(folder, manifest, description["folder"]):
        users.append(features["user_id"].astype(np.int32).reshape(-1, group_size)[:, 0])
        items.append(features["item_id"].astype(np.int32).reshape(-1, group_size))
        masks.append(features["duplicate_mask"].astype(np.bool_).reshape(-1, group_size)[:, :-1])
    all_users, all_items, all_masks = np.concatenate(users), np.concatenate(items), np.concatenate(masks)
    # Only a padding user has every candidate masked: a real one has at least one unseen item.
    order = np.flatnonzero(~all_masks.all(axis=1))
    order = order[np.argsort(all_users[order], kind="stable")]
    grouped = all_items[order]
    return Candidates(all_users[order], grouped[:, :-1], grouped[:, -1], all_masks[order])


def _read_examples(folder: Path, manifest: Manifest, subfolder: str) -> Iterator[dict[str, NDArray[np.int64]]]:
    for entry in _listed_files(folder, manifest, subfolder):
        path = folder / entry["path"]
        with _explaining_missing_files(path):
            _check_digest(path, entry)
            yield from read_examples(path)


def _listed_files(folder: Path, manifest: Manifest, subfolder: str) -> list[dict[str, Any]]:
    files = [entry for entry in manifest["files"] if Path(entry["path"]).parts[0] == subfolder]
    if not any(entry["num_rows"] for entry in files):
        raise InputError(f"{folder} lists no files under {subfolder}/: run generate again.")
    return [entry for entry in files if entry["num_rows"]]


def _check_digest(path: Path, entry: dict[str, Any]) -> None:
    if file_digest(path) != entry["sha256"]:
        raise InputError(f"{path} differs from its sha256 in the manifest: run generate again.")


@contextmanager
def _explaining_missing_files(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): run generate again.") from error
