"""Kubeflow Pipelines, through the client of the kfp package."""

import contextlib
import functools
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

from components.ncf.errors import InputError
from pipelines import watch
from pipelines.api_errors import explaining_kfp_errors, is_transient, retrying
from pipelines.backends import Definition, Schedule, Submission
from pipelines.cron import with_seconds, without_seconds
from pipelines.submit_options import SubmitOptions
from pipelines.watch import RunState, StepState

_TIMEOUT_S = 30.0
_PAGE_SIZE = 100
_DEFAULT_EXPERIMENT = "Default"
_STEP_STATES = {
    "RUNNING": watch.RUNNING,
    "CANCELING": watch.RUNNING,
    "PAUSED": watch.RUNNING,
    "SUCCEEDED": watch.SUCCEEDED,
    "SKIPPED": watch.CACHED,
    "FAILED": watch.FAILED,
    "CANCELED": watch.CANCELLED,
}
_RUN_STATES = {"SUCCEEDED": watch.SUCCEEDED, "SKIPPED": watch.SUCCEEDED, "FAILED": watch.FAILED,
               "CANCELED": watch.CANCELLED}  # fmt: skip


class KubeflowBackend:
    """A `pipelines.backends.Backend`."""

    def __init__(self, options: SubmitOptions) -> None:
        """Connects to the host.

        Raises:
            InputError: The host does not answer, or does not accept the token.
        """
        self._options = options
        token = options.token()
        self._host = _host(options)
        self._probe(token)
        from kfp.client import Client

        certificate = str(options.ca_certificate) if options.ca_certificate else None
        with explaining_kfp_errors(options), warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore", FutureWarning)
            # Without a namespace the client asks the host whether it knows several users.
            namespace = {"namespace": options.namespace} if options.namespace else {}
            self._client = Client(host=self._host, existing_token=token, ssl_ca_cert=certificate, **namespace)

    def submit(self, submission: Submission) -> str:
        """Starts a run and returns its id."""
        with explaining_kfp_errors(self._options), _quiet():
            experiment = self._experiment()
            before = self._run_ids(experiment, submission.job_id)

            def start() -> str:
                # An attempt that seemed to fail may have arrived.
                arrived = self._run_ids(experiment, submission.job_id) - before
                if arrived:
                    return min(arrived)
                return str(self._client.run_pipeline(experiment, submission.job_id, **self._job(submission)).run_id)

            return retrying(start, self._options.poll_s)

    def schedule(self, submission: Submission, cron: str) -> Schedule:
        """Makes a recurring run of this name, which no other has."""

        def make() -> Schedule:
            # An attempt that seemed to fail may have arrived.
            arrived = self.schedules(submission.job_id)
            if arrived:
                return arrived[0]
            made = self._client.create_recurring_run(
                experiment,
                submission.job_id,
                cron_expression=with_seconds(cron),
                max_concurrency=1,
                no_catchup=True,
                **self._job(submission),
            )
            return _schedule(made)

        with explaining_kfp_errors(self._options), _quiet():
            experiment = self._experiment()
            return retrying(make, self._options.poll_s)

    def schedules(self, title: str | None = None) -> list[Schedule]:
        """Returns all recurring runs that the user may see, or those of one name."""
        chosen = {"filter": _named(title)} if title else {}

        def page(token: str) -> Any:
            return self._client.list_recurring_runs(
                page_token=token, page_size=_PAGE_SIZE, namespace=self._options.namespace, **chosen
            )

        with explaining_kfp_errors(self._options), _quiet():
            return [_schedule(found) for found in self._all(page, "recurring_runs")]

    def delete_schedule(self, name: str) -> None:
        """Deletes a recurring run."""
        with explaining_kfp_errors(self._options), _quiet():
            self._client.delete_recurring_run(name)

    def resume(self, job: str, job_id: str) -> str:  # noqa: ARG002
        """Runs what failed again, in the same run."""
        state = self.state(job).state
        if state not in (watch.FAILED, watch.CANCELLED):
            raise InputError(f"{job} is {state}: only a failed or cancelled run can be resumed.")
        with explaining_kfp_errors(self._options), _quiet():
            self._client.runs.run_service_retry_run(job)
        return job

    def cancel(self, job: str) -> None:
        """Asks Kubeflow to stop a run."""
        from kfp_server_api import ApiException

        def terminate() -> None:
            try:
                self._client.terminate_run(job)
            except ApiException as error:
                # An attempt that seemed to fail may have arrived.
                if is_transient(error) or self._get(job).state not in ("CANCELING", "CANCELED"):
                    raise

        with explaining_kfp_errors(self._options), _quiet():
            retrying(terminate, self._options.poll_s)

    def state(self, job: str) -> RunState:
        """Returns how far a run is."""
        with explaining_kfp_errors(self._options), _quiet():
            run = self._get(job)
        tasks = (run.run_details.task_details if run.run_details else None) or ()
        steps = tuple(self._step(task) for task in tasks if _is_step(task.display_name))
        error = run.error.message if run.error else ""
        return RunState(_RUN_STATES.get(run.state, watch.RUNNING), steps, error)

    def definition(self, job: str) -> Definition:
        """Returns what a run was submitted with."""
        with explaining_kfp_errors(self._options), _quiet():
            return _definition(self._get(job))

    def link(self, job: str) -> str:
        """Returns the run's page of the user interface."""
        return f"{self._host}/#/runs/details/{job}"

    def _probe(self, token: str | None) -> None:
        """Asks once: the client itself asks five times and then says nothing about why."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        verify: bool | str = str(self._options.ca_certificate) if self._options.ca_certificate else True
        try:
            answer = requests.get(
                f"{self._host}/apis/v2beta1/healthz", headers=headers, timeout=_TIMEOUT_S, verify=verify
            )
        except requests.RequestException as error:
            raise InputError(_unreachable(self._host, error)) from error
        # A request without a token that it knows may be sent to a page where people sign in.
        if answer.status_code in (401, 403) or (answer.history and "json" not in _content_type(answer)):
            raise InputError(
                f"{self._host} does not know who you are: give --token-file with a token that is still valid."
            )
        if answer.status_code == 404 or "json" not in _content_type(answer):
            raise InputError(f"{self._host} is no Kubeflow Pipelines API: --host is the address before /apis.")

    def _experiment(self) -> str:
        name = self._options.experiment or _DEFAULT_EXPERIMENT
        # The client looks for it first, so that a second attempt makes no second one.
        made = retrying(
            lambda: self._client.create_experiment(name, namespace=self._options.namespace), self._options.poll_s
        )
        return str(made.experiment_id)

    def _get(self, job: str) -> Any:
        return retrying(lambda: self._client.get_run(job), self._options.poll_s)

    def _run_ids(self, experiment: str, name: str) -> set[str]:
        """Returns the ids of an experiment's runs of one name."""

        def page(token: str) -> Any:
            return self._client.list_runs(
                page_token=token, page_size=_PAGE_SIZE, experiment_id=experiment, filter=_named(name)
            )

        return {str(run.run_id) for run in self._all(page, "runs")}

    def _all(self, page: Callable[[str], Any], field: str) -> Iterator[Any]:
        """Yields what all pages of a listing have in a field."""
        token = ""
        while True:
            listed = retrying(functools.partial(page, token), self._options.poll_s)
            yield from getattr(listed, field) or ()
            token = listed.next_page_token
            if not token:
                return

    def _job(self, submission: Submission) -> dict[str, Any]:
        return {
            "pipeline_package_path": str(submission.template),
            "params": dict(submission.values),
            "pipeline_root": self._options.pipeline_root,
            "enable_caching": None if self._options.caching else False,
            "service_account": self._options.service_account,
        }

    def _step(self, task: Any) -> StepState:
        state = _STEP_STATES.get(task.state, watch.PENDING)
        namespace = f" -n {self._options.namespace}" if self._options.namespace else ""
        log = f"kubectl logs {task.pod_name} -c main{namespace}" if task.pod_name else ""
        return StepState(task.display_name, state, log, task.error.message if task.error else "")


def _host(options: SubmitOptions) -> str:
    host = str(options.host).rstrip("/")
    return host if host.startswith(("http://", "https://")) else f"https://{host}"


def _content_type(answer: requests.Response) -> str:
    return answer.headers.get("content-type", "json")


def _unreachable(host: str, error: requests.RequestException) -> str:
    start = f"Kubeflow Pipelines at {host} cannot be reached ({type(error).__name__}): "
    if "WRONG_VERSION_NUMBER" in str(error) or "wrong version number" in str(error):
        return f"{start}it speaks no TLS: write http:// in --host."
    if isinstance(error, requests.exceptions.SSLError):
        return f"{start}its certificate is not trusted: give the root that signed it as --ca-certificate."
    if isinstance(error, requests.Timeout):
        return f"{start}it does not answer: look whether its pods run, and at your network."
    return f"{start}look at --host and your network; a `kubectl port-forward` must still be running."


def _is_step(name: str) -> bool:
    """Kubeflow lists its own pods beside the steps."""
    return name != "root" and not name.endswith(("-driver", "driver"))


def _named(name: str) -> str:
    """Returns the API's filter for things of one name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _schedule(found: Any) -> Schedule:
    cron = found.trigger.cron_schedule.cron if found.trigger and found.trigger.cron_schedule else ""
    return Schedule(
        found.recurring_run_id,
        found.display_name,
        without_seconds(cron),
        str(found.status or "").lower(),
        _definition(found),
        (found.runtime_config.pipeline_root if found.runtime_config else None) or "",
        found.service_account or "",
    )


def _definition(run: Any) -> Definition:
    """Returns what a run is, or what the runs of a recurring run are."""
    spec = run.pipeline_spec or {}  # or it names a version that the server has
    values = (run.runtime_config.parameters if run.runtime_config else None) or {}
    return Definition(spec.get("pipeline_spec", spec), values)


@contextlib.contextmanager
def _quiet() -> Any:
    """The client prints links by itself."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
