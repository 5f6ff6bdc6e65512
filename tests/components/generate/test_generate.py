"""What generate writes, checked against a slow reference in plain Python and against TensorFlow."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from scipy import stats

from components.generate import beam_pipeline, file_counts
from components.generate.config import GenerateConfig
from components.generate.generate import generate
from components.ncf.counter_random import Stream, derive_key, threefry2x32
from components.ncf.manifest import read_manifest

Row = tuple[Any, Any, float, int]
ReadExamples = Callable[[Path, str], list[dict[str, list[int]]]]


@dataclass
class Reference:
    """What the rows say, in dense indices: {user: items from first to last}."""

    raw_users: list[Any]
    raw_items: list[Any]
    in_order: dict[int, list[int]]


def reference(rows: list[Row], config: GenerateConfig) -> Reference:
    latest: dict[Any, dict[Any, tuple[int, float]]] = defaultdict(dict)
    for user, item, rating, timestamp in rows:
        latest[user][item] = max(latest[user].get(item, (-(1 << 63), 0.0)), (timestamp, rating))
    kept = {user: items for user, items in latest.items() if len(items) >= config.min_ratings}
    raw_users, raw_items = sorted(kept), sorted({item for items in kept.values() for item in items})
    key = derive_key(config.seed, Stream.TIE_BREAK)
    in_order = {}
    for user, raw_user in enumerate(raw_users):
        places = {}
        for raw_item, (timestamp, _) in kept[raw_user].items():
            item = raw_items.index(raw_item)
            places[item] = (timestamp, *(int(word) for word in threefry2x32(key, (user, item))))
        in_order[user] = sorted(places, key=lambda item: places[item])
    return Reference(raw_users, raw_items, in_order)


def users_of(examples: list[dict[str, list[int]]], rows_per_user: int) -> list[tuple[int, list[int], list[int]]]:
    """Cuts Examples into (user, items, mask), checking that each user's rows stand together."""
    result = []
    for example in examples:
        for start in range(0, len(example["user_id"]), rows_per_user):
            rows = slice(start, start + rows_per_user)
            assert len(set(example["user_id"][rows])) == 1
            result.append((example["user_id"][start], example["item_id"][rows], example["duplicate_mask"][rows]))
    return result


def is_padding(mask: list[int]) -> bool:
    return mask == [1] * (len(mask) - 1) + [0]


@pytest.fixture(scope="module")
def examples(
    rows: list[Row], write_ratings_below: Any, config: GenerateConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    generate(config, write_ratings_below(folder, rows), folder / "examples")
    return folder / "examples"


def test_the_files_are_what_the_rows_say(
    rows: list[Row], config: GenerateConfig, examples: Path, read_column_files: ReadExamples
) -> None:
    expected = reference(rows, config)
    assert len(expected.raw_users) < 151, "the rows hold users with too few ratings"
    positives = [
        row
        for example in read_column_files(examples, "positives")
        for row in zip(example["user_id"], example["item_id"], example["recency"], strict=True)
    ]
    train = {(user, item) for user, items in expected.in_order.items() for item in items[:-2]}
    assert len(positives) == len(train)
    assert set(positives) == {
        (user, item, recency)
        for user, items in expected.in_order.items()
        for recency, item in enumerate(reversed(items[:-2]))
    }
    assert pq.read_table(examples / "held_out.parquet").to_pydict() == {
        "user_id": list(expected.in_order),
        "validation_item_id": [items[-2] for items in expected.in_order.values()],
        "test_item_id": [items[-1] for items in expected.in_order.values()],
    }
    assert pq.read_table(examples / "users.parquet").to_pydict() == {
        "user_id": list(expected.in_order),
        "raw_user_id": expected.raw_users,
        "num_train_interactions": [len(items) - 2 for items in expected.in_order.values()],
    }
    titled = set(sorted({row[1] for row in rows})[1:])
    num_train = Counter(item for _, item in train)
    assert min(num_train[item] for item in range(len(expected.raw_items))) == 0, "an item that is only held out"
    assert pq.read_table(examples / "items.parquet").to_pydict() == {
        "item_id": list(range(len(expected.raw_items))),
        "raw_item_id": expected.raw_items,
        "title": [f"Title {item}" if item in titled else None for item in expected.raw_items],
        "genres": ["Drama|Comedy" if item in titled else None for item in expected.raw_items],
        "num_train_interactions": [num_train[item] for item in range(len(expected.raw_items))],
    }


def test_the_tables_of_users_are_cut_by_dense_index_and_read_as_one(
    rows: list[Row], config: GenerateConfig, write_ratings: Any, examples: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(file_counts, "USERS_PER_TABLE_FILE", 60)
    monkeypatch.setattr(beam_pipeline, "ROWS_PER_PARTITION", 500)
    generate(config, write_ratings(rows), tmp_path / "cut")
    num_users = pq.read_table(examples / "users.parquet").num_rows
    for name in ("users", "held_out"):
        folder = tmp_path / "cut" / f"{name}.parquet"
        parts = [folder / f"{name}-{part:05d}-of-00003.parquet" for part in range(3)]
        assert sorted(folder.iterdir()) == parts
        ids = [pq.read_table(part)["user_id"].to_pylist() for part in parts]
        assert ids == [list(range(0, 60)), list(range(60, 120)), list(range(120, num_users))]
        assert pq.read_table(folder).equals(pq.read_table(examples / f"{name}.parquet"))
    assert (tmp_path / "cut" / "card.html").read_text() == (examples / "card.html").read_text()


def test_the_manifest_describes_the_files(rows: list[Row], config: GenerateConfig, examples: Path) -> None:
    expected = reference(rows, config)
    num_users = len(expected.raw_users)
    manifest = read_manifest(examples, "examples")
    assert manifest["dataset"] == "test"
    assert manifest["ratings_digest"] == "abc123"
    assert (manifest["seed"], manifest["min_ratings"]) == (8, 5)
    assert (manifest["num_users"], manifest["num_items"]) == (num_users, len(expected.raw_items))
    num_rows = sum(map(len, expected.in_order.values()))
    assert manifest["num_train_positives"] == num_rows - 2 * num_users
    assert manifest["counts"] == {
        "rows_read": len(rows),
        "rows_distinct": len({row[:2] for row in rows}),
        "rows_kept": num_rows,
        "users_read": 151,
        "users_kept": num_users,
    }
    prebatches = -(-num_users // 4)
    assert (manifest["eval_prebatch_size"], manifest["num_eval_steps"]) == (4_000, prebatches)
    assert manifest["num_eval_elements"] == num_users * 1_000
    assert manifest["num_train_epochs"] == manifest["num_train_steps"] == 0
    small = {"num_candidates": 99, "prebatch_size": 4_000, "num_rows": -(-num_users // 40) * 4_000}
    assert manifest["protocols"] == {
        "loo-99": {"folder": "eval_loo-99", "num_users": num_users, **small},
        "loo-999-masked": {
            "folder": "eval",
            "num_candidates": 999,
            "prebatch_size": 4_000,
            "num_rows": prebatches * 4_000,
            "num_users": num_users,
        },
        "validation": {"folder": "validation", "num_users": num_users, **small},
    }
    on_disk = {path.relative_to(examples).as_posix(): path for path in examples.rglob("*.tfrecord")}
    assert [file["path"] for file in manifest["files"]] == sorted(on_disk)
    for file in manifest["files"]:
        assert file["sha256"] == sha256(on_disk[file["path"]].read_bytes()).hexdigest()
    in_positives = [file["num_rows"] for file in manifest["files"] if file["path"].startswith("positives/")]
    assert sum(in_positives) == manifest["num_train_positives"]
    assert [file["path"] for file in manifest["files"] if file["path"].startswith("positives/")] == [
        f"positives/positives-{shard:05d}-of-00003.tfrecord" for shard in range(3)
    ]
    assert "best_hr@10" not in manifest
    names = {"positives", "eval", "eval_loo-99", "validation"}
    names |= {"held_out.parquet", "users.parquet", "items.parquet", "card.html", "manifest.json"}
    assert {path.name for path in examples.iterdir()} == names


def test_the_data_card_states_the_counts_and_why_lines_were_rejected(
    rows: list[Row], config: GenerateConfig, write_ratings: Any, tmp_path: Path
) -> None:
    ratings = write_ratings(rows, counts={"rejected": 2})
    (ratings / "rejected.csv").write_text("file,line,reason\nevents.csv,7,no user id\nevents.csv,9,no user id\n")
    generate(config, ratings, tmp_path / "out")
    card = (tmp_path / "out" / "card.html").read_text()
    num_positives = sum(len(items) - 2 for items in reference(rows, config).in_order.values())
    assert f"{num_positives:,}" in card
    assert "events.csv: no user id" in card


@pytest.mark.parametrize(("folder", "holds_out"), [("eval_loo-99", -1), ("validation", -2)])
def test_each_user_has_99_distinct_unseen_candidates_and_then_the_held_out_item(
    rows: list[Row],
    config: GenerateConfig,
    examples: Path,
    read_column_files: ReadExamples,
    folder: str,
    holds_out: int,
) -> None:
    expected = reference(rows, config)
    num_items = len(expected.raw_items)
    found = users_of(read_column_files(examples, folder), 100)
    real = [entry for entry in found if not is_padding(entry[2])]
    assert sorted(user for user, _, _ in real) == list(expected.in_order)
    for user, items, mask in real:
        seen = expected.in_order[user]
        assert items[-1] == seen[holds_out]
        assert not set(items[:-1]) & set(seen)
        if num_items - len(seen) >= 99:
            assert len(set(items[:-1])) == 99
            assert not any(mask)
        else:
            assert set(items[:-1]) == set(range(num_items)) - set(seen)
            assert mask == [int(item in items[:place]) for place, item in enumerate(items)]
    assert any(num_items - len(seen) < 99 for seen in expected.in_order.values()), "a user who has seen most items"


def test_the_test_and_validation_candidates_are_drawn_independently(
    examples: Path, read_column_files: ReadExamples
) -> None:
    drawn = [
        {user: set(items[:-1]) for user, items, _ in users_of(read_column_files(examples, folder), 100)}
        for folder in ("eval_loo-99", "validation")
    ]
    assert sum(drawn[0][user] != drawn[1][user] for user in drawn[0]) > len(drawn[0]) / 2


def test_999_candidates_are_drawn_with_repeats_that_are_masked(
    rows: list[Row], config: GenerateConfig, examples: Path, read_column_files: ReadExamples
) -> None:
    expected = reference(rows, config)
    draws: dict[int, list[int]] = {}
    for user, items, mask in users_of(read_column_files(examples, "eval"), 1_000):
        if is_padding(mask):
            continue
        assert items[-1] == expected.in_order[user][-1]
        assert not set(items[:-1]) & set(expected.in_order[user])
        assert mask == [int(item in items[:place]) for place, item in enumerate(items)]
        draws[user] = items[:-1]
    assert sorted(draws) == list(expected.in_order)
    # Uniform over each user's unseen items: the users' chi-squares are those of independent fair draws.
    statistic, freedom = 0.0, 0
    for user, items in draws.items():
        unseen = sorted(set(range(len(expected.raw_items))) - set(expected.in_order[user]))
        counts = Counter(items)
        statistic += stats.chisquare([counts[item] for item in unseen]).statistic
        freedom += len(unseen) - 1
    assert 1e-3 < stats.chi2.sf(statistic, freedom) < 1 - 1e-3


def test_prebatches_of_ascending_users_go_round_the_files_and_only_the_last_is_padded(
    config: GenerateConfig, examples: Path
) -> None:
    num_users = read_manifest(examples, "examples")["num_users"]
    for folder, rows_per_user in (("eval", 1_000), ("eval_loo-99", 100)):
        paths = sorted((examples / folder).iterdir())
        prebatches: dict[int, list[int]] = {}
        num_padding = 0
        for file in range(len(paths)):
            name = f"-{file:05d}-of-{len(paths):05d}.tfrecord"
            assert paths[file].name.endswith(name)
            examples_of_file = [record.numpy() for record in tf.data.TFRecordDataset(str(paths[file]))]
            for place, record in enumerate(examples_of_file):
                feature = tf.train.Example.FromString(record).features.feature
                columns = {key: list(feature[key].int64_list.value) for key in feature}
                assert {len(values) for values in columns.values()} == {config.eval_prebatch_size}
                found = users_of([columns], rows_per_user)
                prebatches[place * len(paths) + file] = [user for user, _, mask in found if not is_padding(mask)]
                num_padding += sum(is_padding(mask) for _, _, mask in found)
        assert [user for number in range(len(prebatches)) for user in prebatches[number]] == list(range(num_users))
        users_per_prebatch = config.eval_prebatch_size // rows_per_user
        assert num_padding == -num_users % users_per_prebatch


def test_tensorflow_parses_the_evaluation_files_as_the_official_trainer_does(
    examples: Path, config: GenerateConfig
) -> None:
    spec = {
        name: tf.io.FixedLenFeature([config.eval_prebatch_size, 1], tf.int64)
        for name in ("user_id", "item_id", "duplicate_mask")
    }
    files = tf.data.Dataset.list_files(str(examples / "eval" / "*"), shuffle=False)
    dataset = files.interleave(tf.data.TFRecordDataset, cycle_length=16)
    dataset = dataset.map(lambda record: tf.io.parse_single_example(record, spec))
    weights = [
        (tf.reduce_sum(tf.reshape(batch["duplicate_mask"], (-1, 1_000)), axis=1) != 999).numpy() for batch in dataset
    ]
    assert len(weights) == read_manifest(examples, "examples")["num_eval_steps"]
    assert np.concatenate(weights).sum() == read_manifest(examples, "examples")["num_users"]


def test_positives_are_in_the_order_of_their_random_keys(
    config: GenerateConfig, examples: Path, read_column_files: ReadExamples
) -> None:
    pairs = [
        pair
        for example in read_column_files(examples, "positives")
        for pair in zip(example["user_id"], example["item_id"], strict=True)
    ]
    key = derive_key(config.seed, Stream.SHUFFLE)
    places = [tuple(int(word) for word in threefry2x32(key, pair)) for pair in pairs]
    assert places == sorted(places)
    assert abs(stats.spearmanr(range(len(pairs)), [user for user, _ in pairs]).statistic) < 0.1


def test_string_ids_give_the_same_records(
    rows: list[Row], write_ratings: Any, config: GenerateConfig, examples: Path, tmp_path: Path
) -> None:
    named = [(f"user {row[0] + 100:06d}", f"item ü{row[1]:06d}", row[2], row[3]) for row in rows]
    generate(config, write_ratings(named, "named"), tmp_path / "named-examples")
    manifests = [read_manifest(path, "examples") for path in (examples, tmp_path / "named-examples")]
    assert manifests[0]["files"] == manifests[1]["files"]
    users = pq.read_table(tmp_path / "named-examples" / "users.parquet")["raw_user_id"].to_pylist()
    assert users == [f"user {user + 100:06d}" for user in reference(rows, config).raw_users]
    items = pq.read_table(tmp_path / "named-examples" / "items.parquet").to_pylist()[-1]
    assert items["title"] == f"Title {items['raw_item_id']}"


def test_what_the_ratings_say_about_the_best_hit_rate_is_passed_on(
    rows: list[Row], write_ratings: Any, config: GenerateConfig, tmp_path: Path
) -> None:
    ratings = write_ratings(rows, **{"best_hr@10": 0.75})
    (ratings / "items.parquet").unlink()
    generate(replace(config, protocols=("loo-99",)), ratings, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["best_hr@10"] == 0.75
    assert (manifest["num_eval_steps"], manifest["num_eval_elements"]) == (0, 0)
    assert not (tmp_path / "out" / "eval").exists()
    assert set(pq.read_table(tmp_path / "out" / "items.parquet")["title"].to_pylist()) == {None}


@pytest.mark.slow
def test_the_extremes_work_together(
    write_ratings: Any, config: GenerateConfig, tmp_path: Path, read_column_files: ReadExamples
) -> None:
    """One user with 100,000 ratings, one item that everyone rated, all timestamps equal."""
    rows = [("whale", item, 1.0, 0) for item in range(100_000)]
    rows += [(f"user {user:02d}", item, 1.0, 0) for user in range(30) for item in (7, user + 8, user + 99, 100_500)]
    as_text = [(user, f"{item:06d}", rating, timestamp) for user, item, rating, timestamp in rows]
    ratings = write_ratings(as_text, row_group_size=30_000)
    generate(replace(config, min_ratings=4, offline_epochs=1, train_prebatch_size=90_000), ratings, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out", "examples")
    assert (manifest["num_users"], manifest["num_items"]) == (31, 100_001)
    assert manifest["num_train_positives"] == len(rows) - 2 * 31
    assert manifest["num_train_elements"] == 5 * manifest["num_train_positives"]
    whale = [entry for entry in users_of(read_column_files(tmp_path / "out", "eval_loo-99"), 100) if entry[0] == 30]
    assert len(whale) == 1
    # The one item that the whale has not seen, and 98 masked repeats of it.
    assert whale[0][1][:-1] == [100_000] * 99
    assert whale[0][2] == [0] + [1] * 98 + [0]
    held_out = pq.read_table(tmp_path / "out" / "held_out.parquet").to_pylist()
    assert all(row["validation_item_id"] != row["test_item_id"] for row in held_out)
