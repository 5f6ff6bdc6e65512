"""A Flink of several processes on this machine: a job manager, task managers, Beam's job server, Python workers."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
NUM_TASK_MANAGERS = 2
NUM_RESTARTS = 2
START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 20

# What Flink and Kryo reach into, which Java closes from version 16 on; the list is that of Flink's own configuration.
OPENED = (
    "java.lang java.lang.invoke java.lang.reflect java.io java.net java.nio java.text java.time java.util "
    "java.util.concurrent java.util.concurrent.atomic java.util.concurrent.locks sun.nio.ch sun.net.util"
)
JAVA = (
    "java",
    "-XX:+UseSerialGC",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    *(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in OPENED.split()),
)
CONFIGURATION = """
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc_port}
jobmanager.bind-host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {rest_port}
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: 1
taskmanager.cpu.cores: 1.0
taskmanager.memory.task.heap.size: 512m
taskmanager.memory.task.off-heap.size: 64m
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.network.min: 128m
taskmanager.memory.network.max: 128m
taskmanager.memory.managed.size: 256m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
restart-strategy: fixed-delay
restart-strategy.fixed-delay.attempts: {num_restarts}
restart-strategy.fixed-delay.delay: 1 s
io.tmp.dirs: {folder}/tmp
blob.storage.directory: {folder}/tmp
"""
# A task manager starts this for each of its workers; it notes who is whose.
WORKER = """#!/bin/sh
echo "$$ $PPID" >> {folder}/workers
cd {root} && exec {python} -m components.generate.beam_worker "$@"
"""


@dataclass
class FlinkCluster:
    """A running cluster.

    Attributes:
        folder: Configuration and logs.
        job_endpoint: host:port of Beam's job server.
        flink_master: host:port of Flink's REST service.
        job_server_jar: What starts another job server.
        task_manager_pids: Their processes.
    """

    folder: Path
    job_endpoint: str
    flink_master: str
    job_server_jar: Path
    task_manager_pids: list[int] = field(default_factory=list)

    def beam_options(self, **changes: str | None) -> list[str]:
        """Returns the arguments that send a `neumf generate` here."""
        values = {
            "job_endpoint": self.job_endpoint,
            "parallelism": str(NUM_TASK_MANAGERS),
            "environment_type": "PROCESS",
            "environment_config": json.dumps({"command": str(self.folder / "worker")}),
            **changes,
        }
        given = [f"{name}={value}" for name, value in values.items() if value is not None]
        return ["--beam-runner", "flink", *(word for option in given for word in ("--beam-option", option))]

    def ask(self, path: str) -> Any:
        """Asks Flink's REST service."""
        with urllib.request.urlopen(f"http://{self.flink_master}{path}", timeout=10) as answer:
            return json.load(answer)

    def workers(self) -> dict[int, int]:
        """Returns the Python workers started so far: their process ids and those of their task managers."""
        notes = self.folder / "workers"
        lines = notes.read_text().splitlines() if notes.exists() else []
        return {int(pid): int(parent) for pid, parent in (line.split() for line in lines)}


@contextmanager
def running_cluster(parts: Path, folder: Path) -> Iterator[FlinkCluster]:
    """Starts a cluster from the jars of `install.py` and stops each of its processes in the end."""
    rpc_port, rest_port, job_port = free_ports(3)
    cluster = FlinkCluster(folder, f"127.0.0.1:{job_port}", f"127.0.0.1:{rest_port}", parts / "job-server.jar")
    write_files(folder, rpc_port, rest_port)
    jars, conf = f"{parts / 'lib'}/*", ("--configDir", str(folder / "conf"))
    flink = "org.apache.flink.runtime"
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, heap: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([*JAVA, f"-Xmx{heap}", "-cp", jars, *arguments], stdout=log, stderr=log)
        started.append(process)
        return process

    try:
        start("job_manager", "512m", f"{flink}.entrypoint.StandaloneSessionClusterEntrypoint", *conf)
        for number in range(NUM_TASK_MANAGERS):
            process = start(f"task_manager_{number}", "768m", f"{flink}.taskexecutor.TaskManagerRunner", *conf)
            cluster.task_manager_pids.append(process.pid)
        start(
            "job_server", "512m", "org.apache.beam.runners.flink.FlinkJobServerDriver",
            "--flink-master", cluster.flink_master, "--job-host", "127.0.0.1", "--job-port", str(job_port),
            "--artifact-port", "0", "--expansion-port", "0", "--artifacts-dir", str(folder / "tmp"),
        )  # fmt: skip
        wait_until(started, lambda: cluster.ask("/overview")["taskmanagers"] == NUM_TASK_MANAGERS)
        wait_until(started, lambda: socket.create_connection(("127.0.0.1", job_port)).close() is None)
        yield cluster
    finally:
        stop(started, cluster.workers())


def write_files(folder: Path, rpc_port: int, rest_port: int) -> None:
    (folder / "conf").mkdir()
    (folder / "tmp").mkdir()
    text = CONFIGURATION.format(rpc_port=rpc_port, rest_port=rest_port, num_restarts=NUM_RESTARTS, folder=folder)
    (folder / "conf" / "flink-conf.yaml").write_text(text)
    worker = folder / "worker"
    worker.write_text(WORKER.format(folder=folder, root=ROOT, python=sys.executable))
    worker.chmod(0o755)


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def wait_until(processes: list[subprocess.Popen[bytes]], is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        for process in processes:
            assert process.poll() is None, f"a process of the cluster died: {process.args}"
        try:
            if is_ready():
                return
        except OSError:
            pass  # not there yet
        assert time.monotonic() < deadline, "the cluster did not come up"
        time.sleep(0.2)


def stop(processes: list[subprocess.Popen[bytes]], workers: dict[int, int]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pid in workers:
        try:
            left = psutil.Process(pid)
            if "components.generate.beam_worker" in left.cmdline():
                left.kill()
        except psutil.NoSuchProcess:
            pass
