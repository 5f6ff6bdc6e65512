"""Reading members of a zip file that somebody else made, without ever writing where it says."""

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from components.ncf.errors import InputError

# ml-25m, the largest archive of the catalogue, unpacks to 1.2 GB, at five times its size.
MAX_UNPACKED_BYTES = 8 << 30
MAX_RATIO = 100

_ENCRYPTED_FLAG = 0x1


@contextmanager
def open_archive(path: Path, uri: str, advice: str) -> Iterator[zipfile.ZipFile]:
    """Opens a zip file after judging all of its entries.

    Members are read as streams; nothing is ever extracted to a path that the archive chooses. An archive with an
    entry that could only serve to escape or to flood a disk is refused as a whole all the same.

    Args:
        path: The zip file.
        uri: What to call it in errors.
        advice: What the caller's user can do about a bad archive; ends the error's sentence.

    Raises:
        InputError: It is truncated, corrupt, encrypted or unsafe. Damage that only shows while a member is
            read is reported the same way, from within the block.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_unsafe(archive, path.stat().st_size, uri)
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{uri} is truncated or corrupt ({_sentence_part(error)}): {advice}.") from error


@contextmanager
def open_member(archive: zipfile.ZipFile, name: str, uri: str, advice: str) -> Iterator[IO[bytes]]:
    """Opens one member as a stream.

    Raises:
        InputError: The archive has no such member.
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise InputError(f"{uri} holds no {name}: {advice}.") from None
    with archive.open(info) as stream:
        yield stream


def _refuse_unsafe(archive: zipfile.ZipFile, archive_bytes: int, uri: str) -> None:
    for entry in archive.infolist():
        if reason := _unsafe_because(entry):
            raise InputError(f"{uri} is not safe to open (its entry {entry.filename!r} {reason}): use another mirror.")
    # The declared sizes can be trusted: a member's stream ends at its declared size and then checks its CRC.
    unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
    if unpacked_bytes > min(MAX_UNPACKED_BYTES, MAX_RATIO * archive_bytes):
        raise InputError(
            f"{uri} is not safe to open (its {archive_bytes:,} bytes unpack to {unpacked_bytes:,}, above {MAX_RATIO} "
            f"times as many or {MAX_UNPACKED_BYTES:,}): use another mirror."
        )


def _unsafe_because(entry: zipfile.ZipInfo) -> str:
    # `orig_filename` still has what the archive says; `filename` is what zipfile made of it.
    name = entry.orig_filename.replace("\\", "/")
    if PurePosixPath(name).is_absolute() or name[1:2] == ":":
        return "has an absolute path"
    if ".." in PurePosixPath(name).parts:
        return "leads out of its folder"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a symbolic link"
    if entry.flag_bits & _ENCRYPTED_FLAG:
        return "is encrypted"
    return ""


def _sentence_part(error: Exception) -> str:
    text = str(error).rstrip(".")
    return text[:1].lower() + text[1:] if text else type(error).__name__
