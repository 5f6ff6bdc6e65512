"""How much memory one replica of the training needs: an estimate from the parameters alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_FLOAT_BYTES = 4
_POSITIVE_BYTES = 8  # a user and an item, as `train.device_data_limit_mb` counts them
_SEEN_BYTES = 4  # and once more, sorted by user, so that negatives do not hit them
_WEIGHT_BYTES = 4  # by recency
_SLOTS = {"adam": 2, "sgd": 0}
_MB = 1_000_000


@dataclass(frozen=True)
class DataSize:
    """Sizes of a data set; upper bounds, as generate may drop users and holds items out."""

    num_users: int
    num_items: int
    num_interactions: int


@dataclass(frozen=True)
class MemoryEstimate:
    """What a replica keeps on its device, in bytes; an upper estimate, as a compiler may keep less.

    Attributes:
        weights: The tables and the perceptron.
        optimizer: Its slots.
        update: Gradients and the new values beside the old ones, while a step runs.
        data: The training data, or one window of it.
        activations: Of one step's examples, with their gradients.
    """

    weights: int
    optimizer: int
    update: int
    data: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.optimizer + self.update + self.data + self.activations


def estimate_memory(train: Mapping[str, Any], size: DataSize, num_replicas: int) -> MemoryEstimate:
    """Returns the estimate.

    Every replica has whole tables: they are copied, not divided.

    Args:
        train: The train step's parameters, all of them valid.
        size: Of the data.
        num_replicas: How many share a global batch.
    """
    layers = list(train["mlp_layers"])
    width = train["num_factors"] + (layers[0] // 2 if layers else 0)
    dense = sum(fan_in * fan_out + fan_out for fan_in, fan_out in pairwise(layers))
    if layers:
        dense += train["num_factors"] + layers[-1] + 1
    num_weights = (size.num_users + size.num_items) * width + dense
    slots = _SLOTS[train["optimizer"]]
    # Adam's gradients of tables are as large as the tables; plain descent touches the rows of the batch alone.
    copies = 2 + slots if train["optimizer"] == "adam" else 0
    examples = -(-train["global_batch_size"] // num_replicas)
    per_example = 2 * width + sum(layers) + train["num_factors"]
    return MemoryEstimate(
        weights=num_weights * _FLOAT_BYTES,
        optimizer=slots * num_weights * _FLOAT_BYTES,
        update=copies * num_weights * _FLOAT_BYTES,
        data=_data_bytes(train, size),
        activations=2 * examples * per_example * _FLOAT_BYTES,
    )


def _data_bytes(train: Mapping[str, Any], size: DataSize) -> int:
    per_positive = _POSITIVE_BYTES + (_WEIGHT_BYTES if train["recency_decay"] else 0)
    rows = size.num_interactions * per_positive
    resident: int = min(rows, train["device_data_limit_mb"] * _MB)
    # A window is read while the one before is in use.
    return (resident if resident == rows else 2 * resident) + size.num_interactions * _SEEN_BYTES
