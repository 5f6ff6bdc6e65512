"""Runs the compiled pipeline with kfp's own local runner and watches its steps."""

import contextlib
import io
import re
import signal
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TextIO

import psutil

from components.ncf.errors import InputError
from components.ncf.manifest import MANIFEST_NAME
from components.ncf.step import ERROR_MARK
from pipelines.containers import Containers, connect, honest_containers, make_docker_runner, require_images

RUNNERS = ("subprocess", "docker")
# Outputs that are folders with a manifest: the runner's word alone does not prove that a step has succeeded.
FOLDERS = {
    "ratings": "download",
    "examples": "generate",
    "model": "train",
    "baseline": "baseline",
    "evaluation": "evaluate",
    "decision": "gate",
}
# The same of steps that the gate may keep from running.
GATED_FOLDERS = {"recommendations": "recommend"}
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_RUNNER_LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} - (?:INFO|WARNING|ERROR) - (.*)")
_TASK_STARTED = re.compile(r"Executing task '([\w-]+)'")
_TASK_ENDED = re.compile(r"Task '([\w-]+)' finished with status (\w+)")
# What kfp's own executor says inside a step.
_EXECUTOR_MARK = "[KFP Executor "
# The last line of a traceback, or the first of what Python says of a crash.
_RAISED = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception)\b|Fatal Python error: ")
_LINES_KEPT = 1_000


class StepFailedError(InputError):
    """A step of the pipeline failed: its name and its own error."""


class RunInterruptedError(InputError):
    """Somebody stopped the run.

    Attributes:
        exit_status: 128 and the signal's number, as shells report it.
    """

    def __init__(self, step: str, signal_number: int) -> None:
        super().__init__(f"Interrupted in the step {step}: the run is incomplete, and so is its folder.")
        self.exit_status = 128 + signal_number


class _AbandonedError(BaseException):
    """Ends kfp's runner at a step after one that failed; not an Exception, which `logging` would swallow."""


class StepObserver(Protocol):
    """Is told what happens while a pipeline runs."""

    def step_started(self, step: str) -> None:
        """A step begins."""

    def step_logged(self, step: str, line: str) -> None:
        """The running step wrote a line."""

    def step_ended(self, step: str, duration_s: float, succeeded: bool) -> None:
        """A step is over."""


@dataclass(frozen=True)
class LocalRun:
    """A finished run.

    Attributes:
        artifacts: The folder or file of each of the pipeline's outputs.
        durations_s: Seconds from the start to the end of each step.
    """

    artifacts: Mapping[str, Path]
    durations_s: Mapping[str, float]


def run_local(pipeline: Path, runner: str, pipeline_root: Path, log: TextIO, observer: StepObserver) -> LocalRun:
    """Runs a compiled pipeline to its end.

    Args:
        pipeline: The compiled YAML, with a default for every parameter.
        runner: One of `RUNNERS`.
        pipeline_root: Folder for the artifacts, absolute.
        log: Receives everything that the runner and the steps print.
        observer: Is told of each step.

    Raises:
        StepFailedError: A step failed, or ended without its output whatever the runner says of it.
        InputError: The runner cannot be used on this machine.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kfp import components, local

        component = components.load_component_from_file(str(pipeline))
        # An engine would make the folder as root.
        pipeline_root.mkdir(parents=True, exist_ok=True)
        local.init(runner=_make_runner(runner, pipeline), pipeline_root=str(pipeline_root))
    watcher = _Watcher(log, observer)
    try:
        with (
            contextlib.redirect_stdout(watcher),
            honest_containers() as containers,
            _ending_steps_when_stopped(containers) as stopped_by,
        ):
            outputs = component().outputs
    except (RuntimeError, _AbandonedError):
        if stopped_by:
            raise RunInterruptedError(watcher.failed_step(), stopped_by[0]) from None
        raise watcher.failure("it ended without an error of its own, perhaps killed for want of memory") from None
    artifacts = {name: Path(artifact.path) for name, artifact in outputs.items()}
    for name, step in FOLDERS.items():
        if name not in artifacts or not (artifacts[name] / MANIFEST_NAME).is_file():
            raise watcher.failure("it ended without writing its output", step)
    for name, step in GATED_FOLDERS.items():
        if step in watcher.durations_s:
            # A pipeline cannot return what stands behind a condition.
            written = [path.parent for path in pipeline_root.glob(f"*/{step}/{name}/{MANIFEST_NAME}")]
            if not written:
                raise watcher.failure("it ended without writing its output", step)
            artifacts[name] = written[0]
    return LocalRun(artifacts, watcher.durations_s)


def _make_runner(name: str, pipeline: Path) -> Any:
    from kfp import local

    if name == "subprocess":
        return local.SubprocessRunner(use_venv=False)
    import yaml

    spec = yaml.safe_load(pipeline.read_text(encoding="utf-8"))
    definitions = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    parameters = {name: definition.get("defaultValue") for name, definition in definitions.items()}
    executors = dict(spec["deploymentSpec"]["executors"])
    if not parameters.get("publish_project"):
        executors.pop("exec-publish", None)
    images = (executor["container"]["image"] for executor in executors.values() if "container" in executor)
    require_images(connect(), images)
    return make_docker_runner(parameters)


@contextlib.contextmanager
def _ending_steps_when_stopped(containers: Containers) -> Iterator[list[int]]:
    """Passes an interrupt or a request to end on to the running step, which kfp would leave behind.

    Args:
        containers: Those that steps run in, where they run in any.

    Yields:
        The signal's number, once one has come.
    """
    received: list[int] = []

    def end_steps(signal_number: int, _frame: FrameType | None) -> None:
        received.append(signal_number)
        containers.stop()
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()

    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, end_steps) for number in signals}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Watcher(io.TextIOBase):
    """Stands in for standard output while kfp runs: kfp reports its steps there and passes theirs on."""

    def __init__(self, log: TextIO, observer: StepObserver) -> None:
        self.durations_s: dict[str, float] = {}
        self._log = log
        self._observer = observer
        self._pending = ""
        self._running: str | None = None
        self._failed: str | None = None
        self._started = 0.0
        self._lines: dict[str, deque[str]] = {}

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._log.write(_COLOR.sub("", text))
        self._log.flush()
        *lines, self._pending = (self._pending + text).split("\n")
        for line in lines:
            self._read(_COLOR.sub("", line).rstrip())
        return len(text)

    def failure(self, reason: str, step: str | None = None) -> StepFailedError:
        """Makes the error of a failed run from the failed step's own words."""
        step = step or self.failed_step()
        lines = list(self._lines.get(step, []))
        marked = [line.removeprefix(ERROR_MARK) for line in lines if line.startswith(ERROR_MARK)]
        raised = [line for line in lines if _RAISED.match(line)]
        own = (marked or raised or [f"{reason}; run.log has what it wrote."])[-1]
        return StepFailedError(f"The step {step} failed: {own}")

    def failed_step(self) -> str:
        """Returns the step that failed, was running or ran last, and ends it."""
        step = self._failed or self._running or (list(self._lines) or ["pipeline"])[-1]
        if self._running:
            self._end(succeeded=False)
        return step

    def _read(self, line: str) -> None:
        if runner_line := _RUNNER_LINE.fullmatch(line):
            self._read_runner_line(runner_line.group(1))
        elif self._running and line.strip() and _EXECUTOR_MARK not in line:
            # kfp indents what a step prints by four spaces.
            text = line.removeprefix("    ")
            self._lines[self._running].append(text)
            self._observer.step_logged(self._running, text)

    def _read_runner_line(self, line: str) -> None:
        if started := _TASK_STARTED.match(line):
            if self._failed:
                # kfp would run what does not depend on it, which may take hours and changes nothing.
                raise _AbandonedError
            self._running, self._started = started.group(1), time.perf_counter()
            self._lines[self._running] = deque(maxlen=_LINES_KEPT)
            self._observer.step_started(self._running)
        elif ended := _TASK_ENDED.match(line):
            self._end(succeeded=ended.group(2) == "SUCCESS")

    def _end(self, succeeded: bool) -> None:
        if self._running is None:
            return
        step, self._running = self._running, None
        if not succeeded:
            self._failed = step
        self.durations_s[step] = time.perf_counter() - self._started
        self._observer.step_ended(step, self.durations_s[step], succeeded)
