"""The keys that decide which steps a backend runs again."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl

from pipelines.cache_keys import StepKey, changed_steps, fingerprint, step_keys, unpinned_images
from tests.pipelines.servers.templates import IMAGES, STEPS, make_template

_DATASET = "title: kfp.Model\ntype: object\nproperties:\n" + "".join(
    f"  {name}:\n    type: string\n" for name in ("framework", "framework_version")
)


def test_a_key_is_the_one_that_kubeflow_pipelines_computes() -> None:
    """The example and its result are those of the backend's own test, in Go."""
    key = {
        "inputArtifactNames": {
            "dataset_one": {"artifactNames": ["1"]},
            "dataset_two": {"artifactNames": ["2"]},
        },
        "inputParameterValues": {"message": "Some string value", "num_steps": 5},
        "outputArtifactsSpec": {
            "model": {"name": "model", "type": {"instanceSchema": _DATASET}, "metadata": {"name": "model"}},
            "metrics": {"name": "metrics", "type": {"schemaTitle": "kfp.Metrics"}, "metadata": {"name": "metrics"}},
        },
        "outputParametersSpec": {"output_parameter_one": "STRING", "output_parameter_two": "INT"},
        "containerSpec": {"image": "python:3.9", "cmdArgs": ["sh", "ec", "test"]},
    }
    assert fingerprint(key) == "4e8a5d7d70997b0a35429fcd481af8fcd5b9f58ef4391bdb6ad900fd1c63622b"


def test_a_key_without_inputs_is_the_one_that_kubeflow_pipelines_computes() -> None:
    key = {
        "inputArtifactNames": {"dataset": {"artifactNames": ["10"]}},
        "outputParametersSpec": {"output_parameter": "DOUBLE"},
        "containerSpec": {"image": "python:3.9", "cmdArgs": ["sh", "ec", "run"]},
    }
    assert fingerprint(key) == "0a4cc1f15cdfad5170e1358518f7128c5278500a670db1b9a3f3d83b93db396e"


def spec_of(folder: Path, images: dict[str, str] = IMAGES) -> dict[str, Any]:
    return yaml.safe_load(make_template(folder, images).read_text())


def reasons(before: list[StepKey], after: list[StepKey]) -> dict[str, tuple[str, ...]]:
    return {change.step: change.reasons for change in changed_steps(before, after)}


def test_a_parameter_runs_its_step_and_all_behind_it_again(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    before, after = step_keys(spec, {}), step_keys(spec, {"train_num_epochs": 3})
    assert [step.step for step in before] == list(STEPS)
    assert [old.key == new.key for old, new in zip(before, after, strict=True)] == [True, False, False]
    assert reasons(before, after) == {
        "download": (),
        "train": ("parameter num_epochs: 20 -> 3",),
        "evaluate": ("after train",),
    }


def test_a_default_given_again_changes_nothing(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    assert step_keys(spec, {"train_num_epochs": 20}) == step_keys(spec, {"train_num_epochs": 20.0})
    assert reasons(step_keys(spec, {}), step_keys(spec, {"train_num_epochs": 20})) == dict.fromkeys(STEPS, ())


def test_an_image_runs_its_steps_and_all_behind_them_again(tmp_path: Path) -> None:
    rebuilt = {**IMAGES, "train": IMAGES["train"].replace("b", "c")}
    found = reasons(step_keys(spec_of(tmp_path), {}), step_keys(spec_of(tmp_path, rebuilt), {}))
    assert found == {"download": (), "train": (f"image: {rebuilt['train']}",), "evaluate": ("after train",)}


def test_an_image_of_two_steps_runs_both_again(tmp_path: Path) -> None:
    rebuilt = {**IMAGES, "data": IMAGES["data"].replace("a" * 64, "c" * 64)}
    found = reasons(step_keys(spec_of(tmp_path), {}), step_keys(spec_of(tmp_path, rebuilt), {}))
    assert found["download"] == (f"image: {rebuilt['data']}",)
    assert found["train"] == ("after download",)
    assert found["evaluate"] == (f"image: {rebuilt['data']}", "after train", "after download") or found["evaluate"] == (
        f"image: {rebuilt['data']}",
        "after download",
        "after train",
    )


def test_steps_within_a_condition_are_reached(tmp_path: Path) -> None:
    @dsl.component(base_image=IMAGES["data"], install_kfp_package=False)
    def decide(seed: int) -> str: ...  # type: ignore[empty-body]

    @dsl.component(base_image=IMAGES["train"], install_kfp_package=False)
    def recommend(number: int) -> None: ...

    @dsl.pipeline(name="conditional")
    def pipeline(seed: int = 1, number: int = 10) -> None:
        with dsl.If(decide(seed=seed).output == "promoted", name="promoted"):
            recommend(number=number)

    compiler.Compiler().compile(pipeline, str(tmp_path / "conditional.yaml"))
    spec = yaml.safe_load((tmp_path / "conditional.yaml").read_text())
    steps = [step.step for step in step_keys(spec, {})]
    assert steps[0] == "decide"
    assert steps[1].startswith("condition-")
    assert steps[1].endswith("/recommend")
    found = reasons(step_keys(spec, {}), step_keys(spec, {"number": 20}))
    assert found == {"decide": (), steps[1]: ("parameter number: 10 -> 20",)}


def test_images_by_tag_are_found_also_in_worker_pools(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    assert unpinned_images(step_keys(spec, {})) == {}
    pools = [{"container_spec": {"image_uri": "registry/train:latest"}}]
    task = spec["root"]["dag"]["tasks"]["train"]
    task["inputs"]["parameters"]["worker_pool_specs"] = {"runtimeValue": {"constant": pools}}
    assert unpinned_images(step_keys(spec, {})) == {"registry/train:latest": "train"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # What Go 1.22's encoding/json writes.
        (1e-8, "1e-8"),
        (20.0, "20"),
        (0.002, "0.002"),
        (0.000001, "0.000001"),
        (1.25e-7, "1.25e-7"),
        (1e21, "1e+21"),
        (-0.5, "-0.5"),
        ([], "[]"),
        ({"b": "", "a": True}, '{"a":true,"b":""}'),
        ("a<b>&c", '"a\\u003cb\\u003e\\u0026c"'),
        ("é\n", '"é\\n"'),
    ],
)
def test_values_are_written_as_go_does(value: Any, text: str) -> None:
    assert fingerprint(value) == hashlib.sha256(text.encode()).hexdigest()
