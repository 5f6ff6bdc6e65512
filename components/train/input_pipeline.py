"""Brings an `examples` folder to the device, at once or window by window."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from numpy.typing import NDArray

from components.ncf.counter_random import Stream, derive_key
from components.ncf.errors import InputError
from components.ncf.examples import Candidates, RecordIndex, read_candidates, read_positives, read_table
from components.ncf.manifest import Manifest
from components.ncf.permutation import shuffled_positions
from components.train.config import TrainConfig
from components.train.negative_sampler import SeenItems, build_seen_items

_LOG = logging.getLogger(__name__)

# Which protocol's candidates choose the epoch when the test item does, in this order of preference.
_TEST_PROTOCOLS = ("fixed", "loo-99", "loo-999-masked")
# Rows that are shuffled among each other. Files are shuffled over all of the data already; a window bounds what has to
# be on the device at a time.
WINDOW_ROWS = 1 << 20
_FEATURES = ("user_id", "item_id")
_RECENCY = "recency"


class Window(NamedTuple):
    """Rows that an epoch trains on together. The arrays of all windows have one length, so that shapes are static.

    Attributes:
        users, items: int32 [window_rows]; rows from `num_rows` on are padding.
        labels: float32 [window_rows] where the rows are ready examples; None where they are positives.
        weights: float32 [window_rows], what a positive's and its negatives' losses are multiplied with; None for 1.
        num_rows: int32 [].
    """

    users: Any
    items: Any
    labels: Any
    weights: Any
    num_rows: Any


class Columns(NamedTuple):
    """Rows in memory, each column [num_rows]; see `Window`."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    labels: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None

    def take(self, rows: slice) -> "Columns":
        """Returns some rows."""
        return Columns(*(None if column is None else column[rows] for column in self))  # type: ignore[arg-type]


class Rows(Protocol):
    """Rows that can be read piece by piece: what an epoch consists of."""

    def __len__(self) -> int:
        """Counts the rows of an epoch."""

    def read(self, epoch: int, start: int, stop: int) -> Columns:
        """Returns the rows in [start, stop)."""


@dataclass(frozen=True)
class RecencyWeights:
    """Weighs a user's later interactions more, so that tastes that changed count for less.

    The weight of the interaction that has r later ones among its user's training positives is floor + exp(-r / decay).

    Attributes:
        decay: In interactions.
        floor: What the oldest keep.
        scale: What brings the mean over all rows to 1.
    """

    decay: float
    floor: float
    scale: float = 1.0

    def of(self, recencies: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the weights, float32 [num_rows], of rows with so many later ones, integer [num_rows]."""
        return (self.scale * (self.floor + np.exp(-recencies / self.decay))).astype(np.float32)

    def scaled_over(self, recencies: NDArray[Any]) -> "RecencyWeights":
        """Returns the same weights with a mean of 1 over these rows."""
        return replace(self, scale=self.scale / float(self.of(recencies).mean(dtype=np.float64)))


@dataclass(frozen=True)
class ArrayRows:
    """Positives in memory."""

    columns: Columns

    def __len__(self) -> int:
        return len(self.columns.users)

    def read(self, epoch: int, start: int, stop: int) -> Columns:
        """Returns the same rows in every epoch."""
        del epoch
        return self.columns.take(slice(start, stop))


@dataclass(frozen=True)
class RecordRows:
    """Positives in record files, and behind them each user's validation item where it is trained on."""

    index: RecordIndex
    validation: Columns | None
    weights: RecencyWeights | None

    def __len__(self) -> int:
        return self.index.num_rows + (0 if self.validation is None else len(self.validation.users))

    def read(self, epoch: int, start: int, stop: int) -> Columns:
        """Reads only the records that hold these rows."""
        del epoch
        num_rows = self.index.num_rows
        features = self.index.read(min(start, num_rows), min(stop, num_rows))
        part = slice(max(start - num_rows, 0), max(stop - num_rows, 0))
        validation = None if self.validation is None else self.validation.take(part)
        return _columns_of_positives(features, validation, self.weights)


@dataclass(frozen=True)
class OfflineRows:
    """Ready examples, with labels, in one set of record files an epoch."""

    epochs: Sequence[RecordIndex]
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    def read(self, epoch: int, start: int, stop: int) -> Columns:
        """Reads rows of that epoch. Padding stands at its end only, behind `num_rows`."""
        features = self.epochs[epoch].read(start, stop)
        users, items = features["user_id"].astype(np.int32), features["item_id"].astype(np.int32)
        return Columns(users, items, labels=features["labels"].astype(np.float32))


@dataclass(frozen=True)
class TrainingData:
    """What training reads.

    Attributes:
        rows: The rows of an epoch.
        seen: The positives as numpy arrays, which negatives must not hit; None where the rows bring their negatives.
        selection: Candidates that choose the epoch, or None where the last one is taken.
        selection_protocol: The protocol that they follow, or "validation"; empty for none.
        num_users, num_items: Sizes of the tables.
        is_resident: Whether all windows are kept on the device, or read anew in every epoch.
        window_rows_limit: Rows that a window may have at most.
    """

    rows: Rows
    seen: SeenItems | None
    selection: Candidates | None
    selection_protocol: str
    num_users: int
    num_items: int
    is_resident: bool = True
    window_rows_limit: int = WINDOW_ROWS
    _resident: dict[int, Window] = field(default_factory=dict, repr=False)

    @cached_property
    def num_windows(self) -> int:
        """Windows of an epoch, of sizes as equal as can be."""
        return -(-len(self.rows) // self.window_rows_limit)

    @cached_property
    def window_rows(self) -> int:
        """Rows of every window; the last may hold fewer."""
        return -(-len(self.rows) // self.num_windows)

    def rows_of(self, window: int) -> int:
        """Returns how many rows of a window are no padding."""
        return min(self.window_rows, len(self.rows) - window * self.window_rows)

    def window_order(self, seed: int, epoch: int) -> list[int]:
        """Returns the windows in the order in which an epoch goes through them: shuffled, unless they are ready."""
        windows = np.arange(self.num_windows, dtype=np.uint32)
        if self.seen is None or self.num_windows == 1:
            return [int(window) for window in windows]
        return [int(w) for w in shuffled_positions(windows, self.num_windows, derive_key(seed, Stream.WINDOWS, epoch))]

    def windows(self, epoch: int, order: Sequence[int]) -> Iterator[Window]:
        """Yields these windows of an epoch, on the device. Where they are not resident, the next is read ahead."""
        if self.is_resident:
            for number in order:
                if number not in self._resident:
                    self._resident[number] = Window(*map(_to_tensor, self._read(epoch, number)))
                yield self._resident[number]
            return
        if not order:
            return
        columns = {name: column for name, column in self.rows.read(epoch, 0, 1)._asdict().items() if column is not None}
        dtypes = [*(tf.as_dtype(column.dtype) for column in columns.values()), tf.int32]

        def read(number: tf.Tensor) -> list[Any]:
            return [part for part in self._read(epoch, int(number)) if part is not None]

        numbers = tf.data.Dataset.from_tensor_slices(np.array(order, np.int32))
        for parts in numbers.map(lambda number: tf.numpy_function(read, [number], dtypes)).prefetch(1):
            shaped = [tf.ensure_shape(part, [self.window_rows]) for part in parts[:-1]]
            absent = {"labels": None, "weights": None}
            yield Window(**(absent | dict(zip(columns, shaped, strict=True))), num_rows=tf.ensure_shape(parts[-1], []))

    def _read(self, epoch: int, number: int) -> Window:
        start = number * self.window_rows
        num_rows = self.rows_of(number)
        columns = self.rows.read(epoch, start, start + num_rows)
        padding = (0, self.window_rows - num_rows)
        padded = {
            name: None if column is None else np.pad(column, padding, mode="edge")
            for name, column in columns._asdict().items()
        }
        return Window(**padded, num_rows=np.int32(num_rows))


def load_training_data(examples: Path, manifest: Manifest, config: TrainConfig) -> TrainingData:
    """Reads what `config` trains on: positives or ready examples, and the candidates that choose the epoch.

    Args:
        examples: The folder that generate wrote.
        manifest: Its manifest.
        config: The parameters.

    Raises:
        InputError: A file is missing or damaged, no protocol suits the selection, or there are fewer offline epochs
            than are to be trained.
    """
    protocol = _selection_protocol(examples, manifest, config.model_selection)
    selection = read_candidates(examples, manifest, protocol) if protocol else None
    sizes = {"num_users": manifest["num_users"], "num_items": manifest["num_items"]}
    if config.training_records == "offline":
        offline = _offline_rows(examples, manifest, config)
        return TrainingData(offline, None, selection, protocol, **sizes, is_resident=False)
    weights = RecencyWeights(config.recency_decay, config.recency_floor) if config.recency_decay else None
    features = read_positives(examples, manifest, _FEATURES + ((_RECENCY,) if weights else ()))
    validation = None if config.model_selection == "validation" else _read_validation_items(examples)
    if weights is not None:
        weights = weights.scaled_over(_recencies(features, validation))
    columns = _columns_of_positives(features, validation, weights)
    del features
    seen = build_seen_items(columns.users, columns.items, manifest["num_users"], manifest["num_items"])
    size_mb = sum(column.nbytes for column in columns if column is not None) / 2**20
    if size_mb <= config.device_data_limit_mb:
        return TrainingData(ArrayRows(columns), seen, selection, protocol, **sizes)
    _LOG.info(
        "%d positives take %.0f MB, more than train.device_data_limit_mb %d: they are read window by window",
        len(columns.users), size_mb, config.device_data_limit_mb,
    )  # fmt: skip
    rows = RecordRows(RecordIndex(examples, manifest, "positives"), validation, weights)
    return TrainingData(rows, seen, selection, protocol, **sizes, is_resident=False)


def _read_validation_items(examples: Path) -> Columns:
    table = read_table(examples, "held_out", pq.read_table)
    return Columns(*(table[name].to_numpy().astype(np.int32) for name in ("user_id", "validation_item_id")))


def _columns_of_positives(
    features: Mapping[str, NDArray[Any]], validation: Columns | None, weights: RecencyWeights | None
) -> Columns:
    """Puts the validation items, which are later than all positives of their users, behind the positives."""
    users, items = (features[name].astype(np.int32) for name in _FEATURES)
    if validation is not None:
        users, items = np.concatenate([users, validation.users]), np.concatenate([items, validation.items])
    return Columns(users, items, weights=weights.of(_recencies(features, validation)) if weights else None)


def _recencies(features: Mapping[str, NDArray[Any]], validation: Columns | None) -> NDArray[Any]:
    recencies = features[_RECENCY]
    return recencies if validation is None else np.append(recencies + 1, np.zeros(len(validation.users), np.int32))


def _selection_protocol(examples: Path, manifest: Manifest, model_selection: str) -> str:
    if model_selection == "validation":
        return "validation"
    if model_selection == "last":
        return ""
    available = [name for name in _TEST_PROTOCOLS if name in manifest["protocols"]]
    if not available:
        raise InputError(
            f"{examples} has no candidates for the test item, which train.model_selection {model_selection} needs: "
            "generate it with the protocol loo-99, or select on validation."
        )
    return available[0]


def _offline_rows(examples: Path, manifest: Manifest, config: TrainConfig) -> OfflineRows:
    available = manifest["num_train_epochs"]
    if available < config.num_epochs:
        raise InputError(
            f"{examples} holds {available} offline epochs and train.num_epochs is {config.num_epochs}: lower it, "
            f"generate with --offline-epochs {config.num_epochs}, or set train.training_records to positives."
        )
    if config.model_selection != "validation":
        raise InputError(
            f"train.model_selection {config.model_selection} trains on the validation items too, which offline epochs "
            "do not hold: select on validation, or set train.training_records to positives."
        )
    epochs = [RecordIndex(examples, manifest, f"training_cycle_{epoch}") for epoch in range(config.num_epochs)]
    return OfflineRows(epochs, manifest["num_train_elements"])


def _to_tensor(part: Any) -> tf.Tensor | None:
    return None if part is None else tf.convert_to_tensor(part)
