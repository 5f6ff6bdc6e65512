"""Writes the best items that users have not had yet into a `recommendations` folder."""

import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.ncf.errors import InputError
from components.ncf.examples import read_seen_items, read_table
from components.ncf.interactions import ItemLists, index_of
from components.ncf.manifest import Manifest, file_digest, read_manifest, write_manifest, writing_artifact
from components.ncf.ranking import best_items, for_each_block, num_processors, users_per_block
from components.recommend.config import RecommendConfig
from components.scoring.saved_model import ModelScorer

_LARGEST_ID = 2**63 - 1
# A folder of their own: most readers of a folder take every file in it for Parquet, the manifest too.
_FOLDER = "parquet"
_LOG = logging.getLogger(__name__)


def recommend(config: RecommendConfig, examples: Path, model: Path, output: Path) -> None:
    """Recommends to all users, or to those named.

    Args:
        config: The parameters.
        examples: An `examples` folder.
        model: The `model` folder that was trained on it.
        output: The `recommendations` folder to write: parquet/recommendations-*.parquet with one row for each user
            and place, and manifest.json.

    Raises:
        InputError: A folder is incomplete, or the model was trained on other examples.
    """
    manifest, model_manifest = read_manifest(examples, "examples"), read_manifest(model, "model")
    if model_manifest["examples_digest"] != manifest["digest"]:
        raise InputError(f"{model} was not trained on {examples}: name the examples that it was trained on.")
    scorer = ModelScorer(model)
    with writing_artifact(output) as partial:
        catalogue = _read_catalogue(examples, manifest)
        users, raw_user_ids = catalogue.find_users(config.users)
        # Compiles for the shape of a block before the clock starts.
        scorer.score_catalogue(np.zeros(users_per_block(len(users), catalogue.num_items), np.int32))
        started = time.perf_counter()
        items, scores = _best_of_each(config, catalogue, scorer, users)
        shards = np.array_split(np.arange(len(users)), min(config.num_shards, len(users)))
        (partial / _FOLDER).mkdir()

        def write_shard(number: int) -> dict[str, Any]:
            rows = shards[number]
            name = f"{_FOLDER}/recommendations-{number:05d}-of-{len(shards):05d}.parquet"
            table = catalogue.table_of(raw_user_ids.take(pa.array(rows)), users[rows], items[rows], scores[rows])
            pq.write_table(table, partial / name)
            return {"path": name, "num_rows": table.num_rows, "sha256": file_digest(partial / name)}

        with ThreadPoolExecutor(num_processors()) as pool:
            files = list(pool.map(write_shard, range(len(shards))))
        duration_s = time.perf_counter() - started
        num_unknown = int(np.count_nonzero(users < 0))
        _LOG.info(
            "%d users, %d of them unknown, in %.2f s (%.0f users/s)",
            len(users), num_unknown, duration_s, len(users) / duration_s,
        )  # fmt: skip
        write_manifest(
            partial,
            "recommendations",
            {
                "dataset": manifest["dataset"],
                "examples_digest": manifest["digest"],
                "num_recommendations": config.num_recommendations,
                "num_users": len(users),
                "num_unknown_users": num_unknown,
                "files": files,
            },
        )


@dataclass(frozen=True)
class _Catalogue:
    """Who and what there is.

    Attributes:
        raw_user_ids: [num_users], ascending.
        raw_item_ids, titles: [num_items].
        seen: All that each user had.
    """

    raw_user_ids: pa.ChunkedArray
    raw_item_ids: pa.ChunkedArray
    titles: pa.ChunkedArray
    seen: ItemLists

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.raw_item_ids)

    @cached_property
    def num_interactions(self) -> NDArray[np.float32]:
        """How many users had each item, float32 [num_items]."""
        return np.bincount(self.seen.items, minlength=self.num_items).astype(np.float32)

    def find_users(self, names: tuple[str, ...]) -> tuple[NDArray[np.int32], pa.Array]:
        """Returns the dense indices of the named users, or of all, -1 of one that is unknown; and the raw ids."""
        known = self.raw_user_ids.to_numpy()
        if not names:
            return np.arange(len(known), dtype=np.int32), self.raw_user_ids.combine_chunks()
        if known.dtype == object:
            raw_ids: NDArray[Any] = np.array(names, dtype=object)
        else:
            raw_ids = np.array([_whole_number(name) for name in names], np.int64)
        return index_of(raw_ids, known), pa.array(raw_ids)

    def table_of(
        self,
        raw_user_ids: pa.Array,
        users: NDArray[np.int32],
        items: NDArray[np.int32],
        scores: NDArray[np.float32],
    ) -> pa.Table:
        """Returns one row for each user and place; arguments as `_best_of_each` returns them."""
        rows, places = np.nonzero(items >= 0)
        chosen, rows = pa.array(items[rows, places]), pa.array(rows)
        return pa.table(
            {
                "raw_user_id": raw_user_ids.take(rows),
                "is_known_user": pa.array(users >= 0).take(rows),
                "rank": pa.array(places + 1, pa.int32()),
                "raw_item_id": self.raw_item_ids.take(chosen),
                "title": _or_null(self.titles.take(chosen)),
                "score": pa.array(scores[items >= 0]),
            }
        )


def _or_null(titles: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(titles, ""), None, titles)


def _whole_number(name: str) -> int:
    """Returns an id as the data has it."""
    if not re.fullmatch(r"-?(0|[1-9][0-9]{0,18})", name) or abs(int(name)) > _LARGEST_ID:
        raise InputError(
            f"recommend.users names {name!r}, but the users of this data set are whole numbers of 64 bits, written "
            "without leading zeros: mend it."
        )
    return int(name)


def _read_catalogue(examples: Path, manifest: Manifest) -> _Catalogue:
    held_out = read_table(examples, "held_out", pq.read_table)
    later = [held_out[name].to_numpy() for name in ("validation_item_id", "test_item_id")]
    seen = read_seen_items(examples, manifest, later)
    table = read_table(examples, "items", pq.read_table)
    raw_user_ids = read_table(examples, "users", pq.read_table)["raw_user_id"]
    return _Catalogue(raw_user_ids, table["raw_item_id"], table["title"], seen)


def _best_of_each(
    config: RecommendConfig, catalogue: _Catalogue, scorer: ModelScorer, users: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Returns the best items of each user, the best first, and their scores: int32 and float32 [num_users, k].

    Where there are no more items, the item is -1. Unknown users, -1, get the most popular items.
    """
    k = min(config.num_recommendations, catalogue.num_items)
    counts = catalogue.num_interactions
    popular = best_items(counts[None], k)
    items, scores = np.repeat(popular, len(users), axis=0), np.repeat(counts[popular], len(users), axis=0)
    known = np.flatnonzero(users >= 0)

    def choose(block: slice, all_scores: NDArray[np.float32]) -> None:
        best = best_items(all_scores, k)
        items[known[block]], scores[known[block]] = best, np.take_along_axis(all_scores, np.maximum(best, 0), axis=1)

    for_each_block(scorer.score_catalogue, users[known], catalogue.seen, catalogue.num_items, choose)
    return items, scores
