"""What each target compiles to: the golden files, and the properties that Vertex AI checks only at run time."""

import copy
import dataclasses
import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.ncf.errors import InputError
from pipelines.neumf import COMPONENTS
from pipelines.placed_steps import placed_parameters
from pipelines.placement import IMAGES, TARGETS, Placement, pool_of
from pipelines.presets import DEFAULTS
from pipelines.step_resources import RESOURCES, changed_resources
from pipelines.worker_pools import POOLS, Machine, WorkerPool
from tests.pipelines.golden_files import GOLDEN, all_tasks, compiled, placements

ROOT = Path(__file__).parents[2]
VERTEX = [target for target in TARGETS if target.startswith("vertex-")]
NAMES = [name for name, _ in placements()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEUMF_")}
    command = [sys.executable, "-W", "ignore", "-m", "tests.pipelines.golden_files", str(folder)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return folder


@pytest.fixture(scope="module")
def compile_on(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Placement], dict[str, Any]]:
    scratch, documents = tmp_path_factory.mktemp("compiled"), {}

    def compile_once(placement: Placement) -> dict[str, Any]:
        key = repr(placement)
        if key not in documents:
            documents[key] = compiled(placement, scratch)
        return copy.deepcopy(documents[key])

    return compile_once


def everything_chosen() -> Placement:
    return dict(placements())["everything-chosen"]


def train_defaults(document: dict[str, Any]) -> dict[str, Any]:
    parameters = document["components"]["comp-train"]["inputDefinitions"]["parameters"]
    return {name: definition.get("defaultValue") for name, definition in parameters.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_target_compiles_to_its_golden_file(name: str, written: Path) -> None:
    now, then = ((folder / f"{name}.yaml").read_text().splitlines() for folder in (written, GOLDEN))
    difference = "\n".join(difflib.unified_diff(then, now, f"golden/{name}.yaml", "now", n=2, lineterm=""))
    assert not difference, f"{difference}\n\nIf this is what you want: make golden"


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(NAMES)


@pytest.mark.parametrize("target", VERTEX)
def test_train_keeps_its_artifacts_and_its_parameters_on_vertex(target: str, compile_on: Any) -> None:
    plain, placed = compile_on(Placement.on("local")), compile_on(Placement.on(target))
    ours, theirs = (document["components"]["comp-train"] for document in (plain, placed))
    assert theirs["inputDefinitions"]["artifacts"].keys() == ours["inputDefinitions"]["artifacts"].keys()
    assert theirs["outputDefinitions"]["artifacts"].keys() == ours["outputDefinitions"]["artifacts"].keys()
    given = [document["root"]["dag"]["tasks"]["train"]["inputs"]["parameters"] for document in (plain, placed)]
    # Each is a parameter of the run still, and no constant.
    assert given[0] == given[1]
    assert all("componentInputParameter" in source for source in given[1].values())


def test_the_jobs_strategy_is_not_the_steps(compile_on: Any) -> None:
    """Both are called `strategy`; the launcher would hand Vertex AI the step's."""
    placement = dataclasses.replace(Placement.on("vertex-gpu"), strategy="spot")
    executor = compile_on(placement)["deploymentSpec"]["executors"]["exec-train"]["container"]
    (payload,) = [argument for argument in executor["args"] if "job_spec" in argument]
    assert '"strategy": "SPOT"' in payload
    assert "parameters['strategy']" not in payload
    step = train_defaults(compile_on(placement))["worker_pool_specs"][0]["container_spec"]
    assert step["args"][-1] == "train"


def test_a_job_with_a_tensorboard_has_a_folder_of_its_own_for_its_logs(compile_on: Any) -> None:
    """Vertex AI derives AIP_TENSORBOARD_LOG_DIR from it; in a folder of several jobs it would show them all as one."""
    placement = dataclasses.replace(
        Placement.on("vertex-gpu"),
        service_account="neumf-train@p.iam.gserviceaccount.com",
        tensorboard="projects/p/locations/europe-west4/tensorboards/42",
    )
    payloads = {}
    for name, placed in (("with", placement), ("without", Placement.on("vertex-gpu"))):
        document = compile_on(placed)
        executor = document["deploymentSpec"]["executors"]["exec-train"]["container"]
        (text,) = [argument for argument in executor["args"] if "job_spec" in argument]
        # Numbers, lists and truth values stand there without quotes.
        payloads[name] = json.loads(re.sub(r": (\{\{\$[^}]*\}\})", r': "\1"', text))["job_spec"]
        payloads[name]["default"] = train_defaults(document)["base_output_directory"]
    folder = payloads["with"]["base_output_directory"]["output_uri_prefix"]
    assert folder.startswith("{{$.pipeline_root}}/")
    assert {"{{$.pipeline_job_uuid}}", "{{$.pipeline_task_uuid}}"} <= set(re.findall(r"\{\{.*?\}\}", folder))
    assert "base_output_directory" in payloads["without"]["base_output_directory"]["output_uri_prefix"]
    assert payloads["without"]["default"] == ""


def test_a_tpu_v5e_has_a_topology_and_no_accelerator_fields(compile_on: Any) -> None:
    (chief,) = train_defaults(compile_on(Placement.on("vertex-tpu")))["worker_pool_specs"]
    assert chief["machine_spec"] == {"machine_type": "ct5lp-hightpu-4t", "tpu_topology": "2x2"}
    assert chief["replica_count"] == 1
    assert re.search("/train-tpu[:@]", chief["container_spec"]["image_uri"])


def test_pools_may_differ_and_stand_in_their_places(compile_on: Any) -> None:
    chief, workers, reducers = train_defaults(compile_on(everything_chosen()))["worker_pool_specs"]
    assert chief["machine_spec"]["accelerator_count"] == workers["machine_spec"]["accelerator_count"] == 8
    assert [pool["replica_count"] for pool in (chief, workers, reducers)] == [1, 1, 7]
    assert chief["container_spec"] == workers["container_spec"]
    assert "accelerator_type" not in reducers["machine_spec"]
    assert "command" not in reducers["container_spec"]


def test_all_that_was_chosen_reaches_the_job(compile_on: Any) -> None:
    placement = everything_chosen()
    document = compile_on(placement)
    chosen = train_defaults(document)
    assert chosen["service_account"] == placement.service_account
    assert chosen["network"] == placement.network
    assert chosen["tensorboard"] == placement.tensorboard
    assert chosen["encryption_spec_key_name"] == placement.encryption_key
    assert chosen["labels"] == {"team": "search"}
    assert chosen["timeout"] == "43200s"
    assert chosen["restart_job_on_worker_restart"] is True
    executors = document["deploymentSpec"]["executors"]
    assert executors["exec-download"]["container"]["image"] == placement.image_digests["download"]
    assert chosen["worker_pool_specs"][0]["container_spec"]["image_uri"].endswith("/train-gpu@sha256:" + "a" * 64)


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "local"])
def test_every_step_has_resources_and_retries(target: str, compile_on: Any) -> None:
    document = compile_on(Placement.on(target))
    tasks = all_tasks(document)
    assert set(RESOURCES) == set(COMPONENTS)
    for step, resources in RESOURCES.items():
        assert tasks[step]["retryPolicy"]["maxRetryCount"] == resources.num_retries
        is_custom_job = step == "train" and target in VERTEX
        container = document["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
        assert ("resources" in container) != is_custom_job


def resources_of(document: Any, step: str) -> dict[str, Any]:
    executor = document["deploymentSpec"]["executors"][f"exec-{step}"]
    found: dict[str, Any] = executor["container"]["resources"]
    return found


def test_kubeflow_keeps_less_for_a_step_than_it_may_use(compile_on: Any) -> None:
    """Kubernetes would keep the limits where nothing else is said: no node of a small cluster has 16 processors."""
    document = compile_on(Placement.on("kfp"))
    for step in COMPONENTS:
        found = resources_of(document, step)
        assert 0 < found["cpuRequest"] <= 2 <= found["cpuLimit"]
        assert 0 < found["memoryRequest"] <= 8
        assert found["memoryRequest"] < found["memoryLimit"]


@pytest.mark.parametrize("target", VERTEX)
def test_vertex_is_asked_for_limits_alone(target: str, compile_on: Any) -> None:
    found = resources_of(compile_on(Placement.on(target)), "generate")
    assert not [name for name in found if "equest" in name]


def test_resources_that_somebody_chose_reach_the_step(compile_on: Any) -> None:
    chosen = changed_resources(
        [("train.memory_limit", "128Gi"), ("train.memory_request", "100Gi"), ("gate.cpu_request", "1")]
    )
    document = compile_on(dataclasses.replace(Placement.on("kfp"), resources=chosen))
    train, gate = (resources_of(document, step) for step in ("train", "gate"))
    assert (train["resourceMemoryLimit"], train["resourceMemoryRequest"]) == ("128Gi", "100Gi")
    assert (train["resourceCpuLimit"], train["resourceCpuRequest"]) == ("16", "2")
    assert gate["resourceCpuRequest"] == "1"
    generate = changed_resources([("generate.cpu_limit", "4")])
    lower = changed_resources([("generate.cpu_limit", "500m"), ("generate.memory_limit", "4G")])["generate"]
    assert (lower.cpu_request, lower.memory_request) == ("500m", "4G")
    on_vertex = dataclasses.replace(everything_chosen(), resources=generate)
    assert resources_of(compile_on(on_vertex), "generate")["resourceCpuLimit"] == "4"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("trian.cpu_limit", "4", r"'trian\.cpu_limit' must be a step \(download,"),
        ("train.cpus", "4", "one of cpu_limit, memory_limit"),
        ("train", "4", "one of cpu_limit, memory_limit"),
        ("train.cpu_limit", "four", "train: 'four' is no number of processors"),
        ("train.cpu_limit", "0", "'0' is no number of processors"),
        ("train.memory_limit", "64GB", "'64GB' is no amount of memory"),
        ("train.memory_request", "65G", "memory_request 65G is more than memory_limit 64G"),
        ("train.cpu_request", "16001m", "cpu_request 16001m is more than cpu_limit 16"),
    ],
)
def test_resources_that_kubernetes_would_refuse_are_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        changed_resources([(name, value)])


def test_resources_are_of_no_use_where_there_is_no_container() -> None:
    chosen = changed_resources([("train.cpu_limit", "32")])
    with pytest.raises(InputError, match="use --pool"):
        dataclasses.replace(Placement.on("vertex-gpu"), resources=chosen)
    with pytest.raises(InputError, match="target local"):
        dataclasses.replace(Placement.on("local"), resources=chosen)


def test_a_gpu_on_kubeflow_is_one_pods(compile_on: Any) -> None:
    placement = dataclasses.replace(Placement.on("kfp"), pool=pool_of("kfp", "l4"))
    container = compile_on(placement)["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert container["resources"]["accelerator"]["resourceCount"] == "1"
    assert "/train-gpu" in container["image"]
    with pytest.raises(InputError, match="l4-x2 has a TPU or several machines"):
        dataclasses.replace(Placement.on("kfp"), pool=pool_of("kfp", "l4-x2"))


def test_the_place_of_checkpoints_is_that_of_what_is_trained() -> None:
    """The same training resumes, another does not, and its name is no run's: it would keep train from the cache."""
    placement = dataclasses.replace(Placement.on("vertex-gpu"), checkpoint_root="gs://bucket/checkpoints/")

    def place(**changes: dict[str, Any]) -> str:
        parameters = {step: {**values, **changes.get(step, {})} for step, values in DEFAULTS.items()}
        return str(placed_parameters(placement, parameters)["train"]["checkpoint_dir"])

    assert re.fullmatch("/gcs/bucket/checkpoints/[0-9a-f]{16}", place())
    assert place() == place(evaluate={"seed": 9})
    assert len({place(), place(train={"seed": 2}), place(generate={"seed": 2}), place(download={"seed": 2})}) == 4
    with pytest.raises(InputError, match="both say where checkpoints go"):
        place(train={"checkpoint_dir": "/gcs/elsewhere"})


def test_reduction_servers_leave_auto_no_choice() -> None:
    """They stand in the place of parameter servers, which `auto` would take them for."""
    assert placed_parameters(everything_chosen(), DEFAULTS)["train"]["strategy"] == "multi_worker_mirrored"
    assert placed_parameters(Placement.on("vertex-gpu"), DEFAULTS)["train"]["strategy"] == "auto"


@pytest.mark.parametrize(
    ("pool", "num_replicas"),
    [("cpu", 1), ("cpu-ps", 2), ("l4-x2", 2), ("a100-x8", 8), ("a100-x8-x2", 16), ("tpu-v3-8", 8), ("tpu-v5e-8", 8)],
)
def test_a_pool_counts_replicas_as_tensorflow_does(pool: str, num_replicas: int) -> None:
    assert POOLS[pool].num_replicas == num_replicas


@pytest.mark.parametrize(
    ("target", "pool", "message"),
    [
        ("vertex-gpu", "tpu-v3-8", "use the target vertex-tpu"),
        ("vertex-tpu", "a100", "use the target vertex-gpu"),
        ("vertex-cpu", "l4", "has a GPU"),
        ("vertex-multi-gpu", "l4", "use vertex-gpu"),
        ("vertex-gpu", "a100x8", r"did you mean a100-x8"),
        ("vertex", None, "use one of local"),
    ],
)
def test_a_pool_that_does_not_fit_the_target_is_refused(target: str, pool: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pool_of(target, pool)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"service_account": "me"}, "NAME@PROJECT"),
        ({"network": "projects/my-project/global/networks/default"}, "PROJECT-NUMBER"),
        ({"encryption_key": "key"}, "cryptoKeys"),
        ({"labels": {"Team": "x"}}, "lower-case"),
        ({"checkpoint_root": "/tmp"}, "gs://BUCKET"),
        ({"image_digests": {"train": "latest"}}, "a tag does not do"),
        ({"image_digests": {"train": "sha256:" + "A" * 64}}, "hexadecimal"),
        ({"timeout_h": 169}, "outside 1 to 168"),
        ({"max_wait_h": 1}, "add --flex-start"),
        ({"strategy": "cheap"}, "standard, spot, flex-start"),
        ({"tensorboard": "projects/p/locations/l/tensorboards/1"}, "--service-account"),
    ],
)
def test_what_is_malformed_is_refused_with_its_form(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(Placement.on("vertex-gpu"), **changes)


@pytest.mark.parametrize("target", ["local", "kfp"])
def test_what_only_vertex_has_is_refused_elsewhere(target: str) -> None:
    with pytest.raises(InputError, match="Vertex AI alone"):
        dataclasses.replace(Placement.on(target), strategy="spot")


def test_a_pool_has_no_two_kinds_of_servers() -> None:
    machine = Machine("n2-standard-4")
    with pytest.raises(InputError, match="drop one"):
        WorkerPool("x", "", "train", machine, 1, machine, 1, machine, 1)


def test_options_of_the_command_line_reach_the_file(neumf_here: Any, tmp_path: Path) -> None:
    digests = tmp_path / "digests.json"
    others = dict.fromkeys(IMAGES, "sha256:" + "c" * 64)
    digests.write_text(json.dumps({**others, "generate": "r/generate@sha256:" + "d" * 64}))
    output = tmp_path / "tpu.yaml"
    result = neumf_here(
        "compile", "--target", "vertex-tpu", "--pool", "tpu-v3-8", "--image-digests-file", digests, "--label", "a=b",
        "--resources", "baseline.cpu_limit=32",
        "--dataflow", "project=p", "--dataflow", "region=r", "--dataflow", "temp_location=gs://bucket/t", "--output",
        output,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    import yaml

    document = yaml.safe_load(output.read_text())
    assert resources_of(document, "baseline")["resourceCpuLimit"] == "32"
    chosen = train_defaults(document)
    (chief,) = chosen["worker_pool_specs"]
    assert chief["machine_spec"]["accelerator_count"] == 8
    assert chief["container_spec"]["image_uri"].endswith("train-tpu@sha256:" + "c" * 64)
    assert chosen["labels"] == {"a": "b"}
    defaults = document["root"]["inputDefinitions"]["parameters"]
    assert defaults["generate_beam_runner"]["defaultValue"] == "dataflow"
    assert "sdk_container_image=r/generate@sha256:" + "d" * 64 in defaults["generate_beam_options"]["defaultValue"]


DATAFLOW = ("project=my-project", "region=us-central1", "temp_location=gs://bucket/t",
            "worker_image=r/generate@sha256:" + "a" * 64)  # fmt: skip


def dataflow(*options: str) -> tuple[str, ...]:
    return tuple(text for option in options for text in ("--dataflow", option))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--spot", "--flex-start"), "exclude each other"),
        (("--image-digest", "train"), "NAME=VALUE"),
        (("--dataflow", "zone=a"), "'zone' is unknown"),
        (("--dataflow", "project=p"), "needs region"),
        (
            dataflow("project=p", "region=r", "temp_location=/tmp/x", "worker_image=g@sha256:" + "a" * 64),
            "temp_location '/tmp/x' in generate.beam_options is no folder in Cloud Storage",
        ),
        (
            (*dataflow(*DATAFLOW), "--set", "generate.beam_runner=flink"),
            "--dataflow and generate.beam_runner=flink both say how Beam runs generate: leave one out.",
        ),
        (
            (*dataflow(*DATAFLOW), "--set", "generate.beam_options=project=other"),
            "--dataflow and generate.beam_options=['project=other'] both say",
        ),
        (("--image-digests-file", "none.json"), "cannot be read"),
        (("--resources", "gate.cpu_request=1"), "of use for Kubeflow alone"),
        (("--resources", "gate.cpu_limit"), "NAME=VALUE"),
        (("--resources", "evaluate.memory_limit=999999T"), "999999T is outside what a container"),
        (("--resources", "evaluate.memory_limit=1"), "give 64M to 32T, with the unit"),
        (("--resources", "gate.cpu_limit=0.0001"), "give 100m to 1000 processors"),
        (("--flex-start", "--max-wait-hours", "99999999999999999999"), "is more than 8760, a year: use 0"),
        (("--set", "download.dataset=csv:gs://"), "names no file"),
        (("--set", "download.dataset=csv:gs://bucket"), "names no file"),
        (("--resources", "evaluate.cpu_limit=٣"), "'٣' is no number of processors: write 4, 0.5 or 500m"),
        (("--resources", "evaluate.memory_limit=٣G"), "'٣G' is no amount of memory"),
        (dataflow("num_workers=٣"), "'٣' is not a whole number"),
        (("--network", "projects/٣/global/networks/default"), "is not of the form projects/PROJECT-NUMBER"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(
    neumf_here: Any, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    output = tmp_path / "x.yaml"
    result = neumf_here("compile", "--target", "vertex-gpu", *arguments, "--output", output)
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not output.exists()


def test_a_registry_that_is_no_name_is_refused(tmp_path: Path) -> None:
    """In a process of its own: components know their images from when they are imported."""
    output = tmp_path / "x.yaml"
    command = [Path(sys.executable).parent / "neumf", "compile", "--target", "kfp", "--output", output]
    for registry in ("eu docker/films", ""):
        environment = {**os.environ, "NEUMF_IMAGE_REGISTRY": registry}
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert result.returncode == 1
        assert "is no image's name: correct NEUMF_IMAGE_REGISTRY" in result.stderr
        assert result.stderr.count("\n") == 1
        assert not output.exists()


def test_digests_of_some_images_alone_are_refused(
    neumf_here: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    digest = f"sha256:{'a' * 64}"
    output = tmp_path / "pipeline.yaml"
    some = neumf_here("compile", "--target", "vertex-gpu", "--image-digest", f"train={digest}", "--output", output)
    assert some.returncode == 1
    assert "which has no digest while others have: add --image-digest" in some.stderr
    typo = neumf_here("compile", "--target", "vertex-gpu", "--image-digest", f"trian={digest}", "--output", output)
    assert "There is no image 'trian' (did you mean train?)" in typo.stderr
    assert not output.exists()
