"""Follows a run that a backend holds, and says what happens to its steps."""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from components.ncf.errors import InputError

# The states of a step, whatever the backend calls them, and how a line names them.
PENDING, RUNNING, SUCCEEDED, CACHED, SKIPPED, FAILED, CANCELLED = (
    "pending", "running", "succeeded", "cached", "skipped", "failed", "cancelled",
)  # fmt: skip
_STYLES = {SUCCEEDED: "green", CACHED: "green", FAILED: "red", CANCELLED: "yellow"}
_EXPLANATIONS = {CACHED: "cached: taken from an earlier run", SKIPPED: "skipped: its condition is false"}
# What platforms say of a step that they could not run, as a pattern without regard to case, and what to do about it.
_REMEDIES = (
    (r"resources are insufficient|ZONE_RESOURCE_POOL_EXHAUSTED|stockout",
     "no such machine is free there: choose another --location or --pool, or --flex-start, which waits for one"),
    (r"exceed(s|ed)? quota|quota (limit|exceeded)|custom_model_training_",
     "ask for more quota, --resume when other jobs are done, or choose another --location or --pool"),
    (r"actAs|permission to act as",
     "give the account that the pipeline acts as roles/iam.serviceAccountUser on the one that the step acts as"),
    # What is said of a replica is Vertex's word on the training job, which runs on a pool.
    (r"replica \S+ .*(OOMKilled|out[ -]of[ -]memory|status of 137\b)",
     "it ran out of memory: choose a larger --pool for train"),
    (r"OOMKilled|out[ -]of[ -]memory|exit (code|status):? 137\b|status of 137\b",
     "it ran out of memory: raise --resources {step}.memory_limit"),
    (r"ImagePullBackOff|ErrImagePull|(failed to|error|back-off|unable to) pull(ing)? (the )?(container )?image|"
     r"image \"?\S+/\S+[:@]\S+ (was |is )?not found",
     "correct the image's digest, or give the account that the step acts as roles/artifactregistry.reader"),
    (r"Unschedulable|Insufficient (cpu|memory|nvidia)",
     "no node has as much free: lower --resources {step}.cpu_request or memory_request, or add a node"),
)  # fmt: skip


@dataclass(frozen=True)
class StepState:
    """One step of a run.

    Attributes:
        step: Its name.
        state: One of the states above.
        log: Where its log is: a link, or a command that prints it; empty when there is none yet.
        error: What it died of, if it did.
    """

    step: str
    state: str
    log: str
    error: str


@dataclass(frozen=True)
class RunState:
    """A run at one moment.

    Attributes:
        state: One of the states above.
        steps: Its steps in the order in which the backend lists them.
        error: What the run died of, if it did.
    """

    state: str
    steps: tuple[StepState, ...]
    error: str

    @property
    def is_done(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in (SUCCEEDED, FAILED, CANCELLED)


class RunStoppedError(InputError):
    """The run ended, but not well. It is no mistake in the command, so that its status differs from 1."""

    exit_status = 2


def follow(fetch: Callable[[], RunState], console: Console, poll_s: float) -> RunState:
    """Prints every change of a step until the run is done.

    Args:
        fetch: Asks the backend.
        console: Where to print.
        poll_s: Seconds between two questions.

    Returns:
        The last state.
    """
    known: dict[str, StepState] = {}
    while True:
        run = fetch()
        _print_changes(run.steps, known, console)
        if run.is_done:
            return run
        time.sleep(poll_s)


def check_outcome(run: RunState, job: str) -> None:
    """Says what a run that did not succeed died of.

    Raises:
        RunStoppedError: The run failed or was cancelled.
    """
    if run.state == CANCELLED:
        raise RunStoppedError(f"{job} was cancelled.")
    if run.state != FAILED:
        return
    for step in run.steps:
        if step.state == FAILED:
            reason = f" ({step.error.rstrip('.')})" if step.error else ""
            where = f"; its log: {step.log}" if step.log else ""
            raise RunStoppedError(f"{job} failed in the step {step.step}{reason}{_remedy(step)}{where}")
    raise RunStoppedError(f"{job} failed: {run.error or 'the backend gives no reason'}")


def _remedy(step: StepState) -> str:
    """Returns what to do about a step's error, behind a colon; empty where nobody can tell."""
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, step.error, flags=re.IGNORECASE):
            return f": {remedy.format(step=step.step.rpartition('/')[2])}"
    return ""


def _print_changes(steps: Iterable[StepState], known: dict[str, StepState], console: Console) -> None:
    for step in steps:
        before = known.get(step.step)
        known[step.step] = step
        if step.state == PENDING or (before is not None and before.state == step.state):
            continue
        style = _STYLES.get(step.state, "default")
        text = _EXPLANATIONS.get(step.state, step.state)
        console.print(f"[bold]{escape(step.step)}[/bold] [{style}]{escape(text)}[/{style}]", highlight=False)
        if step.log and step.state in (RUNNING, FAILED):
            console.print(f"  log {escape(step.log)}", highlight=False, soft_wrap=True)
