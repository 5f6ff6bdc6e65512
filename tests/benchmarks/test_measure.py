import os
import sys
from pathlib import Path

import pytest

from benchmarks.measure import CommandFailedError, measure

_MEGABYTE = 1_000_000


def test_memory_of_a_grandchild_counts_and_so_do_the_files_written(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    grandchild = "import time; block = bytearray(b'x') * 200_000_000; time.sleep(1)"
    child = (
        "import pathlib, subprocess, sys; block = bytearray(b'x') * 150_000_000;"
        f"subprocess.run([sys.executable, '-c', {grandchild!r}], check=True);"
        f"pathlib.Path({str(output / 'file')!r}).write_bytes(bytes(1234))"
    )
    took = measure([sys.executable, "-c", child], output, tmp_path / "log", os.environ)
    assert 350 * _MEGABYTE < took.peak_bytes < 450 * _MEGABYTE
    assert took.bytes_written == 1234
    assert took.wall_s >= 1


def test_a_command_that_fails_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"]
    with pytest.raises(CommandFailedError, match=r"(?s)status 3 of .*the reason"):
        measure(command, tmp_path, tmp_path / "log", os.environ)
