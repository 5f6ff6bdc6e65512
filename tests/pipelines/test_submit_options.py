"""Options of `neumf submit` that are of no use together, or malformed: refused before anything is sent."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.ncf.errors import InputError
from pipelines.custom_job import _worker_pool_specs, pool_of_specs
from pipelines.findings import Mistakes
from pipelines.placement import TARGETS
from pipelines.template import check_target, load_template, placement_of, target_of
from pipelines.worker_pools import POOLS
from tests.pipelines.golden_files import golden_document
from tests.pipelines.servers.fixtures import Kubeflow, Vertex, run_neumf

ROOT = ("--pipeline-root", "gs://my-bucket/neumf")
KEY = "projects/my-project/locations/europe-west4/keyRings/ring/cryptoKeys/key"
ACTIONS = (("--follow", "a"), ("--cancel", "a"), ("--resume", "a"), ("--delete-schedule", "a"), ("--schedules",))


def check_refused(backend: Vertex | Kubeflow, arguments: tuple[str | Path, ...], words: str) -> None:
    result = backend.submit(*arguments)
    assert result.exit_code == 1, result.output
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not backend.server.calls


@pytest.mark.parametrize("action", ACTIONS)
def test_a_dry_run_acts_in_no_way(vertex: Vertex, kubeflow: Kubeflow, action: tuple[str, ...]) -> None:
    for backend in (vertex, kubeflow):
        check_refused(backend, (*action, "--dry-run"), f"--dry-run is of no use with {action[0]}")


@pytest.mark.parametrize("flag", ["--follow", "--cancel", "--resume", "--delete-schedule", "--job-id", "--schedule",
                                  "--template"])  # fmt: skip
def test_an_empty_value_is_no_new_run(vertex: Vertex, template: Path, flag: str) -> None:
    check_refused(vertex, ("--template", template, *ROOT, flag, ""), f"{flag} is empty, as an unset variable leaves it")


def test_an_empty_value_is_no_default_for_compile(tmp_path: Path) -> None:
    output = tmp_path / "pipeline.yaml"
    result = run_neumf("compile", "--target", "vertex-gpu", "--pool", "", "--output", output)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: --pool is empty")
    assert not output.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--set", "train.num_epochs=3"), ("--label", "team=films"), ("--encryption-key", KEY), ("--dataset", "ml-1m"),
        ("--spot",), ("--no-caching",), ("--compare", "b"), ("--preset", "smoke"), ("--pool", "cpu"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_refuses_what_it_makes_no_use_of(
    vertex: Vertex, action: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    check_refused(vertex, (*action, *arguments), f"{arguments[0]} is of no use with {action[0]}")


@pytest.mark.parametrize("action", [action for action in ACTIONS if action[0] != "--resume"])
def test_only_a_resumed_job_has_an_experiment(vertex: Vertex, action: tuple[str, ...]) -> None:
    check_refused(vertex, (*action, "--experiment", "films"), f"--experiment is of no use with {action[0]}")


@pytest.mark.parametrize("arguments", [("--job-id", "b"), ("--experiment", "films"), ROOT])
def test_a_resumed_run_of_kubeflow_stays_what_it_is(kubeflow: Kubeflow, arguments: tuple[str, ...]) -> None:
    check_refused(kubeflow, ("--resume", "a", *arguments), f"{arguments[0]} is of no use with --resume")


def test_a_schedule_of_vertex_has_no_experiment(vertex: Vertex, template: Path) -> None:
    arguments = ("--template", template, *ROOT, "--schedule", "0 3 * * 1", "--experiment", "films")
    check_refused(vertex, arguments, "--experiment is of no use with --schedule on Vertex")


@pytest.mark.parametrize(("flag", "value"), [("--location", "europe-west4"), ("--project", "my-project")])
def test_kubeflow_has_no_place_of_vertex(
    kubeflow: Kubeflow, template: Path, monkeypatch: pytest.MonkeyPatch, flag: str, value: str
) -> None:
    check_refused(kubeflow, ("--template", template, flag, value), f"{flag} is of use with --backend vertex alone")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    monkeypatch.setenv("GOOGLE_CLOUD_REGION", "europe-west4")
    assert kubeflow.submit("--template", template, "--dry-run").exit_code == 0


@pytest.mark.parametrize("target", ["kfp", "local"])
def test_vertex_takes_no_other_target(vertex: Vertex, target: str) -> None:
    check_refused(vertex, (*ROOT, "--target", target), f"--target {target} does not run on Vertex AI")


@pytest.mark.parametrize(("target", "words"), [("vertex-cpu", "--backend vertex alone"), ("local", "for this machine")])
def test_kubeflow_takes_no_other_target(kubeflow: Kubeflow, target: str, words: str) -> None:
    check_refused(kubeflow, ("--target", target), words)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real pipeline for Vertex AI, with a root for checkpoints."""
    path = tmp_path_factory.mktemp("templates") / "compiled.yaml"
    images = ("download", "generate", "baseline", "publish", "train")
    digests = [f"--image-digest={name}=us-docker.pkg.dev/p/r/{name}@sha256:{'a' * 64}" for name in images]
    root = ("--checkpoint-root", "gs://my-bucket/kept")
    made = run_neumf(
        "compile", "--target", "vertex-cpu", *root, *digests,
        "--dataset", "ml-1m", "--output", path,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    return path


@pytest.mark.parametrize("target", TARGETS)
def test_a_compiled_pipeline_tells_its_target_and_is_refused_elsewhere(target: str, tmp_path: Path) -> None:
    spec = golden_document(target)
    assert target_of(spec) == target
    file = tmp_path / "pipeline.yaml"
    for backend, is_fitting in (("vertex", target.startswith("vertex-")), ("kfp", target == "kfp")):
        if is_fitting:
            check_target(file, spec, backend)
            continue
        fitting = "vertex-cpu" if backend == "vertex" else "kfp"
        with pytest.raises(InputError, match=f"^--template {file} was compiled for --target {target}, where train runs "
                           f".*: `neumf compile --target {fitting} --output {fitting}.yaml`"):  # fmt: skip
            check_target(file, spec, backend)


def test_kubeflow_takes_no_job_of_vertex_from_before_there_was_a_step_publish(tmp_path: Path) -> None:
    spec = golden_document("vertex-tpu")
    del spec["components"]["comp-publish"]
    with pytest.raises(InputError, match="was compiled for --target vertex-tpu"):
        check_target(tmp_path, spec, "kfp")


def test_a_pod_with_gpus_is_replaced_by_a_target_with_gpus(tmp_path: Path) -> None:
    spec = golden_document("kfp")
    train = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    train["resources"]["accelerator"] = {"type": "nvidia.com/gpu", "count": "1"}
    with pytest.raises(InputError, match=r"--output vertex-gpu\.yaml"):
        check_target(tmp_path, spec, "vertex")


@pytest.mark.parametrize("pool", POOLS)
def test_a_compiled_job_tells_its_pool(pool: str) -> None:
    specs = _worker_pool_specs(
        {"command": ["python"]}, POOLS[pool], f"us-docker.pkg.dev/p/r/{POOLS[pool].image}@sha256:1"
    )
    assert pool_of_specs(json.loads(json.dumps(specs))) == POOLS[pool]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("root.dag.tasks.train.componentRef.name", "comp-nothing"),
        ("root.dag.tasks.train.inputs.artifacts.examples.taskOutputArtifact.producerTask", "nobody"),
        ("root.dag.tasks", None),
        ("root.inputDefinitions", "x"),
        ("deploymentSpec.executors.exec-train.container.resources", "x"),
        ("components.comp-train.inputDefinitions.parameters.tensorboard.defaultValue", 3),
        ("components.comp-train.inputDefinitions.parameters.worker_pool_specs.defaultValue", [{}]),
    ],
)
def test_a_template_that_is_laid_out_otherwise_cannot_be_read(tmp_path: Path, path: str, value: Any) -> None:
    spec: Any = golden_document("kfp" if path.endswith("resources") else "everything-chosen")
    *folders, last = path.split(".")
    part = spec
    for folder in folders:
        part = part[folder]
    part[last] = value
    file = tmp_path / "pipeline.yaml"
    file.write_text(json.dumps(spec))
    with pytest.raises(InputError, match=r"cannot be read \(\w+: .*\): compile the pipeline again\.$"):
        placement_of(load_template(file), Mistakes(are_noted=True))


def test_a_template_with_a_date_that_is_none_or_with_nothing_is_none(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text("made: 2026-99-99")
    with pytest.raises(InputError, match=r"cannot be read \(ValueError\)"):
        load_template(file)
    file.write_text("")
    with pytest.raises(InputError, match="is no compiled pipeline"):
        load_template(file)


def test_worker_pools_that_are_not_ours_are_vertexs_to_judge(tmp_path: Path) -> None:
    spec = golden_document("vertex-multi-gpu")
    specs = spec["components"]["comp-train"]["inputDefinitions"]["parameters"]["worker_pool_specs"]["defaultValue"]
    for known in specs:
        known["machine_spec"]["reservation_affinity"] = {"reservation_affinity_type": "ANY_RESERVATION"}
    assert pool_of_specs(specs) == POOLS["l4-x2"]
    specs[0]["machine_spec"]["machine_type"] = "g2-standard-16"
    check_target(tmp_path, spec, "vertex")
    with pytest.raises(InputError, match="not one chief and workers with the same machine"):
        placement_of(spec, Mistakes(are_noted=True))


def test_a_template_of_the_other_backend_is_refused_before_anything_is_sent(
    vertex: Vertex, kubeflow: Kubeflow, compiled: Path, tmp_path: Path
) -> None:
    check_refused(kubeflow, ("--template", compiled), f"--template {compiled} was compiled for --target vertex-cpu")
    other = tmp_path / "kfp.yaml"
    other.write_text(yaml.safe_dump(golden_document("kfp")))
    check_refused(vertex, ("--template", other, *ROOT), f"--template {other} was compiled for --target kfp")


def test_a_template_is_checked_before_anything_is_sent(vertex: Vertex, compiled: Path, tmp_path: Path) -> None:
    """What somebody changed in a compiled file by hand, or compiled with another version."""
    file, epochs = tmp_path / "changed.yaml", "train_num_epochs:\n        defaultValue: 20.0\n        parameterType: "
    for changes, words in (
        ({"n2-standard-16": "g2-standard-16"}, "chief: g2-standard-16 comes with a GPU that must be named"),
        (
            {"replica_count: 1.0": "replica_count: many"},
            "The worker pools of train cannot be read (ValueError: invalid literal for int() with base 10: 'many'): "
            "compile the pipeline again. Change that, or give --no-preflight",
        ),
        (
            {"defaultValue: 4000.0": "defaultValue: a few"},
            "train.global_batch_size is 'a few': it must be a whole number",
        ),
        ({f"{epochs}NUMBER_INTEGER": f"{epochs}STRING"}, f"train_num_epochs of {file} is a text, and 3 was given"),
        (
            {"n2-standard-16": "n2-standard-16\n              tpu_topology: 2x2", "us-docker.pkg.dev/p/r/": "r/"},
            "chief: n2-standard-16 takes no tpu_topology 2x2: leave it out. image: r/",
        ),
    ):
        text = compiled.read_text()
        for old, new in changes.items():
            assert old in text, old
            text = text.replace(old, new)
        file.write_text(text)
        check_refused(vertex, ("--template", file, *ROOT, "--set", "train.num_epochs=3"), words)
    arguments = ("--template", file, *ROOT, "--dry-run", "--no-preflight")
    assert vertex.submit(*arguments).exit_code == 0, "whoever insists"


def test_a_schedule_takes_no_checkpoints_that_are_compiled_in(vertex: Vertex, compiled: Path) -> None:
    arguments = (*ROOT, "--template", compiled, "--schedule", "0 3 * * 1")
    check_refused(vertex, arguments, "--schedule goes neither with --checkpoint-root nor with train.checkpoint_dir")
    assert vertex.submit(*ROOT, "--template", compiled, "--dry-run").exit_code == 0


def test_a_template_that_is_a_folder_is_named(vertex: Vertex, tmp_path: Path) -> None:
    check_refused(vertex, (*ROOT, "--template", tmp_path), f"--template {tmp_path} is a folder")


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e300", "3601", "-1"])
def test_a_distance_that_nobody_can_wait_is_refused_before_the_job(
    vertex: Vertex, template: Path, seconds: str
) -> None:
    words = "must be more than 0 seconds and at most 3600"
    check_refused(vertex, ("--template", template, *ROOT, "--poll", seconds), words)


@pytest.mark.parametrize("content", [b"\x7fELF\xff\x00", "jeton-é".encode(), b"one\ntwo\n", b"a b", b" \n", b"a\x00b"])
def test_a_file_without_a_token_is_one_sentence(
    kubeflow: Kubeflow, template: Path, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "no-token"
    file.write_bytes(content)
    for dry in ((), ("--dry-run",)):
        check_refused(kubeflow, ("--template", template, "--token-file", file, *dry), f"--token-file {file} ")


def test_a_file_to_compare_with_has_to_exist(vertex: Vertex, template: Path) -> None:
    arguments = ("--template", template, "--dry-run", "--compare", "nope.yaml")
    check_refused(vertex, arguments, "--compare nope.yaml does not exist: give a compiled pipeline, or a job")


@pytest.mark.parametrize("host", ["ftp://x", "https://", "http://a b", "https://x:port", "https:/x"])
def test_a_host_is_one_of_the_web(kubeflow: Kubeflow, template: Path, host: str) -> None:
    check_refused(kubeflow, ("--template", template, "--host", host), f"--host {host!r} is not of the form https://")


def test_an_option_that_does_not_exist_is_a_mistake_and_no_run_that_failed(kubeflow: Kubeflow) -> None:
    assert kubeflow.submit("--target", "vertex-npu").exit_code == 1
    assert kubeflow.submit("--watch").exit_code == 1


@pytest.mark.parametrize("host", ["localhost:8080", "http://[::1]:8080/pipeline", "https://kubeflow.example.com/a/b"])
def test_a_host_may_have_a_port_and_a_path(kubeflow: Kubeflow, template: Path, host: str) -> None:
    assert kubeflow.submit("--template", template, "--host", host, "--dry-run").exit_code == 0


def test_a_project_is_named_by_its_id(vertex: Vertex, template: Path) -> None:
    arguments = ("--template", template, *ROOT, "--project", "My Project", "--dry-run")
    check_refused(vertex, arguments, "--project 'My Project' is not of the form PROJECT, its id and not its title")


def test_a_label_has_one_value(vertex: Vertex, template: Path) -> None:
    arguments = ("--template", template, *ROOT, "--label", "team=films", "--label", "team=books")
    check_refused(vertex, arguments, "--label gives team twice, films and books")


@pytest.mark.parametrize("content", ["[]", '"train"', "1", "null"])
def test_digests_are_an_object(vertex: Vertex, tmp_path: Path, content: str) -> None:
    file = tmp_path / "digests.json"
    file.write_text(content)
    check_refused(vertex, (*ROOT, "--image-digests-file", file), f"--image-digests-file {file} holds no JSON object")
