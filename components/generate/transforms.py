"""The work on the data as Beam transforms, without input or output: blocks in, blocks out.

Every element is a block of columns of thousands of rows. What knows all of the data is the catalog (the sorted ids)
and the counts per item and per partition, both built by combiners and passed on as side inputs; of the users nothing
else is ever in one place. Each grouping takes scarce buffers of some engines, so that there are few.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton
from numpy.typing import NDArray

from components.generate.block_store import BlockStore
from components.generate.blocks import (
    Catalog,
    GivenTestItems,
    HeldOut,
    History,
    HistoryRows,
    Positives,
    RawIdLists,
    Totals,
    UsersToRank,
)
from components.generate.cleaning import clean, find_test_items
from components.generate.combiners import AddTotals, UniteIds
from components.generate.failures import carrying_failures
from components.generate.file_counts import (
    epoch_layout,
    num_evaluation_files,
    num_positive_files,
    table_file_of_users,
)
from components.generate.offline_epochs import OfflineRows, epoch_rows, first_rows_of, share_of
from components.generate.progress import count
from components.generate.protocols import FIXED_NAME, Protocol
from components.generate.ratings import FixedBlock
from components.generate.record_files import file_of_users, shard_of_keys, shuffle_keys
from components.ncf.errors import InputError
from components.ncf.interactions import (
    Interactions,
    ItemLists,
    hash_of_ids,
    index_of,
    offsets_of,
    partition_by_user,
    partition_of_ids,
    rows_by_key,
)
from components.ncf.leave_one_out import LeaveOneOut, leave_one_out

# What the groups of users are called that go to the tables; no protocol's name.
TABLES = "tables"


class GroupPieces(beam.PTransform):
    """Lists of (key, block), each list cut from one block → (key, what to fetch every block of that key with)."""

    def __init__(self, store: BlockStore, piece_type: Any) -> None:
        """Takes the type of the pairs too, so that Beam picks a deterministic coder for the key."""
        super().__init__()
        self._store = store
        self._piece_type = piece_type

    def expand(self, pieces: beam.PCollection) -> beam.PCollection:
        """Stores and groups."""
        return (
            pieces
            | "Set the pieces aside" >> beam.ParDo(_PutPieces(self._store)).with_output_types(self._piece_type)
            | "Bring together the pieces of each key" >> beam.GroupByKey()
        )


class GatherHistories(beam.PTransform):
    """Blocks of `Interactions` and `FixedBlock` → one clean `History` per partition of the users."""

    def __init__(self, num_partitions: int, min_ratings: int, has_fixed: bool, store: BlockStore) -> None:
        super().__init__()
        self._num_partitions = num_partitions
        self._clean = _CleanHistories(min_ratings, has_fixed, store)
        self._store = store

    def expand(self, blocks: beam.PCollection) -> beam.PCollection:
        """Cuts, gathers and cleans."""
        return (
            blocks
            | "Cut the blocks by user" >> beam.ParDo(_CutByUser(self._num_partitions))
            | "Gather the rows of each partition" >> GroupPieces(self._store, tuple[int, Any])
            | "Deduplicate and drop inactive users" >> beam.ParDo(self._clean)
        )


class BuildCatalog(beam.PTransform):
    """`History` of every partition (and `FixedBlock`, for its items) → the one checked `Catalog`."""

    def __init__(self, min_ratings: int, store: BlockStore) -> None:
        super().__init__()
        self._min_ratings = min_ratings
        self._store = store

    def expand(self, histories: beam.PCollection) -> beam.PCollection:
        """Unites and checks."""
        return (
            histories
            | "Unite the ids" >> beam.CombineGlobally(UniteIds(self._store))
            | "Check that enough is left" >> beam.ParDo(_CheckCatalog(self._min_ratings))
        )


class HoldOutItems(beam.PTransform):
    """`History` of every partition → `LeaveOneOut` with dense indices."""

    def __init__(self, catalog: beam.PCollection, seed: int, store: BlockStore) -> None:
        super().__init__()
        self._catalog = catalog
        self._hold_out = _HoldOutItems(seed, store)

    def expand(self, histories: beam.PCollection) -> beam.PCollection:
        """Splits each history."""
        return histories | "Hold out the two latest items" >> beam.ParDo(self._hold_out, AsSingleton(self._catalog))


class ShufflePositives(beam.PTransform):
    """`LeaveOneOut` of every partition → (shard, its `Positives`)."""

    def __init__(self, catalog: beam.PCollection, num_shards: int, seed: int, store: BlockStore) -> None:
        super().__init__()
        self._catalog = catalog
        self._cut = _CutPositives(num_shards, seed)
        self._store = store

    def expand(self, splits: beam.PCollection) -> beam.PCollection:
        """Cuts and gathers."""
        return (
            splits
            | "Assign each positive to a shard" >> beam.ParDo(self._cut, AsSingleton(self._catalog))
            | "Gather the positives of each shard" >> GroupPieces(self._store, tuple[int, Any])
        )


class AssignUsersToFiles(beam.PTransform):
    """`LeaveOneOut` of every partition and `FixedBlock`s → ((protocol, file), its blocks of `UsersToRank`).

    The tables of users go the same way, as blocks of `HeldOut` under the name TABLES in the place of a protocol's.
    """

    def __init__(
        self,
        catalog: beam.PCollection,
        protocols: tuple[Protocol, ...],
        num_shards: int,
        eval_prebatch_size: int,
        store: BlockStore,
    ) -> None:
        super().__init__()
        self._catalog = catalog
        self._cut = _CutUsers(protocols, num_shards, eval_prebatch_size)
        self._store = store

    def expand(self, blocks: beam.PCollection) -> beam.PCollection:
        """Cuts and gathers."""
        return (
            blocks
            | "Assign each user to a file of each kind" >> beam.ParDo(self._cut, AsSingleton(self._catalog))
            | "Gather the users of each file" >> GroupPieces(self._store, tuple[tuple[str, int], Any])
        )


class CountPositives(beam.PTransform):
    """`LeaveOneOut` of every partition → the one `Totals` of all of them."""

    def __init__(self, catalog: beam.PCollection) -> None:
        super().__init__()
        self._catalog = catalog

    def expand(self, splits: beam.PCollection) -> beam.PCollection:
        """Counts and adds up."""
        return (
            splits
            | "Count per item and in all" >> beam.ParDo(_CountPositives(), AsSingleton(self._catalog))
            | "Add up the counts" >> beam.CombineGlobally(AddTotals()).without_defaults()
        )


class CutOfflineEpochs(beam.PTransform):
    """`LeaveOneOut` of every partition → ((epoch, file), its blocks of `OfflineRows`), for every epoch."""

    def __init__(
        self,
        catalog: beam.PCollection,
        totals: beam.PCollection,
        num_epochs: int,
        num_negatives: int,
        prebatch_size: int,
        num_shards: int,
        seed: int,
        store: BlockStore,
    ) -> None:
        super().__init__()
        self._catalog = catalog
        self._totals = totals
        self._num_epochs = num_epochs
        self._cut = _CutOfflineEpoch(num_negatives, prebatch_size, num_shards, seed, store)
        self._store = store

    def expand(self, splits: beam.PCollection) -> beam.PCollection:
        """Sets the splits aside until the sizes of all are known; then draws, cuts and gathers."""
        return (
            splits
            | "Set the splits aside" >> beam.ParDo(_PutForEachEpoch(self._num_epochs, self._store))
            | "Spread the epochs" >> beam.Reshuffle()
            | "Draw an epoch's negatives and place its rows"
            >> beam.ParDo(self._cut, AsSingleton(self._catalog), AsSingleton(self._totals))
            | "Gather the rows of each file" >> GroupPieces(self._store, tuple[tuple[int, int], Any])
        )


class _PutPieces(beam.DoFn):
    def __init__(self, store: BlockStore) -> None:
        super().__init__()
        self._store = store

    @carrying_failures
    def process(self, pieces: list[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        references = self._store.put([block for _, block in pieces])
        yield from zip((key for key, _ in pieces), references, strict=True)


class _CutByUser(beam.DoFn):
    def __init__(self, num_partitions: int) -> None:
        super().__init__()
        self._num_partitions = num_partitions

    @carrying_failures
    def process(self, block: Interactions | FixedBlock) -> Iterator[list[tuple[int, Any]]]:
        if isinstance(block, Interactions):
            yield list(partition_by_user(block, self._num_partitions))
        else:
            partitions = partition_of_ids(block.raw_user_ids, self._num_partitions)
            yield [
                (partition, GivenTestItems(block.raw_user_ids[rows], block.raw_item_ids[rows]))
                for partition, rows in rows_by_key(partitions)
            ]


class _CleanHistories(beam.DoFn):
    def __init__(self, min_ratings: int, has_fixed: bool, store: BlockStore) -> None:
        super().__init__()
        self._min_ratings = min_ratings
        self._has_fixed = has_fixed
        self._store = store

    @carrying_failures
    def process(self, group: tuple[int, Iterable[Any]]) -> Iterator[History]:
        pieces = list(self._store.get_all(group[1]))
        interactions = [piece for piece in pieces if isinstance(piece, Interactions)]
        given = [piece for piece in pieces if isinstance(piece, GivenTestItems)]
        if not interactions:
            return
        kept, counts = clean(interactions, self._min_ratings)
        for name, amount in (
            ("duplicate_rows_dropped", counts.rows_read - counts.rows_distinct),
            ("inactive_users_dropped", counts.users_read - counts.users_kept),
            ("rows_of_inactive_users_dropped", counts.rows_distinct - counts.rows_kept),
        ):
            count(name, amount)
        test_items = find_test_items(kept, given) if self._has_fixed else None
        rows = HistoryRows(kept.users, kept.items, kept.timestamps, test_items)
        yield History(counts, *self._store.put([RawIdLists(kept.raw_user_ids, kept.raw_item_ids), rows]))


class _CheckCatalog(beam.DoFn):
    def __init__(self, min_ratings: int) -> None:
        super().__init__()
        self._min_ratings = min_ratings

    @carrying_failures
    def process(self, catalog: Catalog) -> Iterator[Catalog]:
        if catalog.num_users < 2 or catalog.num_items < 2:
            counts = catalog.counts
            raise InputError(
                f"min_ratings {self._min_ratings} leaves {catalog.num_users} of {counts.users_read} users, "
                f"{catalog.num_items} items and {counts.rows_kept} of {counts.rows_read} rows: at least two users and "
                "two items are needed, so lower min_ratings (to no less than 3) or bring more data."
            )
        yield catalog


class _HoldOutItems(beam.DoFn):
    def __init__(self, seed: int, store: BlockStore) -> None:
        super().__init__()
        self._seed = seed
        self._store = store

    @carrying_failures
    def process(self, history: History, catalog: Catalog) -> Iterator[LeaveOneOut]:
        if not history.counts.rows_kept:
            return
        ids: RawIdLists = self._store.get(history.ids)
        rows: HistoryRows = self._store.get(history.rows)
        user_index = index_of(ids.raw_user_ids, catalog.raw_user_ids)
        item_index = index_of(ids.raw_item_ids, catalog.raw_item_ids)
        given = None if rows.test_items is None else item_index[rows.test_items]
        split = leave_one_out(user_index[rows.users], item_index[rows.items], rows.timestamps, self._seed, given)
        has_seen_all = split.seen.lengths == catalog.num_items
        if has_seen_all.any():
            raise InputError(
                f"User {ids.raw_user_ids[np.argmax(has_seen_all)]} has interacted with every one of the "
                f"{catalog.num_items} items, so that there is nothing to rank the held-out item against: "
                "remove the user or bring more items."
            )
        yield split


class _CutPositives(beam.DoFn):
    def __init__(self, num_shards: int, seed: int) -> None:
        super().__init__()
        self._num_shards = num_shards
        self._seed = seed

    @carrying_failures
    def process(self, split: LeaveOneOut, catalog: Catalog) -> Iterator[list[tuple[int, Positives]]]:
        positives = Positives(*split.train_pairs(), split.recencies)
        shards = shard_of_keys(shuffle_keys(positives, self._seed), num_positive_files(catalog, self._num_shards))
        yield [(shard, positives.take(rows)) for shard, rows in rows_by_key(shards)]


class _CutUsers(beam.DoFn):
    def __init__(self, protocols: tuple[Protocol, ...], num_shards: int, eval_prebatch_size: int) -> None:
        super().__init__()
        self._protocols = protocols
        self._num_shards = num_shards
        self._eval_prebatch_size = eval_prebatch_size

    @carrying_failures
    def process(
        self, block: LeaveOneOut | FixedBlock, catalog: Catalog
    ) -> Iterator[list[tuple[tuple[str, int], UsersToRank | HeldOut]]]:
        pieces: list[tuple[tuple[str, int], UsersToRank | HeldOut]] = []
        if isinstance(block, LeaveOneOut):
            held_out = HeldOut(block.users, block.validation_items, block.test_items, block.seen.lengths - 2)
            files = table_file_of_users(block.users)
            pieces += [((TABLES, file), held_out.take(rows)) for file, rows in rows_by_key(files)]
        for protocol in self._protocols:
            if isinstance(block, FixedBlock) != (protocol.name == FIXED_NAME):
                continue
            users = _fixed_users(block, catalog) if isinstance(block, FixedBlock) else _sampled_users(block, protocol)
            users_per_prebatch = protocol.users_per_prebatch(self._eval_prebatch_size)
            num_files = num_evaluation_files(catalog, self._num_shards, users_per_prebatch)
            files = file_of_users(users.users, users_per_prebatch, num_files)
            pieces += [((protocol.name, file), users.take(rows)) for file, rows in rows_by_key(files)]
        yield pieces


def _sampled_users(split: LeaveOneOut, protocol: Protocol) -> UsersToRank:
    positives = split.test_items if protocol.holds_out == "test" else split.validation_items
    return UsersToRank(split.users, positives, split.seen, None)


def _fixed_users(block: FixedBlock, catalog: Catalog) -> UsersToRank:
    """Gives a block's users and items their dense indices; users who were dropped are left out."""
    users = index_of(block.raw_user_ids, catalog.raw_user_ids)
    kept = users >= 0
    candidates = index_of(block.raw_candidates[kept].ravel(), catalog.raw_item_ids)
    nothing = ItemLists(offsets_of(np.zeros(kept.sum(), np.int64)), np.zeros(0, np.int32))
    return UsersToRank(
        users[kept],
        index_of(block.raw_item_ids[kept], catalog.raw_item_ids),
        nothing,
        candidates.reshape(-1, block.raw_candidates.shape[1]),
    )


class _PutForEachEpoch(beam.DoFn):
    def __init__(self, num_epochs: int, store: BlockStore) -> None:
        super().__init__()
        self._num_epochs = num_epochs
        self._store = store

    @carrying_failures
    def process(self, split: LeaveOneOut) -> Iterator[tuple[int, Any]]:
        (reference,) = self._store.put([split])
        for epoch in range(self._num_epochs):
            yield epoch, reference


class _CutOfflineEpoch(beam.DoFn):
    def __init__(self, num_negatives: int, prebatch_size: int, num_shards: int, seed: int, store: BlockStore) -> None:
        super().__init__()
        self._num_negatives = num_negatives
        self._prebatch_size = prebatch_size
        self._num_shards = num_shards
        self._seed = seed
        self._store = store

    @carrying_failures
    def process(
        self, epoch_and_split: tuple[int, Any], catalog: Catalog, totals: Totals
    ) -> Iterator[list[tuple[tuple[int, int], OfflineRows]]]:
        epoch, split = epoch_and_split[0], self._store.get(epoch_and_split[1])
        layout = epoch_layout(catalog, self._num_negatives, self._prebatch_size, self._num_shards)
        first_rows = first_rows_of(split, _hashes_of_users(split, catalog), totals.shares)
        for block in epoch_rows(
            split, first_rows, catalog.num_items, layout.num_rows, self._num_negatives, self._seed, epoch
        ):
            count("training_rows_drawn", len(block.positions))
            yield [((epoch, file), block.take(rows)) for file, rows in rows_by_key(layout.file_of(block.positions))]


def _hashes_of_users(split: LeaveOneOut, catalog: Catalog) -> NDArray[np.uint32]:
    return hash_of_ids(catalog.raw_user_ids[split.users])


class _CountPositives(beam.DoFn):
    @carrying_failures
    def process(self, split: LeaveOneOut, catalog: Catalog) -> Iterator[Totals]:
        _, items = split.train_pairs()
        share = share_of(split, _hashes_of_users(split, catalog))
        yield Totals(np.bincount(items, minlength=catalog.num_items), (share,))
