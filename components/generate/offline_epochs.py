"""Whole training epochs with their negatives, for trainers that do not draw their own.

An epoch is every training positive once and `num_negatives` negatives for each, in one random order, cut into
pre-batches of equal size. A row's position in that order is a function of the row, so that rows go straight to the
file, the pre-batch and the place in it where they belong: nothing is sorted.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.ncf.counter_random import Stream, derive_key
from components.ncf.errors import InputError
from components.ncf.interactions import ItemLists, offsets_of
from components.ncf.leave_one_out import LeaveOneOut
from components.ncf.negatives import sample_train_negatives
from components.ncf.permutation import shuffled_positions

# Bounds what waits for its files at a time.
_ROWS_AT_A_TIME = 1 << 20
# Bounds what is drawn at a time, so that the intermediate arrays stay in the processor's cache.
_POSITIVES_AT_A_TIME = 1 << 14


@dataclass(frozen=True)
class OfflineRows:
    """Rows of one epoch, in any order.

    Attributes:
        positions: uint32 [num_rows], each row's place in the epoch.
        users, items: int32 [num_rows], dense indices.
        labels: uint8 [num_rows], 1 for a positive and 0 for a negative.
    """

    positions: NDArray[np.uint32]
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    labels: NDArray[np.uint8]

    def take(self, rows: NDArray[np.int64]) -> "OfflineRows":
        """Returns some of the rows."""
        return OfflineRows(self.positions[rows], self.users[rows], self.items[rows], self.labels[rows])


@dataclass(frozen=True)
class EpochShare:
    """The part of the users of one partition in every offline epoch.

    Attributes:
        least_hash: Of its users' ids. Partitions are ranges of hashes, so this puts them in an order.
        num_positives: Training positives of those users.
    """

    least_hash: int
    num_positives: int


@dataclass(frozen=True)
class EpochLayout:
    """Where the rows of every epoch go.

    Attributes:
        num_rows: Rows of an epoch, without padding.
        prebatch_size: Rows of an Example.
        prebatches_per_file: Examples of every file but the last.
    """

    num_rows: int
    prebatch_size: int
    prebatches_per_file: int

    @staticmethod
    def of(num_rows: int, prebatch_size: int, num_files: int) -> "EpochLayout":
        """Spreads the rows over `num_files` files, or fewer when there are too few pre-batches.

        Raises:
            InputError: An epoch has more rows than a position can count.
        """
        if num_rows > 1 << 32:
            raise InputError(
                f"An offline epoch of {num_rows} rows is too long: at most 2**32 fit, so lower "
                "generate.num_offline_negatives, or train without offline epochs."
            )
        num_prebatches = -(-num_rows // prebatch_size)
        return EpochLayout(num_rows, prebatch_size, -(-num_prebatches // num_files))

    @property
    def num_prebatches(self) -> int:
        """Examples of an epoch; the last one may be padded."""
        return -(-self.num_rows // self.prebatch_size)

    @property
    def rows_per_file(self) -> int:
        """Rows of every file but the last."""
        return self.prebatches_per_file * self.prebatch_size

    @property
    def num_files(self) -> int:
        """Files of an epoch."""
        return -(-self.num_rows // self.rows_per_file)

    def num_rows_of(self, file: int) -> int:
        """Returns how many rows a file holds, without padding."""
        return min(self.rows_per_file, self.num_rows - file * self.rows_per_file)

    def file_of(self, positions: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Returns the file of each position."""
        return positions // np.uint32(min(self.rows_per_file, (1 << 32) - 1))


def share_of(split: LeaveOneOut, hashes: NDArray[np.uint32]) -> EpochShare:
    """Returns how many of the positives of every epoch are a partition's, and which partition that is.

    Args:
        split: The histories of all users of one partition, at least one.
        hashes: uint32 [num_users], of the users' raw ids.
    """
    return EpochShare(int(hashes.min()), int(split.is_train.sum()))


def first_rows_of(split: LeaveOneOut, hashes: NDArray[np.uint32], shares: Iterable[EpochShare]) -> NDArray[np.int64]:
    """Numbers the training positives of all users by (hash of the user's id, user, item).

    A partition is a range of hashes, so that its own numbers follow from the sizes of the others, whatever the number
    of partitions.

    Args:
        split: The histories of all users of one partition, at least one.
        hashes: uint32 [num_users], of the users' raw ids.
        shares: Of every partition.

    Returns:
        int64 [num_users], the number of each user's first positive.
    """
    least_hash = int(hashes.min())
    num_before = sum(share.num_positives for share in shares if share.least_hash < least_hash)
    order = np.argsort(hashes, kind="stable")
    first_rows = np.empty(len(order), np.int64)
    first_rows[order] = num_before + offsets_of(split.seen.lengths[order] - 2)[:-1]
    return first_rows


def epoch_rows(
    split: LeaveOneOut,
    first_rows: NDArray[np.int64],
    num_items: int,
    num_epoch_rows: int,
    num_negatives: int,
    seed: int,
    epoch: int,
) -> Iterator[OfflineRows]:
    """Yields all rows of some users in one epoch, blocks of about a million.

    Args:
        split: The users' histories.
        first_rows: int64 [num_users], of each user of the split, as `first_rows_of` returns them.
        num_items: Size of the catalogue.
        num_epoch_rows: Rows of the epoch, of all users.
        num_negatives: Negatives of each positive.
        seed: The step's seed.
        epoch: Counted from 0.
    """
    users, items = split.train_pairs()
    positives = ItemLists(_train_offsets(split), items)
    places = np.repeat(np.arange(len(split.users)), positives.lengths)
    # The place of each positive among those of all users.
    indices = first_rows[places] + np.arange(len(users)) - positives.offsets[places]
    row_size = 1 + num_negatives
    negatives_key = derive_key(seed, Stream.TRAIN_NEGATIVES, epoch)
    order_key = derive_key(seed, Stream.OFFLINE_SHUFFLE, epoch)
    labels_of_a_positive = np.append(np.uint8(1), np.zeros(num_negatives, np.uint8))
    for rows in _blocks(len(users), max(1, _ROWS_AT_A_TIME // row_size)):
        block_items = np.empty((rows.stop - rows.start, row_size), np.int32)
        block_items[:, 0] = items[rows]
        for some in _blocks(rows.stop - rows.start, _POSITIVES_AT_A_TIME):
            part = slice(rows.start + some.start, rows.start + some.stop)
            nearby, shifted = _users_between(positives, places[part])
            block_items[some, 1:] = sample_train_negatives(
                users[part], items[part], shifted, nearby, num_items, num_negatives, negatives_key
            )
        numbers = (indices[rows, None] * row_size + np.arange(row_size)).astype(np.uint32)
        yield OfflineRows(
            shuffled_positions(numbers.ravel(), num_epoch_rows, order_key),
            np.repeat(users[rows], row_size),
            block_items.ravel(),
            np.tile(labels_of_a_positive, rows.stop - rows.start),
        )


def prebatches(
    blocks: Iterable[OfflineRows], layout: EpochLayout, file: int, num_users: int, num_items: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """Puts the rows of a file into their places and yields its Examples' columns, the last one padded.

    Padding has a `valid_point_mask` of 0. Its users and items go round all there are, so that no embedding is looked
    up more often than others.

    Args:
        blocks: All rows of the file, in any order.
        layout: Of the epoch.
        file: In [0, layout.num_files).
        num_users, num_items: Sizes of the vocabularies.
    """
    num_rows = layout.num_rows_of(file)
    size = -(-num_rows // layout.prebatch_size) * layout.prebatch_size
    padding = np.arange(size - num_rows, dtype=np.int32)
    columns: dict[str, NDArray[Any]] = {
        "user_id": np.append(np.empty(num_rows, np.int32), padding % num_users),
        "item_id": np.append(np.empty(num_rows, np.int32), padding % num_items),
        "labels": np.zeros(size, np.uint8),
        "valid_point_mask": (np.arange(size) < num_rows).astype(np.uint8),
    }
    num_found = 0
    for block in blocks:
        places = block.positions - np.uint32(file * layout.rows_per_file)
        columns["user_id"][places] = block.users
        columns["item_id"][places] = block.items
        columns["labels"][places] = block.labels
        num_found += len(places)
    assert num_found == num_rows, f"file {file} got {num_found} rows instead of {num_rows}"
    for rows in _blocks(size, layout.prebatch_size):
        yield {name: values[rows] for name, values in columns.items()}


def _train_offsets(split: LeaveOneOut) -> NDArray[np.int64]:
    return split.seen.offsets - 2 * np.arange(len(split.seen.offsets))


def _users_between(positives: ItemLists, places: NDArray[np.int64]) -> tuple[ItemLists, NDArray[np.int64]]:
    """Returns the lists of the consecutive users that some rows belong to, and the rows' places among them."""
    first, last = int(places[0]), int(places[-1]) + 1
    start, stop = positives.offsets[first], positives.offsets[last]
    return ItemLists(positives.offsets[first : last + 1] - start, positives.items[start:stop]), places - first


def _blocks(num_rows: int, size: int) -> Iterator[slice]:
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))
