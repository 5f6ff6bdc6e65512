"""What every backend can do for `neumf submit`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipelines.watch import RunState


@dataclass(frozen=True)
class Submission:
    """A run to submit.

    Attributes:
        template: The compiled pipeline.
        values: Parameters that differ from the template's defaults.
        job_id: Its id on Vertex, its name on Kubeflow.
    """

    template: Path
    values: Mapping[str, Any]
    job_id: str


@dataclass(frozen=True)
class Definition:
    """What a job was submitted with: its compiled pipeline and its parameters."""

    spec: Mapping[str, Any]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Schedule:
    """A schedule as the backend has it.

    Attributes:
        name: What `--delete-schedule` takes.
        title: What people call it.
        cron: When it runs.
        state: In the backend's words.
        definition: What its runs are.
        pipeline_root: Where their artifacts go; empty for the backend's own choice.
        service_account: What their steps act as; empty for the backend's own choice.
        network, encryption_key, labels: Vertex: of their jobs; empty for none.
    """

    name: str
    title: str
    cron: str
    state: str
    definition: Definition
    pipeline_root: str
    service_account: str
    network: str = ""
    encryption_key: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """One backend. Jobs and schedules are named as the backend names them; errors are `InputError`."""

    def submit(self, submission: Submission) -> str:
        """Starts a run and returns its job's name."""

    def schedule(self, submission: Submission, cron: str) -> Schedule:
        """Makes a schedule that starts such runs, called by their id, which no other is."""

    def schedules(self, title: str | None = None) -> list[Schedule]:
        """Returns all schedules, or those of one title."""

    def delete_schedule(self, name: str) -> None:
        """Deletes a schedule."""

    def resume(self, job: str, job_id: str) -> str:
        """Runs a failed job again, without the steps that succeeded, and returns the job's name."""

    def cancel(self, job: str) -> None:
        """Asks the backend to stop a job."""

    def state(self, job: str) -> RunState:
        """Returns how far a job is."""

    def definition(self, job: str) -> Definition:
        """Returns what a job was submitted with."""

    def link(self, job: str) -> str:
        """Returns where a browser shows the job."""
