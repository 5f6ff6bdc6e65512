"""Offline training epochs: what is in them, and that TensorFlow reads them as the official trainer does."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from scipy import stats

from components.generate.config import GenerateConfig
from components.generate.generate import generate
from components.generate.offline_epochs import EpochLayout, first_rows_of, share_of
from components.ncf.counter_random import Stream, derive_key
from components.ncf.errors import InputError
from components.ncf.interactions import ItemLists, offsets_of
from components.ncf.leave_one_out import LeaveOneOut
from components.ncf.manifest import Manifest, read_manifest
from components.train.negative_sampler import build_seen_items, sample_train_negatives

Row = tuple[Any, Any, float, int]
Rows = dict[str, np.ndarray]

PREBATCH_SIZE = 700
NUM_EPOCHS = 3


@pytest.fixture(scope="module")
def examples(
    rows: list[Row], write_ratings_below: Any, config: GenerateConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("offline")
    config = replace(config, offline_epochs=NUM_EPOCHS, train_prebatch_size=PREBATCH_SIZE)
    generate(config, write_ratings_below(folder, rows), folder / "examples")
    return folder / "examples"


@pytest.fixture(scope="module")
def manifest(examples: Path) -> Manifest:
    return read_manifest(examples, "examples")


@pytest.fixture(scope="module")
def epochs(examples: Path) -> list[list[dict[str, np.ndarray]]]:
    """The Examples of each epoch, read by TensorFlow with the shapes of the official trainer."""
    spec = {
        name: tf.io.FixedLenFeature([PREBATCH_SIZE, 1], tf.int64)
        for name in ("user_id", "item_id", "valid_point_mask", "labels")
    }

    def read(epoch: int) -> list[dict[str, np.ndarray]]:
        files = sorted(str(path) for path in (examples / f"training_cycle_{epoch}").iterdir())
        parsed = tf.data.TFRecordDataset(files).map(lambda record: tf.io.parse_single_example(record, spec))
        return [{name: values[:, 0] for name, values in example.items()} for example in parsed.as_numpy_iterator()]

    return [read(epoch) for epoch in range(NUM_EPOCHS)]


def valid_rows(prebatches: list[dict[str, np.ndarray]]) -> Rows:
    columns = {name: np.concatenate([example[name] for example in prebatches]) for name in prebatches[0]}
    is_valid = columns["valid_point_mask"] == 1
    return {name: values[is_valid] for name, values in columns.items()}


def pairs(rows: Rows, label: int) -> list[tuple[int, int]]:
    chosen = rows["labels"] == label
    return list(zip(rows["user_id"][chosen].tolist(), rows["item_id"][chosen].tolist(), strict=True))


@pytest.fixture(scope="module")
def positives(examples: Path, read_column_files: Any) -> set[tuple[int, int]]:
    return {
        pair
        for example in read_column_files(examples, "positives")
        for pair in zip(example["user_id"], example["item_id"], strict=True)
    }


def test_every_positive_is_in_every_epoch_exactly_once(
    epochs: list[list[dict[str, np.ndarray]]], positives: set[tuple[int, int]]
) -> None:
    for prebatches in epochs:
        found = pairs(valid_rows(prebatches), 1)
        assert len(found) == len(set(found))
        assert set(found) == positives


def test_each_user_has_four_negatives_a_positive_and_none_of_them_is_a_positive(
    epochs: list[list[dict[str, np.ndarray]]], positives: set[tuple[int, int]]
) -> None:
    per_user = Counter(user for user, _ in positives)
    for prebatches in epochs:
        negatives = pairs(valid_rows(prebatches), 0)
        assert not positives & set(negatives)
        assert Counter(user for user, _ in negatives) == {user: 4 * count for user, count in per_user.items()}


def test_the_held_out_items_are_no_positives(examples: Path, epochs: list[list[dict[str, np.ndarray]]]) -> None:
    held_out = pq.read_table(examples / "held_out.parquet").to_pydict()
    for name in ("validation_item_id", "test_item_id"):
        taken = set(zip(held_out["user_id"], held_out[name], strict=True))
        assert not taken & set(pairs(valid_rows(epochs[0]), 1))


def test_negatives_are_uniform_over_the_items_that_are_no_positives(
    rows: list[Row], write_ratings: Any, config: GenerateConfig, tmp_path: Path, read_column_files: Any
) -> None:
    """Many draws: forty negatives a positive. The user with 130 items leaves only a third of the catalogue."""
    config = replace(config, offline_epochs=1, num_offline_negatives=40, train_prebatch_size=5_000)
    generate(config, write_ratings(rows), tmp_path / "out")
    num_items = read_manifest(tmp_path / "out", "examples")["num_items"]
    columns: dict[str, list[int]] = {"user_id": [], "item_id": [], "labels": [], "valid_point_mask": []}
    for example in read_column_files(tmp_path / "out", "training_cycle_0"):
        for name, values in columns.items():
            values += example[name]
    arrays = {name: np.array(values) for name, values in columns.items()}
    found = {name: values[arrays["valid_point_mask"] == 1] for name, values in arrays.items()}
    users = np.unique(found["user_id"])
    pvalues = []
    for user in users.tolist():
        mine = found["user_id"] == user
        seen = np.unique(found["item_id"][mine & (found["labels"] == 1)])
        counts = np.bincount(found["item_id"][mine & (found["labels"] == 0)], minlength=num_items)
        pvalues.append(stats.chisquare(np.delete(counts, seen)).pvalue)
    assert len(pvalues) > 100
    # Exact draws give uniform p-values; a bias that no single user shows would push them together.
    assert stats.kstest(pvalues, "uniform").pvalue > 1e-3


def test_epochs_have_negatives_and_an_order_of_their_own(epochs: list[list[dict[str, np.ndarray]]]) -> None:
    for one, other in ((0, 1), (1, 2), (0, 2)):
        first, second = valid_rows(epochs[one]), valid_rows(epochs[other])
        assert np.mean(first["user_id"] == second["user_id"]) < 0.1
        drawn, drawn_again = Counter(pairs(first, 0)), Counter(pairs(second, 0))
        # Two independent draws of a sixth of the unseen items or less share about as large a part.
        assert (drawn & drawn_again).total() < 0.5 * drawn.total()


def test_positives_and_negatives_are_mixed_all_over_the_epoch(epochs: list[list[dict[str, np.ndarray]]]) -> None:
    for prebatches in epochs:
        shares = [example["labels"].mean() for example in prebatches[:-1]]
        # A fifth of 700 independent rows: a standard deviation of .015.
        assert len(shares) > 10
        assert np.all(np.abs(np.array(shares) - 0.2) < 0.075)
    labels = np.concatenate([example["labels"] for example in epochs[0][:-1]])
    assert abs(np.corrcoef(labels[1:], labels[:-1])[0, 1]) < 0.05


def test_only_the_last_prebatch_is_padded_and_its_padding_counts_for_nothing(
    epochs: list[list[dict[str, np.ndarray]]], manifest: Manifest, positives: set[tuple[int, int]]
) -> None:
    num_rows = 5 * len(positives)
    num_padding = -num_rows % PREBATCH_SIZE
    assert num_padding > 2
    for prebatches in epochs:
        masks = np.concatenate([example["valid_point_mask"] for example in prebatches])
        assert masks.tolist() == [1] * num_rows + [0] * num_padding
        last = prebatches[-1]
        assert not last["labels"][-num_padding:].any()
        assert last["user_id"][-num_padding:].tolist() == [n % manifest["num_users"] for n in range(num_padding)]
        assert last["item_id"][-num_padding:].tolist() == [n % manifest["num_items"] for n in range(num_padding)]


def test_the_manifest_has_the_official_keys(
    examples: Path, manifest: Manifest, epochs: list[list[dict[str, np.ndarray]]], positives: set[tuple[int, int]]
) -> None:
    assert manifest["num_train_epochs"] == NUM_EPOCHS
    assert manifest["num_train_elements"] == 5 * len(positives)
    assert manifest["train_prebatch_size"] == PREBATCH_SIZE
    assert {len(prebatches) for prebatches in epochs} == {manifest["num_train_steps"]}
    assert manifest["num_eval_elements"] == 1_000 * manifest["num_users"]
    num_eval = sum(1 for path in (examples / "eval").iterdir() for _ in tf.data.TFRecordDataset(str(path)))
    assert manifest["num_eval_steps"] == num_eval
    listed = {entry["path"]: entry["num_rows"] for entry in manifest["files"]}
    for epoch in range(NUM_EPOCHS):
        folder = examples / f"training_cycle_{epoch}"
        # The official trainer takes every file there for records.
        assert sorted(f"training_cycle_{epoch}/{path.name}" for path in folder.iterdir()) == sorted(
            name for name in listed if name.startswith(f"training_cycle_{epoch}/")
        )
        assert len(list(folder.iterdir())) == 3


def test_shards_move_the_rows_of_an_epoch_but_change_neither_rows_nor_order(
    rows: list[Row], write_ratings: Any, config: GenerateConfig, tmp_path: Path, read_column_files: Any
) -> None:
    ratings = write_ratings(rows)
    config = replace(config, protocols=("loo-99",), offline_epochs=1)
    for num_shards in (1, 4):
        generate(replace(config, num_shards=num_shards), ratings, tmp_path / str(num_shards))
    one, four = (read_column_files(tmp_path / name, "training_cycle_0") for name in ("1", "4"))
    assert len(list((tmp_path / "4" / "training_cycle_0").iterdir())) == 4
    assert one == four


@pytest.mark.parametrize(
    ("num_rows", "prebatch_size", "num_files", "rows_of_files"),
    [
        (10, 3, 2, [6, 4]),
        (12, 3, 4, [3, 3, 3, 3]),
        (12, 3, 3, [6, 6]),
        (1, 1_000, 16, [1]),
        (7, 1, 100, [1] * 7),
        (1 << 32, 1 << 24, 3, [86 << 24, 86 << 24, 84 << 24]),
    ],
)
def test_files_hold_whole_prebatches(
    num_rows: int, prebatch_size: int, num_files: int, rows_of_files: list[int]
) -> None:
    layout = EpochLayout.of(num_rows, prebatch_size, num_files)
    assert [layout.num_rows_of(file) for file in range(layout.num_files)] == rows_of_files
    ends = np.cumsum(rows_of_files)
    boundaries = np.concatenate([ends - rows_of_files, ends - 1]).astype(np.uint32)
    assert layout.file_of(boundaries).tolist() == [*range(len(rows_of_files))] * 2


def test_partitions_number_their_positives_without_gaps_whatever_their_number() -> None:
    users = np.array([0, 1, 2, 5, 6], np.int32)
    hashes = np.array([70, 20, 90, 20, 4_000_000_000], np.uint32)
    lengths = np.array([5, 3, 4, 6, 3])

    def split_of(some: list[int]) -> LeaveOneOut:
        seen = ItemLists(offsets_of(lengths[some]), np.zeros(lengths[some].sum(), np.int32))
        is_train = np.concatenate([np.arange(length) >= 2 for length in lengths[some]])
        recencies = np.zeros(is_train.sum(), np.int32)
        return LeaveOneOut(users[some], seen, is_train, users[some], users[some], recencies)

    # By hash and then by user: 1 (1 positive), 5 (4), 0 (3), 2 (2), 6 (1).
    expected = np.array([5, 0, 8, 1, 10])
    for partitions in ([[0, 1, 2, 3, 4]], [[1, 3], [0, 2], [4]], [[4], [0, 2], [1, 3]]):
        shares = [share_of(split_of(some), hashes[some]) for some in partitions]
        for some in partitions:
            assert first_rows_of(split_of(some), hashes[some], shares).tolist() == expected[some].tolist()


def test_an_epoch_that_no_position_can_count_is_refused() -> None:
    with pytest.raises(InputError, match="4294967297 rows is too long: at most"):
        EpochLayout.of((1 << 32) + 1, 99_000, 4)


def test_the_draws_are_those_of_the_training_loop(
    epochs: list[list[dict[str, np.ndarray]]], config: GenerateConfig, manifest: Manifest
) -> None:
    """From the same seed, whoever trains on offline epochs trains on the rows that the loop draws on the device."""
    rows = valid_rows(epochs[1])
    users, items = (np.array(column, np.int32) for column in zip(*pairs(rows, 1), strict=True))
    seen = build_seen_items(users, items, manifest["num_users"], manifest["num_items"])
    key = tf.constant(derive_key(config.seed, Stream.TRAIN_NEGATIVES, 1), tf.uint32)
    drawn = sample_train_negatives(seen, key, tf.constant(users), tf.constant(items), 4).numpy()
    expected = Counter(zip(np.repeat(users, 4).tolist(), drawn.ravel().tolist(), strict=True))
    assert Counter(pairs(rows, 0)) == expected
