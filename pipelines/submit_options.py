"""What `neumf submit` takes, checked before anything is sent."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from components.ncf.errors import InputError
from pipelines.cron import check_cron
from pipelines.given_options import File, given_flags, refuse_beside
from pipelines.resource_names import check_label, check_name

BACKENDS = ("vertex", "kfp")
_LONGEST_POLL_S = 3600
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")

Command = Callable[..., Any]


@dataclass(frozen=True)
class SubmitOptions:
    """Where a pipeline runs and what is asked of the backend. None and empty leave a choice to the backend.

    Attributes:
        backend: One of `BACKENDS`.
        template: A compiled pipeline, instead of compiling one.
        pipeline_root: Where artifacts go: a gs:// folder, on Kubeflow also s3:// or minio://.
        job_id: The job's id, or name on Kubeflow.
        experiment: The experiment that lists the run.
        service_account: What the steps act as.
        network: Vertex: the VPC network to peer with.
        labels: Vertex: texts "name=value".
        encryption_key: Vertex: the Cloud KMS key for everything the job makes.
        caching: Whether steps may be taken from earlier runs.
        schedule: A cron expression: run then instead of now.
        project, location, endpoint: Vertex: where the API is; the endpoint is the region's own if None.
        host, namespace, token_file, ca_certificate: Kubeflow: where the API is and how to sign in.
        wait: Whether to follow the run to its end.
        poll_s: Seconds between two questions.
        preflight: Whether errors that preflight finds stop the run.
        dry_run: Show what would run, and why, and submit nothing.
        compare: A template or a job: show which steps run again since.
        follow, cancel, resume: A job to do that with, instead of submitting.
        list_schedules: List the schedules instead.
        delete_schedule: A schedule to delete instead.
    """

    backend: str
    template: Path | None
    pipeline_root: str | None
    job_id: str | None
    experiment: str | None
    service_account: str | None
    network: str | None
    labels: tuple[str, ...]
    encryption_key: str | None
    caching: bool
    schedule: str | None
    project: str | None
    location: str | None
    endpoint: str | None
    host: str | None
    namespace: str | None
    token_file: Path | None
    ca_certificate: Path | None
    wait: bool
    poll_s: float
    preflight: bool
    dry_run: bool
    compare: str | None
    follow: str | None
    cancel: str | None
    resume: str | None
    list_schedules: bool
    delete_schedule: str | None

    def __post_init__(self) -> None:
        chosen = [name for name in _ACTIONS if getattr(self, name)]
        if len(chosen) > 1:
            raise InputError(f"{' and '.join(map(_flag, chosen))} exclude each other: give one.")
        if self.schedule is not None:
            check_cron(self.schedule, self.backend)
        if not 0 < self.poll_s <= _LONGEST_POLL_S:
            raise InputError(f"--poll {self.poll_s:g} must be more than 0 seconds and at most {_LONGEST_POLL_S}.")
        # A job's id has no dot.
        if self.compare and "." in Path(self.compare).name and not Path(self.compare).is_file():
            raise InputError(f"--compare {self.compare} does not exist: give a compiled pipeline, or a job.")
        if self.backend == "vertex":
            self._check_vertex()
        else:
            self._check_kfp()

    def _check_vertex(self) -> None:
        self._check_syntax()
        for name in () if self.offline else ("project", "location"):
            if not getattr(self, name):
                raise InputError(f"Vertex needs {_flag(name)}: give it, or set {_VARIABLES[name]}.")
        if self.sends and not self.pipeline_root:
            raise InputError("Vertex needs --pipeline-root, a gs:// folder for the run's artifacts.")
        if self.schedule and self.experiment:
            raise InputError(
                "--experiment is of no use with --schedule on Vertex, whose schedules know none: leave it out."
            )

    def _check_syntax(self) -> None:
        check_name("--project", "project", self.project)
        check_name("--pipeline-root", "pipeline_root", self.pipeline_root)
        check_name("--service-account", "service_account", self.service_account)
        check_name("--network", "network", self.network)
        check_name("--encryption-key", "encryption_key", self.encryption_key)
        for name in ("job_id", "experiment"):
            value = getattr(self, name)
            if value and not _ID.fullmatch(value):
                raise InputError(
                    f"{_flag(name)} {value} must be lower-case letters, digits and hyphens, at most 128, with no "
                    "hyphen first."
                )
        self.label_values()

    def _check_kfp(self) -> None:
        check_name("--pipeline-root", "kubeflow_pipeline_root", self.pipeline_root)
        check_name("--service-account", "kubernetes_service_account", self.service_account)
        check_name("--namespace", "namespace", self.namespace)
        check_name("--host", "host", self.host)
        if not self.offline and not self.host:
            raise InputError(
                "Kubeflow needs --host, the address of its Pipelines API: give it, or set KF_PIPELINES_ENDPOINT."
            )
        for name in ("token_file", "ca_certificate"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise InputError(f"{_flag(name)} {path} does not exist.")
        self.token()

    @property
    def offline(self) -> bool:
        """Whether nothing is asked of the backend."""
        return self.dry_run and not (self.compare and not Path(self.compare).is_file())

    @property
    def missing(self) -> list[str]:
        """The flags that submitting needs and a dry run does without."""
        needed = ("project", "location", "pipeline_root") if self.backend == "vertex" else ("host",)
        return [_flag(name) for name in needed if not getattr(self, name)]

    @property
    def sends(self) -> bool:
        """Whether a pipeline is submitted or scheduled."""
        return not self.dry_run and not any(getattr(self, name) for name in _ACTIONS if name != "schedule")

    def token(self) -> str | None:
        """Returns what `token_file` holds; None without one.

        Raises:
            InputError: It holds no token, or more.
        """
        if self.token_file is None:
            return None
        try:
            token = self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"--token-file {self.token_file} cannot be read as a token ({type(error).__name__}): name a text file "
                "with the bearer token."
            ) from error
        if not token.isprintable() or len(token.split()) != 1:
            raise InputError(f"--token-file {self.token_file} must hold one line, the bearer token, and nothing else.")
        return token

    def label_values(self) -> dict[str, str]:
        """Returns the labels by their names.

        Raises:
            InputError: One is not as Google Cloud wants it.
        """
        values = {}
        for label in self.labels:
            name, separator, value = label.partition("=")
            if not separator:
                raise InputError(f"--label {label!r} is not of the form NAME=VALUE, as team=films.")
            check_label(name, value)
            values[name] = value
        return values


_ACTIONS = ("schedule", "follow", "cancel", "resume", "list_schedules", "delete_schedule")
_FLAGS = {"list_schedules": "--schedules", "token_file": "--token-file", "labels": "--label"}
# What each backend alone makes use of, beside its place.
_PLACES = {
    "vertex": ("project", "location", "endpoint"),
    "kfp": ("host", "namespace", "token_file", "ca_certificate"),
}
_OWN = {"vertex": ("network", "labels", "encryption_key"), "kfp": ()}
# What an action makes use of, beside the place. A resumed run of Kubeflow is the same run.
_RESUMED = {"vertex": ("job_id", "pipeline_root", "experiment", "service_account", "network"), "kfp": ()}
_VARIABLES = {"project": "GOOGLE_CLOUD_PROJECT", "location": "GOOGLE_CLOUD_REGION"}


def submit_options(command: Command) -> Command:
    """Adds the options to a command, which receives them as one `SubmitOptions` named `options`."""

    @functools.wraps(command)
    def with_options(**parameters: Any) -> Any:
        options = SubmitOptions(**{field.name: parameters.pop(field.name) for field in fields(SubmitOptions)})
        _refuse_unused(options)
        return command(options=options, **parameters)

    decorated: Command = with_options
    for option in reversed(_options()):
        decorated = option(decorated)
    return decorated


def _options() -> list[Callable[[Command], Command]]:
    option = click.option
    return [
        option("--backend", type=click.Choice(BACKENDS), required=True, help="Vertex AI, or Kubeflow Pipelines."),
        option("--template", type=File(), help="A pipeline that `neumf compile` wrote.  [default: compile one now]"),
        option("--pipeline-root", metavar="gs://…", help="Where the run's artifacts go."),
        option("--job-id", metavar="ID", help="[default: neumf-TIME-RANDOM; of a schedule neumf-DIGEST]"),
        option("--experiment", metavar="NAME", help="The experiment that lists the run; made if it is new."),
        option("--service-account", metavar="ACCOUNT", help="What the steps act as."),
        option("--network", metavar="NAME", help="Vertex: projects/PROJECT-NUMBER/global/networks/NAME."),
        option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Vertex; may be repeated."),
        option("--encryption-key", metavar="KEY", help="Vertex: a Cloud KMS key for all that the job makes."),
        option(
            "--caching/--no-caching", default=True, show_default=True, help="Take unchanged steps from earlier runs."
        ),
        option("--schedule", metavar="CRON", help="Run at these times instead of now, as '0 3 * * 1'."),
        option("--project", metavar="ID", envvar="GOOGLE_CLOUD_PROJECT", help="Vertex: the Google Cloud project."),
        option("--location", metavar="REGION", envvar="GOOGLE_CLOUD_REGION", help="Vertex: the region."),
        option(
            "--endpoint", metavar="HOST", help="Vertex: the API's host, for a private one.  [default: the region's]"
        ),
        option("--host", metavar="URL", envvar="KF_PIPELINES_ENDPOINT", help="Kubeflow: where the Pipelines API is."),
        option("--namespace", metavar="NAME", help="Kubeflow: the user's namespace, where there are several users."),
        option("--token-file", type=File(), help="Kubeflow: a file with a bearer token."),
        option("--ca-certificate", type=File(), help="Kubeflow: the root that signed the host's certificate."),
        option("--wait/--no-wait", default=True, show_default=True, help="Follow the run to its end."),
        option("--poll", "poll_s", default=10.0, show_default=True, metavar="SECONDS", help="Between two questions."),
        option(
            "--preflight/--no-preflight",
            default=True,
            show_default=True,
            help="Stop at the errors that `neumf preflight` finds without a network.",
        ),
        option("--dry-run", is_flag=True, help="Show the steps and their cache keys; submit nothing."),
        option("--compare", metavar="FILE|JOB", help="Show which steps run again since this template or job."),
        option("--follow", metavar="JOB", help="Follow a job instead of submitting one."),
        option("--cancel", metavar="JOB", help="Cancel a job instead."),
        option("--resume", metavar="JOB", help="Run a failed job again; what succeeded is taken from the cache."),
        option("--schedules", "list_schedules", is_flag=True, help="List the schedules instead."),
        option("--delete-schedule", metavar="SCHEDULE", help="Delete a schedule instead."),
    ]


def _refuse_unused(options: SubmitOptions) -> None:
    """Refuses what the backend, or an action other than submitting, would ignore.

    The environment may hold the other backend's settings: only what the command line has is judged.
    """
    other = "kfp" if options.backend == "vertex" else "vertex"
    for name, flag in given_flags().items():
        if name in (*_PLACES[other], *_OWN[other]):
            raise InputError(f"{flag} is of use with --backend {other} alone: leave it out.")
    for action in _ACTIONS:
        if action != "schedule" and getattr(options, action):
            used = ["backend", *_PLACES[options.backend], "poll_s", action]
            used += ["wait", *_RESUMED[options.backend]] if action == "resume" else []
            refuse_beside(_flag(action), used)


def _flag(name: str) -> str:
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")
