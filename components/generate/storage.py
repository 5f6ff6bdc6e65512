"""Files of a folder that is local or in a Cloud Storage bucket: one set of functions for both.

A place is a local path or `gs://bucket/name`. A file appears complete or not at all. A local artifact is renamed into
place; a bucket cannot rename a folder, so an artifact there carries a marker until its manifest is written.
"""

import errno
import functools
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from components.ncf.errors import InputError
from components.ncf.manifest import MANIFEST_NAME, explain_os_error, writing_artifact

UNFINISHED_NAME = ".unfinished"
_UNFINISHED_PREFIX = ".unfinished-"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_UPLOAD_CHUNK_BYTES = 16 << 20
# A busy service gets a minute, with growing pauses, before a call is given up.
_RETRY = DEFAULT_RETRY.with_timeout(60.0)


def is_remote(place: str) -> bool:
    """Tells a URI from a local path."""
    return _SCHEME.match(place) is not None


def join(folder: str, name: str) -> str:
    """Returns the place of a name, which may have slashes, below a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else str(Path(folder) / name)


def open_reading(place: str) -> IO[bytes]:
    """Opens a file that can seek.

    Raises:
        OSError: The file cannot be read; FileNotFoundError if there is none.
    """
    if not is_remote(place):
        return Path(place).open("rb")
    with _as_os_errors(place):
        blob = _blob(place)
        # Opened blobs ask for their size only when they are read.
        blob.reload(retry=_RETRY)
        stream: IO[bytes] = blob.open("rb", retry=_RETRY)
        return stream


@contextmanager
def writing_file(place: str) -> Iterator[IO[bytes]]:
    """Yields a stream; the file appears, complete, when the block ends without an error.

    Two writers of the same place do not disturb each other: the last one to end wins.

    Raises:
        OSError: The file cannot be written.
    """
    if is_remote(place):
        with tempfile.TemporaryFile() as content:
            yield content
            with _as_os_errors(place):
                blob = _blob(place)
                blob.chunk_size = _UPLOAD_CHUNK_BYTES
                blob.upload_from_file(content, rewind=True, checksum="crc32c", retry=_RETRY)
        return
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{_UNFINISHED_PREFIX}{path.name}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("wb") as stream:
            yield stream
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def list_files(folder: str) -> list[str]:
    """Returns the names of all files below a folder, ascending; none if there is no such folder.

    Raises:
        OSError: The folder cannot be listed.
    """
    if not is_remote(folder):
        root = Path(folder)
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    with _as_os_errors(folder):
        bucket, prefix = _bucket_and_name(folder.rstrip("/") + "/")
        names = [blob.name.removeprefix(prefix) for blob in _client().list_blobs(bucket, prefix=prefix, retry=_RETRY)]
    # A name that ends in a slash is a folder that some tool made visible.
    return sorted(name for name in names if name and not name.endswith("/"))


def remove_folder(folder: str) -> None:
    """Removes a folder and everything below it; there may be none.

    Raises:
        OSError: A file cannot be removed.
    """
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for name in list_files(folder):
        _remove_file(join(folder, name))


def remove_unfinished(folder: str) -> None:
    """Removes what writers that were killed left below a local folder; in a bucket they leave nothing."""
    if not is_remote(folder):
        for path in Path(folder).rglob(f"{_UNFINISHED_PREFIX}*"):
            path.unlink(missing_ok=True)


@contextmanager
def writing_output(output: str) -> Iterator[str]:
    """Yields a folder to fill; when the block ends it is `output`, if it holds a manifest.

    Args:
        output: The artifact's final place. Locally it may exist as an empty folder; in an object store it may hold
            what an attempt that was killed left behind.

    Raises:
        InputError: `output` is taken, or cannot be written.
    """
    if not is_remote(output):
        with writing_artifact(Path(output)) as partial:
            yield str(partial)
        return
    try:
        _claim(output)
        try:
            yield output
            assert MANIFEST_NAME in list_files(output), f"{output} was left without {MANIFEST_NAME}"
            _remove_file(join(output, UNFINISHED_NAME))
        except BaseException:
            remove_folder(output)
            raise
    except OSError as error:
        raise InputError(explain_os_error(error, output)) from error


def _claim(output: str) -> None:
    """Marks an object store's folder as being written, and clears what an unfinished attempt left there."""
    names = list_files(output)
    if MANIFEST_NAME in names or (names and UNFINISHED_NAME not in names):
        raise InputError(f"The output {output} already exists and is not empty: remove it or choose another folder.")
    with writing_file(join(output, UNFINISHED_NAME)):
        pass
    for name in names:
        if name != UNFINISHED_NAME:
            _remove_file(join(output, name))


def _remove_file(place: str) -> None:
    with _as_os_errors(place):
        _blob(place).delete(retry=_RETRY)


@functools.cache
def _client() -> Any:
    return storage.Client()


def _blob(place: str) -> Any:
    bucket, name = _bucket_and_name(place)
    return _client().bucket(bucket).blob(name)


def _bucket_and_name(place: str) -> tuple[str, str]:
    scheme, _, rest = place.partition("://")
    bucket, _, name = rest.partition("/")
    if scheme != "gs" or not bucket or not name:
        raise OSError(errno.EINVAL, "is not of the form gs://bucket/name", place)
    return bucket, name


@contextmanager
def _as_os_errors(place: str) -> Iterator[None]:
    """Turns what the client raises into the `OSError` that a local file would give."""
    try:
        yield
    except GoogleAPICallError as error:
        if error.code == 404:
            raise FileNotFoundError(errno.ENOENT, "no such bucket or object", place) from error
        number = errno.EACCES if error.code in (401, 403) else errno.EIO
        raise OSError(number, " ".join(str(error.message).split()), place) from error
    except (GoogleAPIError, GoogleAuthError, RequestException) as error:
        raise OSError(errno.EIO, " ".join(str(error).split()), place) from error
