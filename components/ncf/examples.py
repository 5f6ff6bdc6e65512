"""Reads the record files of an `examples` folder into arrays, each checked against its sha256 in the manifest."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.ncf.errors import InputError
from components.ncf.manifest import Manifest, file_digest
from components.ncf.records import read_examples


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


def read_positives(folder: Path, manifest: Manifest) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Reads the training positives.

    Returns:
        Users and items, each int32 [num_positives], in the order of the files.
    """
    blocks = [
        (features["user_id"].astype(np.int32), features["item_id"].astype(np.int32))
        for features in _read_examples(folder, manifest, "positives")
    ]
    users, items = zip(*blocks, strict=True)
    return np.concatenate(users), np.concatenate(items)


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
    files = [entry for entry in manifest["files"] if Path(entry["path"]).parts[0] == subfolder]
    if not files:
        raise InputError(f"{folder} lists no files under {subfolder}/: run generate again.")
    for entry in files:
        path = folder / entry["path"]
        try:
            if file_digest(path) != entry["sha256"]:
                raise InputError(f"{path} differs from its sha256 in the manifest: run generate again.")
            yield from read_examples(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror or error}): run generate again.") from error
