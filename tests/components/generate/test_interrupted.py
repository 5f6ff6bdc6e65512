"""A step that is killed leaves nothing that looks complete, and simply run again succeeds."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

NUM_USERS, NUM_ITEMS, ROWS_PER_USER = 6_000, 3_000, 60

# What is there when the process is killed: where its blocks wait, then one kind of file after the other.
MOMENTS = {
    "started": lambda partial: partial.exists(),
    "reading": lambda partial: any((partial / ".scratch").iterdir()),
    "positives": lambda partial: any((partial / "positives").iterdir()),
    "candidates": lambda partial: any((partial / "eval").iterdir()),
    "offline epoch": lambda partial: any((partial / "training_cycle_1").iterdir()),
    "tables": lambda partial: (partial / "items.parquet").exists(),
}


@pytest.fixture(scope="module")
def ratings(write_ratings_below: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough rows that every moment lasts longer than the watcher takes to see it."""
    folder = tmp_path_factory.mktemp("large")
    path = write_ratings_below(folder, [(1, 1, 1.0, 1), (2, 2, 1.0, 1)])
    rng = np.random.default_rng(0)
    items = np.stack([rng.choice(NUM_ITEMS, ROWS_PER_USER, replace=False) for _ in range(NUM_USERS)])
    table = pa.table(
        {
            "raw_user_id": np.repeat(np.arange(NUM_USERS), ROWS_PER_USER),
            "raw_item_id": items.ravel(),
            "rating": np.ones(items.size, np.float32),
            "timestamp": rng.integers(0, 10**9, items.size),
        }
    )
    pq.write_table(table, next(path.glob("interactions-*")), row_group_size=40_000)
    return path


def command(ratings: Path, output: Path) -> list[str]:
    return [
        str(Path(sys.executable).with_name("neumf")), "generate", "--ratings", str(ratings), "--output", str(output),
        "--set", "generate.offline_epochs=2", "--set", "generate.train_prebatch_size=10000",
    ]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def expected(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("expected") / "examples"
    subprocess.run(command(ratings, output), check=True, capture_output=True)
    assert (output / "manifest.json").is_file()
    return contents(output)


def is_true(condition: Callable[[Path], Any], partial: Path) -> bool:
    try:
        return bool(condition(partial))
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_nothing_complete_and_the_next_run_succeeds(
    ratings: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    output, partial = tmp_path / "examples", tmp_path / ".examples.partial"
    for moment, condition in MOMENTS.items():
        # What an earlier attempt left must not be taken for this one's; the last run below has to clear it itself.
        shutil.rmtree(partial, ignore_errors=True)
        process = subprocess.Popen(command(ratings, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not is_true(condition, partial):
            assert process.poll() is None, f"the process ended before the moment {moment!r}"
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not output.exists(), moment
        assert partial.exists(), moment
        assert not (partial / "manifest.json").exists(), moment
    subprocess.run(command(ratings, output), check=True, capture_output=True)
    assert contents(output) == expected
    assert not partial.exists()


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(1_000)
"""
IDLE_WORKER = """
import threading
from apache_beam.runners.worker import sdk_worker_main
from components.generate import local_worker

def wait(_):
    print("ready", flush=True)
    threading.Event().wait()

sdk_worker_main.main = wait
local_worker.main()
"""


def test_a_worker_process_that_has_nothing_to_do_ends_with_its_parent_too() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, IDLE_WORKER], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        assert worker.is_running()
        parent.kill()
    _, alive = psutil.wait_procs([worker], timeout=60)
    for orphan in alive:
        orphan.kill()
    assert alive == []


@pytest.mark.slow
def test_worker_processes_end_with_the_process_that_is_killed(ratings: Path, tmp_path: Path) -> None:
    processes = ["--beam-option", "direct_running_mode=multi_processing", "--beam-option", "direct_num_workers=2"]
    process = subprocess.Popen(
        [*command(ratings, tmp_path / "examples"), *processes], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not is_true(MOMENTS["positives"], tmp_path / ".examples.partial"):
        assert process.poll() is None, "the process ended before it wrote anything"
        time.sleep(0.001)
    workers = descendants(process.pid)
    # Beam's own would end by themselves at most moments, when they next talk to the process that is gone.
    own = ["-m", "components.generate.local_worker", str(process.pid)]
    assert [worker.cmdline()[1:] for worker in workers] == [own, own]
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    for orphan in alive:
        orphan.kill()
    assert alive == []


@pytest.mark.slow
def test_a_second_run_to_the_same_output_is_refused_while_the_first_goes_on(
    ratings: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "examples"
    process = subprocess.Popen(command(ratings, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not is_true(MOMENTS["reading"], tmp_path / ".examples.partial"):
        assert process.poll() is None, "the process ended before it wrote anything"
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    second = subprocess.run(command(ratings, output), check=False, capture_output=True, text=True)
    process.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert f"error: Another process is writing the output {output}: wait for its end" in second.stderr
    assert process.wait() == 0
    assert contents(output) == expected
