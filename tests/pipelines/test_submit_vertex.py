"""`neumf submit --backend vertex` against a server that speaks Vertex's own protocol."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from google.api_core.exceptions import PermissionDenied, RetryError
from google.protobuf import json_format
from grpc import StatusCode

from components.ncf.errors import InputError
from pipelines.api_errors import explaining_vertex_errors
from pipelines.cache_keys import step_keys
from pipelines.submit_options import SubmitOptions, submit_options
from tests.pipelines.servers.fixtures import Vertex, run_neumf
from tests.pipelines.servers.grpc_server import ApiError
from tests.pipelines.servers.storage_server import MISSING_BUCKET, StorageServer
from tests.pipelines.servers.templates import IMAGES, STEPS, make_template
from tests.pipelines.servers.vertex_services import PARENT

ACCOUNT = "pipeline@my-project.iam.gserviceaccount.com"
DIGESTS = tuple(
    f"--image-digest={name}={IMAGES['train'].replace('/train@', f'/{name}@')}"
    for name in ("download", "generate", "baseline", "train", "train-gpu", "publish")
)
ROOT = ("--pipeline-root", "gs://my-bucket/neumf")


def test_a_run_is_followed_to_its_end(vertex: Vertex, template: Path) -> None:
    result = vertex.submit(
        "--template", template, *ROOT, "--job-id", "neumf-1", "--service-account", ACCOUNT, "--label", "team=films",
        "--network", "projects/123/global/networks/default", "--set", "train.num_epochs=3",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "job neumf-1"
    assert lines[1].endswith("/vertex-ai/locations/europe-west4/pipelines/runs/neumf-1?project=my-project")
    steps = [line for line in lines if re.fullmatch(r"\w+ (running|succeeded)", line)]
    assert steps == [f"{step} {state}" for step in STEPS for state in ("running", "succeeded")]
    assert lines[-1] == "job neumf-1 succeeded"
    job = vertex.services.jobs[f"{PARENT}/pipelineJobs/neumf-1"]
    assert job.service_account == ACCOUNT
    assert job.network == "projects/123/global/networks/default"
    assert dict(job.labels)["team"] == "films"
    assert job.runtime_config.gcs_output_directory == "gs://my-bucket/neumf"
    assert job.runtime_config.parameter_values["train_num_epochs"] == 3
    assert "download_seed" not in job.runtime_config.parameter_values


def test_a_running_step_has_a_link_to_its_log(vertex: Vertex, template: Path) -> None:
    result = vertex.submit("--template", template, *ROOT)
    custom_jobs = [name.rpartition("/")[2] for name in vertex.services.custom_jobs]
    links = re.findall(
        r"log https://console.cloud.google.com/logs/query;query=(\S+)\?project=my-project", result.output
    )
    assert len(links) == len(custom_jobs) == 3
    assert all(f"job_id%3D%22{job}%22" in link for job, link in zip(custom_jobs, links, strict=True))


def test_a_failed_task_ends_with_its_error_and_its_log(vertex: Vertex, template: Path) -> None:
    vertex.services.world.failing_tasks["train"] = "The replica workerpool0-0 exited with a non-zero status of 1."
    result = vertex.submit("--template", template, *ROOT, "--job-id", "neumf-2")
    assert result.exit_code == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: neumf-2 failed in the step train (The replica workerpool0-0 exited with a non-zero")
    assert "its log: https://console.cloud.google.com/logs/query" in error
    assert "evaluate running" not in result.output


def test_a_resumed_run_takes_what_succeeded_from_the_cache(vertex: Vertex, template: Path) -> None:
    vertex.services.world.failing_tasks["train"] = "It was preempted."
    vertex.submit("--template", template, *ROOT, "--job-id", "first", "--service-account", ACCOUNT)
    vertex.services.world.failing_tasks.clear()
    result = vertex.submit("--resume", "first", "--job-id", "second")
    assert result.exit_code == 0, result.output
    assert "download cached: taken from an earlier run" in result.output
    assert "train succeeded" in result.output
    assert vertex.services.jobs[f"{PARENT}/pipelineJobs/second"].service_account == ACCOUNT


def test_a_resumed_run_keeps_its_key_and_labels(vertex: Vertex, template: Path) -> None:
    key = "projects/my-project/locations/europe-west4/keyRings/ring/cryptoKeys/key"
    vertex.services.world.failing_tasks["train"] = "It was preempted."
    vertex.submit(
        "--template", template, *ROOT, "--job-id", "first", "--encryption-key", key, "--label", "team=films"
    )  # fmt: skip
    vertex.services.world.failing_tasks.clear()
    result = vertex.submit("--resume", "first", "--job-id", "second")
    assert result.exit_code == 0, result.output
    job = vertex.services.jobs[f"{PARENT}/pipelineJobs/second"]
    assert (job.encryption_spec.kms_key_name, job.labels["team"]) == (key, "films")


def test_a_job_that_succeeded_cannot_be_resumed(vertex: Vertex, template: Path) -> None:
    vertex.submit("--template", template, *ROOT, "--job-id", "first")
    result = vertex.submit("--resume", "first")
    assert result.exit_code == 1
    assert "first is succeeded: only a failed or cancelled job can be resumed" in result.stderr


def test_without_caching_nothing_is_taken_from_earlier_runs(vertex: Vertex, template: Path) -> None:
    vertex.submit("--template", template, *ROOT)
    again = vertex.submit("--template", template, *ROOT, "--job-id", "again", "--no-caching")
    assert "cached" not in again.output
    assert again.output.count(" succeeded") == 4


def test_what_the_plan_announces_is_what_runs(vertex: Vertex, template: Path) -> None:
    vertex.submit("--template", template, *ROOT, "--job-id", "first")
    plan = vertex.submit("--template", template, "--dry-run", "--compare", "first", "--set", "train.num_epochs=3")
    assert plan.exit_code == 0, plan.output
    announced = {line.split()[0]: line.rstrip() for line in plan.output.splitlines()[1:]}
    assert announced["download"].endswith("(cached)")
    assert announced["train"].endswith("  parameter num_epochs: 20 -> 3")
    assert announced["evaluate"].endswith("  after train")
    assert len(vertex.services.jobs) == 1, "a dry run submits nothing"
    run = vertex.submit("--template", template, *ROOT, "--job-id", "second", "--set", "train.num_epochs=3")
    assert re.findall(r"^(\w+) cached", run.output, flags=re.MULTILINE) == ["download"]


def test_an_image_by_tag_is_refused_while_caching_is_on(vertex: Vertex, tmp_path: Path) -> None:
    template = make_template(tmp_path, {**IMAGES, "train": "europe-docker.pkg.dev/my-project/neumf/train:latest"})
    result = vertex.submit("--template", template, *ROOT)
    assert result.exit_code == 1
    assert "train:latest of train is named by a tag" in result.stderr
    assert not vertex.services.jobs
    assert vertex.submit("--template", template, *ROOT, "--no-caching").exit_code == 0


def test_a_job_is_cancelled(vertex: Vertex, template: Path) -> None:
    started = vertex.submit("--template", template, *ROOT, "--job-id", "neumf-3", "--no-wait")
    assert started.exit_code == 0, started.output
    assert vertex.submit("--cancel", "neumf-3").output == "cancelling neumf-3\n"
    result = vertex.submit("--follow", "neumf-3")
    assert result.exit_code == 2
    assert result.stderr == "error: neumf-3 was cancelled.\n"


def test_a_job_that_ended_cannot_be_cancelled(vertex: Vertex, template: Path) -> None:
    vertex.submit("--template", template, *ROOT, "--job-id", "done")
    result = vertex.submit("--cancel", "done")
    assert result.exit_code == 1
    assert "is in state PIPELINE_STATE_SUCCEEDED" in result.stderr


def test_an_unavailable_server_is_asked_again(vertex: Vertex, template: Path) -> None:
    unavailable = ApiError(StatusCode.UNAVAILABLE, "The service is currently unavailable.")
    vertex.server.failures["create_pipeline_job"] = [unavailable, unavailable]
    vertex.server.failures["get_pipeline_job"] = [unavailable]
    result = vertex.submit("--template", template, *ROOT, "--job-id", "neumf-4")
    assert result.exit_code == 0, result.output
    assert vertex.server.calls.count("create_pipeline_job") == 3


def lose_one_answer(vertex: Vertex, method: str) -> None:
    """Has the server do what it is asked once, and the answer never arrive."""
    do = getattr(vertex.services, method)

    def do_and_lose_the_answer(request: object) -> object:
        setattr(vertex.services, method, do)
        do(request)
        raise ApiError(StatusCode.UNAVAILABLE, "Connection reset.")

    setattr(vertex.services, method, do_and_lose_the_answer)


def test_reading_and_cancelling_are_tried_again(vertex: Vertex, template: Path) -> None:
    vertex.submit("--template", template, *ROOT, "--job-id", "neumf-4", "--no-wait")
    unavailable = [ApiError(StatusCode.UNAVAILABLE, "The service is currently unavailable.")]
    for method in ("list_schedules", "get_pipeline_job", "cancel_pipeline_job"):
        vertex.server.failures[method] = unavailable * 2
    assert vertex.submit("--schedules").exit_code == 0
    lose_one_answer(vertex, "cancel_pipeline_job")
    result = vertex.submit("--cancel", "neumf-4")
    assert (result.exit_code, result.output) == (0, "cancelling neumf-4\n")
    assert vertex.server.calls.count("cancel_pipeline_job") == 4


def test_jobs_of_one_second_have_ids_of_their_own(
    vertex: Vertex, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "20260301120000")
    for _ in range(2):
        assert vertex.submit("--template", template, *ROOT, "--no-wait").exit_code == 0
    assert len(vertex.services.jobs) == 2


def test_a_server_that_stays_unavailable_is_given_up(vertex: Vertex, template: Path) -> None:
    unavailable = ApiError(StatusCode.UNAVAILABLE, "The service is currently unavailable.")
    vertex.server.failures["create_pipeline_job"] = [unavailable] * 100
    result = vertex.submit("--template", template, *ROOT)
    assert result.exit_code == 1
    assert "Vertex in europe-west4 does not answer" in result.stderr
    assert vertex.server.calls.count("create_pipeline_job") == 6


def test_a_retry_whose_first_attempt_arrived_is_no_error(vertex: Vertex, template: Path) -> None:
    """The answer was lost, not the request: the job exists when it is sent again."""
    lose_one_answer(vertex, "create_pipeline_job")
    result = vertex.submit("--template", template, *ROOT, "--job-id", "neumf-5")
    assert result.exit_code == 0, result.output
    assert list(vertex.services.jobs) == [f"{PARENT}/pipelineJobs/neumf-5"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ApiError(StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded: custom_model_training_nvidia_l4_gpus."),
            ["The quota custom_model_training_nvidia_l4_gpus of the project my-project in europe-west4", "Quotas page"],
        ),
        (
            ApiError(
                StatusCode.PERMISSION_DENIED,
                "Vertex AI API has not been used in project 123 before or it is disabled.",
                "SERVICE_DISABLED",
            ),
            ["gcloud services enable aiplatform.googleapis.com --project my-project"],
        ),
        (
            ApiError(StatusCode.PERMISSION_DENIED, f"Permission iam.serviceAccounts.actAs is missing on {ACCOUNT}."),
            [f"You may not act as {ACCOUNT}", "roles/iam.serviceAccountUser"],
        ),
        (
            ApiError(
                StatusCode.PERMISSION_DENIED,
                "Dataflow API has not been used in project 123 before or it is disabled. Enable it by visiting "
                "https://console.developers.google.com/apis/api/dataflow.googleapis.com/overview?project=123.",
                "SERVICE_DISABLED",
                service="dataflow.googleapis.com",
            ),
            ["The API dataflow.googleapis.com is off", "gcloud services enable dataflow.googleapis.com"],
        ),
        (
            ApiError(
                StatusCode.PERMISSION_DENIED,
                "Your application is authenticating by using local Application Default Credentials. The "
                "aiplatform.googleapis.com API requires a quota project, which is not set by default.",
                "SERVICE_DISABLED",
            ),
            ["gcloud auth application-default set-quota-project my-project"],
        ),
        (
            ApiError(
                StatusCode.PERMISSION_DENIED,
                "This API method requires billing to be enabled. Please enable billing on project #my-project.",
                "BILLING_DISABLED",
            ),
            ["The project my-project has no billing"],
        ),
        (
            ApiError(
                StatusCode.PERMISSION_DENIED,
                "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: abc",
                "SECURITY_POLICY_VIOLATED",
            ),
            ["A perimeter of your organization forbids this", "abc"],
        ),
        (
            ApiError(StatusCode.PERMISSION_DENIED, "Project 'my-project' not found or deleted.", "CONSUMER_INVALID"),
            ["correct --project, its id and not its title"],
        ),
        (
            ApiError(
                StatusCode.PERMISSION_DENIED,
                "Permission 'cloudkms.cryptoKeyVersions.useToEncrypt' denied on resource 'projects/p/locations/l/k'.",
            ),
            ["You lack cloudkms.cryptoKeyVersions.useToEncrypt", "roles/cloudkms.cryptoKeyEncrypterDecrypter"],
        ),
        (
            ApiError(
                StatusCode.INVALID_ARGUMENT,
                f"You do not have permission to act as service_account: {ACCOUNT}. (or it may not exist).",
            ),
            [f"You may not act as {ACCOUNT}", "roles/iam.serviceAccountUser"],
        ),
        (
            ApiError(
                StatusCode.RESOURCE_EXHAUSTED,
                "The following quota metrics exceed quota limits: "
                "aiplatform.googleapis.com/custom_model_training_nvidia_l4_gpus",
            ),
            ["The quota custom_model_training_nvidia_l4_gpus", "in europe-west4 is used up: ask for more"],
        ),
        (
            ApiError(
                StatusCode.RESOURCE_EXHAUSTED,
                "Quota exceeded for quota metric 'Pipeline jobs created' and limit 'Pipeline jobs per minute'.",
            ),
            ["too often", "wait a minute"],
        ),
        (
            ApiError(StatusCode.INVALID_ARGUMENT, "The request's location is not supported: moon."),
            ["Vertex does not take the region europe-west4"],
        ),
        (
            ApiError(StatusCode.UNAUTHENTICATED, "Request had invalid authentication credentials."),
            ["gcloud auth application-default login"],
        ),
        (
            ApiError(StatusCode.INVALID_ARGUMENT, "Machine type \"n1-standard-4\" is not supported."),
            ["Vertex refused the job", "n1-standard-4"],
        ),
    ],
)  # fmt: skip
def test_an_error_of_the_api_is_one_sentence_with_the_fix(
    vertex: Vertex, template: Path, error: ApiError, words: list[str]
) -> None:
    vertex.server.failures["create_pipeline_job"] = [error]
    result = vertex.submit("--template", template, *ROOT, "--service-account", ACCOUNT)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_a_project_of_others_names_the_missing_permission(vertex: Vertex, template: Path) -> None:
    result = vertex.submit("--template", template, *ROOT, "--project", "their-project")
    assert result.exit_code == 1
    assert "You lack aiplatform.pipelineJobs.create in the project their-project" in result.stderr


def test_an_unknown_service_account_is_named(vertex: Vertex, template: Path) -> None:
    account = "nobody@my-project.iam.gserviceaccount.com"
    result = vertex.submit("--template", template, *ROOT, "--service-account", account)
    assert result.exit_code == 1
    assert f"The service account {account} does not exist" in result.stderr


def test_an_unknown_job_is_one_sentence(vertex: Vertex) -> None:
    result = vertex.submit("--follow", "nothing")
    assert result.exit_code == 1
    assert result.stderr.endswith("pipelineJobs/nothing does not exist. Look at its name, --project and --location.\n")
    assert result.stderr.count("\n") == 1


@pytest.fixture
def signed_in_as_a_person(storage: StorageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageServer:
    """What `gcloud auth application-default login` leaves behind; its tokens come from the server."""
    from google.oauth2 import credentials

    user = {"type": "authorized_user", "client_id": "1", "client_secret": "secret", "refresh_token": "token"}
    (tmp_path / "user.json").write_text(json.dumps(user))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "user.json"))
    monkeypatch.setattr(credentials, "_GOOGLE_OAUTH2_TOKEN_ENDPOINT", f"{storage.url}/token")
    return storage


def test_a_person_signs_in_too(vertex: Vertex, template: Path, signed_in_as_a_person: StorageServer) -> None:
    assert not signed_in_as_a_person.refused
    assert vertex.submit("--template", template, *ROOT, "--no-wait").exit_code == 0


def test_a_sign_in_that_expired_is_noticed_at_once(
    vertex: Vertex, template: Path, signed_in_as_a_person: StorageServer
) -> None:
    """Within gRPC it would look like a server that does not answer, and be tried again for two minutes."""
    signed_in_as_a_person.refused.append("expired")
    for arguments in (("--template", template, *ROOT), ("--follow", "neumf-1"), ("--schedules",)):
        result = vertex.submit(*arguments)
        assert result.exit_code == 1
        assert "no longer takes your credentials (invalid_grant: Token has been expired or revoked.)" in result.stderr
        assert "gcloud auth application-default login" in result.stderr
        assert result.stderr.count("\n") == 1
    assert not vertex.server.calls


def test_a_sign_in_that_cannot_be_reached_is_no_matter_of_credentials(
    vertex: Vertex, signed_in_as_a_person: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from google.oauth2 import credentials

    assert not signed_in_as_a_person.refused
    monkeypatch.setattr(credentials, "_GOOGLE_OAUTH2_TOKEN_ENDPOINT", "http://127.0.0.1:9/token")
    result = vertex.submit("--follow", "neumf-1")
    assert result.exit_code == 1
    assert "Google's sign-in cannot be reached" in result.stderr
    assert "look at your network" in result.stderr
    assert "login" not in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("place", "words"), [("", "credentials were not found"), ("none.json", "none.json was not found")]
)
def test_no_credentials_are_one_sentence(
    vertex: Vertex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, words: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    if place:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / place))
    result = vertex.submit("--follow", "neumf-1")
    assert result.exit_code == 1
    assert "There are no credentials of Google Cloud" in result.stderr
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_host_that_is_nowhere_is_one_sentence(
    vertex: Vertex, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HTTPS_PROXY")
    result = vertex.submit("--template", template, *ROOT, "--endpoint", "nowhere.invalid")
    assert result.exit_code == 1
    assert "The address of Vertex in europe-west4 is not known to your network" in result.stderr
    assert result.stderr.count("\n") == 1


def test_why_it_was_tried_again_is_what_is_told() -> None:
    @click.command()
    @submit_options
    def command(options: SubmitOptions) -> None:
        with explaining_vertex_errors(options):
            raise RetryError("Timeout of 120.0s exceeded", PermissionDenied("This requires billing to be enabled."))

    arguments = ["--backend", "vertex", "--project", "p", "--location", "us-west1", "--schedules"]
    with pytest.raises(InputError, match="The project p has no billing"):
        CliRunner().invoke(command, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_training_cpus",
         "ask for more quota"),
        ("Resources are insufficient in region: europe-west4. Please try a different region.", "--flex-start"),
        (f"You do not have permission to act as service_account {ACCOUNT}", "roles/iam.serviceAccountUser"),
        ("The replica workerpool0-0 exited with a non-zero status of 137.", "choose a larger --pool for train"),
    ],
)  # fmt: skip
def test_a_step_that_the_platform_could_not_run_comes_with_a_remedy(
    vertex: Vertex, template: Path, error: str, remedy: str
) -> None:
    vertex.services.world.failing_tasks["train"] = error
    result = vertex.submit("--template", template, *ROOT)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert f"failed in the step train ({error.rstrip('.')}): " in last
    assert remedy in last
    assert "; its log: https://" in last


def test_an_unknown_region_is_one_sentence(vertex: Vertex, template: Path) -> None:
    result = vertex.submit("--template", template, *ROOT, "--location", "moon-west1")
    assert result.exit_code == 1
    assert re.fullmatch(r"error: Vertex has no region 'moon-west1': use one such as \S+-west\d+\.\n", result.stderr)


def test_a_missing_bucket_is_not_made_without_a_word(vertex: Vertex, template: Path) -> None:
    result = vertex.submit("--template", template, "--pipeline-root", f"gs://{MISSING_BUCKET}/neumf")
    assert result.exit_code == 1
    assert f"gcloud storage buckets create gs://{MISSING_BUCKET} --location=europe-west4" in result.stderr
    assert not vertex.services.jobs


def test_a_parameter_that_the_template_lacks_is_named(vertex: Vertex, template: Path) -> None:
    result = vertex.submit("--template", template, *ROOT, "--set", "generate.min_ratings=5")
    assert result.exit_code == 1
    assert "generate_min_ratings" in result.stderr


def test_a_run_belongs_to_its_experiment(vertex: Vertex, template: Path) -> None:
    result = vertex.submit("--template", template, *ROOT, "--job-id", "neumf-6", "--experiment", "films")
    assert result.exit_code == 0, result.output
    contexts = f"{PARENT}/metadataStores/default/contexts"
    assert vertex.services.context_children == {f"{contexts}/films": [f"{contexts}/neumf-6"]}


def test_a_schedule_is_made_listed_and_deleted(vertex: Vertex, template: Path) -> None:
    made = vertex.submit(
        "--template", template, *ROOT, "--job-id", "weekly", "--schedule", "TZ=Europe/Paris 0 3 * * 1",
        "--service-account", ACCOUNT,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    (schedule,) = vertex.services.schedules.values()
    assert made.output == f"schedule {schedule.name} (active): TZ=Europe/Paris 0 3 * * 1\n"
    job = schedule.create_pipeline_job_request.pipeline_job
    assert (job.service_account, job.runtime_config.gcs_output_directory) == (ACCOUNT, "gs://my-bucket/neumf")
    assert not vertex.services.jobs
    assert vertex.submit("--schedules").output == f"{schedule.name}  TZ=Europe/Paris 0 3 * * 1  active  weekly\n"
    assert vertex.submit("--delete-schedule", schedule.name).exit_code == 0
    assert vertex.submit("--schedules").output == ""


@pytest.mark.parametrize(
    ("named", "cached"),
    [((), ()), (("--job-id", "weekly"), ()), (("--job-id", "weekly"), ("--no-caching",))],
    ids=["", "--job-id", "--job-id --no-caching"],
)
def test_a_schedule_is_not_made_twice(
    vertex: Vertex, template: Path, named: tuple[str, ...], cached: tuple[str, ...]
) -> None:
    weekly = ("--template", template, *ROOT, *named, *cached, "--schedule", "0 3 * * 1", "--set", "download.seed=5")
    assert vertex.submit(*weekly).exit_code == 0
    (name,) = vertex.services.schedules
    again = vertex.submit(*weekly)
    assert again.exit_code == 0, again.output
    assert again.output.startswith(f"schedule {name} (active): 0 3 * * 1, which exists with the same pipeline")
    assert list(vertex.services.schedules) == [name]
    others = (
        ("--schedule", "0 4 * * 1"), ("--set", "download.seed=6"), ("--pipeline-root", "gs://other/neumf"),
        ("--network", "projects/1/global/networks/n"), ("--label", "team=films"),
        ("--encryption-key", "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"),
    )  # fmt: skip
    for number, other in enumerate(() if cached else (*others, ("--no-caching",)), 2):
        result = vertex.submit(*weekly, *other)
        assert result.exit_code == bool(named), (other, result.output)
        if named:
            assert result.stderr.startswith(f"error: There is a schedule weekly ({name}) that differs"), other
        assert len(vertex.services.schedules) == (1 if named else number), other


def test_a_schedule_whose_answer_was_lost_is_not_made_twice(vertex: Vertex, template: Path) -> None:
    lose_one_answer(vertex, "create_schedule")
    made = vertex.submit("--template", template, *ROOT, "--schedule", "0 3 * * 1")
    (name,) = vertex.services.schedules
    assert (made.exit_code, made.output) == (0, f"schedule {name} (active): 0 3 * * 1\n")


def test_the_whole_pipeline_is_compiled_and_submitted(vertex: Vertex) -> None:
    """The real DAG: training as a custom job, a gate, and what stands behind it."""
    vertex.services.world.false_conditions.add("condition-2")
    result = vertex.submit(
        *ROOT, "--target", "vertex-gpu", *DIGESTS, "--preset", "smoke", "--dataset", "ml-1m", "--job-id", "neumf-7",
        "--service-account", ACCOUNT,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    order = re.findall(r"^(\S+) succeeded", result.output, flags=re.MULTILINE)
    assert order.index("download") < order.index("generate") < order.index("train") < order.index("evaluate")
    assert "condition-1/recommend" in order
    assert "publish skipped: its condition is false" in result.output
    job = vertex.services.jobs[f"{PARENT}/pipelineJobs/neumf-7"]
    spec = json_format.MessageToDict(job._pb.pipeline_spec)
    (train,) = [step for step in step_keys(spec, {}) if step.step == "train"]
    assert [image.partition("@")[0].rpartition("/")[2] for image in train.images][-1] == "train-gpu"
    assert "worker_pool_specs" in train.parameters, "training is a custom job with worker pools"


PLANNED = (*ROOT, *DIGESTS, "--image-digest", f"train-tpu={IMAGES['train'].replace('/train@', '/train-tpu@')}",
           "--dataset", "ml-1m", "--preset", "smoke")  # fmt: skip


@pytest.mark.parametrize("target", ["vertex-cpu", "vertex-gpu", "vertex-multi-gpu", "vertex-tpu"])
def test_the_training_job_of_every_target_is_one_that_the_service_defines(vertex: Vertex, target: str) -> None:
    result = vertex.submit(*PLANNED, "--target", target, "--set", "train.global_batch_size=512")
    assert result.exit_code == 0, result.output
    (train,) = [job for job in vertex.services.custom_jobs.values() if job.display_name == "train"]
    assert train.job_spec.worker_pool_specs


def test_a_training_job_that_vertex_refuses_is_named(vertex: Vertex, tmp_path: Path) -> None:
    compiled = tmp_path / "gpu.yaml"
    run_neumf("compile", "--target", "vertex-gpu", *DIGESTS, "--dataset", "ml-1m", "--output", compiled)
    broken = tmp_path / "broken.yaml"
    broken.write_text(compiled.read_text().replace("NVIDIA_L4", "NVIDIA_H100_80GB"))
    result = vertex.submit(*ROOT, "--template", broken, "--no-preflight")
    assert result.exit_code == 2
    assert "failed in the step train (INVALID_ARGUMENT: Machine type 'g2-standard-" in result.stderr


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_what_preflight_finds_stops_a_submission(vertex: Vertex, dry: tuple[str, ...]) -> None:
    result = vertex.submit(
        *PLANNED, "--target", "vertex-tpu", "--flex-start", "--set", "train.strategy=mirrored",
        "--set", "train.global_batch_size=7", *dry,
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    for words in ("--flex-start finds", "use tpu, or auto", "batch size", "--no-preflight"):
        assert words in result.stderr
    assert not vertex.server.calls


def test_a_tensorboard_elsewhere_stops_a_submission_unless_somebody_insists(vertex: Vertex) -> None:
    board = ("--service-account", ACCOUNT, "--tensorboard", "projects/p/locations/us-central1/tensorboards/1")
    result = vertex.submit(*PLANNED, "--target", "vertex-gpu", *board, "--no-wait")
    assert result.exit_code == 1
    assert "is in us-central1 and the run in europe-west4" in result.stderr
    assert not vertex.services.jobs
    assert vertex.submit(*PLANNED, "--target", "vertex-gpu", *board, "--no-wait", "--no-preflight").exit_code == 0
    assert len(vertex.services.jobs) == 1


def test_what_preflight_warns_of_is_submitted_with_the_warning(vertex: Vertex) -> None:
    result = vertex.submit(*PLANNED, "--target", "vertex-gpu", "--spot", "--no-wait")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("warning: scheduling: --spot without --checkpoint-root")


def test_a_pool_with_reduction_servers_can_be_submitted(vertex: Vertex) -> None:
    """Their image is Google's and has a tag alone."""
    result = vertex.submit(
        *ROOT, "--target", "vertex-multi-gpu", "--pool", "a100-x8-x2-reduction", *DIGESTS, "--preset", "smoke",
        "--dataset", "ml-1m", "--set", "train.global_batch_size=512", "--job-id", "neumf-9", "--no-wait",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    job = vertex.services.jobs[f"{PARENT}/pipelineJobs/neumf-9"]
    assert "reductionserver:latest" in json.dumps(json_format.MessageToDict(job._pb.pipeline_spec))


def test_a_place_on_this_machine_is_refused(vertex: Vertex, tmp_path: Path) -> None:
    result = vertex.submit(*ROOT, "--dataset", f"csv:{tmp_path}/events.csv")
    assert result.exit_code == 1
    assert "is on this machine and the steps run elsewhere: copy it to a bucket" in result.stderr
    assert not vertex.server.calls


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(vertex: Vertex, template: Path) -> None:
    command = [Path(sys.executable).parent / "neumf", "submit", *vertex.place(), "--template", template, *ROOT,
               "--job-id", "neumf-8", "--poll", "30"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "job neumf-8\n"
        # It prints no more until the first step runs, which is after a poll: it is asking or waiting now.
        assert process.stdout.readline().startswith("see ")
        while "get_pipeline_job" not in vertex.server.calls:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("error: neumf-8 keeps running: follow it with `neumf submit --backend vertex --project")
    assert "--cancel neumf-8`" in errors
    assert errors.count("\n") == 1
    state = vertex.services.jobs[f"{PARENT}/pipelineJobs/neumf-8"].state.name
    assert state in ("PIPELINE_STATE_PENDING", "PIPELINE_STATE_RUNNING")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Vertex needs --pipeline-root"),
        (("--pipeline-root", "s3://bucket"), "--pipeline-root 's3://bucket' is not of the form gs://BUCKET/FOLDER"),
        ((*ROOT, "--job-id", "My_job"), "--job-id My_job must be lower-case letters"),
        ((*ROOT, "--network", "default"), "--network 'default' is not of the form projects/PROJECT-NUMBER"),
        ((*ROOT, "--label", "Team=x"), "--label Team=x must consist of lower-case letters"),
        ((*ROOT, "--schedule", "every day"), "--schedule 'every day' must be five fields"),
        ((*ROOT, "--schedule", "0 3 * * 8"), "the weekday 8 is outside 0 to 6"),
        ((*ROOT, "--poll", "0"), "--poll 0 must be more than 0 seconds"),
        (("--cancel", "a", "--follow", "b"), "--follow and --cancel exclude each other"),
        ((*ROOT, "--namespace", "films"), "--namespace is of use with --backend kfp alone"),
        ((*ROOT, "--preset", "smoke"), "--preset smoke is of no use with --template"),
        ((*ROOT, "--template", "nothing.yaml"), "--template nothing.yaml does not exist"),
        ((*ROOT, "--target", "vertex-cpu"), "--target is of no use with --template "),
        ((*ROOT, "--pool", "a100"), "leave it out, or compile again with --pool."),
        ((*ROOT, "--spot"), "--spot is of no use"),
        ((*ROOT, "--timeout-hours", "3"), "--timeout-hours is of no use"),
        ((*ROOT, "--tensorboard", "projects/p/locations/l/tensorboards/1"), "--tensorboard is of no use"),
        ((*ROOT, "--checkpoint-root", "gs://bucket/kept"), "--checkpoint-root is of no use"),
        ((*ROOT, DIGESTS[0]), "--image-digest is of no use"),
        ((*ROOT, "--dataflow", "project=p"), "--dataflow is of no use"),
    ],
)
def test_a_wrong_option_is_one_sentence(vertex: Vertex, template: Path, arguments: tuple[str, ...], words: str) -> None:
    result = vertex.submit("--template", template, *arguments)
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not vertex.server.calls


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pipeline-root", "s3://bucket"), "--pipeline-root 's3://bucket' is not of the form gs://BUCKET/FOLDER"),
        (("--job-id", "My_job"), "--job-id My_job must be lower-case letters"),
        (("--experiment", "My films"), "--experiment My films must be lower-case letters"),
        (("--network", "default"), "--network 'default' is not of the form projects/PROJECT-NUMBER"),
        (("--service-account", "me@example.com"), "--service-account 'me@example.com' is not of the form"),
        (("--encryption-key", "key"), "--encryption-key 'key' is not of the form"),
        (("--label", "Team=x"), "--label Team=x must consist of lower-case letters"),
        (("--schedule", "0 25 * * *"), "--schedule '0 25 * * *': the hour 25 is outside 0 to 23"),
        (("--location", "moon-west1"), "Vertex has no region 'moon-west1'"),
        (("--set", "generate.min_ratings=5"), "--template lacks the parameter generate_min_ratings"),
        (("--set", "download.dataset=csv:/data/events.csv"), "copy it to a bucket"),
    ],
)
def test_a_dry_run_finds_what_submitting_would_without_a_network(
    vertex: Vertex, template: Path, arguments: tuple[str, ...], words: str
) -> None:
    for dry in ((), ("--dry-run",)):
        result = vertex.submit("--template", template, *ROOT, *arguments, *dry)
        assert result.exit_code == 1, (dry, result.output)
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    assert not vertex.server.calls


def test_a_dry_run_shows_its_plan_before_it_refuses_a_tag(vertex: Vertex, tmp_path: Path) -> None:
    template = make_template(tmp_path, {**IMAGES, "train": "europe-docker.pkg.dev/my-project/neumf/train:latest"})
    result = vertex.submit("--template", template, *ROOT, "--dry-run")
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == list(STEPS)
    assert "train:latest of train is named by a tag" in result.stderr
    assert vertex.submit("--template", template, *ROOT, "--dry-run", "--no-caching").exit_code == 0


def test_a_dry_run_says_what_it_could_not_check(vertex: Vertex, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_REGION"):
        monkeypatch.delenv(name, raising=False)
    arguments = ("submit", "--backend", "vertex", *DIGESTS, "--dataset", "csv:gs://my-data/events.csv", "--dry-run")
    result = run_neumf(*arguments)
    assert result.exit_code == 0, result.output
    assert "not checked: whether gs://my-data/events.csv has changed" in result.output
    assert "not checked: --project, --location, --pipeline-root" in result.output
    complete = run_neumf(*arguments, *ROOT, "--project", "p", "--location", "us-west1", "--no-caching")
    assert "not checked" not in complete.output
    assert not vertex.server.calls


def test_changed_data_run_everything_behind_them_again(vertex: Vertex, storage: StorageServer) -> None:
    """The object's md5, which Cloud Storage keeps, is a parameter of download and so a part of its key."""
    for job, content in (
        ("first", b"user,item\n1,2\n"),
        ("second", b"user,item\n1,2\n"),
        ("third", b"user,item\n1,3\n"),
    ):
        storage.objects["gs://my-data/events.csv"] = content
        result = vertex.submit(*ROOT, *DIGESTS, "--dataset", "csv:gs://my-data/events.csv", "--job-id", job)
        assert result.exit_code == 0, result.output
        cached = re.findall(r"^(\w+) cached", result.output, flags=re.MULTILINE)
        assert bool(cached) == (job == "second"), result.output
        name = f"{PARENT}/pipelineJobs/{job}"
        spec = json_format.MessageToDict(vertex.services.jobs[name]._pb.pipeline_spec)
        digest = spec["root"]["inputDefinitions"]["parameters"]["download_data_digest"]["defaultValue"]
        assert digest == hashlib.md5(content).hexdigest()


def test_data_without_a_digest_are_announced(vertex: Vertex, storage: StorageServer) -> None:
    assert not storage.objects
    result = vertex.submit(*ROOT, *DIGESTS, "--dataset", "csv:https://localhost:9/events.csv", "--no-wait")
    assert result.exit_code == 0, result.output
    assert "https://localhost:9/events.csv has no digest that can be read from here" in result.output


def test_a_step_that_is_never_cached_runs_again(  # --caching is no order to cache everything
    vertex: Vertex, tmp_path: Path
) -> None:
    template = make_template(tmp_path, is_train_cached=False)
    vertex.submit("--template", template, *ROOT, "--job-id", "first")
    again = vertex.submit("--template", template, *ROOT, "--job-id", "again", "--caching")
    assert re.findall(r"^(\w+) cached", again.output, flags=re.MULTILINE) == ["download"]
    assert "train succeeded" in again.output
