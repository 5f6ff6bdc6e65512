"""What is found before a run. Each case is a mistake that costs an hour or money when Vertex AI finds it."""

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.ncf.errors import InputError
from pipelines.findings import Finding, Mistakes
from pipelines.machines import ACCELERATORS, CPU_MACHINES, GPU_COUNTS, REGION_SOURCES, REGIONS, TPU_TOPOLOGIES
from pipelines.memory import DataSize, estimate_memory
from pipelines.parameters import parameter_mistakes, resolve_parameters
from pipelines.placement import TARGETS, Placement, pool_of
from pipelines.preflight import Plan, check_plan, data_size, memory_of
from pipelines.preflight_command import chosen_size
from pipelines.preflight_machines import accelerator_of, check_machines
from pipelines.presets import DEFAULTS
from pipelines.step_resources import changed_resources
from pipelines.template import placement_of
from pipelines.worker_pools import POOLS, Machine, WorkerPool
from tests.pipelines.golden_files import golden_document, placements

Neumf = Callable[..., subprocess.CompletedProcess[str]]
DIGESTS = {
    name: f"us-docker.pkg.dev/p/r/{name}@sha256:{'a' * 64}"
    for name in ("download", "generate", "train", "train-gpu", "train-tpu", "baseline", "publish")
}


def placed(target: str, pool: str | None = None, **changes: Any) -> Placement:
    base = dataclasses.replace(Placement.on(target), image_digests=DIGESTS, pool=pool_of(target, pool))
    return dataclasses.replace(base, **changes)


def plan(placement: Placement, *overrides: str, **changes: Any) -> Plan:
    made = Plan(placement, resolve_parameters("default", overrides), "us-central1", "gs://bucket/runs", None, None)
    return dataclasses.replace(made, **changes)


def on_machine(machine: Machine, num_workers: int = 0) -> list[Finding]:
    pool = WorkerPool("x", "", "train", machine, num_workers)
    return list(check_machines(dataclasses.replace(Placement.on("vertex-cpu"), pool=pool), "us-central1"))


def errors(findings: list[Finding]) -> list[str]:
    return [finding.message for finding in findings if finding.severity == "error"]


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_as_it_comes_passes(target: str) -> None:
    assert check_plan(plan(placed(target))) == []


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_is_one_that_vertex_has(pool: str) -> None:
    chief = POOLS[pool].chief
    target = "vertex-tpu" if chief.is_tpu else "vertex-gpu" if chief.has_gpu else "vertex-cpu"
    findings = list(check_machines(placed(target, pool), "us-central1"))
    assert [finding for finding in findings if finding.subject != "reduction server"] == []
    for machine in (chief, POOLS[pool].parameter_server, POOLS[pool].reduction_server):
        known = {name for name, _ in GPU_COUNTS} | set(TPU_TOPOLOGIES) | CPU_MACHINES | {"cloud-tpu"}
        assert machine is None or machine.machine_type in known


@pytest.mark.parametrize(
    ("machine", "advice"),
    [
        (Machine("a2-highgpu-1g", "NVIDIA_L4", 1), "a2-highgpu-1g takes NVIDIA_TESLA_A100"),
        (Machine("g2-standard-12", "NVIDIA_TESLA_T4", 1), "g2-standard-12 takes NVIDIA_L4"),
        (Machine("a2-highgpu-8g", "NVIDIA_TESLA_A100", 4), "takes 8 NVIDIA_TESLA_A100, not 4"),
        (Machine("n1-standard-8", "NVIDIA_TESLA_T4", 3), "takes 1 or 2 or 4 NVIDIA_TESLA_T4, not 3"),
        (Machine("n1-standard-32", "NVIDIA_TESLA_T4", 1), "takes 2 or 4"),
        (Machine("g2-standard-12"), "set accelerator_type to NVIDIA_L4"),
        (Machine("ct5lp-hightpu-4t"), "set it to 2x2"),
        (Machine("ct5lp-hightpu-4t", tpu_topology="2x4"), "use ct5lp-hightpu-8t"),
        (Machine("ct5lp-hightpu-4t", tpu_topology="4x4"), "set it to 2x2; several machines"),
        (Machine("ct5lp-hightpu-4t", "TPU_V5_LITEPOD", 4, "2x2"), "leave both out"),
        (Machine("cloud-tpu", "TPU_V3", 4), "use 8"),
        (Machine("cloud-tpu", "TPU_V4_POD", 8), "use TPU_V2 or TPU_V3"),
        (Machine("cloud-tpu"), "use TPU_V2 or TPU_V3"),
        (Machine("n1-standard-8", "TPU_V3", 8), "needs the machine type cloud-tpu"),
        (Machine("n2-standard-16", tpu_topology="2x2"), "leave it out"),
    ],
)
def test_a_machine_that_does_not_exist_is_refused_with_one_that_does(machine: Machine, advice: str) -> None:
    assert any(advice in message for message in errors(on_machine(machine)))


def test_a_tpu_has_one_replica() -> None:
    (message,) = errors(on_machine(Machine("cloud-tpu", "TPU_V3", 8), num_workers=1))
    assert "set num_workers to 0" in message


def test_a_machine_type_that_is_too_new_for_us_is_no_error() -> None:
    (finding,) = on_machine(Machine("n9-standard-8"))
    assert finding.severity == "warning"
    assert finding.message.endswith("https://docs.cloud.google.com/vertex-ai/docs/training/configure-compute.")


def test_a_region_without_the_accelerator_is_found() -> None:
    tpu = placed("vertex-tpu")
    assert list(check_machines(tpu, "us-west4")) == []
    (finding,) = check_machines(tpu, "europe-west2")
    assert "us-west4, europe-west4, asia-southeast1, where Cloud TPU has it and Vertex AI may" in finding.message
    assert finding.message.endswith("look it up in https://docs.cloud.google.com/tpu/docs/regions-zones.")
    (gpu,) = check_machines(placed("vertex-gpu"), "europe-west12")
    assert "where Compute Engine has it" in gpu.message
    assert gpu.message.endswith("look it up in https://docs.cloud.google.com/vertex-ai/docs/general/locations.")


@pytest.mark.parametrize("region", ["us-centrall1", "US-CENTRAL1", ""])
def test_a_region_that_does_not_exist_is_an_error(region: str) -> None:
    (message,) = errors(check_plan(plan(placed("vertex-cpu"), region=region)))
    assert message.startswith(f"Vertex has no region {region!r}: use one such as us-central1")
    assert check_plan(plan(placed("kfp"), region=region)) == []


def test_the_regions_that_are_known_here_are_vertexs() -> None:
    from google.cloud.aiplatform.constants.base import SUPPORTED_REGIONS

    assert set(SUPPORTED_REGIONS) >= REGIONS
    assert {region for accelerator in ACCELERATORS.values() for region in accelerator.regions} <= REGIONS
    assert {accelerator.source for accelerator in ACCELERATORS.values()} == set(REGION_SOURCES)
    newer = sorted(set(SUPPORTED_REGIONS) - REGIONS)[0]
    assert [f.severity for f in check_machines(placed("vertex-cpu"), newer)] == []


def test_flex_start_is_for_gpus_that_are_alike() -> None:
    assert errors(list(check_machines(placed("vertex-gpu", strategy="flex-start"), None))) == []
    (tpu,) = errors(list(check_machines(placed("vertex-tpu", strategy="flex-start"), None)))
    assert "TPU_V5_LITEPOD" in tpu
    servers = placed("vertex-multi-gpu", "a100-x8-x2-reduction", strategy="flex-start")
    assert any("alike" in message for message in errors(list(check_machines(servers, None))))


@pytest.mark.parametrize(
    ("target", "pool", "override", "message"),
    [
        ("vertex-multi-gpu", "a100-x8", "train.global_batch_size=4001", "not divisible by 8 replicas: use 4000"),
        ("vertex-multi-gpu", "a100-x8-x2", "train.global_batch_size=4008", "not divisible by 16 replicas: use 4000"),
        ("vertex-tpu", "tpu-v3-8", "train.global_batch_size=32", "use at least 40"),
        ("vertex-tpu", None, "train.strategy=mirrored", "use tpu, or auto"),
        ("vertex-multi-gpu", "l4-x2", "train.strategy=mirrored", "use multi_worker_mirrored, or auto"),
        ("vertex-cpu", "cpu", "train.strategy=parameter_server", "use one_device or mirrored"),
        ("vertex-gpu", None, "train.mlp_layers=[63,8]", "odd number"),
        ("vertex-gpu", None, "download.dataset=csv:/data/x.csv", "copy it to a bucket"),
        ("vertex-gpu", None, "evaluate.champion=/models/1", "copy it to a bucket"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused(target: str, pool: str | None, override: str, message: str) -> None:
    findings = check_plan(plan(placed(target, pool), override))
    assert any(message in text for text in errors(findings)), findings


def test_one_batch_size_is_each_replicas_where_one_device_trains() -> None:
    checked = check_plan(plan(placed("vertex-multi-gpu", "a100-x8"), "train.global_batch_size=4001",
                              "train.strategy=one_device"))  # fmt: skip
    assert errors(checked) == []
    assert any("one of the 8 accelerators" in finding.message for finding in checked)


def test_an_evaluation_batch_that_replicas_cannot_divide_is_a_warning() -> None:
    offline = ("generate.eval_prebatch_size=50000", "generate.offline_epochs=20")
    (finding,) = check_plan(plan(placed("vertex-multi-gpu", "a100-x8"), *offline))
    assert (finding.severity, finding.subject) == ("warning", "evaluation batch")
    assert "use 48000" in finding.message


def test_values_of_a_wrong_type_are_found() -> None:
    parameters = resolve_parameters("default", ())
    parameters["train"]["num_epochs"] = 2.5
    del parameters["evaluate"]["seed"]
    found = errors(check_plan(plan(placed("vertex-gpu"), parameters=parameters)))
    assert any("train.num_epochs is 2.5: it must be a whole number" in message for message in found)
    assert any("evaluate.seed has no value" in message for message in found)
    assert memory_of(plan(placed("vertex-gpu"), parameters=parameters)) is None


def test_every_wrong_parameter_is_a_finding_of_its_own() -> None:
    wrong = {
        "train.num_epochs": 0, "train.num_factors": -1, "train.optimizer": "adamw", "gate.margin": 2.0,
        "evaluate.seed": -1, "generate.min_ratings": 1, "generate.num_shards": 0, "download.max_rejected_fraction": 7.0,
    }  # fmt: skip
    parameters = resolve_parameters("default", ["evaluate.protocols=loo-99", "gate.protocol=fixed"])
    for key, value in wrong.items():
        step, _, name = key.partition(".")
        parameters[step][name] = value
    found = [
        f.message for f in check_plan(plan(placed("vertex-gpu"), parameters=parameters)) if f.subject == "parameters"
    ]
    for key in (*wrong, "gate.protocol"):
        assert len([message for message in found if message.startswith(f"{key} ")]) == 1, (key, found)
    assert len(found) == len(wrong) + 1


def test_a_pair_that_does_not_fit_is_one_finding() -> None:
    layers, seed = parameter_mistakes(resolve_parameters("default", ["train.mlp_layers=", "gate.seed=-1"]))
    assert layers.startswith("train.mlp_regularization is ")
    assert "set both to []" in layers
    assert seed.startswith("gate.seed -1")


def test_sizes_wait_for_correct_parameters() -> None:
    wrong = plan(placed("vertex-gpu"), "train.optimizer=adamw")
    assert [(finding.severity, finding.subject) for finding in check_plan(wrong)] == [
        ("error", "parameters"),
        ("not checked", "batches, memory"),
    ]
    assert memory_of(wrong) is None


def test_the_command_names_every_wrong_parameter(neumf: Neumf) -> None:
    result = neumf("preflight", "--target", "vertex-gpu", "--set", "train.num_epochs=many", "--set", "train.epochs=3",
                   "--set", "train.optimizer=adamw", "--set", "gate.seed=-1")  # fmt: skip
    assert result.returncode == 1
    text = " ".join(result.stdout.split())
    for words in (
        "'many' is not a whole number",
        "no parameter 'epochs'",
        "train.optimizer is 'adamw'",
        "gate.seed -1",
    ):
        assert words in text
    assert len(result.stderr.splitlines()) == 1


def findings_of(result: subprocess.CompletedProcess[str]) -> str:
    """What the command lists, on one line: the table breaks sentences."""
    return " ".join(result.stdout.split())


def test_the_command_names_every_wrong_option(neumf_here: Neumf) -> None:
    wrong = {
        ("--pool", "l44"): "The pool 'l44' is unknown (did you mean l4?)",
        ("--spot", "--flex-start"): "--spot and --flex-start exclude each other",
        ("--network", "default"): "--network 'default' is not of the form",
        ("--service-account", "me"): "--service-account 'me' is not of the form",
        ("--tensorboard", "x"): "--tensorboard 'x' is not of the form",
        ("--encryption-key", "k"): "--encryption-key 'k' is not of the form",
        ("--checkpoint-root", "b"): "--checkpoint-root 'b' is not of the form",
        ("--label", "Team=x"): "--label Team=x must consist",
        ("--label", "Town=x"): "--label Town=x must consist",
        ("--label", "y"): "--label 'y' is not of the form NAME=VALUE",
        ("--timeout-hours", "0"): "--timeout-hours 0 is outside",
        ("--max-wait-hours", "-1"): "--max-wait-hours -1 is negative",
        ("--image-digest", "train=3"): "The digest of the image train, '3', is neither",
        ("--image-digest", "shop=3"): "There is no image 'shop'",
        ("--image-digest", "x"): "--image-digest 'x' is not of the form",
        ("--resources", "gate.gpus=1"): "'gate.gpus' must be a step",
        ("--resources", "gate.cpu_limit=0"): "'0' is no number of processors",
        ("--resources", "gate.memory_limit=8"): "8 is outside what a container",
        ("--resources", "gate.cpu_request=1"): "gate.cpu_request=1 is of use for Kubeflow alone",
        ("--dataflow", "zone=a"): "'zone' is unknown",
        ("--dataflow", "max_workers=x"): "'x' is not a whole number",
        ("--region", "moon"): "Vertex has no region 'moon'",
        ("--pipeline-root", "s3://x"): "'s3://x' is no folder of a bucket",
        ("--pipeline-service-account", "u"): "--pipeline-service-account 'u' is not of the form",
        ("--num-users", "3"): "give --num-items and --num-interactions too",
        ("--preset", "foo"): "The preset 'foo' is unknown",
        ("--mirror", ""): "--mirror is empty",
        ("--image-digests-file", ""): "--image-digests-file is empty",
        ("--set", "train.num_epochs=0"): "train.num_epochs is 0",
        ("--dataset", "ml-2m"): "Unknown dataset 'ml-2m'",
        ("--project", "p", "--online"): "Google Cloud was not asked about wrong options",
    }
    options = [word for words in wrong for word in words]
    result = neumf_here("preflight", "--target", "vertex-gpu", *options)
    text = findings_of(result)
    for words in wrong.values():
        assert text.count(words) == 1, (words, text)
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert result.stdout.count("error  ") == len(wrong) - 1, "and nothing that only follows from them"
    board = ("--service-account", "me", "--tensorboard", "projects/p/locations/us-central1/tensorboards/1")
    board_or_preset = findings_of(neumf_here("preflight", "--target", "vertex-gpu", *board, "--preset", ""))
    assert "--tensorboard needs" not in board_or_preset
    assert "--preset is empty, as an unset variable leaves it" in board_or_preset


def test_the_command_names_every_option_that_kubeflow_lacks(neumf_here: Neumf) -> None:
    result = neumf_here("preflight", "--target", "kfp", "--pool", "tpu-v3-8", "--spot", "--label", "a=b", "--online",
                        "--network", "projects/1/global/networks/n", "--dataflow", "region=us-central1")  # fmt: skip
    text = findings_of(result)
    for flag in ("--spot or --flex-start", "--label", "--network"):
        assert f"{flag} is of use for Vertex AI alone, and the target is kfp" in text
    assert "--pool tpu-v3-8 has a TPU" in text
    assert "--online asks Google Cloud about Vertex AI" in text
    assert "--dataflow needs project, temp_location, worker_image: add --dataflow project=…, --dataflow temp" in text


@pytest.mark.parametrize("root", ["bucket/x", "gs://B", "/gcs/bucket", "gs://a b/c"])
def test_a_pipeline_root_is_a_bucket(root: str) -> None:
    (message,) = errors(check_plan(plan(placed("vertex-gpu"), pipeline_root=root)))
    assert "gs://BUCKET/FOLDER" in message


@pytest.mark.parametrize(
    ("root", "is_one"), [("minio://mlpipeline/v2", True), ("s3://a/b", True), ("gs://a1/b", True), ("/mnt/a", False)]
)
def test_kubeflow_keeps_artifacts_in_other_stores_too(root: str, is_one: bool) -> None:
    assert (errors(check_plan(plan(placed("kfp"), region=None, pipeline_root=root))) == []) is is_one


def test_what_was_not_given_is_said_to_be_unchecked() -> None:
    found = check_plan(plan(placed("vertex-gpu"), region=None, pipeline_root=None))
    assert [(finding.severity, finding.subject) for finding in found] == [
        ("not checked", "pipeline root"),
        ("not checked", "region"),
    ]
    kubeflow = check_plan(plan(placed("kfp"), region=None, pipeline_root=None))
    assert [finding.subject for finding in kubeflow] == ["pipeline root"]
    assert check_plan(plan(placed("local"), region=None, pipeline_root=None)) == []


def test_a_tensorboard_and_a_key_are_in_the_runs_region() -> None:
    def located(region: str, key_location: str) -> list[str]:
        chosen = placed(
            "vertex-gpu",
            service_account="t@my-project.iam.gserviceaccount.com",
            checkpoint_root="gs://bucket/checkpoints",
            tensorboard=f"projects/my-project/locations/{region}/tensorboards/7",
            encryption_key=f"projects/p/locations/{key_location}/keyRings/r/cryptoKeys/k",
        )
        return errors(check_plan(plan(chosen)))

    assert located("us-central1", "us-central1") == []
    (board,) = located("europe-west4", "us-central1")
    assert "--tensorboard projects/my-project/locations/europe-west4/tensorboards/7 is in europe-west4" in board
    (key,) = located("us-central1", "global")
    assert "--encryption-key" in key
    assert "name one in us-central1" in key


def dataflow(**options: str) -> tuple[str, ...]:
    given = {
        "project": "my-project",
        "region": "us-central1",
        "temp_location": "gs://bucket/temp",
        "sdk_container_image": DIGESTS["generate"],
        **options,
    }
    return tuple(f"{name}={value}" for name, value in given.items())


@pytest.mark.parametrize(
    ("options", "severity", "words"),
    [
        ({"project": "My Project"}, "error", "project 'My Project' is not of the form"),
        ({"region": "us-centrall"}, "warning", "us-centrall is not among those known"),
        ({"region": "europe-west4"}, "warning", "set region to us-central1"),
        ({"service_account_email": "me@example.com"}, "error", "NAME@PROJECT.iam.gserviceaccount.com"),
        ({"temp_location": "/tmp/x"}, "error", "gs://BUCKET/FOLDER"),
        ({"sdk_container_image": "us-docker.pkg.dev/p/r/generate:1"}, "error", "names no digest"),
        ({"machine_type": "e2-micro"}, "warning", "machine_type e2-micro"),
        ({"machine_type": "standard-4"}, "warning", "machine_type standard-4"),
        ({"network": "bad net"}, "error", "network 'bad net' is not of the form NETWORK, its name"),
        ({"subnetwork": "private"}, "error", "regions/REGION/subnetworks/NAME"),
        ({"subnetwork": "regions/europe-west4/subnetworks/private"}, "error", "subnetwork is in europe-west4"),
    ],
)
@pytest.mark.parametrize("is_option", [True, False], ids=["--dataflow", "generate.beam_options"])
def test_what_dataflow_would_refuse_is_found(
    options: dict[str, str], severity: str, words: str, is_option: bool
) -> None:
    if is_option:
        checked = plan(placed("vertex-cpu", dataflow=dataflow(**options)))
    else:
        checked = plan(placed("vertex-cpu"))
        generate = {
            **checked.parameters["generate"],
            "beam_runner": "dataflow",
            "beam_options": list(dataflow(**options)),
        }
        checked = dataclasses.replace(checked, parameters={**checked.parameters, "generate": generate})
    (finding,) = [found for found in check_plan(checked) if found.severity != "not checked"]
    assert finding.severity == severity
    assert words in finding.message


def test_a_dataflow_that_fits_passes() -> None:
    options = dataflow(
        machine_type="n2-standard-4", subnetwork="regions/us-central1/subnetworks/private",
        service_account_email="worker@my-project.iam.gserviceaccount.com",
    )  # fmt: skip
    assert check_plan(plan(placed("vertex-cpu", dataflow=options))) == []
    kubeflow = plan(placed("kfp", dataflow=options), region=None, pipeline_root="minio://mlpipeline/v2")
    (message,) = errors(check_plan(kubeflow))
    assert "cannot write to minio://mlpipeline/v2" in message


def test_a_service_account_is_googles_on_vertex_and_kubernetes_on_kubeflow() -> None:
    email, name = "me@my-project.iam.gserviceaccount.com", "pipeline-runner"
    assert errors(check_plan(plan(placed("vertex-cpu", service_account=email)))) == []
    assert errors(check_plan(plan(placed("kfp", service_account=name)))) == []
    for target, other, words in (("vertex-cpu", name, "NAME@PROJECT"), ("kfp", email, "a Kubernetes service account")):
        with pytest.raises(InputError, match=words):
            placed(target, service_account=other)
    with pytest.raises(InputError, match="Kubernetes"):
        placed("kfp", service_account="a" * 254)


def test_compile_refuses_an_account_that_the_file_could_not_name(neumf: Neumf, tmp_path: Path) -> None:
    result = neumf(
        "compile", "--target", "kfp", "--service-account", "pipeline-runner", "--output", tmp_path / "a.yaml"
    )
    assert result.returncode == 1
    assert "give it to `neumf submit`" in result.stderr


@pytest.mark.parametrize(("home", "is_registry"), [
    ("localhost:5000", True), ("localhost", True), ("registry:80", True), ("us-docker.pkg.dev/p", True), ("me", False),
])  # fmt: skip
def test_an_image_has_a_registry_of_some_kind(home: str, is_registry: bool) -> None:
    found = check_plan(plan(Placement.on("kfp"), compiled_images=(f"{home}/train@{DIGESTS['train']}",)))
    assert [f.subject for f in found if f.severity == "error"] == ([] if is_registry else ["image"])


def test_an_image_by_tag_is_refused() -> None:
    digests = {name: digest for name, digest in DIGESTS.items() if name != "train-gpu"}
    by_tag = errors(check_plan(plan(placed("vertex-gpu", image_digests=digests))))
    assert by_tag
    assert all("train-gpu" in message for message in by_tag)
    # The plain image of train is still needed: evaluate runs in it.
    plain = {name: digest for name, digest in DIGESTS.items() if name != "train"}
    assert errors(check_plan(plan(placed("vertex-gpu", image_digests=plain))))


def test_the_estimate_counts_the_weights_that_training_makes() -> None:
    from components.train.model import Architecture

    train = {**DEFAULTS["train"], "num_factors": 64, "mlp_layers": [256, 256, 128, 64]}
    shapes = Architecture(1000, 700, 64, (256, 256, 128, 64)).weight_shapes()
    num_weights = 0
    for _, shape in shapes:
        size = 1
        for axis in shape:
            size *= axis
        num_weights += size
    estimate = estimate_memory(train, DataSize(1000, 700, 50_000), 1)
    assert estimate.weights == 4 * num_weights
    assert estimate.optimizer == 2 * estimate.weights
    assert estimate.data == 12 * 50_000
    assert estimate_memory({**train, "optimizer": "sgd"}, DataSize(1000, 700, 50_000), 1).optimizer == 0


def test_tables_that_do_not_fit_are_refused() -> None:
    size = DataSize(200_000_000, 5_000_000, 1_000_000_000)
    (message,) = errors(check_plan(plan(placed("vertex-gpu"), size=size)))
    assert "and has 24 GB" in message
    # 205 M rows of 8 + 32 floats, of which Adam keeps two more.
    estimate = memory_of(plan(placed("vertex-gpu"), size=size))
    assert estimate is not None
    assert estimate.optimizer / 1e9 == pytest.approx(2 * 0.205 * 40 * 4, rel=1e-6)


def test_kubeflow_ends_a_container_that_needs_more_than_its_limit() -> None:
    """1 G events of 8 bytes, twice read, and 4 more: 12 GB of data alone, beside tables of 66 GB with Adam."""
    size = DataSize(60_000_000, 5_000_000, 1_000_000_000)
    (message,) = errors(check_plan(plan(placed("kfp"), size=size)))
    assert "and has 64 GB" in message
    assert "a higher --resources train.memory_limit" in message
    larger = changed_resources([("train.memory_limit", "512G")])
    assert check_plan(plan(placed("kfp", resources=larger), size=size)) == []


@pytest.mark.parametrize("strategy", ["tpu", "multi_worker_mirrored", "parameter_server"])
@pytest.mark.parametrize("pool", [None, "l4"])
def test_kubeflow_trains_in_one_pod(strategy: str, pool: str | None) -> None:
    (message,) = errors(check_plan(plan(placed("kfp", pool), f"train.strategy={strategy}")))
    assert "use one_device or mirrored, or auto" in message
    assert check_plan(plan(placed("kfp", pool), "train.strategy=mirrored")) == []


def test_the_memory_is_that_of_the_parameters_as_they_are_placed() -> None:
    """Dataflow as runner is complete with the options that --dataflow adds."""
    on_dataflow = plan(placed("vertex-gpu", dataflow=dataflow()), "generate.beam_runner=dataflow")
    estimate = memory_of(on_dataflow)
    assert estimate is not None
    assert estimate == memory_of(plan(placed("vertex-gpu")))
    assert check_plan(on_dataflow) == []
    keeping = plan(placed("vertex-gpu", checkpoint_root="gs://bucket/checkpoints"))
    assert check_plan(keeping) == []
    assert memory_of(keeping) == estimate


def test_the_size_of_somebodys_own_data_is_asked_for() -> None:
    own = check_plan(plan(placed("vertex-gpu"), "download.dataset=csv:gs://bucket/x.csv"))
    assert [(finding.severity, finding.subject) for finding in own] == [("not checked", "memory")]
    kubeflow = check_plan(plan(placed("kfp"), "download.dataset=csv:gs://bucket/x.csv"))
    assert [(finding.severity, finding.subject) for finding in kubeflow] == [("not checked", "memory")]
    assert data_size("ml-1m") == DataSize(6_040, 3_706, 1_000_209)
    assert data_size("synthetic:num_users=150,num_items=800") == DataSize(150, 800, 10_034)
    with pytest.raises(InputError, match="--num-items"):
        chosen_size(1, None, 2)


def test_reduction_servers_are_a_choice_that_is_remarked_on() -> None:
    assert not list(check_machines(placed("vertex-multi-gpu", "a100-x8-x2"), None))
    (finding,) = check_machines(placed("vertex-multi-gpu", "a100-x8-x2-reduction"), None)
    assert finding.severity == "warning"
    assert "unless the image train-gpu has Google's package google-reduction-server" in finding.message
    assert finding.message.endswith("or use the pool a100-x8-x2.")


def test_reduction_servers_have_the_bandwidth_of_the_workers() -> None:
    """Google's rule; its figures of the most that a machine sends, in Gbps."""
    bandwidth = {"a2-highgpu-8g": 100, "n1-highcpu-16": 32}
    for pool in POOLS.values():
        if pool.reduction_server is not None:
            workers = (1 + pool.num_workers) * bandwidth[pool.chief.machine_type]
            one = bandwidth[pool.reduction_server.machine_type]
            assert 0 <= pool.num_reduction_servers * one - workers < one


def test_every_accelerator_of_a_pool_has_a_row() -> None:
    for pool in POOLS.values():
        assert accelerator_of(pool.chief) in {*ACCELERATORS, ""}


def test_the_command_says_what_to_change_and_fails(neumf: Neumf) -> None:
    result = neumf("preflight", "--target", "vertex-gpu", "--region", "us-central1")
    assert result.returncode == 1
    assert "NEUMF_IMAGE_REGISTRY" in result.stdout
    assert "would stop this run" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("name", "placement"), list(placements()), ids=[name for name, _ in placements()])
def test_a_compiled_pipeline_tells_its_placement(name: str, placement: Placement) -> None:
    made = placement_of(golden_document(name), Mistakes(are_noted=False))
    assert made is not None
    assert made == dataclasses.replace(
        placement, timeout_h=None, checkpoint_root=None, image_digests={}, dataflow=(), resources=made.resources
    )


def test_the_limit_of_a_compiled_pod_is_what_train_has() -> None:
    document = golden_document("kfp")
    amounts = document["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    amounts["resourceMemoryLimit"] = "9G"
    amounts["accelerator"] = {"count": "2", "type": "nvidia.com/gpu"}
    made = placement_of(document, Mistakes(are_noted=False))
    assert made is not None
    assert made.resources["train"].memory_limit_bytes == 9e9
    findings = check_plan(plan(made, "train.global_batch_size=4001", compiled_images=()))
    (message,) = errors(findings)
    assert "not divisible by 2 replicas" in message
    assert any("how much train's machine or GPU has is not known" in finding.message for finding in findings)


def test_the_command_checks_a_compiled_pipeline(neumf_here: Neumf, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    document = golden_document("everything-chosen")
    job = document["components"]["comp-train"]["inputDefinitions"]["parameters"]
    job["network"]["defaultValue"], job["labels"]["defaultValue"] = "default", {"Team": "x"}
    file.write_text(yaml.safe_dump(document))
    given = ("preflight", "--template", file, "--pipeline-root", "gs://bucket/runs")
    result = neumf_here(*given, "--region", "us-east1", "--set", "train.global_batch_size=4001",
                        "--set", "train.strategy=mirrored")  # fmt: skip
    text = findings_of(result)
    assert result.returncode == 1
    for words in (
        "--network 'default' is not of the form", "--label Team=x must",
        "tensorboards/42 is in europe-west4 and the run in us-east1", "--encryption-key",
        "error image neumf-python/baseline@sha256:", "names no registry",
        "use multi_worker_mirrored, or auto", "not divisible by 16 replicas", "pool a100-x8-x2-reduction: 9 machines",
    ):  # fmt: skip
        assert words in text, text
    assert "train.learning_rate is nan" in findings_of(neumf_here(*given, "--set", "train.learning_rate=nan"))
    for arguments, words in (
        ((*given, "--pool", "l4"), "--pool is of no use with --template"),
        ((*given, "--service-account", "a"), "--service-account is of no use with --template"),
        ((*given, "--preset", "smoke"), "--preset smoke is of no use with --template"),
        (("preflight",), "--target is missing: give it, or a compiled pipeline as --template"),
    ):
        result = neumf_here(*arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert words in result.stderr


def test_the_region_may_be_called_as_submit_calls_it(neumf_here: Neumf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_REGION", raising=False)
    plain = ("preflight", "--target", "vertex-tpu")
    assert "--region was not given" in neumf_here(*plain).stdout
    named = neumf_here(*plain, "--location", "europe-west2").stdout
    assert "to be in europe-west2: use" in " ".join(named.split())
    monkeypatch.setenv("GOOGLE_CLOUD_REGION", "europe-west2")
    assert neumf_here(*plain).stdout == named


def test_the_command_is_content_with_a_plan_that_runs(neumf: Neumf, tmp_path: Path) -> None:
    digests = tmp_path / "digests.json"
    digests.write_text(json.dumps(DIGESTS))
    result = neumf("preflight", "--target", "vertex-tpu", "--image-digests-file", digests, "--dataset", "ml-20m",
                   "--region", "us-west4", "--pipeline-root", "gs://bucket/runs")  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 replicas" in result.stdout
    assert "nothing found" in result.stdout
