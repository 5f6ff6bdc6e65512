"""What the backends' errors mean, as one sentence with the fix."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from components.ncf.errors import InputError
from pipelines.submit_options import SubmitOptions

_NUM_ATTEMPTS = 6
_MAX_WAIT_S = 60.0
_TRANSIENT_HTTP = (429, 500, 502, 503, 504)
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Rule:
    """An answer of Vertex that people meet.

    Attributes:
        error: The classes of google.api_core.exceptions, by name; ResourceExhausted is a TooManyRequests.
        pattern: What its text holds, as a regular expression without regard to case; empty for anything.
        sentence: What it means and what to do. Fields of the options and groups of the pattern are filled in.
    """

    error: str
    pattern: str
    sentence: str


# Who grants what a permission allows, by what the permission begins with.
_ROLES = {
    "aiplatform": "roles/aiplatform.user there, or correct --project",
    "storage": "roles/storage.objectUser on the bucket",
    "artifactregistry": "roles/artifactregistry.reader on the repository of the images",
    "serviceusage": "roles/serviceusage.serviceUsageConsumer there",
    "cloudkms": "roles/cloudkms.cryptoKeyEncrypterDecrypter on --encryption-key, for Vertex AI's service agent",
    "compute": "roles/compute.networkUser on --network",
    "dataflow": "roles/dataflow.developer there",
}

_RULES = (
    _Rule("PermissionDenied", "requires a quota project|end user credentials",
          "Your sign-in names no project that is charged for its calls: run `gcloud auth application-default "
          "set-quota-project {project}`."),
    _Rule("PermissionDenied|FailedPrecondition", "BILLING_DISABLED|billing to be enabled|billing account",
          "The project {project} has no billing, without which nothing runs: link a billing account in the console."),
    _Rule("PermissionDenied", "has not been used in project|SERVICE_DISABLED|it is disabled",
          "The API {service} is off in the project {project}: run `gcloud services enable {service} "
          "--project {project}` and try again some minutes later."),
    _Rule("PermissionDenied", "SECURITY_POLICY_VIOLATED|vpcServiceControls|organization's policy",
          "A perimeter of your organization forbids this ({text}): give its administrator this message, or run from "
          "within it."),
    _Rule("PermissionDenied|InvalidArgument|FailedPrecondition", r"actAs|permission to act as",
          "You may not act as {service_account}: ask for roles/iam.serviceAccountUser on that account, or give "
          "another --service-account."),
    _Rule("PermissionDenied", "CONSUMER_INVALID|USER_PROJECT_DENIED|Project .*(not found|deleted)",
          "The project {project} does not exist or you may not use it: correct --project, its id and not its title, or "
          "ask for roles/serviceusage.serviceUsageConsumer there."),
    _Rule("PermissionDenied", "Permission '(?P<permission>[^']+)'",
          "You lack {permission} in the project {project}, or it does not exist: ask for {role}."),
    _Rule("PermissionDenied", "", "Vertex refused: {text}: ask for roles/aiplatform.user in the project {project}."),
    _Rule("Unauthenticated", "",
          "Google Cloud does not know who you are: run `gcloud auth application-default login`, or set "
          "GOOGLE_APPLICATION_CREDENTIALS to a service account's key."),
    _Rule("TooManyRequests", r"per minute|\brate\b",
          "The project {project} asks Vertex in {location} too often ({text}): wait a minute and try again."),
    _Rule("TooManyRequests", "(?P<metric>custom_model_training_[a-z0-9_]+)",
          "The quota {metric} of the project {project} in {location} is used up: ask for more on the console's Quotas "
          "page, wait for other jobs, or choose another --location or --pool."),
    _Rule("TooManyRequests", "",
          "A quota of the project {project} in {location} is used up ({text}): wait, ask for more on the console's "
          "Quotas page, or choose another --location or a smaller --pool."),
    _Rule("InvalidArgument|NotFound|FailedPrecondition", "service account .*(does not exist|not found|invalid)",
          "The service account {service_account} does not exist: create it, or correct --service-account."),
    # Not what else is said of a region: a key must be in the same one, a machine is not to be had there.
    _Rule("InvalidArgument|NotFound|Unimplemented",
          r"\b(location|region) ?\S* (is|was) (not (supported|found|available)|unsupported|invalid|unknown)|"
          r"\b(unsupported|invalid|unknown) (location|region)\b",
          "Vertex does not take the region {location} ({text}): choose another --location."),
    _Rule("NotFound|Unimplemented|MethodNotImplemented", r"http2 header with status: 404",
          "No Vertex AI answers at the address of {location}: choose another --location, or correct --endpoint."),
    _Rule("InvalidArgument", "", "Vertex refused the job: {text}."),
    _Rule("NotFound", "", "{text_sentence} Look at its name, --project and --location."),
    _Rule("AlreadyExists", "", "A job with this id exists in {location}: choose another --job-id or leave it out."),
    _Rule("FailedPrecondition", "", "Vertex refused: {text}."),
    _Rule("ServiceUnavailable|RetryError", "DNS|errors resolving|name resolution|not known",
          "The address of Vertex in {location} is not known to your network: correct --location or --endpoint, or look "
          "at your DNS."),
    _Rule("ServiceUnavailable|RetryError", "CERTIFICATE_VERIFY_FAILED|SSL_ERROR|handshake",
          "The certificate of Vertex in {location} is not trusted here ({text}): correct --endpoint, or give your "
          "proxy's root in GRPC_DEFAULT_SSL_ROOTS_FILE_PATH."),
    _Rule("ServiceUnavailable|DeadlineExceeded|GatewayTimeout|BadGateway|RetryError|InternalServerError|Aborted", "",
          "Vertex in {location} does not answer ({text}): look at your network and at the state of Google Cloud, and "
          "try again; a job that was submitted keeps running."),
)  # fmt: skip


@contextmanager
def explaining_vertex_errors(options: SubmitOptions) -> Iterator[None]:
    """Turns what Vertex's client raises in the block into one sentence.

    Raises:
        InputError: The client raised an error of the API, of signing in, or of its own checks.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError

    try:
        yield
    except TransportError as error:
        raise InputError(
            f"Google's sign-in cannot be reached ({_one_line(error)}): look at your network, and at HTTPS_PROXY if "
            "there is a proxy."
        ) from error
    except DefaultCredentialsError as error:
        raise InputError(
            f"There are no credentials of Google Cloud ({_one_line(error)}): run `gcloud auth application-default "
            "login`, or set GOOGLE_APPLICATION_CREDENTIALS to a service account's key."
        ) from error
    except GoogleAuthError as error:
        raise InputError(
            f"Google Cloud no longer takes your credentials ({_one_line(error.args[0] if error.args else error)}): run "
            "`gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key that is valid."
        ) from error
    except GoogleAPIError as error:
        raise InputError(_explain_vertex(error, options)) from error
    except RuntimeError as error:
        if isinstance(error.__cause__, GoogleAPIError):
            raise InputError(_explain_vertex(error.__cause__, options)) from error
        raise
    except ValueError as error:
        raise InputError(f"Vertex's client refuses the job: {_one_line(error)}.") from error


@contextmanager
def explaining_kfp_errors(options: SubmitOptions) -> Iterator[None]:
    """Turns what Kubeflow's client raises in the block into one sentence.

    Raises:
        InputError: The client raised an error of the API or could not reach it.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise InputError(_explain_kfp(error, options)) from error
    except HTTPError as error:
        hint = "look at --host, and at --ca-certificate if its certificate is your own"
        raise InputError(
            f"Kubeflow Pipelines at {options.host} cannot be reached ({_reason(error)}): {hint}."
        ) from error


def retrying(call: Callable[[], Result], poll_s: float) -> Result:
    """Calls again while the backend says that it is unavailable, at growing distances."""
    attempts = Retrying(
        retry=retry_if_exception(is_transient),
        stop=stop_after_attempt(_NUM_ATTEMPTS),
        wait=wait_exponential(multiplier=poll_s / 2, max=_MAX_WAIT_S),
        reraise=True,
    )
    return attempts(call)


def is_transient(error: BaseException) -> bool:
    """Says whether the same call may succeed a little later; a used-up quota is not of this kind."""
    from google.api_core import exceptions
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    if isinstance(error, ApiException):
        return error.status in _TRANSIENT_HTTP
    unavailable = (exceptions.ServiceUnavailable, exceptions.GatewayTimeout, exceptions.BadGateway)
    return isinstance(error, (*unavailable, exceptions.InternalServerError, HTTPError))


def _explain_vertex(error: Any, options: SubmitOptions) -> str:
    from google.api_core.exceptions import GoogleAPIError, RetryError

    if isinstance(error, RetryError) and isinstance(error.cause, GoogleAPIError):
        error = error.cause  # why it was tried again
    text = _one_line(getattr(error, "message", None) or error)
    metadata = getattr(error, "metadata", None) or {}
    details = f"{text} {getattr(error, 'reason', None) or ''}"
    kinds = {kind.__name__ for kind in type(error).__mro__}
    for rule in _RULES:
        found = re.search(rule.pattern, details, flags=re.IGNORECASE)
        if kinds & set(rule.error.split("|")) and found:
            account = options.service_account or "the project's default service account"
            groups = found.groupdict()
            family = (groups.get("permission") or "aiplatform").partition(".")[0]
            return rule.sentence.format(
                text=text.rstrip("."),
                text_sentence=f"{text.rstrip('.')}.",
                project=options.project,
                location=options.location,
                service_account=account,
                service=metadata.get("service") or _service_in(text),
                role=_ROLES.get(family, "a role that has it"),
                **groups,
            )
    return f"Vertex answered with an error: {text}."


def _service_in(text: str) -> str:
    """Returns the API that a message links to, else Vertex AI's."""
    found = re.search(r"([a-z]+\.googleapis\.com)", text)
    return found.group(1) if found else "aiplatform.googleapis.com"


def _explain_kfp(error: Any, options: SubmitOptions) -> str:
    text = _kfp_message(error)
    if error.status == 401:
        return f"{options.host} does not know who you are: give --token-file with a token that is still valid."
    if error.status == 403:
        return (
            f"{options.host} does not let you do this ({text}): ask for the role kubeflow-edit in the namespace, or "
            "give another --namespace."
        )
    if error.status == 404:
        return f"{options.host} knows no such thing ({text}): look at the job's id, --host and --namespace."
    if error.status == 409:
        return f"{text}: choose another name."
    if error.status == 429 or "quota" in text.lower():
        return f"A quota of the cluster is used up ({text}): wait for other runs, or ask for more."
    if error.status in _TRANSIENT_HTTP:
        return f"{options.host} does not answer ({error.status} {text}): try again; what was submitted keeps running."
    return f"{options.host} refused: {text}."


def _kfp_message(error: Any) -> str:
    try:
        body = json.loads(error.body)
        text = body.get("message") or body.get("error") or error.reason
    except (TypeError, ValueError, AttributeError):
        text = error.reason
    return _one_line(text).rstrip(".")


def _reason(error: Any) -> str:
    return _one_line(getattr(error, "reason", None) or error)


def _one_line(error: Any) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else f"{text[:397]}..."
