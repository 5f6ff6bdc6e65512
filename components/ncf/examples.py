"""Reads the record files of an `examples` folder into arrays, with numpy alone.

The decoder understands exactly what these files hold: TFRecord frames of tf.train.Example messages whose features
are packed int64 lists. Every file is checked against the sha256 of the manifest before it is decoded.
"""

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.ncf.errors import InputError
from components.ncf.manifest import Manifest

# TFRecord framing: uint64 length, uint32 CRC of the length, the record, uint32 CRC of the record.
_HEADER_BYTES = 12
_FOOTER_BYTES = 4


@dataclass(frozen=True)
class Candidates:
    """What each user's held-out item is ranked against.

    Attributes:
        users: int32 [num_users], dense, ascending.
        items: int32 [num_users, num_candidates], without the held-out item.
        positives: int32 [num_users], the held-out item.
        duplicate_mask: bool [num_users, num_candidates], True where a candidate must not be counted.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    positives: NDArray[np.int32]
    duplicate_mask: NDArray[np.bool_]


def read_positives(folder: Path, manifest: Manifest) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Reads the training positives.

    Returns:
        Users and items, each int32 [num_positives], in the order of the files.
    """
    blocks = [
        (features["user_id"].astype(np.int32), features["item_id"].astype(np.int32))
        for features in _read_examples(folder, manifest, "positives")
    ]
    users, items = zip(*blocks, strict=True)
    return np.concatenate(users), np.concatenate(items)


def read_candidates(folder: Path, manifest: Manifest, protocol: str) -> Candidates:
    """Reads the candidates of one protocol, or those of the validation item ("validation").

    Raises:
        InputError: The folder holds no candidates of this protocol, or a file is damaged.
    """
    description = manifest["protocols"].get(protocol)
    if description is None:
        raise InputError(
            f"{folder} holds no candidates for the protocol {protocol!r}, only for "
            f"{', '.join(manifest['protocols'])}: generate it again with that protocol."
        )
    group_size = description["num_candidates"] + 1
    users, items, masks = [], [], []
    for features in _read_examples(folder, manifest, description["folder"]):
        users.append(features["user_id"].astype(np.int32).reshape(-1, group_size)[:, 0])
        items.append(features["item_id"].astype(np.int32).reshape(-1, group_size))
        masks.append(features["duplicate_mask"].astype(np.bool_).reshape(-1, group_size)[:, :-1])
    all_users, all_items, all_masks = np.concatenate(users), np.concatenate(items), np.concatenate(masks)
    # Only a padding user has every candidate masked: a real one has at least one unseen item.
    order = np.flatnonzero(~all_masks.all(axis=1))
    order = order[np.argsort(all_users[order], kind="stable")]
    grouped = all_items[order]
    return Candidates(all_users[order], grouped[:, :-1], grouped[:, -1], all_masks[order])


def _read_examples(folder: Path, manifest: Manifest, subfolder: str) -> Iterator[dict[str, NDArray[np.int64]]]:
    files = [entry for entry in manifest["files"] if Path(entry["path"]).parts[0] == subfolder]
    if not files:
        raise InputError(f"{folder} lists no files under {subfolder}/: run generate again.")
    for entry in files:
        path = folder / entry["path"]
        try:
            with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if hashlib.sha256(data).hexdigest() != entry["sha256"]:
                    raise InputError(f"{path} differs from its sha256 in the manifest: run generate again.")
                yield from (decode_int64_lists(record) for record in _split_frames(data))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}): run generate again.") from error


def _split_frames(data: mmap.mmap) -> Iterator[bytes]:
    offset = 0
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + 8], "little")
        start = offset + _HEADER_BYTES
        yield data[start : start + length]
        offset = start + length + _FOOTER_BYTES


def decode_int64_lists(serialized: bytes) -> dict[str, NDArray[np.int64]]:
    """Decodes one tf.train.Example of packed int64 lists.

    Args:
        serialized: The message.

    Returns:
        The features by name, each int64 [n].
    """
    # Field numbers from tensorflow/core/example/{example,feature}.proto: Example.features = 1, Features.feature = 1
    # (a map: key = 1, value = 2), Feature.int64_list = 3, Int64List.value = 1.
    features = {}
    (feature_map,) = _length_delimited_fields(memoryview(serialized))[1]
    for pair in _length_delimited_fields(feature_map)[1]:
        fields = _length_delimited_fields(pair)
        (int64_list,) = _length_delimited_fields(fields[2][0])[3]
        (packed,) = _length_delimited_fields(int64_list).get(1, [memoryview(b"")])
        features[bytes(fields[1][0]).decode()] = _decode_varints(packed)
    return features


def _length_delimited_fields(message: memoryview) -> dict[int, list[memoryview]]:
    fields: dict[int, list[memoryview]] = {}
    offset = 0
    while offset < len(message):
        tag = message[offset]
        if tag & 7 != 2:
            raise ValueError(f"wire type {tag & 7} where a length-delimited field is expected")
        length, shift, offset = 0, 0, offset + 1
        while True:
            byte = message[offset]
            length |= (byte & 0x7F) << shift
            shift, offset = shift + 7, offset + 1
            if byte < 0x80:
                break
        fields.setdefault(tag >> 3, []).append(message[offset : offset + length])
        offset += length
    return fields


def _decode_varints(packed: memoryview) -> NDArray[np.int64]:
    raw = np.frombuffer(packed, np.uint8)
    if raw.size == 0:
        return np.empty(0, np.int64)
    ends = np.flatnonzero(raw < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    values: NDArray[np.int64] = (raw[starts] & 0x7F).astype(np.int64)
    for byte_index in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > byte_index)
        values[longer] |= (raw[starts[longer] + byte_index].astype(np.int64) & 0x7F) << (7 * byte_index)
    return values
