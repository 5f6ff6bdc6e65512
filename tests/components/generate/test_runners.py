"""What a runner is told, what it is refused, and which runner it is."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import apache_beam as beam
import grpc
import pytest
from apache_beam.metrics import Metrics, monitoring_infos
from apache_beam.options.pipeline_options import DirectOptions, PortableOptions, SetupOptions
from apache_beam.portability.api import metrics_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.portable_runner import PipelineResult
from apache_beam.testing.util import assert_that, equal_to

from components.generate.runner_options import check_places, check_runner_options, choose_place
from components.generate.runners import check_job_server, engine_failure, make_pipeline, read_counters
from components.ncf.errors import InputError

DATAFLOW = {
    "project": "my-project",
    "region": "europe-west4",
    "temp_location": "gs://my-bucket/temp",
    "sdk_container_image": f"registry/generate@sha256:{'0123456789abcdef' * 4}",
}
FLINK = {
    "job_endpoint": "localhost:8099",
    "environment_type": "PROCESS",
    "environment_config": '{"command":"/opt/worker"}',
}


def as_options(values: dict[str, str], **changes: str | None) -> list[str]:
    return [f"{name}={value}" for name, value in {**values, **changes}.items() if value is not None]


def message_of(runner: str, options: list[str]) -> str:
    with pytest.raises(InputError) as raised:
        make_pipeline(runner, options)
    return str(raised.value)


def test_in_memory_is_the_runner_that_downloads_nothing() -> None:
    pipeline = make_pipeline("in_memory", [])
    assert isinstance(pipeline.runner, FnApiRunner)
    assert not pipeline._options.view_as(SetupOptions).save_main_session


@pytest.mark.parametrize("dashes", ["", "--"])
def test_options_reach_beam_with_or_without_dashes(dashes: str) -> None:
    options = [f"{dashes}direct_num_workers=2", f"{dashes}direct_running_mode=multi_processing"]
    view = make_pipeline("in_memory", options)._options.view_as(DirectOptions)
    assert (view.direct_num_workers, view.direct_running_mode) == (2, "multi_processing")


def test_a_switch_may_be_named_set_to_true_or_set_to_false() -> None:
    def is_set(option: str) -> bool:
        return bool(make_pipeline("in_memory", [option])._options.get_all_options()["profile_cpu"])

    assert [is_set(option) for option in ("profile_cpu", "profile_cpu=True", "profile_cpu=false")] == [
        True,
        True,
        False,
    ]


def test_a_switch_that_is_not_off_by_itself_is_switched_off() -> None:
    options = [*as_options(DATAFLOW), "dry_run=true", "use_public_ips=false"]
    assert make_pipeline("dataflow", options)._options.get_all_options()["use_public_ips"] is False


def _pid(_: int) -> int:
    return os.getpid()


@pytest.mark.slow
def test_worker_processes_are_other_processes() -> None:
    options = ["direct_num_workers=2", "direct_running_mode=multi_processing"]
    with make_pipeline("in_memory", options) as pipeline:
        pids = pipeline | beam.Create(range(8)) | beam.Map(_pid) | beam.Distinct()
        is_ours = pids | beam.Map(lambda pid, ours: pid == ours, os.getpid()) | "Once" >> beam.Distinct()
        assert_that(is_ours, equal_to([False]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["direct_num_worker=2"], ["'direct_num_worker'", "did you mean direct_num_workers?"]),
        (["nothing_like_it=2"], ["'nothing_like_it'", "no option of Beam."]),
        (["number_of_execution_retries=2"], ["no option of Beam"]),
        (["direct_num_workers=two"], ["direct_num_workers", "'two'"]),
        (["direct_running_mode=elsewhere"], ["direct_running_mode", "'elsewhere'", "multi_processing"]),
        (["direct_num_workers"], ["without a value", "direct_num_workers=VALUE"]),
        (["profile_cpu=perhaps"], ["profile_cpu=perhaps", "true or false"]),
        (["=2"], ["'=2'", "name=value"]),
        (["runner=PrismRunner"], ["runner", "generate.beam_runner"]),
    ],
)
def test_an_option_that_beam_would_ignore_or_die_of_is_one_sentence(options: list[str], words: list[str]) -> None:
    message = message_of("in_memory", options)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_an_unknown_runner_is_told_the_known_ones() -> None:
    with pytest.raises(InputError, match="'spark' is unknown: it must be one of in_memory, flink, dataflow"):
        check_runner_options("spark", [])


def test_flink_gets_its_options_and_those_of_its_job_server() -> None:
    options = [*as_options(FLINK), "parallelism=2", "number_of_execution_retries=3"]
    pipeline = make_pipeline("flink", options)
    assert type(pipeline.runner).__name__ == "FlinkRunner"
    view = pipeline._options.view_as(PortableOptions)
    assert (view.job_endpoint, view.environment_type) == ("localhost:8099", "PROCESS")
    assert "--number_of_execution_retries=3" in pipeline._options._flags


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"job_endpoint": None}, ["job_endpoint=HOST:PORT", "flink_job_server_jar"]),
        ({"job_endpoint": None, "flink_job_server_jar": "/no/such.jar"}, ["/no/such.jar", "is no file"]),
        ({"job_endpoint": None, "flink_job_server_jar": "https://example.com/a.jar"}, ["is no file"]),
        ({"environment_type": None}, ["environment_type", "missing", "PROCESS, EXTERNAL, DOCKER"]),
        ({"environment_type": "VM"}, ["'VM'", "PROCESS"]),
        ({"environment_config": None}, ["environment_type=PROCESS", "environment_config"]),
    ],
)
def test_flink_lacks_what_it_cannot_guess(changes: dict[str, str | None], words: list[str]) -> None:
    message = message_of("flink", as_options(FLINK, **changes))
    assert all(word in message for word in words), message


def test_flink_takes_the_jar_of_a_job_server_to_start(tmp_path: Path) -> None:
    jar = tmp_path / "job-server.jar"
    jar.touch()
    check_runner_options("flink", as_options(FLINK, job_endpoint=None, flink_job_server_jar=str(jar)))


def test_each_missing_option_of_dataflow_is_named() -> None:
    flags = ["--project", "--region", "--temp-location", "--worker-image"]
    each = [f"{flag} ({name})" for flag, name in zip(flags, DATAFLOW, strict=True)]
    assert f"lacks {', '.join(each)}: give each" in message_of("dataflow", [])
    for name, told in zip(DATAFLOW, each, strict=True):
        assert f"lacks {told}: give each" in message_of("dataflow", as_options(DATAFLOW, **{name: None}))


@pytest.mark.parametrize(
    ("runner", "options", "words"),
    [
        ("in_memory", ["region=europe-west4"], "'region', an option of dataflow, which generate.beam_runner in_memory"),
        ("in_memory", ["job_endpoint=localhost:8099"], "'job_endpoint', an option of flink"),
        ("in_memory", ["prism_location=here"], "an option of a runner that is none of ours"),
        ("flink", [*as_options(FLINK), "direct_num_workers=2"], "an option of in_memory, which"),
        ("dataflow", [*as_options(DATAFLOW), "parallelism=2"], "an option of flink, which"),
    ],
)  # fmt: skip
def test_an_option_of_another_runner_is_refused(runner: str, options: list[str], words: str) -> None:
    assert words in message_of(runner, options)


def test_an_option_of_all_runners_is_taken() -> None:
    for runner, options in (("in_memory", []), ("flink", as_options(FLINK)), ("dataflow", as_options(DATAFLOW))):
        given = [*options, "job_name=mine", *(["dry_run=true"] if runner == "dataflow" else [])]
        assert make_pipeline(runner, given)._options.get_all_options()["job_name"] == "mine"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temp_location", "/tmp/here"),
        ("temp_location", "gs://my-bucket"),
        ("temp_location", "gs://x/temp"),
        ("sdk_container_image", "registry/generate:latest"),
        ("sdk_container_image", "registry/generate@sha256:abc"),
        ("project", "My Project"),
    ],
)
def test_a_value_that_dataflow_cannot_use_is_refused_before_anything_is_sent(name: str, value: str) -> None:
    # A dry run does not ask after the bucket.
    message = message_of("dataflow", [*as_options(DATAFLOW, **{name: value}), "dry_run=true"])
    assert value in message
    assert "\n" not in message


def test_dataflow_needs_places_that_its_workers_reach() -> None:
    for runner in ("in_memory", "flink"):
        check_places(runner, "/data/ratings", "/data/examples")
    check_places("dataflow", "gs://bucket/ratings", "gs://bucket/examples")
    with pytest.raises(InputError, match=r"The ratings folder /data/ratings .* gs://"):
        check_places("dataflow", "/data/ratings", "gs://bucket/examples")
    with pytest.raises(InputError, match=r"The output folder /data/examples .* gs://"):
        check_places("dataflow", "gs://bucket/ratings", "/data/examples")


@pytest.mark.parametrize(
    ("ratings", "output"),
    [("ratings", "ratings/examples"), ("ratings", "other/../ratings"), ("gs://bucket/r/", "gs://bucket/r/examples")],
)
def test_an_output_inside_the_ratings_is_refused(ratings: str, output: str) -> None:
    with pytest.raises(InputError, match=f"The output folder {output} is inside the ratings folder {ratings}: choose"):
        check_places("in_memory", ratings, output)
    check_places("in_memory", ratings, f"{ratings.rstrip('/')}-examples")


def test_workers_elsewhere_get_the_uri_of_an_artifact() -> None:
    places = [choose_place(runner, "/gcs/bucket/a", "gs://bucket/a") for runner in ("in_memory", "flink", "dataflow")]
    assert places == ["/gcs/bucket/a", "gs://bucket/a", "gs://bucket/a"]


def test_an_engine_that_gives_up_is_one_sentence() -> None:
    text = str(engine_failure("flink", RuntimeError("Pipeline a failed:\n  java.lang.Error\n" + "at x\n" * 1000)))
    assert text.startswith("The flink runner gave up and nothing was written (Pipeline a failed: java.lang.Error at x")
    assert "\n" not in text
    assert len(text) < 700


def test_a_job_server_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(grpc.FutureTimeoutError) as raised, grpc.insecure_channel("localhost:1") as channel:
        grpc.channel_ready_future(channel).result(timeout=0.1)
    assert "(its job server does not answer)" in str(engine_failure("flink", raised.value))


class _CountingTwice(beam.DoFn):
    def process(self, number: int) -> list[int]:
        Metrics.counter("ours", "seen").inc()
        Metrics.counter("theirs", "seen").inc(100)
        return [number]


def test_counters_are_those_of_the_namespace_summed_over_steps() -> None:
    pipeline = make_pipeline("in_memory", [])
    numbers = pipeline | beam.Create(range(5))
    numbers | "Once" >> beam.ParDo(_CountingTwice())
    numbers | "Again" >> beam.ParDo(_CountingTwice())
    result = pipeline.run()
    assert read_counters(result, "ours") == {"seen": 10}


def test_counters_are_asked_for_anew_each_time() -> None:
    """Of a portable runner's result, whose job service has answered once already."""

    class Answer:
        def __init__(self, seen: int) -> None:
            self.metrics = SimpleNamespace(attempted=[], committed=[info(seen)])

    def info(seen: int) -> metrics_pb2.MonitoringInfo:
        return monitoring_infos.int64_user_counter("ours", "seen", seen, ptransform="step")

    answers = iter([Answer(1), Answer(7)])
    service = SimpleNamespace(GetJobMetrics=lambda _: next(answers))
    result = PipelineResult(service, "job", iter(()), iter(()))
    assert [read_counters(result, "ours") for _ in range(2)] == [{"seen": 1}, {"seen": 7}]


def test_a_job_server_that_nobody_runs_is_found_out_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(InputError, match=f"Nobody answers at job_endpoint {endpoint} .*refused"):
        check_job_server([f"job_endpoint={endpoint}"])
    with pytest.raises(InputError, match=r"'garbage' in generate.beam_options is not of the form HOST:PORT"):
        check_job_server(["job_endpoint=garbage"])


def test_negative_workers_and_empty_folders_are_refused() -> None:
    with pytest.raises(InputError, match=r"direct_num_workers=-3 in generate.beam_options is negative"):
        check_runner_options("in_memory", ["direct_num_workers=-3"])
    with pytest.raises(InputError, match="The output folder is empty text"):
        check_places("in_memory", "ratings", "")
