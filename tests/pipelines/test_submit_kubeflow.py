"""`neumf submit --backend kfp` against a server that speaks the REST API of Kubeflow Pipelines."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.pipelines.servers.fixtures import Kubeflow, run_neumf
from tests.pipelines.servers.kubeflow_server import HttpError
from tests.pipelines.servers.templates import STEPS, make_template


def job_of(output: str) -> str:
    return re.search(r"^job (\S+)$", output, flags=re.MULTILINE).group(1)  # type: ignore[union-attr]


def test_a_run_is_followed_to_its_end(kubeflow: Kubeflow, template: Path) -> None:
    result = kubeflow.submit(
        "--template", template, "--job-id", "neumf-1", "--experiment", "films", "--service-account", "pipeline-runner",
        "--pipeline-root", "minio://mlpipeline/neumf", "--set", "train.num_epochs=3",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (run,) = kubeflow.services.runs.values()
    assert result.output.splitlines()[:2] == [
        f"job {run['run_id']}",
        f"see {kubeflow.server.url}/#/runs/details/{run['run_id']}",
    ]
    steps = [line for line in result.output.splitlines() if re.fullmatch(r"\S+ (running|succeeded)", line)]
    assert steps == [f"{step} {state}" for step in STEPS for state in ("running", "succeeded")]
    assert "log kubectl logs neumf-train-1 -c main" in result.output
    assert (run["display_name"], run["service_account"]) == ("neumf-1", "pipeline-runner")
    assert run["runtime_config"] == {"parameters": {"train_num_epochs": 3}, "pipeline_root": "minio://mlpipeline/neumf"}
    assert kubeflow.services.experiments[run["experiment_id"]]["display_name"] == "films"


def test_an_experiment_is_made_once(kubeflow: Kubeflow, template: Path) -> None:
    for _ in range(2):
        assert kubeflow.submit("--template", template, "--experiment", "films", "--no-wait").exit_code == 0
    assert len(kubeflow.services.experiments) == 1


def test_a_failed_task_ends_with_its_error_and_its_log(kubeflow: Kubeflow, template: Path) -> None:
    kubeflow.services.failing_tasks["train"] = (
        "This step is in Failed state with this message: OOMKilled (exit code 137)"
    )
    result = kubeflow.submit("--template", template)
    assert result.exit_code == 2
    assert "failed in the step train (This step is in Failed state with this message: OOMKilled" in result.stderr
    assert "its log: kubectl logs neumf-train-1 -c main" in result.stderr


def test_a_failed_run_is_resumed_where_it_failed(kubeflow: Kubeflow, template: Path) -> None:
    kubeflow.services.failing_tasks["train"] = "OOMKilled"
    job = job_of(kubeflow.submit("--template", template).output)
    kubeflow.services.failing_tasks.clear()
    result = kubeflow.submit("--resume", job)
    assert result.exit_code == 0, result.output
    assert job_of(result.output) == job
    assert "download running" not in result.output
    assert "train running" in result.output


def test_an_unchanged_run_is_taken_from_the_cache(kubeflow: Kubeflow, template: Path) -> None:
    kubeflow.submit("--template", template)
    again = kubeflow.submit("--template", template, "--set", "train.num_epochs=3")
    assert re.findall(r"^(\w+) cached", again.output, flags=re.MULTILINE) == ["download"]
    assert "cached" not in kubeflow.submit("--template", template, "--no-caching").output


def test_the_plan_compares_with_a_run(kubeflow: Kubeflow, template: Path) -> None:
    job = job_of(kubeflow.submit("--template", template).output)
    plan = kubeflow.submit("--template", template, "--dry-run", "--compare", job, "--set", "download.seed=2")
    assert plan.exit_code == 0, plan.output
    assert "parameter seed: 1 -> 2" in plan.output
    assert plan.output.count("after download") == 2
    assert len(kubeflow.services.runs) == 1


def test_a_run_is_cancelled(kubeflow: Kubeflow, template: Path) -> None:
    job = job_of(kubeflow.submit("--template", template, "--no-wait").output)
    assert kubeflow.submit("--cancel", job).output == f"cancelling {job}\n"
    result = kubeflow.submit("--follow", job)
    assert result.exit_code == 2
    assert result.stderr == f"error: {job} was cancelled.\n"


def test_an_unavailable_server_is_asked_again(kubeflow: Kubeflow, template: Path) -> None:
    kubeflow.server.failures["create_run"] = [HttpError(503, "upstream connect error")] * 2
    kubeflow.server.failures["get_run"] = [HttpError(503, "upstream connect error")]
    result = kubeflow.submit("--template", template)
    assert result.exit_code == 0, result.output
    assert kubeflow.server.calls.count("create_run") == 3
    assert len(kubeflow.services.runs) == 1


def losing_the_first_answer(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The request arrives and is carried out; who sent it hears of a failure."""
    act = getattr(kubeflow.services, name)

    def act_and_lose_the_answer(argument: object) -> None:
        monkeypatch.setattr(kubeflow.services, name, act)
        act(argument)
        raise HttpError(503, "upstream connect error")

    monkeypatch.setattr(kubeflow.services, name, act_and_lose_the_answer)


def test_a_run_whose_answer_was_lost_is_not_started_twice(
    kubeflow: Kubeflow, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = job_of(kubeflow.submit("--template", template, "--job-id", "films", "--no-wait").output)
    losing_the_first_answer(kubeflow, monkeypatch, "create_run")
    result = kubeflow.submit("--template", template, "--job-id", "films")
    assert result.exit_code == 0, result.output
    assert len(kubeflow.services.runs) == 2
    assert job_of(result.output) in set(kubeflow.services.runs) - {earlier}, "not an earlier run of the same name"


def test_reading_and_cancelling_are_tried_again(
    kubeflow: Kubeflow, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(kubeflow.submit("--template", template, "--no-wait").output)
    unavailable = [HttpError(503, "upstream connect error")]
    kubeflow.server.failures.update({"list_recurring_runs": unavailable * 2, "get_run": unavailable * 2})
    assert kubeflow.submit("--schedules").exit_code == 0
    assert kubeflow.submit("--template", template, "--dry-run", "--compare", job).exit_code == 0
    kubeflow.server.failures["terminate_run"] = unavailable * 2
    losing_the_first_answer(kubeflow, monkeypatch, "terminate_run")
    result = kubeflow.submit("--cancel", job)
    assert (result.exit_code, result.output) == (0, f"cancelling {job}\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (HttpError(403, "User 'x' is not authorized with reason: ... in namespace films", 7), ["role kubeflow-edit"]),
        (HttpError(429, "exceeded quota: compute, requested: nvidia.com/gpu=1", 8), ["nvidia.com/gpu=1", "quota"]),
        (HttpError(400, "Invalid input error: unknown template format", 3), ["unknown template format"]),
        (HttpError(401, "Unauthorized", 16), ["--token-file"]),
    ],
)
def test_an_error_of_the_api_is_one_sentence(
    kubeflow: Kubeflow, template: Path, error: HttpError, words: list[str]
) -> None:
    kubeflow.server.failures["create_run"] = [error] * 10
    result = kubeflow.submit("--template", template)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_a_wrong_token_is_one_sentence(kubeflow: Kubeflow, template: Path, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("expired")
    result = kubeflow.submit("--template", template, "--token-file", tmp_path / "old")
    assert result.exit_code == 1
    assert "does not know who you are: give --token-file" in result.stderr


def test_a_host_that_nobody_answers_at_is_one_sentence(kubeflow: Kubeflow, template: Path) -> None:
    result = kubeflow.submit("--template", template, "--host", "https://localhost:9")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: Kubeflow Pipelines at https://localhost:9 cannot be reached")
    assert result.stderr.count("\n") == 1


def test_a_certificate_that_nobody_here_trusts_is_named(kubeflow: Kubeflow, template: Path) -> None:
    arguments = ("--backend", "kfp", "--host", kubeflow.server.url, "--template", template)
    result = run_neumf("submit", *arguments)
    assert result.exit_code == 1
    assert "its certificate is not trusted: give the root that signed it as --ca-certificate" in result.stderr
    assert result.stderr.count("\n") == 1


class SignInPage(BaseHTTPRequestHandler):
    """What an identity-aware proxy answers to who has no token: a page for people."""

    def do_GET(self) -> None:
        if self.path.startswith("/login"):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
        else:
            self.send_response(302)
            self.send_header("Location", "/login")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_a_page_to_sign_in_asks_for_a_token(kubeflow: Kubeflow, template: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SignInPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        sent_on = kubeflow.submit("--template", template, "--host", f"http://{host}")
        no_api = kubeflow.submit("--template", template, "--host", f"http://{host}/login")
        no_tls = kubeflow.submit("--template", template, "--host", f"https://{host}")
        server.shutdown()
    assert "does not know who you are: give --token-file" in sent_on.stderr
    assert "is no Kubeflow Pipelines API" in no_api.stderr
    assert "it speaks no TLS: write http:// in --host" in no_tls.stderr
    assert {result.exit_code for result in (sent_on, no_api, no_tls)} == {1}


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("OOMKilled (exit code 137)", "--resources train.memory_limit"),
        ("Pod was Unschedulable: 0/3 nodes are available: 3 Insufficient memory.", "--resources train.cpu_request"),
        ("Back-off pulling image: ImagePullBackOff", "correct the image's digest"),
    ],
)
def test_a_step_that_the_cluster_could_not_run_comes_with_a_remedy(
    kubeflow: Kubeflow, template: Path, error: str, remedy: str
) -> None:
    kubeflow.services.failing_tasks["train"] = error
    assert remedy in kubeflow.submit("--template", template).stderr


def test_an_unknown_run_is_one_sentence(kubeflow: Kubeflow) -> None:
    result = kubeflow.submit("--follow", "nothing")
    assert result.exit_code == 1
    assert "Run nothing not found" in result.stderr
    assert result.stderr.count("\n") == 1


def test_schedules_are_made_listed_and_deleted(kubeflow: Kubeflow, template: Path) -> None:
    for name, cron in (("weekly", "0 3 * * 1"), ("daily", "30 4 * * *")):
        result = kubeflow.submit("--template", template, "--job-id", name, "--schedule", cron)
        assert result.exit_code == 0, result.output
    assert [made["trigger"]["cron_schedule"]["cron"] for made in kubeflow.services.recurring_runs.values()] == [
        "0 0 3 * * 1",
        "0 30 4 * * *",
    ]
    weekly, daily = kubeflow.services.recurring_runs
    assert kubeflow.submit("--schedules").output == (
        f"{weekly}  0 3 * * 1  enabled  weekly\n{daily}  30 4 * * *  enabled  daily\n"
    )
    assert kubeflow.submit("--delete-schedule", weekly).exit_code == 0
    assert list(kubeflow.services.recurring_runs) == [daily]
    assert not kubeflow.services.runs


@pytest.mark.parametrize(
    ("named", "cached"),
    [((), ()), (("--job-id", "weekly"), ()), (("--job-id", "weekly"), ("--no-caching",))],
    ids=["", "--job-id", "--job-id --no-caching"],
)
def test_a_schedule_is_not_made_twice(
    kubeflow: Kubeflow, template: Path, named: tuple[str, ...], cached: tuple[str, ...]
) -> None:
    weekly = ("--template", template, *named, *cached, "--schedule", "0 3 * * 1", "--set", "download.seed=5")
    assert kubeflow.submit("--template", template, "--job-id", "else", "--schedule", "0 3 * * 1").exit_code == 0
    assert kubeflow.submit(*weekly).exit_code == 0
    _, name = kubeflow.services.recurring_runs
    for same in ("0 3 * * 1", "0  0 3 * * 1"):
        again = kubeflow.submit(*weekly, "--schedule", same)
        assert again.exit_code == 0, again.output
        assert again.output.startswith(f"schedule {name} (enabled): 0 3 * * 1, which exists with the same pipeline")
    assert len(kubeflow.services.recurring_runs) == 2
    other = kubeflow.submit(*weekly, "--set", "download.seed=6")
    assert other.exit_code == bool(named), other.output
    assert len(kubeflow.services.recurring_runs) == (2 if named else 3)


def test_a_schedule_whose_answer_was_lost_is_not_made_twice(
    kubeflow: Kubeflow, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing_the_first_answer(kubeflow, monkeypatch, "create_recurring_run")
    made = kubeflow.submit("--template", template, "--schedule", "0 3 * * 1")
    (name,) = kubeflow.services.recurring_runs
    assert (made.exit_code, made.output) == (0, f"schedule {name} (enabled): 0 3 * * 1\n")


def test_a_schedule_may_name_its_second(kubeflow: Kubeflow, template: Path) -> None:
    result = kubeflow.submit("--template", template, "--schedule", "30 0 3 * * 1")
    assert result.exit_code == 0, result.output
    (made,) = kubeflow.services.recurring_runs.values()
    assert made["trigger"]["cron_schedule"]["cron"] == "30 0 3 * * 1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--schedule", "TZ=Europe/Paris 0 3 * * 1"), "Kubeflow runs by its own clock"),
        (("--schedule", "75 0 3 * * 1"), "the second 75 is outside 0 to 59"),
        (("--set", "generate.min_ratings=5"), "--template lacks the parameter generate_min_ratings"),
        (("--token-file", "nothing"), "--token-file nothing does not exist"),
        (
            ("--service-account", "me@my-project.iam.gserviceaccount.com"),
            "a Kubernetes service account in the namespace",
        ),
        (("--namespace", "Films"), "--namespace 'Films' is not of the form"),
        (("--pipeline-root", "/mnt/artifacts"), "s3://BUCKET/FOLDER or minio://BUCKET/FOLDER"),
    ],
)
def test_a_dry_run_finds_what_submitting_would_without_a_network(
    kubeflow: Kubeflow, template: Path, arguments: tuple[str, ...], words: str
) -> None:
    for dry in ((), ("--dry-run",)):
        result = kubeflow.submit("--template", template, *arguments, *dry)
        assert result.exit_code == 1, (dry, result.output)
        assert words in result.stderr
    assert not kubeflow.server.calls


def test_a_step_that_is_never_cached_runs_again(  # --caching is no order to cache everything
    kubeflow: Kubeflow, tmp_path: Path
) -> None:
    template = make_template(tmp_path, is_train_cached=False)
    kubeflow.submit("--template", template)
    again = kubeflow.submit("--template", template, "--caching")
    assert re.findall(r"^(\w+) cached", again.output, flags=re.MULTILINE) == ["download"]
    assert "train succeeded" in again.output
