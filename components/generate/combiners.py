"""Beam combiners of what is known about all of the data: the ids, and the counts per user and item.

An accumulator keeps the arrays of a few blocks before it merges them: its size follows the vocabularies, not the
number of blocks.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from components.generate.blocks import Catalog, Counts, HeldOut, History
from components.generate.ratings import FixedBlock
from components.ncf.interactions import RawIds, union_of

_MAX_PENDING_BLOCKS = 8

# Users, items (each a list of ascending arrays) and counts.
_Ids = tuple[list[RawIds], list[RawIds], Counts]


class UniteIds(beam.CombineFn):
    """`History`s, and `FixedBlock`s for their items → `Catalog`."""

    def create_accumulator(self) -> _Ids:
        """Starts with nothing."""
        return [], [], Counts()

    def add_input(self, accumulator: _Ids, block: History | FixedBlock) -> _Ids:
        """Adds a block's ids. Users who only have given candidates do not count as users."""
        if isinstance(block, History):
            addition = ([block.raw_user_ids], [block.raw_item_ids], block.counts)
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
        users, items, counts = accumulator
        return Catalog(union_of(users), union_of(items), counts)


class AddHeldOut(beam.CombineFn):
    """`HeldOut` of each partition → that of all users, ascending, with the items' counts added up."""

    def create_accumulator(self) -> list[HeldOut]:
        """Starts with nothing."""
        return []

    def add_input(self, accumulator: list[HeldOut], block: HeldOut) -> list[HeldOut]:
        """Adds a partition."""
        return self.merge_accumulators([accumulator, [block]])

    def merge_accumulators(self, accumulators: Iterable[list[HeldOut]]) -> list[HeldOut]:
        """Puts accumulators together."""
        blocks = [block for accumulator in accumulators for block in accumulator]
        return [_add(blocks)] if len(blocks) > _MAX_PENDING_BLOCKS else blocks

    def extract_output(self, accumulator: list[HeldOut]) -> HeldOut:
        """Merges what is pending and puts the users in order."""
        total = _add(accumulator)
        order = np.argsort(total.users, kind="stable")
        return HeldOut(
            users=total.users[order],
            validation_items=total.validation_items[order],
            test_items=total.test_items[order],
            num_train_interactions=total.num_train_interactions[order],
            item_counts=total.item_counts,
        )


def _shorten(arrays: list[RawIds]) -> list[RawIds]:
    return [union_of(arrays)] if len(arrays) > _MAX_PENDING_BLOCKS else arrays


def _add(blocks: Sequence[HeldOut]) -> HeldOut:
    def together(name: str) -> Any:
        return np.concatenate([getattr(block, name) for block in blocks])

    return HeldOut(
        users=together("users"),
        validation_items=together("validation_items"),
        test_items=together("test_items"),
        num_train_interactions=together("num_train_interactions"),
        item_counts=np.sum([block.item_counts for block in blocks], axis=0),
    )
