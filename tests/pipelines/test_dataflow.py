"""Dataflow without the cloud: its options from parameters, and the job that Beam would submit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.internal import apiclient
from click.testing import CliRunner

from components.generate.beam_pipeline import Plan, build_pipeline
from components.generate.block_store import BlockStore
from components.generate.protocols import SAMPLED_PROTOCOLS, VALIDATION
from components.generate.ratings import open_ratings
from components.generate.runner_options import check_runner_options
from components.generate.runners import make_pipeline
from components.ncf.errors import InputError
from pipelines.dataflow import DataflowOptions, dataflow_options
from pipelines.parameters import resolve_parameters, step_config

IMAGE = f"europe-docker.pkg.dev/my-project/neumf/generate@sha256:{'0123456789abcdef' * 4}"
OPTIONS = DataflowOptions(
    project="my-project",
    region="europe-west4",
    temp_location="gs://my-bucket/temp",
    service_account="worker@my-project.iam.gserviceaccount.com",
    worker_image=IMAGE,
    machine_type="n2-standard-4",
    autoscaling="THROUGHPUT_BASED",
    num_workers=2,
    max_workers=20,
    network=None,
    subnetwork="regions/europe-west4/subnetworks/private",
)
NOTHING = DataflowOptions(*[None] * 11)


def test_options_have_beams_names() -> None:
    options = OPTIONS.as_beam_options()
    check_runner_options("dataflow", options)
    assert set(options) == {
        "project=my-project",
        "region=europe-west4",
        "temp_location=gs://my-bucket/temp",
        "service_account_email=worker@my-project.iam.gserviceaccount.com",
        f"sdk_container_image={IMAGE}",
        "machine_type=n2-standard-4",
        "autoscaling_algorithm=THROUGHPUT_BASED",
        "num_workers=2",
        "max_num_workers=20",
        "subnetwork=regions/europe-west4/subnetworks/private",
        "sdk_location=container",
    }


def test_nothing_given_is_no_option() -> None:
    assert NOTHING.as_beam_options() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"autoscaling": "SOME"}, "'SOME'.*THROUGHPUT_BASED or NONE"),
        ({"num_workers": 0}, "num_workers 0"),
        ({"num_workers": 30}, "num_workers 30 is more than max_workers 20"),
        ({"autoscaling": "NONE", "num_workers": None}, "NONE needs num_workers"),
    ],
)
def test_values_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(OPTIONS, **changes)


def test_a_command_with_the_options_receives_them_as_one() -> None:
    seen: list[Any] = []

    @click.command()
    @click.option("--output")
    @dataflow_options
    @click.option("--seed", type=int)
    def command(output: str, seed: int, dataflow: DataflowOptions) -> None:
        """Does it."""
        seen.extend((output, seed, dataflow))

    arguments = ["--output", "out", "--seed", "3", "--project", "my-project", "--num-workers", "2"]
    result = CliRunner().invoke(command, [*arguments, "--worker-image", IMAGE], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert seen == ["out", 3, replace(NOTHING, project="my-project", num_workers=2, worker_image=IMAGE)]
    options = [option for parameter in command.params for option in parameter.opts]
    assert "--service-account" in options
    assert (command.name, command.help) == ("command", "Does it.")


def write_ratings(folder: Path) -> Path:
    folder.mkdir()
    users, items = np.divmod(np.arange(60 * 30), 30)
    columns = [pa.array(users), pa.array(items), pa.array(np.ones(1_800, np.float32)), pa.array(np.arange(1_800))]
    names = ["raw_user_id", "raw_item_id", "rating", "timestamp"]
    pq.write_table(pa.table(columns, names), folder / "interactions-00000-of-00001.parquet")
    pq.write_table(pa.table({"raw_item_id": [1], "title": ["a"], "genres": ["b"]}), folder / "items.parquet")
    (folder / "manifest.json").write_text(json.dumps({"kind": "ratings", "format_version": 1}))
    return folder


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], beam_runner_api_pb2.Pipeline]:
    """The job description and the pipeline that Beam would send, made by Beam itself: only the sending is left out."""
    folder = tmp_path_factory.mktemp("dataflow")
    options = OPTIONS.as_beam_options()
    config = step_config("generate", resolve_parameters("smoke", [])["generate"])
    config = replace(config, beam_runner="dataflow", beam_options=tuple(options))
    # A dry run asks neither for credentials nor after the bucket.
    pipeline = make_pipeline("dataflow", [*options, "dry_run=true", "no_auth=true"])
    ratings = open_ratings(str(write_ratings(folder / "ratings")))
    protocols = (SAMPLED_PROTOCOLS["loo-99"], VALIDATION)
    output = "gs://my-bucket/examples"
    build_pipeline(pipeline, Plan(config, ratings, protocols, output, f"{output}/report", 1_000, BlockStore(None)))
    job = pipeline.run().job
    # What is sent along goes to a folder instead of the bucket.
    staging = folder / "staging"
    staging.mkdir()
    job.google_cloud_options.staging_location = str(staging)
    apiclient.DataflowApplicationClient(job.options, str(staging)).create_job_description(job)
    sent = {path.name for path in staging.iterdir()}
    assert sent == {"pipeline.pb"}, "the image holds all else"
    staged = beam_runner_api_pb2.Pipeline.FromString((staging / "pipeline.pb").read_bytes())
    return json.loads(job.json()), staged


def test_the_job_asks_for_the_workers_that_were_asked_for(job: tuple[dict[str, Any], Any]) -> None:
    environment = job[0]["environment"]
    (pool,) = environment["workerPools"]
    assert pool["machineType"] == "n2-standard-4"
    assert pool["numWorkers"] == 2
    # The service's name for THROUGHPUT_BASED.
    assert pool["autoscalingSettings"] == {"algorithm": "AUTOSCALING_ALGORITHM_BASIC", "maxNumWorkers": 20}
    assert pool["subnetwork"] == "regions/europe-west4/subnetworks/private"
    assert "packages" not in pool
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [IMAGE]
    assert environment["serviceAccountEmail"] == "worker@my-project.iam.gserviceaccount.com"
    assert environment["tempStoragePrefix"].startswith("storage.googleapis.com/my-bucket/temp/")
    assert job[0]["type"] == "JOB_TYPE_BATCH"
    told = environment["sdkPipelineOptions"]["options"]
    assert (told["project"], told["region"]) == ("my-project", "europe-west4")
    assert told["save_main_session"] is False


def test_the_staged_pipeline_is_the_whole_step_in_the_image(
    job: tuple[dict[str, Any], beam_runner_api_pb2.Pipeline],
) -> None:
    components = job[1].components
    steps = {transform.unique_name for transform in components.transforms.values()}
    assert {
        "Read interactions",
        "Gather histories/Deduplicate and drop inactive users",
        "Build the catalog/Unite the ids",
        "Hold out items",
        "Shuffle positives",
        "Write positives",
        "Write candidates and tables of users",
        "Write the table of items",
        "Write the report",
    } <= steps
    (environment,) = components.environments.values()
    assert environment.urn == "beam:env:docker:v1"
    assert beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image == IMAGE
    # Functions of this package travel by name.
    specs = [transform.spec.payload for transform in components.transforms.values()]
    assert any(b"components.generate.beam_pipeline" in decoded(payload) for payload in specs)


def decoded(payload: bytes) -> bytes:
    """Undoes Beam's packing of a pickled function, where there is one."""
    from apache_beam.internal import pickler

    parameters = beam_runner_api_pb2.ParDoPayload()
    try:
        parameters.ParseFromString(payload)
        function = pickler.loads(parameters.do_fn.payload)[0]
    except Exception:  # noqa: BLE001 - payloads of other kinds are not what is looked for
        return b""
    return type(function).__module__.encode()
