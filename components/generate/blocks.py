"""What travels between the stages of the pipeline: columns of many users or rows, never single ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.ncf.interactions import ItemLists, RawIds


@dataclass(frozen=True)
class Counts:
    """How many rows and users came in and what each filter left, of a part of the data or of all of it."""

    rows_read: int = 0
    rows_distinct: int = 0
    rows_kept: int = 0
    users_read: int = 0
    users_kept: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class GivenTestItems:
    """Test items that come with the data set: raw ids, [num_users] each."""

    raw_user_ids: RawIds
    raw_item_ids: RawIds


@dataclass(frozen=True)
class History:
    """The complete, clean histories of one partition of the users.

    Attributes:
        raw_user_ids: [num_users], the users that are left.
        raw_item_ids: [num_items], the items of those users.
        counts: What was read and what is left.
        rows: The `HistoryRows`, or where a `BlockStore` keeps them.
    """

    raw_user_ids: RawIds
    raw_item_ids: RawIds
    counts: Counts
    rows: Any


@dataclass(frozen=True)
class HistoryRows:
    """Distinct interactions, ordered by (user, item).

    Attributes:
        users: int32 [num_rows], indices into the history's raw user ids.
        items: int32 [num_rows], indices into its raw item ids.
        timestamps: int64 [num_rows].
        test_items: int32 [num_users], indices into the raw item ids, when the data set gives the test items.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    test_items: NDArray[np.int32] | None


@dataclass(frozen=True)
class Catalog:
    """The id vocabularies: an id's dense index is its place here.

    Attributes:
        raw_user_ids: [num_users], ascending.
        raw_item_ids: [num_items], ascending.
        counts: Of all rows.
    """

    raw_user_ids: RawIds
    raw_item_ids: RawIds
    counts: Counts

    @property
    def num_users(self) -> int:
        """Users that are left."""
        return len(self.raw_user_ids)

    @property
    def num_items(self) -> int:
        """Items that are left."""
        return len(self.raw_item_ids)

    @property
    def num_train_positives(self) -> int:
        """Interactions that are left but for two of each user."""
        return self.counts.rows_kept - 2 * self.num_users


@dataclass(frozen=True)
class Positives:
    """Training positives: users and items, dense indices, int32 [num_rows] each."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]

    @staticmethod
    def concatenate(blocks: "Sequence[Positives]") -> "Positives":
        """Returns the rows of all blocks, one block after the other."""
        return Positives(
            np.concatenate([block.users for block in blocks]), np.concatenate([block.items for block in blocks])
        )


@dataclass(frozen=True)
class UsersToRank:
    """Users of one evaluation file, with what their candidates are drawn from, or with the candidates.

    Attributes:
        users: int32 [num_users], dense indices.
        positives: int32 [num_users], the held-out item that is ranked.
        seen: Every item of each user, which is never drawn; empty lists when the candidates are given.
        candidates: int32 [num_users, num_candidates], or None when they are to be drawn.
    """

    users: NDArray[np.int32]
    positives: NDArray[np.int32]
    seen: ItemLists
    candidates: NDArray[np.int32] | None

    def take(self, rows: NDArray[Any]) -> "UsersToRank":
        """Returns some of the users, by their places in this block."""
        candidates = None if self.candidates is None else self.candidates[rows]
        return UsersToRank(self.users[rows], self.positives[rows], self.seen.take(rows), candidates)

    @staticmethod
    def concatenate(blocks: "Sequence[UsersToRank]") -> "UsersToRank":
        """Returns the users of all blocks in the order of their indices."""
        given = [block.candidates for block in blocks if block.candidates is not None]
        together = UsersToRank(
            np.concatenate([block.users for block in blocks]),
            np.concatenate([block.positives for block in blocks]),
            ItemLists.concatenate([block.seen for block in blocks]),
            np.concatenate(given) if given else None,
        )
        return together.take(np.argsort(together.users, kind="stable"))


@dataclass(frozen=True)
class HeldOut:
    """Per-user results and per-item counts, of a part of the data or of all of it.

    Attributes:
        users: int32 [num_users], dense indices.
        validation_items, test_items: int32 [num_users].
        num_train_interactions: int64 [num_users].
        item_counts: int64 [num_items], training positives of every item in the catalog.
    """

    users: NDArray[np.int32]
    validation_items: NDArray[np.int32]
    test_items: NDArray[np.int32]
    num_train_interactions: NDArray[np.int64]
    item_counts: NDArray[np.int64]


@dataclass(frozen=True)
class FileReport:
    """A finished record file.

    Attributes:
        path: Below the artifact's folder.
        num_rows: Rows, padding included.
        sha256: Hexadecimal digest of its bytes.
    """

    path: str
    num_rows: int
    sha256: str
