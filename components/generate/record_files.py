"""Writes the record files: shuffled positives, evaluation pre-batches and offline training epochs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from components.generate.blocks import FileReport, Positives, UsersToRank
from components.generate.offline_epochs import EpochLayout, OfflineRows, prebatches
from components.generate.protocols import Protocol
from components.generate.storage import join, writing_file
from components.ncf.counter_random import Stream, derive_key, threefry2x32, uniform_integers
from components.ncf.negatives import duplicate_mask, sample_distinct, sample_with_replacement
from components.ncf.records import RecordWriter, encode_example

POSITIVES_FOLDER = "positives"
ROWS_PER_EXAMPLE = 8_192

# Bounds the rows that are drawn at a time, so that they stay in the processor's cache.
_CANDIDATE_ROWS_AT_A_TIME = 1 << 17
_KEYS_AT_A_TIME = 1 << 15


def shuffle_keys(positives: Positives, seed: int) -> NDArray[np.uint64]:
    """Returns each row's place in the global shuffle, uint64 [num_rows], a function of (seed, user, item) alone."""
    key = derive_key(seed, Stream.SHUFFLE)
    keys = np.empty(len(positives.users), np.uint64)
    for start in range(0, len(keys), _KEYS_AT_A_TIME):
        rows = slice(start, start + _KEYS_AT_A_TIME)
        high, low = threefry2x32(key, (positives.users[rows], positives.items[rows]))
        keys[rows] = (high.astype(np.uint64) << np.uint64(32)) | low
    return keys


def shard_of_keys(keys: NDArray[np.uint64], num_shards: int) -> NDArray[np.int64]:
    """Returns the shard that each place belongs to, int64 [num_rows]: ascending shards hold ascending places."""
    return uniform_integers((keys >> np.uint64(32)).astype(np.uint32), num_shards)


def shuffle_order(keys: NDArray[np.uint64], positives: Positives) -> NDArray[np.int64]:
    """Returns the rows in ascending order of their places, int64 [num_rows]."""
    order = np.argsort(keys)
    ordered = keys[order]
    if np.any(ordered[1:] == ordered[:-1]):
        # Two rows with the same 64 bits: rare, but their order must not depend on how they came.
        return np.lexsort((positives.items, positives.users, keys))
    return order


def write_positives(folder: str, shard: int, num_shards: int, positives: Positives, seed: int) -> FileReport:
    """Writes one shard of the positives in the order of the global shuffle.

    Args:
        folder: The artifact's (partial) folder.
        shard: In [0, num_shards).
        num_shards: Part of the file's name.
        positives: The shard's rows, in any order.
        seed: The step's seed.
    """
    order = shuffle_order(shuffle_keys(positives, seed), positives)
    shuffled = positives.take(order)
    columns = {"user_id": shuffled.users, "item_id": shuffled.items, "recency": shuffled.recencies}
    examples = (
        {name: column[start : start + ROWS_PER_EXAMPLE] for name, column in columns.items()}
        for start in range(0, len(order), ROWS_PER_EXAMPLE)
    )
    return _write(folder, f"{POSITIVES_FOLDER}/positives-{shard:05d}-of-{num_shards:05d}.tfrecord", examples)


def write_evaluation(
    folder: str,
    protocol: Protocol,
    file: int,
    num_files: int,
    users: UsersToRank,
    num_items: int,
    eval_prebatch_size: int,
    seed: int,
) -> FileReport:
    """Writes one file of a protocol: an Example per pre-batch, each full, the last one filled with padding users.

    Args:
        folder: The artifact's (partial) folder.
        protocol: How the candidates are chosen.
        file: In [0, num_files).
        num_files: Part of the file's name.
        users: The file's users, ascending: whole pre-batches, but for the last one of all files.
        num_items: Size of the catalogue.
        eval_prebatch_size: Rows of an Example, rounded down to whole users.
        seed: The step's seed.
    """
    users_per_prebatch = protocol.users_per_prebatch(eval_prebatch_size)

    def examples() -> Iterator[dict[str, NDArray[Any]]]:
        for start in range(0, len(users.users), users_per_prebatch):
            places = np.arange(start, min(start + users_per_prebatch, len(users.users)))
            blocks = [_evaluation_rows(protocol, users.take(some), num_items, seed) for some in _cut(places, protocol)]
            blocks.append(_padding_rows(users_per_prebatch - len(places), protocol))
            yield {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}

    return _write(folder, f"{protocol.folder}/{protocol.name}-{file:05d}-of-{num_files:05d}.tfrecord", examples())


def write_offline_epoch(
    folder: str,
    epoch: int,
    file: int,
    blocks: Iterable[OfflineRows],
    layout: EpochLayout,
    num_users: int,
    num_items: int,
) -> FileReport:
    """Writes one file of an offline epoch: an Example per pre-batch, each full, the epoch's last one padded.

    Args:
        folder: The artifact's (partial) folder.
        epoch: Counted from 0.
        file: In [0, layout.num_files).
        blocks: All rows of the file, in any order.
        layout: Of the epoch.
        num_users, num_items: Sizes of the vocabularies.
    """
    name = f"{training_folder(epoch)}/training-{file:05d}-of-{layout.num_files:05d}.tfrecord"
    return _write(folder, name, prebatches(blocks, layout, file, num_users, num_items))


def training_folder(epoch: int) -> str:
    """Returns the folder of an offline epoch, as TensorFlow's official models name it."""
    return f"training_cycle_{epoch}"


def file_of_users(users: NDArray[np.int32], users_per_prebatch: int, num_files: int) -> NDArray[np.int32]:
    """Returns the evaluation file of each dense user: pre-batch b, of consecutive users, goes to file b % num_files."""
    return ((users // users_per_prebatch) % num_files).astype(np.int32)


def _evaluation_rows(protocol: Protocol, block: UsersToRank, num_items: int, seed: int) -> dict[str, NDArray[Any]]:
    """Returns the columns of some users: for each, the candidates, then the positive."""
    candidates = block.candidates
    if candidates is None:
        assert protocol.stream is not None
        sample = sample_distinct if protocol.is_distinct else sample_with_replacement
        key = derive_key(seed, protocol.stream)
        candidates = sample(block.users, block.seen, num_items, protocol.num_candidates, key)
    mask = np.zeros((len(block.users), protocol.rows_per_user), bool)
    mask[:, :-1] = duplicate_mask(candidates, block.positives)
    items = np.concatenate((candidates, block.positives[:, None]), axis=1)
    return {
        "user_id": np.repeat(block.users, protocol.rows_per_user),
        "item_id": items.ravel(),
        "duplicate_mask": mask.ravel(),
    }


def _padding_rows(num_users: int, protocol: Protocol) -> dict[str, NDArray[Any]]:
    """Returns the columns of users who count for nothing: every candidate is marked as a duplicate."""
    mask = np.ones((num_users, protocol.rows_per_user), bool)
    mask[:, -1] = False
    nothing = np.zeros(mask.size, np.int32)
    return {"user_id": nothing, "item_id": nothing, "duplicate_mask": mask.ravel()}


def _cut(places: NDArray[np.int64], protocol: Protocol) -> Iterator[NDArray[np.int64]]:
    step = max(1, _CANDIDATE_ROWS_AT_A_TIME // protocol.rows_per_user)
    for start in range(0, len(places), step):
        yield places[start : start + step]


def _write(folder: str, name: str, examples: Iterable[Mapping[str, NDArray[Any]]]) -> FileReport:
    num_rows = 0
    with writing_file(join(folder, name)) as stream:
        writer = RecordWriter(stream, google_crc32c.value)
        for columns in examples:
            writer.write(encode_example(columns))
            num_rows += len(columns["user_id"])
    return FileReport(name, num_rows, writer.finish().sha256)
