"""TFRecord files of `tf.train.Example` without TensorFlow: whole columns are encoded at once, in numpy.

Formats: https://www.tensorflow.org/tutorials/load_data/tfrecord and
https://protobuf.dev/programming-guides/encoding. An Example holds int64 lists only, its features in the order of
their names: equal columns give equal bytes.
"""

import hashlib
import itertools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from components.ncf.errors import InputError

Crc32c = Callable[[bytes], int]

# Tags of the fields on the way down: Example.features, Features.feature (a map entry: key and value),
# Feature.int64_list, Int64List.value (packed). All have wire type 2 (length-delimited).
_FEATURES, _ENTRY, _KEY, _VALUE, _INT64_LIST, _PACKED = b"\x0a", b"\x0a", b"\x0a", b"\x12", b"\x1a", b"\x0a"
# A constant that TFRecord adds to a rotated checksum, from tensorflow/core/lib/hash/crc32c.h.
_MASK_DELTA = 0xA282EAD8
_HEADER_BYTES, _FOOTER_BYTES = 12, 4
# Where more than one value in so many is 0, cutting at every 0 costs more than it saves (measured).
_MANY_ZEROS = 16


def encode_varints(values: NDArray[Any]) -> bytes:
    """Encodes integers as consecutive base-128 varints: seven bits a byte, the lowest first.

    Args:
        values: Integers [n] in [0, 2**56).
    """
    greatest = int(values.max(initial=0))
    if greatest >= 1 << 56 or int(values.min(initial=0)) < 0:
        raise ValueError(f"values between {values.min()} and {greatest} do not fit the records' range [0, 2**56)")
    if greatest < 1 << 7:
        return values.astype(np.uint8).tobytes()
    word: Any = np.dtype("<u4") if greatest < 1 << 28 else np.dtype("<u8")
    bits = values.astype(word)
    words = bits & word.type(0x7F)
    for byte in range(1, -(-greatest.bit_length() // 7)):
        words |= (bits & word.type(0x7F << 7 * byte)) << word.type(byte)
        words |= (bits >= word.type(1 << 7 * byte)).astype(word) << word.type(8 * byte - 1)
    zeros = np.flatnonzero(values == 0)
    if len(zeros) * _MANY_ZEROS > len(values):
        num_bytes = np.ones(len(values), np.uint8)
        for byte in range(1, word.itemsize):
            num_bytes += bits >= word.type(1 << 7 * byte)
        is_used = np.arange(word.itemsize) < num_bytes[:, None]
        return bytes(words.view(np.uint8).reshape(-1, word.itemsize)[is_used])
    # A word's unused bytes are zero, and no varint but that of 0 has a zero byte: dropping the zeros of everything
    # between two zero values leaves the varints, four times as fast as the boolean index above.
    padded = words.tobytes()
    cuts = [0, *(zeros * word.itemsize).tolist(), len(padded)]
    return b"\0".join(padded[start:end].translate(None, b"\0") for start, end in itertools.pairwise(cuts))


def decode_varints(data: bytes) -> NDArray[np.int64]:
    """Decodes consecutive varints into int64 [n]."""
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if not len(ends):
        return np.zeros(0, np.int64)
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    values: NDArray[np.int64] = (raw[starts] & 0x7F).astype(np.int64)
    for place in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > place)
        values[longer] |= (raw[starts[longer] + place].astype(np.int64) & 0x7F) << (7 * place)
    return values


def encode_example(features: Mapping[str, NDArray[Any]]) -> bytes:
    """Serializes one `tf.train.Example` of int64 lists.

    Args:
        features: Name to integers [n] in [0, 2**56).
    """
    parts: list[bytes] = []
    num_bytes = 0
    for name in sorted(features, reverse=True):
        key, packed = name.encode(), encode_varints(features[name])
        # Each header counts the bytes of what it stands before; nothing large is copied until all are known.
        packed_header = _header(_PACKED, len(packed))
        list_header = _header(_INT64_LIST, len(packed_header) + len(packed))
        value_header = _header(_VALUE, len(list_header) + len(packed_header) + len(packed))
        entry = _header(_KEY, len(key)) + key + value_header + list_header + packed_header
        entry = _header(_ENTRY, len(entry) + len(packed)) + entry
        parts += [packed, entry]
        num_bytes += len(entry) + len(packed)
    parts.append(_header(_FEATURES, num_bytes))
    return b"".join(reversed(parts))


def decode_example(record: bytes) -> dict[str, NDArray[np.int64]]:
    """Reads what `encode_example` wrote: name to int64 [n]."""
    features: dict[str, NDArray[np.int64]] = {}
    (example,) = _fields(record)
    for entry in _fields(example):
        name, feature = _fields(entry)
        (int64_list,) = _fields(feature)
        (packed,) = _fields(int64_list)
        features[name.decode()] = decode_varints(packed)
    return features


def masked_crc32c(data: bytes, crc32c: Crc32c) -> int:
    """Returns TFRecord's checksum of `data`: its CRC-32C, rotated and shifted so that it may be checksummed itself."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@dataclass(frozen=True)
class RecordFile:
    """A finished file.

    Attributes:
        num_records: Examples in it.
        sha256: Hexadecimal digest of its bytes.
    """

    num_records: int
    sha256: str


class RecordWriter:
    """Writes the records of one TFRecord file and digests it on the way."""

    def __init__(self, stream: IO[bytes], crc32c: Crc32c) -> None:
        """Takes what returns the CRC-32C of bytes too, for example `google_crc32c.value`."""
        self._stream = stream
        self._crc32c = crc32c
        self._digest = hashlib.sha256(usedforsecurity=False)
        self._num_records = 0

    def write(self, record: bytes) -> None:
        """Appends one record."""
        length = struct.pack("<Q", len(record))
        header = length + struct.pack("<I", masked_crc32c(length, self._crc32c))
        footer = struct.pack("<I", masked_crc32c(record, self._crc32c))
        for part in (header, record, footer):
            self._stream.write(part)
            self._digest.update(part)
        self._num_records += 1

    def finish(self) -> RecordFile:
        """Describes what was written."""
        return RecordFile(self._num_records, self._digest.hexdigest())


def read_records(path: Path, crc32c: Crc32c | None = None) -> Iterator[bytes]:
    """Yields the records of a TFRecord file.

    Args:
        path: The file.
        crc32c: Checks each record's checksum when given.

    Raises:
        InputError: The file ends inside a record, or a checksum is wrong.
    """
    with path.open("rb") as stream:
        while header := stream.read(_HEADER_BYTES):
            length = int.from_bytes(header[:8], "little")
            record, footer = stream.read(length), stream.read(_FOOTER_BYTES)
            if len(header) + len(record) + len(footer) != _HEADER_BYTES + length + _FOOTER_BYTES:
                raise InputError(f"{path} ends inside a record: run the step that writes it again.")
            if crc32c is not None and masked_crc32c(record, crc32c) != int.from_bytes(footer, "little"):
                raise InputError(f"{path} holds a record with a wrong checksum: run the step that writes it again.")
            yield record


def read_examples(path: Path, crc32c: Crc32c | None = None) -> Iterator[dict[str, NDArray[np.int64]]]:
    """Yields the Examples of a TFRecord file, each as name to int64 [n]; arguments as in `read_records`."""
    for record in read_records(path, crc32c):
        yield decode_example(record)


def record_places(path: Path) -> list[int]:
    """Returns where each record of a TFRecord file begins, found without reading their content.

    Raises:
        InputError: The file ends inside a record.
    """
    size, place, places = path.stat().st_size, 0, []
    with path.open("rb") as stream:
        while place < size:
            places.append(place)
            stream.seek(place)
            place += _HEADER_BYTES + int.from_bytes(stream.read(8), "little") + _FOOTER_BYTES
    if place != size:
        raise InputError(f"{path} ends inside a record: run the step that writes it again.")
    return places


def read_example_at(path: Path, place: int) -> dict[str, NDArray[np.int64]]:
    """Reads the Example that begins at a place that `record_places` gave: name to int64 [n]."""
    with path.open("rb") as stream:
        stream.seek(place)
        length = int.from_bytes(stream.read(_HEADER_BYTES)[:8], "little")
        return decode_example(stream.read(length))


def _header(tag: bytes, length: int) -> bytes:
    """Returns a length-delimited field up to its content."""
    codes = bytearray(tag)
    while length >= 0x80:
        codes.append(length & 0x7F | 0x80)
        length >>= 7
    codes.append(length)
    return bytes(codes)


def _fields(message: bytes) -> list[bytes]:
    """Returns the values of a message's fields, all of which must be length-delimited."""
    values, place = [], 0
    while place < len(message):
        length, shift = 0, 0
        place += 1
        while True:
            byte = message[place]
            length |= (byte & 0x7F) << shift
            place, shift = place + 1, shift + 7
            if byte < 0x80:
                break
        values.append(message[place : place + length])
        place += length
    return values
