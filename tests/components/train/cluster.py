"""Real processes that train together over loopback, each with the TF_CONFIG that a cluster's scheduler would set."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path


class TrainingCluster:
    """Starts `neumf train` once for each task and, like a scheduler, starts a task again that was killed."""

    def __init__(self, arguments: Sequence[str], logs: Path, roles: dict[str, int]) -> None:
        """Describes the cluster.

        Args:
            arguments: Those of `neumf train`.
            logs: A folder for what the tasks print.
            roles: How many tasks of each role, for example {"chief": 1, "worker": 1}.
        """
        self._arguments = arguments
        self._logs = logs
        logs.mkdir(exist_ok=True)
        with ExitStack() as stack:
            ports = {role: [_free_port(stack) for _ in range(count)] for role, count in roles.items()}
        self._cluster = {role: [f"127.0.0.1:{port}" for port in of_role] for role, of_role in ports.items()}
        self.tasks = [(role, index) for role, count in roles.items() for index in range(count)]
        self._processes: dict[tuple[str, int], subprocess.Popen[bytes]] = {}

    def start(self, task: tuple[str, int], *more_arguments: str) -> None:
        """Starts one task, with arguments of its own if there are any; what it prints is appended to its log."""
        config = {
            "cluster": self._cluster,
            "task": {"type": task[0], "index": task[1]},
            "environment": "cloud",
            "job": json.dumps({"worker_pool_specs": []}),
        }
        with self.log_path(task).open("ab") as log:
            self._processes[task] = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from pipelines.cli import main; main()",
                    "train",
                    *self._arguments,
                    *more_arguments,
                ],
                env=os.environ | {"TF_CONFIG": json.dumps(config)},
                stdout=log,
                stderr=log,
            )

    def statuses(self, timeout_s: float = 240) -> dict[tuple[str, int], int]:
        """Waits until all started tasks have ended; returns what with."""
        try:
            return {task: process.wait(timeout_s) for task, process in self._processes.items()}
        finally:
            self._end()

    def run(self, timeout_s: float = 240, disturb: Callable[["TrainingCluster"], None] | None = None) -> None:
        """Starts all tasks and waits until the chief has ended well; starts again what was killed meanwhile."""
        for task in self.tasks:
            self.start(task)
        deadline = time.monotonic() + timeout_s
        try:
            while (status := self._processes["chief", 0].poll()) != 0:
                if disturb is not None:
                    disturb(self)
                assert time.monotonic() < deadline, f"the cluster did not end: {self.all_logs()}"
                assert status in (None, -signal.SIGKILL), f"the chief ended with {status}: {self.all_logs()}"
                for task, process in list(self._processes.items()):
                    if process.poll() == -signal.SIGKILL:
                        self.start(task)
                time.sleep(0.05)
            for task, process in self._processes.items():
                assert process.wait(timeout=60) == 0, f"{task}: {self.all_logs()}"
        finally:
            self._end()

    def _end(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def kill(self, task: tuple[str, int]) -> None:
        """Ends a task as a machine that fails does."""
        self._processes[task].send_signal(signal.SIGKILL)
        self._processes[task].wait()

    def log_path(self, task: tuple[str, int]) -> Path:
        return self._logs / f"{task[0]}{task[1]}.log"

    def log(self, task: tuple[str, int]) -> str:
        return self.log_path(task).read_text(errors="replace")

    def all_logs(self) -> str:
        return "\n".join(f"--- {task}\n{self.log(task)[-3000:]}" for task in self.tasks)


def _free_port(stack: ExitStack) -> int:
    """Returns a port that nobody listens on. All are held until all are found, so that they differ."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    return port
