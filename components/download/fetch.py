"""Brings a file that a URI names to this machine, and checks it against its published md5."""

import logging
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from components.download import http_transfer
from components.ncf.errors import InputError
from components.ncf.manifest import file_digest

_log = logging.getLogger(__name__)

MIRROR_ADVICE = "check the network, or name a mirror that you can reach with --mirror (https://, gs:// or file://)"
COPY_ADVICE = "check the address and the network, or download it yourself and name the local path"

_GCS_CHUNK_BYTES = 1 << 20
_GCS_RETRY_LIMIT_S = 15


class FileMissingError(InputError):
    """The place can be reached, and it holds no such file."""


def fetch(uri: str, folder: Path, advice: str) -> Path:
    """Returns a local path that holds what a URI names.

    Args:
        uri: A path, or a `file://`, `http://`, `https://` or `gs://` URI. Local files are not copied.
        folder: Where to put what comes over the network.
        advice: What the caller's user can do about a failure; ends the error's sentence.

    Returns:
        The file itself if it is local, else a new file in `folder`.

    Raises:
        FileMissingError: There is no such file.
        InputError: It cannot be fetched for another reason.
        OSError: `folder` cannot be written.
    """
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    if scheme in ("", "file"):
        return _local_path(uri, advice)
    if scheme not in ("http", "https", "gs"):
        raise InputError(f"{uri} has an unknown scheme: use https://, gs://, file:// or a local path.")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (re.sub(r"[^A-Za-z0-9._-]", "_", uri.rsplit("/", 1)[-1])[-100:] or "file")
    _log.info("Fetching %s", uri)
    if scheme == "gs":
        _download_gcs(uri, target, advice)
    else:
        _download_http(uri, target, advice)
    return target


def published_md5(uri: str, folder: Path, advice: str) -> str:
    """Reads the md5 that stands beside an archive, in the file `<uri>.md5`.

    Both usual forms are read: `HEX  name` and `MD5 (name) = HEX`.

    Raises:
        FileMissingError: There is no such file.
        InputError: It cannot be fetched, or holds no md5.
    """
    path = fetch(f"{uri}.md5", folder, advice)
    with path.open("rb") as stream:
        text = stream.read(1 << 16).decode("utf-8", errors="replace")
    name = uri.rsplit("/", 1)[-1]
    found = [(match[0], line) for line in text.splitlines() if (match := re.search(r"\b[0-9a-fA-F]{32}\b", line))]
    named = [digest for digest, line in found if name in line]
    if not found:
        raise InputError(f"{uri}.md5 holds no md5: write `md5sum {name}` into it.")
    return (named[0] if named else found[0][0]).lower()


def check_md5(path: Path, uri: str, expected: str, advice: str) -> None:
    """Compares a file with its published md5, before anything opens it.

    Raises:
        InputError: They differ.
    """
    actual = file_digest(path, "md5")
    if actual != expected:
        raise InputError(
            f"{uri} is damaged or is not the published file (md5 {actual}, expected {expected}): {advice}."
        )


def _local_path(uri: str, advice: str) -> Path:
    path = Path(uri).expanduser()
    if "://" in uri:
        parts = urllib.parse.urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise InputError(f"{uri} names another machine ({parts.netloc}): write file:///path with three slashes.")
        path = Path(urllib.request.url2pathname(parts.path))
    if not path.exists():
        place = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise FileMissingError(f"{uri} does not exist{place}: {advice}.")
    if not path.is_file():
        raise InputError(f"{uri} is not a file: {advice}.")
    return path


def _download_http(uri: str, target: Path, advice: str) -> None:
    try:
        http_transfer.download_http(uri, target, http_transfer.RETRY_POLICY)
    except http_transfer.TransferError as error:
        kind = FileMissingError if error.status in (404, 410) else InputError
        raise kind(f"{uri} could not be fetched ({error}): {advice}.") from error


def _download_gcs(uri: str, target: Path, advice: str) -> None:
    from pyarrow import fs  # lazily: few runs read from a bucket, and the import opens the cloud libraries

    try:
        # The client retries by itself, by default for fifteen minutes.
        filesystem, path = fs.FileSystem.from_uri(f"{uri}?retry_limit_seconds={_GCS_RETRY_LIMIT_S}")
        source = filesystem.open_input_stream(path)
    except FileNotFoundError as error:
        raise FileMissingError(f"{uri} does not exist: {advice}.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{uri} could not be fetched ({_plain(error)}): {advice}.") from error
    progress = http_transfer.Progress(target.name)
    with source, target.open("wb") as stream:
        while chunk := _read_gcs(source, uri, advice):
            stream.write(chunk)
            progress.report(stream.tell(), None)


def _read_gcs(source: Any, uri: str, advice: str) -> bytes:
    try:
        chunk: bytes = source.read(_GCS_CHUNK_BYTES)
    except OSError as error:
        raise InputError(f"{uri} could not be fetched ({_plain(error)}): {advice}.") from error
    return chunk


def _plain(error: Exception) -> str:
    """Takes the reason out of the storage client's message, which wraps it in its own state."""
    text = str(error).strip()
    code = re.search(r"google::cloud::Status\((\w+):", text)
    status = code[1].lower().replace("_", " ") if code else ""
    detail = text.rsplit("last message of ", 1)[-1].split("\n", 1)[0].split(" error_info=", 1)[0].split(". ", 1)[0]
    if detail.startswith(("<", "{")):  # the whole body of an answer
        return status
    return f"{status}: {detail}" if status else detail
