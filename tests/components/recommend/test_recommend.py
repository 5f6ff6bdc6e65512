"""Recommendations against the model's own serving signature and against a world whose best items are known."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from pyarrow.dataset import dataset

from components.ncf.errors import InputError
from components.ncf.examples import read_positives
from components.ncf.manifest import file_digest, read_manifest, write_manifest
from components.recommend.config import RecommendConfig
from components.recommend.recommend import recommend


class TableModel(tf.Module):
    def __init__(self, scores: np.ndarray) -> None:
        super().__init__()
        self.scores = tf.Variable(scores.astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)])
    def score_candidates(self, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.gather(self.scores, users), items, batch_dims=1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def score_catalogue(self, users: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.scores, users)


def write_model(folder: Path, examples: Path, digest: str | None = None) -> np.ndarray:
    manifest = read_manifest(examples, "examples")
    scores = np.random.default_rng(0).normal(size=(manifest["num_users"], manifest["num_items"])).astype(np.float32)
    tf.saved_model.save(TableModel(scores), str(folder / "saved_model"))
    write_manifest(folder, "model", {"examples_digest": digest or manifest["digest"], "model_selection": "validation"})
    return scores


def items_had(examples: Path) -> list[set[int]]:
    manifest = read_manifest(examples, "examples")
    had: list[set[int]] = [
        {row["validation_item_id"], row["test_item_id"]}
        for row in pq.read_table(examples / "held_out.parquet").to_pylist()
    ]
    for user, item in zip(*(c.tolist() for c in read_positives(examples, manifest).values()), strict=True):
        had[user].add(item)
    return had


def test_everybody_gets_the_best_items_they_have_not_had(examples: Path, tmp_path: Path) -> None:
    scores = write_model(tmp_path / "model", examples)
    recommend(RecommendConfig(7, (), 3), examples, tmp_path / "model", tmp_path / "recommendations")
    manifest = read_manifest(tmp_path / "recommendations", "recommendations")
    names = [entry["path"] for entry in manifest["files"]]
    assert names == [f"parquet/recommendations-0000{n}-of-00003.parquet" for n in range(3)]
    for entry in manifest["files"]:
        assert entry["sha256"] == file_digest(tmp_path / "recommendations" / entry["path"])
    rows = [row for name in names for row in pq.read_table(tmp_path / "recommendations" / name).to_pylist()]
    users, items = (pq.read_table(examples / f"{side}s.parquet").to_pydict() for side in ("user", "item"))
    expected = []
    for user, had in enumerate(items_had(examples)):
        best = sorted(set(range(len(scores[0]))) - had, key=lambda item: -scores[user, item])[:7]
        expected += [
            (users["raw_user_id"][user], True, place, items["raw_item_id"][item], items["title"][item])
            for place, item in enumerate(best, start=1)
        ]
        found = [row["score"] for row in rows[7 * user : 7 * user + 7]]
        assert found == [scores[user, item] for item in best]
    assert [tuple(row.values())[:5] for row in rows] == expected
    assert manifest["num_users"] == len(users["user_id"])
    # The folder read as a whole, as other programs do.
    assert dataset(tmp_path / "recommendations/parquet").to_table().to_pylist() == rows


def test_named_users_are_recommended_to_in_order_and_an_unknown_one_gets_the_most_popular(
    examples: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "model", examples)
    users = pq.read_table(examples / "users.parquet")["raw_user_id"].to_pylist()
    config = RecommendConfig(3, (str(users[9]), "8987654321987654321", str(users[2])), 8)
    recommend(config, examples, tmp_path / "model", tmp_path / "recommendations")
    rows = [
        row
        for path in sorted((tmp_path / "recommendations/parquet").iterdir())
        for row in pq.read_table(path).to_pylist()
    ]
    assert [row["raw_user_id"] for row in rows] == [users[9]] * 3 + [8987654321987654321] * 3 + [users[2]] * 3
    assert [row["is_known_user"] for row in rows] == [True] * 3 + [False] * 3 + [True] * 3
    counts = np.zeros(read_manifest(examples, "examples")["num_items"], int)
    for had in items_had(examples):
        counts[list(had)] += 1
    raw_item_ids = pq.read_table(examples / "items.parquet")["raw_item_id"].to_pylist()
    most_popular = sorted(range(len(counts)), key=lambda item: (-counts[item], item))[:3]
    assert [row["raw_item_id"] for row in rows[3:6]] == [raw_item_ids[item] for item in most_popular]
    assert [row["score"] for row in rows[3:6]] == counts[most_popular].tolist()


def test_only_as_many_as_there_are_left(examples: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "model", examples)
    users = pq.read_table(examples / "users.parquet")["raw_user_id"].to_pylist()
    recommend(RecommendConfig(5_000, (str(users[0]),), 1), examples, tmp_path / "model", tmp_path / "recommendations")
    table = pq.read_table(tmp_path / "recommendations/parquet/recommendations-00000-of-00001.parquet")
    assert table.num_rows == read_manifest(examples, "examples")["num_items"] - len(items_had(examples)[0])


def test_wrong_input_is_named_and_leaves_nothing(examples: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "model", examples)
    write_model(tmp_path / "other", examples, digest="another")
    output = tmp_path / "recommendations"
    with pytest.raises(InputError, match="was not trained on"):
        recommend(RecommendConfig(5, (), 1), examples, tmp_path / "other", output)
    with pytest.raises(InputError, match=r"recommend\.users names 'anna', but the users .* whole numbers"):
        recommend(RecommendConfig(5, ("anna",), 1), examples, tmp_path / "model", output)
    for spelling in ("1_0", " 10", "010", "9" * 20):
        with pytest.raises(InputError, match=r"recommend\.users names .* whole numbers"):
            recommend(RecommendConfig(5, (spelling,), 1), examples, tmp_path / "model", output)
    assert not output.exists()
    for number, users, shards, words in (
        (0, (), 1, "recommend.num_recommendations 0"),
        (5, (), 0, "recommend.num_shards 0"),
        (5, ("a", "b", "a"), 1, "recommend.users names 'a' more than once"),
    ):
        with pytest.raises(InputError, match=words):
            RecommendConfig(number, users, shards)


@pytest.mark.parametrize("user", ["9223372036854775808", "-9223372036854775808", "01", "1.0", "٣", ""])
def test_what_no_integer_id_can_be_is_refused(examples: Path, tmp_path: Path, user: str) -> None:
    write_model(tmp_path / "model", examples)
    with pytest.raises(InputError, match="whole numbers of 64 bits"):
        recommend(RecommendConfig(3, (user,), 1), examples, tmp_path / "model", tmp_path / "recommendations")


@pytest.mark.parametrize("name", ["users", "items", "held_out"])
@pytest.mark.parametrize("is_missing", [True, False])
def test_damaged_tables_are_one_sentence(examples: Path, tmp_path: Path, name: str, is_missing: bool) -> None:
    write_model(tmp_path / "model", examples)
    copy = tmp_path / "examples"
    shutil.copytree(examples, copy)
    table = copy / f"{name}.parquet"
    part = next(table.rglob("*.parquet")) if table.is_dir() else table
    if is_missing:
        shutil.rmtree(table) if table.is_dir() else table.unlink()
    else:
        part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(InputError, match=rf"{name}\.parquet is missing or damaged \(.*\): generate the examples again"):
        recommend(RecommendConfig(3, (), 1), copy, tmp_path / "model", tmp_path / "recommendations")
