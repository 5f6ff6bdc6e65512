"""What bounds the memory of a run: what crosses Beam, what is read at a time, and what the allocator keeps."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.generate import ratings as ratings_module
from components.generate import transforms
from components.generate.block_store import BlockStore
from components.generate.combiners import UniteIds
from components.generate.ratings import open_ratings, read_interactions
from components.ncf.interactions import Interactions

Row = tuple[Any, Any, float, int]


def a_million_ids() -> Interactions:
    users = np.arange(1_000_000, dtype=np.int32)
    return Interactions(users.astype(np.int64), np.arange(3), users, users % 3, np.ones(len(users), np.float32), users)


def test_a_history_and_the_catalog_cross_beam_as_references(tmp_path: Path) -> None:
    """The in-memory runner holds several copies of whatever crosses."""
    store = BlockStore(str(tmp_path))
    (piece,) = store.put([a_million_ids()])
    (history,) = transforms._CleanHistories(1, False, store).process((0, [piece]))
    combiner = UniteIds(store)
    catalog = combiner.extract_output(combiner.add_input(combiner.create_accumulator(), history))
    assert len(pickle.dumps(history)) < 1_000
    assert len(pickle.dumps(catalog)) < 1_000
    assert (catalog.num_users, catalog.num_items) == (1_000_000, 3)
    assert pickle.loads(pickle.dumps(catalog)).raw_user_ids.tolist() == list(range(1_000_000))


def test_small_row_groups_are_read_together_and_large_ones_in_parts(
    rows: list[Row], write_ratings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_ratings(rows, num_files=2, row_group_size=40)
    monkeypatch.setattr(ratings_module, "MAX_BLOCK_ROWS", 100)
    pieces = open_ratings(str(folder)).interactions
    assert {len(piece.indices) for piece in pieces[:-1]} >= {2}
    assert max(len(piece.indices) for piece in pieces) == 2
    blocks = [block for piece in pieces for block in read_interactions(piece)]
    assert sum(block.num_rows for block in blocks) == len(rows)
    assert len(blocks) == len(pieces)
    monkeypatch.setattr(ratings_module, "MAX_BLOCK_ROWS", 30)
    pieces = open_ratings(str(folder)).interactions
    assert {len(piece.indices) for piece in pieces} == {1}
    assert max(block.num_rows for piece in pieces for block in read_interactions(piece)) == 30


COUNT_HEAPS = """
import ctypes, re, sys, threading
import numpy as np
from components.generate.allocator import return_free_memory

if sys.argv[1] == "tamed":
    return_free_memory()
barrier = threading.Barrier(8)

def work():
    barrier.wait()
    arrays = [np.ones(20_000) for _ in range(10)]
    barrier.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, stream)
libc.fclose(stream)
print(len(re.findall("<heap nr", open(sys.argv[2]).read())))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has heaps for threads")
def test_threads_share_one_heap(tmp_path: Path) -> None:
    def num_heaps(mode: str) -> int:
        command = [sys.executable, "-c", COUNT_HEAPS, mode, str(tmp_path / "malloc.xml")]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert num_heaps("as it is") > 2
    assert num_heaps("tamed") == 1
