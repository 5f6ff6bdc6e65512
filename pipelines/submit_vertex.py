"""Vertex AI Pipelines, through google-cloud-aiplatform's PipelineJob."""

import logging
from typing import Any
from urllib.parse import quote

from components.ncf.errors import InputError
from pipelines import watch
from pipelines.api_errors import explaining_vertex_errors, retrying
from pipelines.backends import Definition, Schedule, Submission
from pipelines.regions import region_mistake
from pipelines.submit_options import SubmitOptions
from pipelines.watch import RunState, StepState

_CONSOLE = "https://console.cloud.google.com"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT_S = 60.0
_STEP_STATES = {
    "PENDING": watch.PENDING,
    "RUNNING": watch.RUNNING,
    "CANCEL_PENDING": watch.RUNNING,
    "CANCELLING": watch.RUNNING,
    "SUCCEEDED": watch.SUCCEEDED,
    "SKIPPED": watch.CACHED,
    "NOT_TRIGGERED": watch.SKIPPED,
    "FAILED": watch.FAILED,
    "CANCELLED": watch.CANCELLED,
}
_JOB_STATES = {
    "PIPELINE_STATE_SUCCEEDED": watch.SUCCEEDED,
    "PIPELINE_STATE_FAILED": watch.FAILED,
    "PIPELINE_STATE_CANCELLED": watch.CANCELLED,
}


class VertexBackend:
    """A `pipelines.backends.Backend`."""

    def __init__(self, options: SubmitOptions) -> None:
        """Signs in as the environment says.

        Raises:
            InputError: There are no credentials, or the region is unknown.
        """
        self._options = options
        mistake = region_mistake(str(options.location))
        if mistake:
            raise InputError(mistake)
        with explaining_vertex_errors(options):
            from google.cloud import aiplatform

            self._sdk = aiplatform
            _silence_sdk()
            aiplatform.init(
                project=options.project,
                location=options.location,
                api_endpoint=options.endpoint,
                credentials=_signed_in(),
            )

    def submit(self, submission: Submission) -> str:
        """Starts a run and returns its job's name."""
        with explaining_vertex_errors(self._options):
            self._check_bucket()
            return self._send(self._pipeline_job(submission))

    def schedule(self, submission: Submission, cron: str) -> Schedule:
        """Makes a schedule that starts such runs, called by their id, which no other is."""

        def make() -> Schedule:
            # An attempt that seemed to fail may have arrived.
            arrived = self.schedules(submission.job_id)
            if arrived:
                return arrived[0]
            made = self._pipeline_job(submission).create_schedule(
                cron=cron,
                display_name=submission.job_id,
                service_account=self._options.service_account,
                network=self._options.network,
                create_request_timeout=_TIMEOUT_S,
            )
            return _schedule(made)

        with explaining_vertex_errors(self._options):
            self._check_bucket()
            return retrying(make, self._options.poll_s)

    def schedules(self, title: str | None = None) -> list[Schedule]:
        """Returns all schedules of the region, or those of one title."""
        chosen = f'display_name="{title}"' if title else None
        with explaining_vertex_errors(self._options):
            found = retrying(lambda: self._sdk.PipelineJobSchedule.list(filter=chosen), self._options.poll_s)
        return [_schedule(schedule) for schedule in found]

    def delete_schedule(self, name: str) -> None:
        """Deletes a schedule, given by its id or whole name."""
        with explaining_vertex_errors(self._options):
            retrying(lambda: self._sdk.PipelineJobSchedule.get(name), self._options.poll_s).delete()

    def resume(self, job: str, job_id: str) -> str:
        """Submits the same pipeline with the same parameters again: the cache holds the steps that succeeded."""
        with explaining_vertex_errors(self._options):
            failed = self._get(job)
            state = _JOB_STATES.get(failed.state.name)
            if state not in (watch.FAILED, watch.CANCELLED):
                raise InputError(f"{job} is {state or 'still running'}: only a failed or cancelled job can be resumed.")
            again = failed.clone(
                job_id=job_id,
                pipeline_root=self._options.pipeline_root,
                # What the client itself would take from the old job it cannot read.
                encryption_spec_key_name=failed.gca_resource.encryption_spec.kms_key_name or None,
            )
            return self._send(again, failed.gca_resource)

    def cancel(self, job: str) -> None:
        """Asks Vertex to stop a job."""
        from google.api_core.exceptions import FailedPrecondition

        def cancel() -> None:
            try:
                found.cancel()
            except FailedPrecondition:
                # An attempt that seemed to fail may have arrived.
                if self._get(job).state.name not in ("PIPELINE_STATE_CANCELLING", "PIPELINE_STATE_CANCELLED"):
                    raise

        with explaining_vertex_errors(self._options):
            found = self._get(job)
            retrying(cancel, self._options.poll_s)

    def state(self, job: str) -> RunState:
        """Returns how far a job is."""
        with explaining_vertex_errors(self._options):
            found = self._get(job).gca_resource
        steps = tuple(self._steps(found.job_detail.task_details))
        return RunState(_JOB_STATES.get(found.state.name, watch.RUNNING), steps, found.error.message)

    def definition(self, job: str) -> Definition:
        """Returns what a job was submitted with."""
        with explaining_vertex_errors(self._options):
            return _definition(self._get(job).gca_resource)

    def link(self, job: str) -> str:
        """Returns the job's page of the console."""
        place = f"locations/{self._options.location}/pipelines/runs/{job.rpartition('/')[2]}"
        return f"{_CONSOLE}/vertex-ai/{place}?project={self._options.project}"

    def _get(self, job: str) -> Any:
        return retrying(lambda: self._sdk.PipelineJob.get(job), self._options.poll_s)

    def _pipeline_job(self, submission: Submission) -> Any:
        return self._sdk.PipelineJob(
            display_name=submission.job_id,
            template_path=str(submission.template),
            job_id=submission.job_id,
            pipeline_root=self._options.pipeline_root,
            parameter_values=dict(submission.values),
            # True would overwrite the choice that each task makes for itself.
            enable_caching=None if self._options.caching else False,
            encryption_spec_key_name=self._options.encryption_key,
            labels=self._options.label_values() or None,
        )

    def _send(self, job: Any, like: Any = None) -> str:
        """Submits a job, again if Vertex does not answer.

        Args:
            job: The job.
            like: A job whose service account and network it takes where the options name none.
        """
        from google.api_core.exceptions import AlreadyExists

        num_attempts = 0

        def submit() -> None:
            nonlocal num_attempts
            num_attempts += 1
            try:
                job.submit(
                    service_account=self._options.service_account or (like.service_account if like else None),
                    network=self._options.network or (like.network if like else None),
                    create_request_timeout=_TIMEOUT_S,
                    experiment=self._options.experiment,
                )
            except AlreadyExists:
                # An attempt that seemed to fail may have arrived.
                if num_attempts == 1:
                    raise

        retrying(submit, self._options.poll_s)
        return str(job.job_id)

    def _check_bucket(self) -> None:
        """Refuses a bucket that does not exist, which Google's client would make without a word."""
        from google.api_core.exceptions import GoogleAPIError
        from google.cloud import storage
        from requests import RequestException

        name = str(self._options.pipeline_root).removeprefix("gs://").partition("/")[0]
        try:
            exists = storage.Client(project=self._options.project).bucket(name).exists(timeout=_TIMEOUT_S, retry=None)
        except (GoogleAPIError, RequestException):
            # Whoever may not look at the bucket may still submit: the steps write to it, as their own account.
            return
        if not exists:
            raise InputError(
                f"The bucket gs://{name} does not exist: correct --pipeline-root, or make it with `gcloud storage "
                f"buckets create gs://{name} --location={self._options.location}`."
            )

    def _steps(self, tasks: Any) -> list[StepState]:
        parents = {task.parent_task_id for task in tasks}
        return [
            StepState(
                step=(task.task_unique_name or task.task_name).replace(".", "/"),
                state=_STEP_STATES.get(task.state.name, watch.PENDING),
                log=self._log_link(task.executor_detail),
                error=task.error.message,
            )
            for task in tasks
            if task.task_id not in parents or task.state.name == "NOT_TRIGGERED"
        ]

    def _log_link(self, executor: Any) -> str:
        job = executor.custom_job_detail.job or executor.container_detail.main_job
        if not job:
            return ""
        query = quote(f'resource.type="ml_job"\nresource.labels.job_id="{job.rpartition("/")[2]}"', safe="")
        return f"{_CONSOLE}/logs/query;query={query}?project={self._options.project}"


def _signed_in() -> Any:
    """Returns credentials that have a token, or sign their own.

    Where Google's client has to fetch one in the midst of a call, a token that is refused looks like a server that does
    not answer: it tries for minutes.
    """
    import google.auth
    from google.auth.transport.requests import Request
    from google.oauth2 import service_account

    credentials, _ = google.auth.default(scopes=[_SCOPE])
    if not isinstance(credentials, service_account.Credentials):
        credentials.refresh(Request())
    return credentials


def _schedule(found: Any) -> Schedule:
    resource = found.gca_resource
    job = resource.create_pipeline_job_request.pipeline_job
    return Schedule(
        resource.name,
        resource.display_name,
        resource.cron,
        resource.state.name.lower(),
        _definition(job),
        job.runtime_config.gcs_output_directory,
        job.service_account,
        job.network,
        job.encryption_spec.kms_key_name,
        dict(job.labels),
    )


def _definition(job: Any) -> Definition:
    from google.protobuf import json_format

    values = json_format.MessageToDict(job._pb.runtime_config).get("parameterValues", {})
    return Definition(json_format.MessageToDict(job._pb.pipeline_spec), values)


def _silence_sdk() -> None:
    """Google's client prints its own account of what it does, with tracebacks of what it does not mind."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("google.cloud.aiplatform"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
