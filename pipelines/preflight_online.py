"""The checks that need credentials: whether what a plan names exists, and may be used.

Everything is read, nothing is changed. Permissions are asked for with the APIs' own testIamPermissions.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import quote

from components.ncf.errors import InputError
from pipelines.findings import Finding, error, warning
from pipelines.machines import ACCELERATORS
from pipelines.preflight import Plan, images_of
from pipelines.preflight_machines import accelerator_of

SERVICES = ("aiplatform.googleapis.com", "artifactregistry.googleapis.com", "storage.googleapis.com")
DATAFLOW_SERVICE = "dataflow.googleapis.com"
PERMISSIONS = ("aiplatform.pipelineJobs.create", "aiplatform.customJobs.create")
# Where each API is; a test puts its own servers there.
HOSTS: Mapping[str, str] = {
    "serviceusage": "https://serviceusage.googleapis.com",
    "projects": "https://cloudresourcemanager.googleapis.com",
    "iam": "https://iam.googleapis.com",
    "storage": "https://storage.googleapis.com",
    "registry": "",  # the image's own
    "aiplatform": "",  # the region's own
}
_TIMEOUT_S = 30
_IMAGE = re.compile(r"(?P<host>[^/]+)/(?P<repository>.+)@(?P<digest>sha256:[0-9a-f]{64})")
_MANIFESTS = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    )
)
_OK, _UNAUTHENTICATED, _FORBIDDEN, _MISSING = 200, 401, 403, 404


class Response(Protocol):
    """What an HTTP client returns; `requests` has more."""

    status_code: int

    def json(self) -> Any:
        """Returns the body."""


class Session(Protocol):
    """An HTTP client that signs its requests, as google.auth's AuthorizedSession."""

    def request(self, method: str, url: str, **options: Any) -> Response:
        """Sends one request."""


def signed_session() -> Session:
    """Returns a client with the application default credentials.

    Raises:
        InputError: There are none.
    """
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError
    from google.auth.transport.requests import AuthorizedSession

    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    except DefaultCredentialsError:
        raise InputError(
            "--online needs credentials of Google Cloud and finds none: run `gcloud auth application-default login`, "
            "or set GOOGLE_APPLICATION_CREDENTIALS."
        ) from None
    session: Session = AuthorizedSession(credentials)
    return session


def check_online(plan: Plan, project: str, session: Session, hosts: Mapping[str, str]) -> list[Finding]:
    """Returns what is missing in the project.

    Args:
        plan: The run, with its region.
        project: The project's id.
        session: Sends signed requests.
        hosts: As `HOSTS`.

    Raises:
        InputError: A server does not answer, or not the credentials.
    """
    checks = _Checks(plan, project, session, hosts)
    return [
        *checks.services(),
        *checks.permissions(),
        *checks.bucket(),
        *checks.service_accounts(),
        *checks.images(),
        *checks.tensorboard(),
        *checks.quota(),
    ]


class _Checks:
    def __init__(self, plan: Plan, project: str, session: Session, hosts: Mapping[str, str]) -> None:
        self._plan = plan
        self._project = project
        self._session = session
        self._hosts = hosts

    def services(self) -> Iterator[Finding]:
        """Finds APIs that are not enabled."""
        needed = [*SERVICES, *([DATAFLOW_SERVICE] if self._runs_on_dataflow() else [])]
        names = "&".join(f"names=projects/{self._project}/services/{name}" for name in needed)
        status, body = self._ask("GET", "serviceusage", f"/v1/projects/{self._project}/services:batchGet?{names}")
        if status != _OK:
            yield self._unseen("APIs", f"the enabled APIs of {self._project}", "roles/serviceusage.serviceUsageViewer")
            return
        enabled = {service["name"].rpartition("/")[2] for service in body["services"] if service["state"] == "ENABLED"}
        for name in needed:
            if name not in enabled:
                yield error("APIs", f"{name} is not enabled: run `gcloud services enable {name}`.")

    def permissions(self) -> Iterator[Finding]:
        """Finds permissions that the caller lacks."""
        path = f"/v1/projects/{self._project}:testIamPermissions"
        status, body = self._ask("POST", "projects", path, json={"permissions": list(PERMISSIONS)})
        if status != _OK:
            yield error("project", f"{self._project} does not exist or may not be seen: check --project.")
            return
        missing = set(PERMISSIONS) - set(body.get("permissions", []))
        if missing:
            yield error("permissions", f"{', '.join(sorted(missing))} is missing: ask for roles/aiplatform.user.")

    def bucket(self) -> Iterator[Finding]:
        """Finds a pipeline root whose bucket does not exist, may not be seen, or is elsewhere."""
        root = self._plan.pipeline_root
        if root is None or not root.startswith("gs://"):
            return  # found without credentials
        name = root.removeprefix("gs://").partition("/")[0]
        status, body = self._ask("GET", "storage", f"/storage/v1/b/{quote(name)}")
        if status == _MISSING:
            yield error("pipeline root", f"the bucket {name} does not exist: create it in {self._plan.region}.")
        elif status == _FORBIDDEN:
            yield error("pipeline root", f"the bucket {name} may not be read: ask for roles/storage.objectUser on it.")
        elif status == _OK and self._plan.region and body.get("locationType") == "region":
            location = str(body["location"]).lower()
            if location != self._plan.region:
                yield warning(
                    "pipeline root",
                    f"the bucket {name} is in {location} and the run in {self._plan.region}: each step's data would "
                    "travel, and be charged; use a bucket there.",
                )

    def service_accounts(self) -> Iterator[Finding]:
        """Finds service accounts that do not exist, or that the caller may not act as although submitting takes it.

        Whoever submits acts as the account of the steps, and that one as the account of training, which cannot be
        asked about from here.
        """
        training, pipeline = self._plan.placement.service_account, self._plan.pipeline_account
        flags = {pipeline: "--pipeline-service-account", training: "--service-account"}
        passed = pipeline or training
        for account, flag in flags.items():
            if account is None:
                continue
            path = f"/v1/projects/-/serviceAccounts/{quote(account)}:testIamPermissions"
            status, body = self._ask("POST", "iam", path, json={"permissions": ["iam.serviceAccounts.actAs"]})
            if status == _MISSING:
                yield error("service account", f"{account} does not exist: create it, or correct {flag}.")
            elif account == passed and (status != _OK or not body.get("permissions")):
                yield error("service account", f"{account} may not be acted as: ask for roles/iam.serviceAccountUser.")

    def images(self) -> Iterator[Finding]:
        """Finds images that are not in their registry."""
        for image in images_of(self._plan):
            match = _IMAGE.fullmatch(image)
            if match is None:
                continue  # found without credentials
            host = self._hosts["registry"] or f"https://{match['host']}"
            url = f"{host}/v2/{match['repository']}/manifests/{match['digest']}"
            status, _ = self._send("HEAD", url, headers={"Accept": _MANIFESTS})
            if status == _MISSING:
                yield error("image", f"{image} is not in its registry: push it, or correct its digest.")
            elif status == _FORBIDDEN:
                yield error("image", f"{image} may not be read: ask for roles/artifactregistry.reader.")

    def tensorboard(self) -> Iterator[Finding]:
        """Finds a TensorBoard that does not exist."""
        name = self._plan.placement.tensorboard
        if name is None:
            return
        status, _ = self._ask("GET", "aiplatform", f"/v1/{name}")
        if status != _OK:
            yield error("tensorboard", f"{name} does not exist or may not be seen: correct --tensorboard.")

    def quota(self) -> Iterator[Finding]:
        """Finds a quota of accelerators that is lower than what the pool has."""
        pool, region = self._plan.placement.pool, self._plan.region
        known = ACCELERATORS.get(accelerator_of(pool.chief)) if pool else None
        if pool is None or known is None or region is None:
            return
        metric = known.quota.replace("training_", "training_preemptible_") if self._is_spot() else known.quota
        path = (
            f"/v1beta1/projects/{self._project}/services/aiplatform.googleapis.com/consumerQuotaMetrics/"
            f"{quote(f'aiplatform.googleapis.com/{metric}', safe='')}"
        )
        needed = (1 + pool.num_workers) * pool.chief.num_replicas
        status, body = self._ask("GET", "serviceusage", path)
        limits = [limit for limit in (_limit(body, region) if status == _OK else []) if limit is not None]
        if not limits:
            yield warning("quota", f"{metric} cannot be read in {region}: see that it is at least {needed}.")
        elif 0 <= min(limits) < needed:
            yield error(
                "quota",
                f"{metric} is {min(limits)} in {region} and the pool {pool.name} needs {needed}: ask for more in the "
                "console under Quotas, or use another region or a smaller pool.",
            )

    def _runs_on_dataflow(self) -> bool:
        return bool(self._plan.placement.dataflow) or self._plan.parameters["generate"]["beam_runner"] == "dataflow"

    def _is_spot(self) -> bool:
        return self._plan.placement.strategy in ("spot", "flex-start")

    def _unseen(self, subject: str, what: str, role: str) -> Finding:
        return warning(subject, f"{what} may not be seen: ask for {role}, or check them by hand.")

    def _ask(self, method: str, api: str, path: str, **options: Any) -> tuple[int, Any]:
        host = self._hosts[api] or f"https://{self._plan.region}-aiplatform.googleapis.com"
        return self._send(method, f"{host}{path}", **options)

    def _send(self, method: str, url: str, **options: Any) -> tuple[int, Any]:
        import google.auth.exceptions
        import requests

        place = re.sub(r"^(https?://[^/]+).*", r"\1", url)
        try:
            response = self._session.request(method, url, timeout=_TIMEOUT_S, **options)
        except (requests.RequestException, google.auth.exceptions.GoogleAuthError) as problem:
            raise InputError(
                f"{place} cannot be asked ({type(problem).__name__}): check the network and sign in again."
            ) from problem
        if response.status_code == _UNAUTHENTICATED:
            raise InputError(f"{place} does not accept the credentials: `gcloud auth application-default login`.")
        try:
            body = response.json()
        except ValueError:
            body = {}
        return response.status_code, body


def _limit(metric: Mapping[str, Any], region: str) -> list[int | None]:
    """Returns the limits that hold in a region; -1 stands for none. A region's own bucket replaces the general one."""
    limits = []
    for limit in metric.get("consumerQuotaLimits", []):
        by_region = {
            bucket.get("dimensions", {}).get("region", ""): bucket.get("effectiveLimit")
            for bucket in limit.get("quotaBuckets", [])
        }
        value = by_region.get(region, by_region.get(""))
        limits.append(None if value is None else int(value))
    return limits
