"""Artifact folders: written beside their place, described by a manifest that comes last, then renamed.

A folder that holds `manifest.json` is complete. A killed step leaves at most a hidden `.<name>.partial` sibling (or
`.partial` inside a folder that is a disk of its own) and, where a folder cannot be renamed, some of its files at the
artifact's place; the next attempt removes both.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from components.ncf.errors import InputError

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
# Lists, in a partial folder, the files that are being moved to the artifact's place one by one.
_MOVING_NAME = ".moving"
_HASH_BLOCK_BYTES = 1 << 20

Manifest = dict[str, Any]


@contextmanager
def writing_artifact(path: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; when the block ends it becomes `path`, if it holds a manifest.

    Args:
        path: The artifact's final place. It may exist only as an empty folder, or be a link to one.

    Raises:
        InputError: `path` is taken, cannot be written, its disk is full, or another process is writing it.
    """
    with _explaining_os_errors(path):
        # Beside what a link points to, or else the files could not be renamed.
        place = path.resolve()
        partial = _partial_of(place)
        if partial.is_dir():
            os.close(_lock(partial, path))
            _take_back(partial, place)
        if place.exists() and (not place.is_dir() or any(found != partial for found in place.iterdir())):
            raise InputError(f"The output {path} already exists and is not empty: remove it or choose another folder.")
        lock = _start(partial, path)
    try:
        with _explaining_os_errors(path):
            yield partial
            if not (partial / MANIFEST_NAME).is_file():
                raise AssertionError(f"{partial} was left without {MANIFEST_NAME}")
            _publish(partial, place)
    finally:
        with suppress(OSError):
            _take_back(partial, place)
            shutil.rmtree(partial, ignore_errors=True)
        os.close(lock)


def check_output_path(path: Path) -> None:
    """Refuses a path that TensorFlow would take for a pattern when it reads a SavedModel back.

    Raises:
        InputError: The path holds one of the characters of a pattern.
    """
    if set("[]*?") & set(str(path)):
        raise InputError(f"The path {path} holds one of [ ] * ?, which TensorFlow cannot read back: choose another.")


def write_manifest(folder: Path, kind: str, content: Manifest) -> None:
    """Writes the folder's manifest, which marks it complete; arguments as in `encode_manifest`."""
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(kind, content))


def encode_manifest(kind: str, content: Manifest) -> bytes:
    """Returns the text of a manifest.

    Args:
        kind: The artifact's name in the DAG, for example "ratings".
        content: JSON-serializable description; `kind` and `format_version` are added to it.
    """
    document = {"kind": kind, "format_version": FORMAT_VERSION, **content}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(folder: Path, kind: str) -> Manifest:
    """Reads the manifest of a complete artifact of the given kind.

    Raises:
        InputError: The folder is not a complete artifact of this kind and format version.
    """
    return decode_manifest((folder / MANIFEST_NAME).read_bytes, folder, kind)


def decode_manifest(read: Callable[[], bytes], folder: Path | str, kind: str) -> Manifest:
    """Reads and checks a manifest that may be elsewhere than on a local disk.

    Args:
        read: Returns its bytes; raises `OSError`.
        folder: The artifact's place, for messages.
        kind: What the artifact has to be.

    Raises:
        InputError: The folder is not a complete artifact of this kind and format version.
    """
    path = f"{folder}/{MANIFEST_NAME}"
    try:
        manifest: Manifest = json.loads(read().decode())
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no {MANIFEST_NAME}: it is no `{kind}` folder, or the step that writes it did not finish."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}): run the step that writes it again.") from None
    if not isinstance(manifest, dict):
        raise InputError(f"{path} is no manifest: run the step that writes it again.")
    if manifest.get("kind") != kind:
        raise InputError(f"{folder} is a `{manifest.get('kind')}` folder where a `{kind}` folder is needed.")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {manifest.get('format_version')}, this version reads {FORMAT_VERSION}: "
            "run the step that writes it again."
        )
    return manifest


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Returns the hexadecimal digest of a file, read in blocks."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def explain_os_error(error: OSError, path: Path | str) -> str:
    """Says in one sentence why `path` could not be written, and what to do about it."""
    place = error.filename or path
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"No space is left on the disk that holds {path}: free some space or choose another place."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return f"{place} cannot be written ({os.strerror(error.errno)}): choose a folder that you may write to."
    return f"{place} failed: {error.strerror or error}."


def _partial_of(place: Path) -> Path:
    """Returns where an artifact is written: beside its place, or inside when that is a disk of its own."""
    if place.is_dir() and place.stat().st_dev != place.parent.stat().st_dev:
        return place / ".partial"
    return place.parent / f".{place.name}.partial"


def _start(partial: Path, path: Path) -> int:
    """Makes the partial folder anew, whatever a killed attempt left of it.

    Returns:
        What locks it until it is closed; the system does that for a process that is killed.
    """
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return _lock(partial, path)


def _lock(partial: Path, path: Path) -> int:
    lock = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise InputError(
            f"Another process is writing the output {path}: wait for its end or choose another folder."
        ) from None
    except OSError:
        # Object stores mounted as folders know no locks.
        pass
    return lock


@contextmanager
def _explaining_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(explain_os_error(error, path)) from error


def _publish(partial: Path, path: Path) -> None:
    try:
        partial.rename(path)
    except OSError:
        # Object stores mounted as folders refuse to rename a folder: move the files, the manifest last.
        path.mkdir(parents=True, exist_ok=True)
        files = sorted(p for p in partial.rglob("*") if p.is_file())
        names = [source.relative_to(partial).as_posix() for source in files]
        (partial / _MOVING_NAME).write_text(json.dumps(names), encoding="utf-8")
        for name in sorted(names, key=lambda name: name == MANIFEST_NAME):
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (partial / name).replace(target)


def _take_back(partial: Path, place: Path) -> None:
    """Removes what an attempt has moved to its place that did not come as far as the manifest; nothing else there.

    Raises:
        OSError: A file cannot be removed.
    """
    if (place / MANIFEST_NAME).exists():
        return
    try:
        names = json.loads((partial / _MOVING_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # none was moved yet
    for name in names:
        (place / name).unlink(missing_ok=True)
    folders = {folder for name in names for folder in Path(name).parents if folder != Path()}
    for folder in sorted(folders, reverse=True):
        with suppress(OSError):
            (place / folder).rmdir()
