"""`neumf generate` on a Flink cluster, as users run it: the same bytes, and no more harm done than a sentence."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.distributed.cluster import NUM_RESTARTS, FlinkCluster
from tests.distributed.ratings_folder import write_ratings

JOB_TIMEOUT_S = 300


def generate(ratings: Path, output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    neumf = str(Path(sys.executable).parent / "neumf")
    command = [neumf, "generate", "--ratings", str(ratings), "--output", str(output)]
    command += ["--set", "generate.num_shards=8", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=JOB_TIMEOUT_S)


def digests(folder: Path) -> dict[str, str]:
    """Every file below the folder, hidden ones too, but for the manifest."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def assert_same(output: Path, expected: Path) -> None:
    assert digests(output) == digests(expected)
    ours, theirs = (json.loads((folder / "manifest.json").read_text()) for folder in (output, expected))
    assert ours["files"] == theirs["files"]
    assert ours["digest"] == theirs["digest"]


def assert_one_sentence_and_nothing_left(result: subprocess.CompletedProcess[str], output: Path) -> str:
    assert result.returncode == 1, result.stderr
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.stderr
    assert not list(output.parent.rglob("manifest.json"))
    assert not output.exists()
    return sentence


class WorkerKiller(threading.Thread):
    """Kills Python workers of a cluster, each while it is writing a record file below a folder."""

    def __init__(self, cluster: FlinkCluster, folder: Path, num_kills: int) -> None:
        super().__init__(daemon=True)
        self.cluster, self.folder, self.num_kills = cluster, folder, num_kills
        self.killed: list[int] = []
        self.is_over = threading.Event()

    def run(self) -> None:
        while len(self.killed) < self.num_kills and not self.is_over.is_set():
            for pid in set(self.cluster.workers()) - set(self.killed):
                if self.is_writing(pid):
                    os.kill(pid, signal.SIGKILL)
                    self.killed.append(pid)
                    # The other workers of this attempt end with it.
                    time.sleep(1)
                    break
            time.sleep(0.01)

    def is_writing(self, pid: int) -> bool:
        try:
            places = [file.path for file in psutil.Process(pid).open_files()]
        except psutil.Error:
            return False
        return any(place.startswith(str(self.folder)) and ".tfrecord" in place for place in places)


@pytest.fixture(scope="session")
def expected(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the in-memory runner makes of the million."""
    output = tmp_path_factory.mktemp("in_memory") / "examples"
    result = generate(ratings, output)
    assert result.returncode == 0, result.stderr
    return output


def records_written(cluster: FlinkCluster, job: str, step: str) -> dict[str, int]:
    """Returns how many elements each task manager handed on from the stage with the named step."""
    vertices = [vertex for vertex in cluster.ask(f"/jobs/{job}")["vertices"] if step in vertex["name"]]
    written: dict[str, int] = {}
    for vertex in vertices:
        for manager in cluster.ask(f"/jobs/{job}/vertices/{vertex['id']}/taskmanagers")["taskmanagers"]:
            number = manager["metrics"]["write-records"]
            written[manager["taskmanager-id"]] = written.get(manager["taskmanager-id"], 0) + number
    return written


def test_flink_writes_the_bytes_of_the_in_memory_runner(
    cluster: FlinkCluster, ratings: Path, expected: Path, tmp_path: Path
) -> None:
    before = {job["id"] for job in cluster.ask("/jobs")["jobs"]}
    workers_before = set(cluster.workers())
    output = tmp_path / "examples"
    result = generate(ratings, output, *cluster.beam_options())
    assert result.returncode == 0, result.stderr
    assert_same(output, expected)
    # Beam's counters come through the engine.
    rows = json.loads((expected / "manifest.json").read_text())["counts"]["rows_read"]
    assert f"{rows:,} rows read" in result.stderr + result.stdout
    # Both task managers had a share of the reading and of the writing, each with Python workers of its own.
    (job,) = {job["id"] for job in cluster.ask("/jobs")["jobs"]} - before
    for step in ("Read interactions", "Write candidates"):
        shares = records_written(cluster, job, step)
        assert len(shares) == 2, shares
        assert all(shares.values()), shares
    parents = {parent for pid, parent in cluster.workers().items() if pid not in workers_before}
    assert parents == set(cluster.task_manager_pids)


def test_a_job_survives_a_killed_worker(cluster: FlinkCluster, ratings: Path, expected: Path, tmp_path: Path) -> None:
    killer = WorkerKiller(cluster, tmp_path, num_kills=1)
    killer.start()
    output = tmp_path / "examples"
    result = generate(ratings, output, *cluster.beam_options())
    killer.is_over.set()
    assert len(killer.killed) == 1, "no worker was caught writing"
    assert result.returncode == 0, result.stderr
    assert_same(output, expected)


def test_a_job_whose_workers_die_again_and_again_ends_in_a_sentence(
    cluster: FlinkCluster, ratings: Path, tmp_path: Path
) -> None:
    killer = WorkerKiller(cluster, tmp_path, num_kills=NUM_RESTARTS + 1)
    killer.start()
    output = tmp_path / "examples"
    result = generate(ratings, output, *cluster.beam_options())
    killer.is_over.set()
    assert len(killer.killed) == NUM_RESTARTS + 1
    sentence = assert_one_sentence_and_nothing_left(result, output)
    assert "The flink runner gave up" in sentence


def test_a_mistake_in_the_data_is_one_sentence_through_a_job_server_of_its_own(
    cluster: FlinkCluster, tmp_path: Path
) -> None:
    """User 3 has seen every item, which a worker finds out."""
    users, items = np.divmod(np.arange(30 * 40), 40)
    keep = (users == 3) | (items >= 5)
    ratings = write_ratings(tmp_path / "ratings", users[keep], items[keep], items[keep])
    output = tmp_path / "out" / "examples"
    options = cluster.beam_options(
        job_endpoint=None, flink_job_server_jar=str(cluster.job_server_jar), flink_master=cluster.flink_master
    )
    result = generate(ratings, output, *options)
    sentence = assert_one_sentence_and_nothing_left(result, output)
    assert "User 3 has interacted with every one of the 40 items" in sentence
