"""Runs a command to its end and measures it: wall time, processor time, memory of the whole process tree, files."""

import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_SECONDS_BETWEEN_SAMPLES = 0.1


@dataclass(frozen=True)
class Measurement:
    """What one command took.

    Attributes:
        wall_s: From its start to its end.
        processor_s: User and system time of the process and of the children that it waited for.
        peak_bytes: The largest sum of the resident sets of the process and all its descendants, sampled ten times a
            second. A page that several of them share counts in each. (The proportional set size, which counts it
            once, would leave out what they share with strangers; the kernel's own maximum would include what the
            measuring process had resident when it forked.)
        bytes_written: Of the files in the output folder.
    """

    wall_s: float
    processor_s: float
    peak_bytes: int
    bytes_written: int


class CommandFailedError(RuntimeError):
    """The command ended with a status other than 0."""


def measure(command: Sequence[str], output: Path, log: Path, environment: Mapping[str, str]) -> Measurement:
    """Runs a command and measures it.

    Args:
        command: The program and its arguments.
        output: The folder whose files are added up in the end; what it holds before counts, too.
        log: Takes what the command prints.
        environment: Its environment variables.

    Raises:
        CommandFailedError: With the last lines that it printed.
    """
    with log.open("wb") as stream:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        try:
            peak_bytes, status, usage = _watch(process.pid)
        except BaseException:
            process.kill()
            raise
        wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise CommandFailedError(f"status {process.returncode} of {' '.join(command)}:\n{tail}")
    return Measurement(
        wall_s=wall_s,
        processor_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=peak_bytes,
        bytes_written=folder_bytes(output),
    )


def _watch(pid: int) -> tuple[int, int, resource.struct_rusage]:
    """Waits for a child; returns the tree's peak memory in bytes, the wait status and what the kernel counted."""
    root, peak_bytes = psutil.Process(pid), 0
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return peak_bytes, status, usage
        peak_bytes = max(peak_bytes, _tree_bytes(root))
        time.sleep(_SECONDS_BETWEEN_SAMPLES)


def folder_bytes(folder: Path) -> int:
    """Returns the sum of the sizes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _tree_bytes(root: psutil.Process) -> int:
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # it ended meanwhile
            continue
    return total
