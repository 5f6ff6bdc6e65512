"""Beam combiners of what is known about all of the data: the ids, and the counts per item and partition.

An accumulator of ids keeps the arrays of a few blocks before it merges them: its size follows the vocabularies, not
the number of blocks.
"""

from collections.abc import Iterable

import apache_beam as beam
import numpy as np

from components.generate.block_store import BlockStore
from components.generate.blocks import Catalog, Counts, History, RawIdLists, Totals
from components.generate.ratings import FixedBlock
from components.ncf.interactions import RawIds, union_of

_MAX_PENDING_BLOCKS = 8

# Users, items (each a list of ascending arrays) and counts.
_Ids = tuple[list[RawIds], list[RawIds], Counts]


class UniteIds(beam.CombineFn):
    """`History`s, and `FixedBlock`s for their items → `Catalog`."""

    def __init__(self, store: BlockStore) -> None:
        super().__init__()
        self._store = store

    def create_accumulator(self) -> _Ids:
        """Starts with nothing."""
        return [], [], Counts()

    def add_input(self, accumulator: _Ids, block: History | FixedBlock) -> _Ids:
        """Adds a block's ids. Users who only have given candidates do not count as users."""
        if isinstance(block, History):
            ids: RawIdLists = self._store.get(block.ids)
            addition = ([ids.raw_user_ids], [ids.raw_item_ids], block.counts)
        else:
            addition = ([], [union_of([block.raw_candidates.ravel()])], Counts())
        return self.merge_accumulators([accumulator, addition])

    def merge_accumulators(self, accumulators: Iterable[_Ids]) -> _Ids:
        """Puts accumulators together."""
        users: list[RawIds] = []
        items: list[RawIds] = []
        total = Counts()
        for more_users, more_items, counts in accumulators:
            users, items = _shorten(users + more_users), _shorten(items + more_items)
            total += counts
        return users, items, total

    def extract_output(self, accumulator: _Ids) -> Catalog:
        """Merges what is pending."""
        ids = RawIdLists(union_of(accumulator[0]), union_of(accumulator[1]))
        (place,) = self._store.put([ids])
        return Catalog(len(ids.raw_user_ids), len(ids.raw_item_ids), accumulator[2], place)


class AddTotals(beam.CombineFn):
    """`Totals` of each partition → their sum."""

    def create_accumulator(self) -> Totals:
        """Starts with what adds nothing to counts of any number of items."""
        return Totals(np.zeros(1, np.int64), ())

    def add_input(self, accumulator: Totals, addition: Totals) -> Totals:
        """Adds a partition."""
        return accumulator + addition

    def merge_accumulators(self, accumulators: Iterable[Totals]) -> Totals:
        """Puts accumulators together."""
        return sum(accumulators, self.create_accumulator())

    def extract_output(self, accumulator: Totals) -> Totals:
        """Returns the sum."""
        return accumulator


def _shorten(arrays: list[RawIds]) -> list[RawIds]:
    return [union_of(arrays)] if len(arrays) > _MAX_PENDING_BLOCKS else arrays
