import hashlib
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.ncf.errors import InputError
from components.ncf.records import (
    RecordWriter,
    decode_example,
    decode_varints,
    encode_example,
    encode_varints,
    read_examples,
    read_records,
)

# Values around every change of a varint's length, and many zeros.
values_of_varints = st.one_of(
    st.just(0),
    st.integers(0, 127),
    st.sampled_from([bound + step for power in range(7, 56, 7) for bound in (1 << power,) for step in (-1, 0, 1)]),
    st.integers(0, (1 << 56) - 1),
)


def as_tensorflow_writes(features: dict[str, list[int]]) -> bytes:
    example = tf.train.Example()
    for name, values in features.items():
        example.features.feature[name].int64_list.value.extend(values)
    serialized = example.SerializeToString(deterministic=True)
    assert isinstance(serialized, bytes)
    return serialized


@settings(max_examples=300, deadline=None)
@given(
    st.lists(values_of_varints, min_size=1, max_size=60),
    st.lists(st.integers(0, 300), min_size=1, max_size=60),
    st.lists(st.integers(0, 1), min_size=1, max_size=300),
)
def test_an_example_has_the_bytes_that_tensorflow_writes(users: list[int], items: list[int], mask: list[int]) -> None:
    # Given in another order than that of the names.
    features = {"user_id": users, "duplicate_mask": mask, "item_id": items}
    encoded = encode_example({name: np.array(values) for name, values in features.items()})
    assert encoded == as_tensorflow_writes(features)
    parsed = tf.train.Example.FromString(encoded)
    assert {name: list(feature.int64_list.value) for name, feature in parsed.features.feature.items()} == features
    assert {name: values.tolist() for name, values in decode_example(encoded).items()} == features


@pytest.mark.parametrize("share_of_zeros", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("greatest", [127, 128, 16_383, 16_384, 2_097_152, 2**28 - 1, 2**28, 2**56 - 1])
def test_large_columns_survive_the_round_trip(greatest: int, share_of_zeros: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(1, greatest, 20_000, endpoint=True)
    values[rng.random(20_000) < share_of_zeros] = 0
    encoded = encode_example({"item_id": values})
    assert list(tf.train.Example.FromString(encoded).features.feature["item_id"].int64_list.value) == values.tolist()
    assert np.array_equal(decode_varints(encode_varints(values)), values)


def test_masks_and_small_integers_of_any_type_are_encoded() -> None:
    for dtype in (np.bool_, np.uint8, np.int32, np.int64):
        assert encode_varints(np.array([0, 1, 1, 0], dtype)) == b"\0\1\1\0"
    assert encode_varints(np.array([300], np.int32)) == b"\xac\x02"
    assert encode_varints(np.zeros(0, np.int64)) == b""


@pytest.mark.parametrize("value", [-1, 1 << 56])
def test_values_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        encode_varints(np.array([3, value]))


def write_pairs(path: Path, num_records: int) -> list[dict[str, list[int]]]:
    written = [{"user_id": [n] * 3, "item_id": [n, 200 * n, 5]} for n in range(num_records)]
    with path.open("wb") as stream:
        writer = RecordWriter(stream, google_crc32c.value)
        for features in written:
            writer.write(encode_example({name: np.array(values) for name, values in features.items()}))
    return written


def test_tensorflow_reads_the_file_and_checks_its_checksums(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tfrecord"
    written = write_pairs(path, 5)
    spec = {name: tf.io.FixedLenFeature([3, 1], tf.int64) for name in ("user_id", "item_id")}
    # TFRecordDataset raises DataLossError on a wrong checksum.
    parsed = [tf.io.parse_single_example(record, spec) for record in tf.data.TFRecordDataset(str(path))]
    assert [{name: value.numpy()[:, 0].tolist() for name, value in features.items()} for features in parsed] == written
    assert [{name: value.tolist() for name, value in features.items()} for features in read_examples(path)] == written


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "one.tfrecord"
    with path.open("wb") as stream:
        writer = RecordWriter(stream, google_crc32c.value)
        writer.write(b"abc")
        writer.write(b"")
    assert writer.finish().num_records == 2
    assert writer.finish().sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(read_records(path, google_crc32c.value)) == [b"abc", b""]


def test_a_truncated_or_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tfrecord"
    write_pairs(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    with pytest.raises(InputError, match="ends inside a record"):
        list(read_examples(path))
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(InputError, match="wrong checksum"):
        list(read_records(path, google_crc32c.value))
