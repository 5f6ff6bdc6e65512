"""What the SavedModel holds: the weights, the vocabularies and what each user had, and functions over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from numpy.typing import NDArray

from components.ncf.examples import read_seen_items, read_table
from components.ncf.interactions import ItemLists
from components.ncf.manifest import Manifest
from components.train.model import Architecture, neumf_catalogue_logits, neumf_logits

# What an item scores that must not be recommended: a number, because JSON knows no infinity.
_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Catalogue:
    """Who and what the model knows.

    Attributes:
        raw_user_ids: int64 or object (str) [num_users], in the order of the dense indices.
        raw_item_ids: The same for items, [num_items].
        seen: All that each user had, the held-out items included.
    """

    raw_user_ids: NDArray[Any]
    raw_item_ids: NDArray[Any]
    seen: ItemLists


def read_catalogue(examples: Path, manifest: Manifest) -> Catalogue:
    """Reads who and what the model knows from an `examples` folder.

    Args:
        examples: The folder.
        manifest: Its manifest.

    Raises:
        InputError: A file is missing or damaged.
    """
    held_out = read_table(examples, "held_out", pq.read_table)
    later = [held_out[name].to_numpy() for name in ("validation_item_id", "test_item_id")]
    raw_user_ids, raw_item_ids = (
        read_table(examples, f"{side}s", pq.read_table)[f"raw_{side}_id"].to_numpy() for side in ("user", "item")
    )
    return Catalogue(raw_user_ids, raw_item_ids, read_seen_items(examples, manifest, later))


class ServingModel(tf.Module):
    """The signatures take raw ids, whose type is that of the data set: int64 or string.

    `score_candidates` and `score_catalogue` take dense indices; they are for steps that read the examples.
    """

    score: Any
    top_k: Any

    def __init__(
        self, architecture: Architecture, weights: Sequence[NDArray[np.float32]], catalogue: Catalogue
    ) -> None:
        """Makes variables of its own.

        Args:
            architecture: The shape of the model.
            weights: In the order of `Architecture.weight_shapes`.
            catalogue: Whom and what the dense indices stand for.
        """
        super().__init__(name="neumf")
        self._architecture = architecture
        names = [name for name, _ in architecture.weight_shapes()]
        self._variables = [tf.Variable(value, name=name) for name, value in zip(names, weights, strict=True)]
        seen = catalogue.seen
        self._seen_items = tf.Variable(seen.items, trainable=False, name="seen_items")
        self._seen_offsets = tf.Variable(seen.offsets, trainable=False, name="seen_offsets")
        counts = np.bincount(seen.items, minlength=architecture.num_items).astype(np.float32)
        self._popularity = tf.Variable(counts, trainable=False, name="num_interactions")
        self._raw_item_ids = tf.Variable(_as_tensor(catalogue.raw_item_ids), trainable=False, name="raw_item_ids")
        self._user_index, self._item_index = map(_index, (catalogue.raw_user_ids, catalogue.raw_item_ids))
        user_ids = tf.TensorSpec([None], self._user_index.key_dtype, "user_id")
        item_ids = tf.TensorSpec([None], self._item_index.key_dtype, "item_id")
        self.score = tf.function(self._score, input_signature=[user_ids, item_ids])
        self.top_k = tf.function(self._top_k, input_signature=[user_ids, tf.TensorSpec([], tf.int32, "k")])

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int32, "users"), tf.TensorSpec([None, None], tf.int32, "items")]
    )
    def score_candidates(self, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Returns float32 [num_users, num_candidates]: the logits of each user's own candidates."""
        return neumf_logits(self._architecture, self._variables, users, items)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "users")])
    def score_catalogue(self, users: tf.Tensor) -> tf.Tensor:
        """Returns float32 [num_users, num_items]: the logits of every item."""
        return neumf_catalogue_logits(self._architecture, self._variables, users)

    def _score(self, user_id: tf.Tensor, item_id: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `scores`, float32 [n], each pair's logit, and `is_known`, bool [n], False where there is none."""
        tf.debugging.assert_equal(tf.size(user_id), tf.size(item_id), "user_id and item_id differ in length")
        users, items = self._user_index.lookup(user_id), self._item_index.lookup(item_id)
        is_known = (users >= 0) & (items >= 0)
        logits = self.score_candidates(tf.maximum(users, 0), tf.maximum(items, 0)[:, None])[:, 0]
        return {"scores": tf.where(is_known, logits, _LOWEST), "is_known": is_known}

    def _top_k(self, user_id: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the best items that a user has not had, the best first; the most popular ones to an unknown user.

        Returns:
            `item_id`, raw ids [n, k], `scores`, float32 [n, k], and `is_known`, bool [n]. With fewer items than k left,
            the last scores are the lowest float32 and their items are to be ignored.
        """
        users = self._user_index.lookup(user_id)
        is_known = users >= 0
        users = tf.maximum(users, 0)
        scores = tf.where(is_known[:, None], self.score_catalogue(users), self._popularity)
        starts = tf.gather(self._seen_offsets, users)
        lengths = tf.where(is_known, tf.gather(self._seen_offsets, users + 1) - starts, 0)
        rows = tf.repeat(tf.range(tf.shape(users)[0], dtype=tf.int64), lengths)
        firsts = tf.repeat(starts - tf.cumsum(lengths, exclusive=True), lengths)
        had = tf.gather(self._seen_items, firsts + tf.range(tf.reduce_sum(lengths)))
        places = tf.stack([rows, tf.cast(had, tf.int64)], axis=1)
        scores = tf.tensor_scatter_nd_update(scores, places, tf.fill(tf.shape(rows), _LOWEST))
        best, items = tf.math.top_k(scores, tf.minimum(k, self._architecture.num_items))
        return {"item_id": tf.gather(self._raw_item_ids, items), "scores": best, "is_known": is_known}


def _as_tensor(raw_ids: NDArray[Any]) -> tf.Tensor:
    return tf.constant(raw_ids.tolist() if raw_ids.dtype == object else raw_ids)


def _index(raw_ids: NDArray[Any]) -> tf.lookup.StaticHashTable:
    """Returns the dense index of each raw id, -1 of any other."""
    keys = _as_tensor(raw_ids)
    values = tf.range(len(raw_ids), dtype=tf.int32)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)
