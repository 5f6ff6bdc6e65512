"""What travels between the stages of the pipeline: columns of many users or rows, never single ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.generate.block_store import fetch_shared
from components.generate.offline_epochs import EpochShare
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
        counts: What was read and what is left.
        ids: The `RawIdLists`, or where a `BlockStore` keeps them.
        rows: The `HistoryRows`, likewise.
    """

    counts: Counts
    ids: Any
    rows: Any


@dataclass(frozen=True)
class RawIdLists:
    """The raw ids that are left of a partition or of all of the data.

    Attributes:
        raw_user_ids: [num_users], ascending.
        raw_item_ids: [num_items], ascending, the items of those users.
    """

    raw_user_ids: RawIds
    raw_item_ids: RawIds


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
        num_users, num_items: That are left.
        counts: Of all rows.
        ids: The `RawIdLists`, or where a `BlockStore` keeps them.
    """

    num_users: int
    num_items: int
    counts: Counts
    ids: Any

    @property
    def raw_user_ids(self) -> RawIds:
        """[num_users], ascending."""
        raw_ids: RawIds = fetch_shared(self.ids).raw_user_ids
        return raw_ids

    @property
    def raw_item_ids(self) -> RawIds:
        """[num_items], ascending."""
        raw_ids: RawIds = fetch_shared(self.ids).raw_item_ids
        return raw_ids

    @property
    def num_train_positives(self) -> int:
        """Interactions that are left but for two of each user."""
        return self.counts.rows_kept - 2 * self.num_users


@dataclass(frozen=True)
class Positives:
    """Training positives.

    Attributes:
        users, items: int32 [num_rows], dense indices.
        recencies: int32 [num_rows], how many training positives of the same user are later.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    recencies: NDArray[np.int32]

    def take(self, rows: NDArray[Any]) -> "Positives":
        """Returns some rows, in the given order."""
        return Positives(self.users[rows], self.items[rows], self.recencies[rows])

    @staticmethod
    def concatenate(blocks: "Sequence[Positives]") -> "Positives":
        """Returns the rows of all blocks, one block after the other."""
        names = ("users", "items", "recencies")
        return Positives(*(np.concatenate([getattr(block, name) for block in blocks]) for name in names))


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
    """What the tables tell of some users.

    Attributes:
        users: int32 [num_users], dense indices.
        validation_items, test_items: int32 [num_users].
        num_train_interactions: int64 [num_users].
    """

    users: NDArray[np.int32]
    validation_items: NDArray[np.int32]
    test_items: NDArray[np.int32]
    num_train_interactions: NDArray[np.int64]

    def take(self, rows: NDArray[Any]) -> "HeldOut":
        """Returns some of the users, by their places in this block."""
        return HeldOut(
            self.users[rows],
            self.validation_items[rows],
            self.test_items[rows],
            self.num_train_interactions[rows],
        )

    @staticmethod
    def concatenate(blocks: "Sequence[HeldOut]") -> "HeldOut":
        """Returns the users of all blocks in the order of their indices."""
        together = HeldOut(
            np.concatenate([block.users for block in blocks]),
            np.concatenate([block.validation_items for block in blocks]),
            np.concatenate([block.test_items for block in blocks]),
            np.concatenate([block.num_train_interactions for block in blocks]),
        )
        return together.take(np.argsort(together.users, kind="stable"))


@dataclass(frozen=True)
class Totals:
    """What is counted over a part of the data or all of it.

    Attributes:
        item_counts: int64 [num_items], training positives of every item in the catalog.
        shares: One for each partition of the users.
    """

    item_counts: NDArray[np.int64]
    shares: tuple[EpochShare, ...]

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.item_counts + other.item_counts, self.shares + other.shares)


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
