"""What every image keeps, checked inside it by its `test` target and not with the other tests."""

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import components

PACKAGES = Path(sysconfig.get_paths()["purelib"])
# An image for an accelerator takes the steps of the one that it stands in for: train-gpu those of train.
SET = os.environ["SET"].split("-")[0]


def steps_of_this_image() -> list[str]:
    interfaces = sorted(Path(*components.__path__).glob("*/component.py"))
    return [path.parent.name for path in interfaces if f'image_uri("{SET}")' in path.read_text()]


def modules_of_this_image() -> list[str]:
    """Those of its steps and of the room that all share; other rooms come along where a step imports them."""
    folders = ["ncf", *steps_of_this_image()]
    modules = [
        f"components.{folder}.{module.name}"
        for folder in folders
        for module in pkgutil.iter_modules([str(Path(*components.__path__) / folder)])
    ]
    return [name for name in modules if not name.endswith(".component")]


def test_some_step_runs_in_this_image() -> None:
    assert steps_of_this_image()


@pytest.mark.parametrize("name", modules_of_this_image())
def test_every_module_of_its_steps_is_importable_and_compiled(name: str) -> None:
    module = importlib.import_module(name)
    assert Path(module.__file__ or "").is_relative_to(PACKAGES)
    assert Path(module.__cached__ or "").is_file()


def test_kfp_can_run_a_component_here() -> None:
    command = [sys.executable, "-m", "kfp.dsl.executor_main", "--help"]
    assert subprocess.run(command, env={**os.environ, "_KFP_RUNTIME": "true"}).returncode == 0


def test_steps_run_as_a_user_that_can_change_nothing_but_tmp() -> None:
    assert os.getuid() == 10001
    assert Path.home() == Path("/tmp")
    writable = [
        path for path in (Path("/"), Path("/opt"), PACKAGES, Path("/etc"), Path("/usr")) if os.access(path, os.W_OK)
    ]
    assert not writable


@pytest.mark.parametrize("program", ["cc", "gcc", "g++", "make", "git", "uv"])
def test_nothing_that_only_builds_need_is_left(program: str) -> None:
    assert shutil.which(program) is None


def test_what_compiles_and_submits_pipelines_is_not_installed() -> None:
    names = {path.name for path in PACKAGES.iterdir()}
    assert "components" in names
    assert not names & {
        "pipelines",
        "images",
        "tests",
        "pip",
        "google_cloud_pipeline_components",
        "kubernetes",
        "docker",
    }
    assert not (Path("/opt/neumf/bin") / "neumf").exists()
    assert not [name for name in names if name.startswith("kfp_server_api")]
    assert bool([name for name in names if name.startswith("google_cloud_aiplatform")]) == (SET == "publish")


@pytest.mark.skipif(SET != "generate", reason="only generate submits jobs to Dataflow")
def test_what_dataflow_needs_is_not_among_what_is_left_out() -> None:
    assert importlib.import_module("apache_beam.runners.dataflow.internal.apiclient").DataflowApplicationClient
    assert importlib.import_module("google.cloud.dataflow").JobsV1Beta3Client
    assert importlib.import_module("apache_beam.io.gcp.gcsio").GcsIO
