"""What the report says of the data: where it comes from, what became of its rows, and how they are distributed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.report.data import (
    FlowRow,
    Popularity,
    Quantiles,
    popularity_of,
    quantiles_of,
    rows_into_splits,
)
from components.report.distributions import Bin, make_bins

# The test item and the validation item of each user.
_NUM_HELD_OUT = 2


@dataclass(frozen=True)
class DataCard:
    """The facts of the data card that generate writes, as far as a reader of the results needs them.

    Attributes:
        source: (what, value): where the data comes from, its licence among them.
        citation: What its makers ask to be cited, or "".
        num_rejected: Lines of the source that could not be read; None if that is not on record.
        is_order_known: Whether a later interaction can be told from an earlier one.
        flow: From the rows read to the splits.
        popularity: Of the items, in training positives.
        activity: Users by their number of interactions, the two held-out ones included.
        activity_quantiles: Of the same numbers.
    """

    source: tuple[tuple[str, str], ...]
    citation: str
    num_rejected: int | None
    is_order_known: bool
    flow: tuple[FlowRow, ...]
    popularity: Popularity
    activity: tuple[Bin, ...]
    activity_quantiles: Quantiles


def data_card(manifest: Mapping[str, Any], item_counts: NDArray[np.int64], user_counts: NDArray[np.int64]) -> DataCard:
    """Gathers the facts.

    Args:
        manifest: Of the `examples`.
        item_counts: int64 [num_items], the training positives of each item.
        user_counts: int64 [num_users], those of each user.
    """
    source = manifest.get("source", {})
    archive, timestamps = source.get("archive") or {}, source.get("timestamp_range")
    facts = {
        "Data set": manifest["dataset"],
        "Fetched from": source.get("url"),
        "Archive md5": archive.get("md5"),
        "Licence": source.get("licence"),
    }
    interactions, num_users_with = np.unique(user_counts + _NUM_HELD_OUT, return_counts=True)
    return DataCard(
        source=tuple((name, str(value)) for name, value in facts.items() if value),
        citation=source.get("citation") or "",
        num_rejected=(source.get("counts") or {}).get("rejected"),
        is_order_known=timestamps is None or timestamps[0] < timestamps[1] or "fixed" in manifest["protocols"],
        flow=rows_into_splits(manifest),
        popularity=popularity_of(item_counts),
        activity=make_bins(interactions, num_users_with),
        activity_quantiles=quantiles_of(interactions, num_users_with),
    )
