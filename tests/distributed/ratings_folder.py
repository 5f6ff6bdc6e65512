"""Writes `ratings` folders as download does, from arrays."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUM_FILES = 6


def write_ratings(folder: Path, users: np.ndarray, items: np.ndarray, timestamps: np.ndarray) -> Path:
    """Writes a `ratings` folder of several files, as download does."""
    folder.mkdir()
    for file, rows in enumerate(np.array_split(np.arange(len(users)), NUM_FILES)):
        columns = {
            "raw_user_id": users[rows],
            "raw_item_id": items[rows],
            "rating": np.ones(len(rows), np.float32),
            "timestamp": timestamps[rows],
        }
        path = folder / f"interactions-{file:05d}-of-{NUM_FILES:05d}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=50_000)
    titles = pa.table({"raw_item_id": [1], "title": ["One"], "genres": ["Drama"]})
    pq.write_table(titles, folder / "items.parquet")
    (folder / "manifest.json").write_text(json.dumps({"kind": "ratings", "format_version": 1, "digest": "abc"}))
    return folder
