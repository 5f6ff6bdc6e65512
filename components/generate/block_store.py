"""Where blocks wait while Beam moves references to them.

The in-memory runner holds everything that crosses a shuffle in memory, twice. With a folder, a block waits in a file
of that folder instead and only its place crosses, so that memory follows the size of blocks and not of the data.
"""

import functools
import pickle
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StoredBlock:
    """The place of one block in a file of the store."""

    path: str
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class BlockStore:
    """Sets blocks aside and takes them up again.

    Attributes:
        folder: An existing local folder that every worker can reach, or None to let Beam carry the blocks
            themselves: an engine that shuffles over disks and hosts does that better.
    """

    folder: str | None

    def put(self, blocks: Sequence[Any]) -> list[Any]:
        """Sets blocks aside in one file and returns what to fetch each of them with.

        A bundle that Beam runs twice leaves a file that nobody refers to, which goes with the folder.
        """
        if self.folder is None or not blocks:
            return list(blocks)
        path = Path(self.folder) / uuid.uuid4().hex
        references = []
        with path.open("wb") as stream:
            for block in blocks:
                offset = stream.tell()
                pickle.dump(block, stream, protocol=pickle.HIGHEST_PROTOCOL)
                references.append(StoredBlock(str(path), offset, stream.tell() - offset))
        return references

    def get(self, reference: Any) -> Any:
        """Returns the block that `put` gave this reference for."""
        return _load(reference) if isinstance(reference, StoredBlock) else reference

    def get_all(self, references: Iterable[Any]) -> Iterator[Any]:
        """Yields the block of each reference, one at a time."""
        return map(self.get, references)


def fetch_shared(reference: Any) -> Any:
    """Returns what `BlockStore.get` does, for a block that many ask for again and again: it is held once a process."""
    return _load_shared(reference) if isinstance(reference, StoredBlock) else reference


@functools.lru_cache(maxsize=1)
def _load_shared(reference: StoredBlock) -> Any:
    return _load(reference)


def _load(reference: StoredBlock) -> Any:
    with Path(reference.path).open("rb") as stream:
        stream.seek(reference.offset)
        return pickle.load(stream)
