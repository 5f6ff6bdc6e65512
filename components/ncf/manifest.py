"""Artifact folders: written beside their place, described by a manifest that comes last, then renamed.

A folder that holds `manifest.json` is complete. A killed step leaves at most a hidden `.<name>.partial` sibling,
which the next attempt removes.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.ncf.errors import InputError

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
_HASH_BLOCK_BYTES = 1 << 20

Manifest = dict[str, Any]


@contextmanager
def writing_artifact(path: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; when the block ends it becomes `path`, if it holds a manifest.

    Args:
        path: The artifact's final place. It may exist only as an empty folder.

    Raises:
        InputError: `path` is taken, cannot be written, or its disk is full.
    """
    partial = path.parent / f".{path.name}.partial"
    with _explaining_os_errors(path):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"The output {path} already exists and is not empty: remove it or choose another folder.")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        with _explaining_os_errors(path):
            yield partial
            if not (partial / MANIFEST_NAME).is_file():
                raise AssertionError(f"{partial} was left without {MANIFEST_NAME}")
            _publish(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
        for source in sorted(files, key=lambda p: p == partial / MANIFEST_NAME):
            target = path / source.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
