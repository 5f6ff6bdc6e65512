"""The checks with credentials, against a server on loopback that answers as the APIs document.

No live project was asked: what stands in for it is this server, and an unsigned client.
"""

import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests
from rich.console import Console

from components.ncf.errors import InputError
from pipelines.findings import Finding
from pipelines.parameters import resolve_parameters
from pipelines.placement import Placement
from pipelines.preflight import Plan
from pipelines.preflight_command import preflight
from pipelines.preflight_online import HOSTS, PERMISSIONS, SERVICES, check_online

ACCOUNT = "neumf-train@my-project.iam.gserviceaccount.com"
TENSORBOARD = "projects/my-project/locations/us-central1/tensorboards/7"
DIGEST = "sha256:" + "a" * 64


class Cloud:
    """What the project has; a test takes something away."""

    def __init__(self) -> None:
        self.services = set(SERVICES)
        self.permissions = set(PERMISSIONS)
        self.buckets = {"runs": "US-CENTRAL1"}
        self.forbidden_buckets: set[str] = set()
        self.accounts = {ACCOUNT: True}
        self.images = {"download", "generate", "train", "train-gpu", "baseline", "publish"}
        self.tensorboards = {TENSORBOARD}
        self.quota = {"custom_model_training_nvidia_l4_gpus": [({"region": "us-central1"}, "2"), ({}, "0")]}
        self.is_signed_in = True

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        parts = unquote(path).split("/")
        if not self.is_signed_in:
            return 401, {}
        if path.endswith("/services:batchGet"):
            asked = [name.rpartition("/")[2] for name in query["names"]]
            states = [(name, "ENABLED" if name in self.services else "DISABLED") for name in asked]
            return 200, {"services": [{"name": f"projects/1/services/{name}", "state": s} for name, s in states]}
        if path == "/v1/projects/my-project:testIamPermissions":
            return 200, {"permissions": [p for p in body["permissions"] if p in self.permissions]}
        if path.startswith("/storage/v1/b/"):
            name = parts[-1]
            if name in self.forbidden_buckets:
                return 403, {}
            found = self.buckets.get(name)
            return (200, {"location": found, "locationType": "region"}) if found else (404, {})
        if "/serviceAccounts/" in path:
            account = parts[-1].partition(":")[0]
            if account not in self.accounts:
                return 404, {}
            return 200, {"permissions": body["permissions"]} if self.accounts[account] else {}
        if path.startswith("/v2/"):
            return (200 if parts[-3] in self.images and parts[-1] == DIGEST and method == "HEAD" else 404), {}
        if "/tensorboards/" in path:
            return (200 if path.removeprefix("/v1/") in self.tensorboards else 404), {}
        if "/consumerQuotaMetrics/" in path:
            assert parts[-2:-1] == ["aiplatform.googleapis.com"]
            buckets = self.quota.get(parts[-1])
            if buckets is None:
                return 404, {}
            given = [{"dimensions": dimensions, "effectiveLimit": limit} for dimensions, limit in buckets]
            return 200, {"consumerQuotaLimits": [{"quotaBuckets": given}]}
        raise AssertionError(path)


class Handler(BaseHTTPRequestHandler):
    cloud: ClassVar[Cloud]

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        url = urlsplit(self.path)
        status, answer = self.cloud.answer(self.command, url.path, parse_qs(url.query), body)
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    do_POST = do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def cloud() -> Iterator[tuple[Cloud, str]]:
    made = Cloud()
    handler = type("Answering", (Handler,), {"cloud": made})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def plan(**changes: Any) -> Plan:
    placement = dataclasses.replace(
        Placement.on("vertex-multi-gpu"),
        service_account=ACCOUNT,
        tensorboard=TENSORBOARD,
        checkpoint_root="gs://runs/checkpoints",
        image_digests={name: f"us-docker.pkg.dev/p/r/{name}@{DIGEST}" for name in Cloud().images},
        **changes,
    )
    return Plan(placement, resolve_parameters("default", ()), "us-central1", "gs://runs/neumf", None, None)


def check(url: str, checked: Plan | None = None) -> list[Finding]:
    return check_online(checked or plan(), "my-project", requests.Session(), dict.fromkeys(HOSTS, url))


def test_a_project_with_everything_passes(cloud: tuple[Cloud, str]) -> None:
    assert check(cloud[1]) == []


@pytest.mark.parametrize(
    ("take_away", "subject", "advice"),
    [
        (lambda c: c.services.discard("aiplatform.googleapis.com"), "APIs", "gcloud services enable aiplatform"),
        (lambda c: c.permissions.discard(PERMISSIONS[0]), "permissions", "roles/aiplatform.user"),
        (lambda c: c.buckets.clear(), "pipeline root", "create it in us-central1"),
        (lambda c: c.forbidden_buckets.add("runs"), "pipeline root", "roles/storage.objectUser"),
        (lambda c: c.buckets.update(runs="EUROPE-WEST4"), "pipeline root", "is in europe-west4"),
        (lambda c: c.accounts.clear(), "service account", "create it"),
        (lambda c: c.accounts.update({ACCOUNT: False}), "service account", "roles/iam.serviceAccountUser"),
        (lambda c: c.images.discard("train-gpu"), "image", "/train-gpu@sha256:"),
        (lambda c: c.tensorboards.clear(), "tensorboard", "correct --tensorboard"),
        (lambda c: c.quota.clear(), "quota", "at least 2"),
        (
            lambda c: c.quota.update(custom_model_training_nvidia_l4_gpus=[({"region": "us-central1"}, "1")]),
            "quota",
            "is 1 in us-central1 and the pool l4-x2 needs 2",
        ),
        # A region without a row of its own has the general limit.
        (
            lambda c: c.quota.update(custom_model_training_nvidia_l4_gpus=[({}, "0")]),
            "quota",
            "is 0 in us-central1",
        ),
    ],
)
def test_what_is_missing_is_found_with_its_remedy(
    cloud: tuple[Cloud, str], take_away: Any, subject: str, advice: str
) -> None:
    take_away(cloud[0])
    (finding,) = check(cloud[1])
    assert finding.subject == subject
    assert advice in finding.message


def test_who_submits_acts_as_the_pipelines_account_alone(cloud: tuple[Cloud, str]) -> None:
    """As the Terraform module grants it: the pipeline's account acts as that of training, not whoever submits."""
    pipeline = "neumf-pipeline@my-project.iam.gserviceaccount.com"
    two = dataclasses.replace(plan(), pipeline_account=pipeline)
    cloud[0].accounts = {ACCOUNT: False, pipeline: True}
    assert check(cloud[1], two) == []
    cloud[0].accounts[pipeline] = False
    (finding,) = check(cloud[1], two)
    assert finding.message.startswith(f"{pipeline} may not be acted as")
    cloud[0].accounts = {pipeline: True}
    (finding,) = check(cloud[1], two)
    assert finding.message == f"{ACCOUNT} does not exist: create it, or correct --service-account."
    cloud[0].accounts = {ACCOUNT: True}
    (finding,) = check(cloud[1], two)
    assert finding.message.endswith("correct --pipeline-service-account.")


def test_dataflow_needs_its_own_api(cloud: tuple[Cloud, str]) -> None:
    on_dataflow = plan(dataflow=("project=my-project",))
    (finding,) = check(cloud[1], on_dataflow)
    assert (finding.subject, "dataflow.googleapis.com is not enabled" in finding.message) == ("APIs", True)
    cloud[0].services.add("dataflow.googleapis.com")
    assert check(cloud[1], on_dataflow) == []


def test_a_root_that_is_no_bucket_is_not_looked_for(cloud: tuple[Cloud, str]) -> None:
    assert check(cloud[1], dataclasses.replace(plan(), pipeline_root="/mnt/runs")) == []


def test_kubeflow_is_not_asked_about_at_google(neumf: Any) -> None:
    result = neumf("preflight", "--target", "kfp", "--online", "--project", "p", "--region", "us-central1")
    assert result.returncode == 1
    assert "the target is kfp: leave it out" in " ".join(result.stdout.split())


@pytest.mark.parametrize(("region", "epochs"), [("moon", 1), ("us-central1", 0)])
def test_nothing_is_asked_before_the_options_are_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], region: str, epochs: int
) -> None:
    monkeypatch.setattr("pipelines.preflight_online.signed_session", lambda: pytest.fail("it was asked"))
    parameters = resolve_parameters("default", [f"train.num_epochs={epochs}"])
    with pytest.raises(InputError, match="findings would stop this run"):
        preflight(dataclasses.replace(plan(), region=region, parameters=parameters), "my-project", Console(width=200))
    assert "Google Cloud was not asked about wrong options" in capsys.readouterr().out


def test_no_limit_is_no_finding(cloud: tuple[Cloud, str]) -> None:
    cloud[0].quota["custom_model_training_nvidia_l4_gpus"] = [({"region": "us-central1"}, "-1")]
    assert check(cloud[1]) == []


def test_spot_machines_have_a_quota_of_their_own(cloud: tuple[Cloud, str]) -> None:
    spot = plan(strategy="spot")
    (finding,) = check(cloud[1], spot)
    assert "custom_model_training_preemptible_nvidia_l4_gpus" in finding.message


def test_credentials_that_are_not_accepted_end_it_with_a_sentence(cloud: tuple[Cloud, str]) -> None:
    cloud[0].is_signed_in = False
    with pytest.raises(InputError, match="gcloud auth application-default login"):
        check(cloud[1])


def test_a_server_that_is_not_there_ends_it_with_a_sentence() -> None:
    with pytest.raises(InputError, match="cannot be asked"):
        check("http://127.0.0.1:9")


def test_without_credentials_the_command_says_how_to_get_them(
    neumf: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    # No machine's metadata server is asked.
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    result = neumf("preflight", "--target", "vertex-cpu", "--online", "--project", "p", "--region", "us-central1")
    assert result.returncode == 1
    assert "gcloud auth application-default login" in result.stderr
    assert len(result.stderr.splitlines()) == 1
