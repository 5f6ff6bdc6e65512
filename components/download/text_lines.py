"""Text files as blocks of whole lines with their line numbers, and the list of the lines that were refused."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from components.ncf.errors import InputError

BLOCK_BYTES = 16 << 20
_MAX_LINE_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class TextBlock:
    """Some whole lines of a file.

    Attributes:
        text: The lines, each but perhaps the file's last ending in a line feed.
        first_line: The 1-based number of the first one.
    """

    text: bytes
    first_line: int

    @property
    def num_lines(self) -> int:
        """Counts the lines, blank ones included."""
        return self.text.count(b"\n") + (not self.text.endswith(b"\n"))

    def pieces(self, piece_bytes: int) -> Iterator["TextBlock"]:
        """Cuts the block into smaller ones of about `piece_bytes` bytes."""
        start, line = 0, self.first_line
        while start < len(self.text):
            end = self.text.find(b"\n", start + piece_bytes - 1) + 1 or len(self.text)
            piece = TextBlock(self.text[start:end], line)
            yield piece
            start, line = end, line + piece.num_lines

    def numbered_lines(self) -> Iterator[tuple[int, bytes]]:
        """Yields each line that is not blank, without its line end, after its 1-based number."""
        for number, line in enumerate(self.text.removesuffix(b"\n").split(b"\n"), start=self.first_line):
            if line := line.removesuffix(b"\r"):
                yield number, line


class BlockReader:
    """Cuts a byte stream into blocks of whole lines, in memory bounded by the block's size."""

    def __init__(self, stream: IO[bytes], name: str, block_bytes: int = BLOCK_BYTES) -> None:
        """Prepares to read.

        Args:
            stream: The file's bytes from its start.
            name: What to call the file in errors.
            block_bytes: About how many bytes a block has.

        Raises:
            InputError: The stream does not start like a text file.
        """
        self.name = name
        self.num_lines = 0  # read so far
        self._stream = stream
        self._block_bytes = block_bytes
        self._pending = self._read().removeprefix(_BYTE_ORDER_MARK)

    def read_header(self) -> str:
        """Returns the first line, without its line end.

        Raises:
            InputError: The file is empty, or the line is not UTF-8.
        """
        if not self._pending.strip():
            raise InputError(f"{self.name} is empty: give a file with a header line and one line per event.")
        line, _, self._pending = self._pending.partition(b"\n")
        self.num_lines += 1
        try:
            return line.rstrip(b"\r").decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{self.name}, line 1 is not UTF-8 text: save the file as UTF-8.") from None

    def __iter__(self) -> Iterator[TextBlock]:
        while True:
            more = self._read()
            text, self._pending = _split_at_last_line_end(self._pending + more) if more else (self._pending, b"")
            if text:
                block = TextBlock(text, self.num_lines + 1)
                self.num_lines += block.num_lines
                yield block
            if not more:
                return
            if len(self._pending) > _MAX_LINE_BYTES:
                raise InputError(
                    f"{self.name}, line {self.num_lines + 1} is longer than {_MAX_LINE_BYTES:,} bytes: "
                    "give a text file with one event per line."
                )

    def _read(self) -> bytes:
        data = self._stream.read(self._block_bytes)
        if self.num_lines == 0 and b"\0" in data:
            raise InputError(
                f"{self.name} is not a UTF-8 text file (it holds zero bytes): unpack it or save it as UTF-8."
            )
        return data


def _split_at_last_line_end(text: bytes) -> tuple[bytes, bytes]:
    end = text.rfind(b"\n") + 1
    return text[:end], text[end:]


def split_line(line: str, separator: str, quoted: bool) -> list[str]:
    """Cuts one line into its fields.

    Args:
        line: Without its line end.
        separator: Between two fields.
        quoted: Whether a field may stand in double quotes.

    Raises:
        ValueError: The quotes make no sense; the text is the reason.
    """
    if not quoted or '"' not in line:
        return line.split(separator)
    # The second line is there to be asked for: the reader takes it only if a quote is still open.
    reader = csv.reader([line, ""], delimiter=separator)
    try:
        fields = next(reader)
    except csv.Error as error:
        raise ValueError(f"not a line of CSV ({error})") from None
    if reader.line_num > 1:
        raise ValueError("a quoted field is not closed on this line")
    return fields


def require_num_fields(fields: list[str], num_fields: int) -> None:
    """Compares the number of a line's fields with what every line has.

    Raises:
        ValueError: They differ; the text is the reason.
    """
    if len(fields) != num_fields:
        kind = "missing" if len(fields) < num_fields else "extra"
        raise ValueError(f"{kind} field: {len(fields)} where {num_fields} are needed")


class RejectedLines:
    """Writes `rejected.csv` (file, line, reason) and fails when a file has too many bad lines."""

    def __init__(self, path: Path, max_fraction: float) -> None:
        """Opens the list.

        Args:
            path: Where to write it.
            max_fraction: The largest share of a file's lines that may be bad, in [0, 1].
        """
        self.total = 0
        self._max_fraction = max_fraction
        self._stream = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._stream, lineterminator="\n")
        self._writer.writerow(("file", "line", "reason"))
        self._count_by_file: dict[str, int] = {}
        self._first_by_file: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def add(self, file: str, line: int, reason: str) -> None:
        """Notes one bad line.

        Args:
            file: The file's name.
            line: 1-based.
            reason: What is wrong with it.
        """
        self.total += 1
        self._writer.writerow((file, line, reason))
        self._count_by_file[file] = self._count_by_file.get(file, 0) + 1
        self._first_by_file.setdefault(file, f"{file}, line {line} is bad ({reason})")

    def judge(self, file: str, num_lines: int) -> None:
        """Decides about a file that was read to its end.

        Args:
            file: The file's name.
            num_lines: All of its lines, a header not counted.

        Raises:
            InputError: More than `max_fraction` of its lines are bad.
        """
        count = self._count_by_file.get(file, 0)
        if count <= self._max_fraction * num_lines:
            return
        enough = math.ceil(count / num_lines * 1e6) / 1e6
        raise InputError(
            f"{self._first_by_file[file]}; {count:,} of {num_lines:,} lines are bad, above max_rejected_fraction "
            f"{self._max_fraction:g}: mend the file, or leave such lines out with "
            f"--set download.max_rejected_fraction={enough:g}."
        )

    def refuse_any(self, file: str) -> None:
        """Decides about a file that no line may be left out of.

        Raises:
            InputError: It has a bad line.
        """
        if file in self._first_by_file:
            raise InputError(f"{self._first_by_file[file]}: mend the file.")
