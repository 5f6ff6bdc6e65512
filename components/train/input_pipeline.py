"""Brings an `examples` folder onto the device."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.ncf.errors import InputError
from components.ncf.examples import Candidates, read_candidates, read_positives
from components.ncf.manifest import Manifest

# Which protocol's candidates choose the epoch when the test item does, in this order of preference.
_TEST_PROTOCOLS = ("fixed", "loo-99", "loo-999-masked")


@dataclass(frozen=True)
class TrainingData:
    """What training reads.

    Attributes:
        users, items: int32 [num_positives], the training positives.
        selection: Candidates that choose the epoch.
        selection_protocol: The protocol that they follow, or "validation".
        num_users, num_items: Sizes of the tables.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    selection: Candidates
    selection_protocol: str
    num_users: int
    num_items: int


def load_training_data(examples: Path, manifest: Manifest, model_selection: str) -> TrainingData:
    """Reads the positives and the candidates that model selection asks for.

    Args:
        examples: The folder that generate wrote.
        manifest: Its manifest.
        model_selection: "validation" or "test"; the latter trains on the validation items too.

    Raises:
        InputError: A file is missing or damaged, or no protocol suits the selection.
    """
    users, items = read_positives(examples, manifest)
    protocol = "validation"
    if model_selection == "test":
        available = [name for name in _TEST_PROTOCOLS if name in manifest["protocols"]]
        if not available:
            raise InputError(
                f"{examples} has no candidates for the test item, which train.model_selection test needs: "
                "generate it with the protocol loo-99, or select on validation."
            )
        protocol = available[0]
        held_out = pq.read_table(examples / "held_out.parquet")
        users = np.concatenate([users, held_out["user_id"].to_numpy().astype(np.int32)])
        items = np.concatenate([items, held_out["validation_item_id"].to_numpy().astype(np.int32)])
    return TrainingData(
        users=users,
        items=items,
        selection=read_candidates(examples, manifest, protocol),
        selection_protocol=protocol,
        num_users=manifest["num_users"],
        num_items=manifest["num_items"],
    )
