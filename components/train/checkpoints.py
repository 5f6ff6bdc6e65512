"""Saves a run while it goes on, and takes it up again at the very step."""

import errno
import json
import logging
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.ncf.errors import InputError

_LOG = logging.getLogger(__name__)

Arrays = Sequence[NDArray[np.float32]]
Progress = dict[str, Any]

_NAME = "checkpoint-{step:010d}.npz"
_PATTERN = re.compile(r"checkpoint-(\d{10})\.npz")
_DOCUMENT = "document"
# What reading a damaged file raises, from the file system, the archive's checksums and numpy.
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on as if nothing had happened.

    Attributes:
        state: What `TrainingLoop.state` returned.
        best_weights: The weights of the best epoch so far; empty before the first has ended.
        progress: Where the run stands, JSON-serializable.
    """

    state: Arrays
    best_weights: Arrays
    progress: Progress


class Checkpoints:
    """The last checkpoints of a run, in one folder.

    A checkpoint is one file, so that its parts cannot disagree. It is written under another name and renamed, so that
    a file with a checkpoint's name is complete; its parts have checksums, so that a damaged one is found. A thread
    writes while training goes on.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], max_to_keep: int, is_writer: bool) -> None:
        """Makes the folder, so that one that cannot be written is found before anything is trained.

        Args:
            folder: Where this run's checkpoints live.
            identity: What makes a run the same run: JSON-serializable parameters and data digest.
            max_to_keep: How many are kept.
            is_writer: False for workers beside the chief: they restore what it wrote.

        Raises:
            OSError: The folder cannot be made or written.
        """
        self._folder = folder
        self._identity = dict(identity)
        self._max_to_keep = max_to_keep
        self._writer = ThreadPoolExecutor(1, "checkpoints") if is_writer else None
        self._pending: Future[None] | None = None
        if is_writer:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    def restore(self) -> Checkpoint | None:
        """Reads the newest checkpoint that is whole, or returns None where there is none at all.

        Raises:
            InputError: The folder holds another run, or no checkpoint in it can be read.
        """
        paths = self._paths()
        for path in reversed(paths):
            try:
                document, arrays = _read(path)
            except _DAMAGE as error:
                reason = type(error).__name__
                _LOG.warning("the checkpoint %s is damaged (%s): falling back to the one before it", path, reason)
                continue
            self._check_identity(document["identity"])
            _LOG.info("resumed from %s", path)
            num_state = document["num_state"]
            return Checkpoint(arrays[:num_state], arrays[num_state:], document["progress"])
        if paths:
            raise InputError(
                f"None of the {len(paths)} checkpoints in {self._folder} can be read: remove it to start again, or "
                "name another --checkpoint-dir."
            )
        return None

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Hands a checkpoint over to be written; waits only while the one before is still being written.

        Args:
            step: Of the whole run; a later checkpoint has a greater one.
            checkpoint: Arrays that nothing changes any more.

        Raises:
            OSError: The one before could not be written.
        """
        if self._writer is None:
            return
        self.wait()
        document = {
            "identity": self._identity,
            "num_state": len(checkpoint.state),
            "progress": checkpoint.progress,
        }
        # Encoded here: the progress goes on changing.
        text = json.dumps(document).encode()
        arrays = [*checkpoint.state, *checkpoint.best_weights]
        self._pending = self._writer.submit(self._write, self._folder / _NAME.format(step=step), text, arrays)

    def wait(self) -> None:
        """Returns when everything handed over is on the disk.

        Raises:
            OSError: It could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, path: Path, document: bytes, arrays: Arrays) -> None:
        partial = path.with_name(f".{path.name}.partial")
        parts = {f"array_{index:03d}": array for index, array in enumerate(arrays)}
        with partial.open("wb") as stream:
            np.savez(stream, **{_DOCUMENT: np.frombuffer(document, np.uint8)}, **parts)  # type: ignore[arg-type]
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        for old in self._paths()[: -self._max_to_keep]:
            old.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if _PATTERN.fullmatch(path.name))

    def _check_identity(self, saved: Mapping[str, Any]) -> None:
        differences = [key for key, value in self._identity.items() if saved.get(key) != value]
        if differences:
            described = ", ".join(f"{key} {saved.get(key)} then, {self._identity[key]} now" for key in differences)
            raise InputError(
                f"{self._folder} holds the checkpoints of another run ({described}): name another --checkpoint-dir "
                "or remove it."
            )


def _read(path: Path) -> tuple[dict[str, Any], list[NDArray[np.float32]]]:
    with np.load(path, allow_pickle=False) as archive:
        document = json.loads(archive[_DOCUMENT].tobytes())
        return document, [archive[name] for name in sorted(archive.files) if name != _DOCUMENT]
