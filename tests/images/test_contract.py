"""What the compiled pipeline says of each step, executed in the step's image with real artifacts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from images.contract import Contract, ContractError
from images.table import ROOT
from pipelines.compile import compile_pipeline
from pipelines.parameters import resolve_parameters
from pipelines.placement import Placement

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("built")]
# It needs a Model Registry: its own tests run in its image against a server of its protocol.
NOWHERE_TO_PUBLISH = {"publish": ""}


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    compile_pipeline(Placement.on("local"), resolve_parameters("smoke", ()), tmp_path / "pipeline.yaml")
    loaded: dict[str, Any] = yaml.safe_load((tmp_path / "pipeline.yaml").read_text())
    return loaded


def executor_of(spec: dict[str, Any], step: str) -> dict[str, Any]:
    container: dict[str, Any] = spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
    return container


def test_every_component_runs_in_its_image_as_it_is_compiled(spec: dict[str, Any], tmp_path: Path) -> None:
    contract = Contract(spec, tmp_path / "artifacts", NOWHERE_TO_PUBLISH)
    contract.execute()
    components = {key for key, component in spec["components"].items() if "executorLabel" in component} - {
        "comp-publish"
    }
    assert {f"comp-{name}" for name in contract.executed} == components
    metrics = json.loads((tmp_path / "artifacts/evaluate/evaluation/metrics.json").read_text())
    assert 0 < metrics["loo-99"]["hr@10"] < 1


def test_a_parameter_that_the_image_does_not_know_fails(spec: dict[str, Any], tmp_path: Path) -> None:
    """The pipeline of a newer checkout against older images: its component hands on what their code has not."""
    executor = executor_of(spec, "download")
    before, after = "DownloadConfig(", "__import__('functools').partial(DownloadConfig, num_mirrors=2)("
    body = [word.rpartition(before) for word in executor["command"]]
    assert any(word for _, word, _ in body)
    executor["command"] = [head + (after if found else "") + tail for head, found, tail in body]
    with pytest.raises(ContractError, match=r"(?s)download ended with status 1 in .*num_mirrors"):
        Contract(spec, tmp_path / "artifacts", {}).execute()


def test_a_parameter_that_only_the_interface_has_fails(spec: dict[str, Any], tmp_path: Path) -> None:
    """The image's component takes a parameter that the pipeline does not pass."""
    del spec["root"]["dag"]["tasks"]["download"]["inputs"]["parameters"]["seed"]
    with pytest.raises(ContractError, match=r"(?s)download ended with status 1.*seed"):
        Contract(spec, tmp_path / "artifacts", {}).execute()


def test_a_step_that_leaves_an_output_out_fails(spec: dict[str, Any], tmp_path: Path) -> None:
    executor = executor_of(spec, "download")
    opening = "with running_step("
    assert any(opening in word for word in executor["command"])
    executor["command"] = [word.replace(opening, f"return\n    {opening}") for word in executor["command"]]
    with pytest.raises(ContractError, match=r"download ended well and did not write .*ratings"):
        Contract(spec, tmp_path / "artifacts", {}).execute()


def test_the_command_line_ends_with_the_steps_own_words(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["root"]["inputDefinitions"]["parameters"]["download_dataset"]["defaultValue"] = "ml-2m"
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(spec))
    command = [sys.executable, "-m", "images.contract", str(tmp_path / "wrong.yaml"), str(tmp_path / "artifacts")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 1
    assert result.stderr.startswith("error: download ended with status 1 in ")
    assert "ml-1m" in result.stderr
    assert "Traceback" not in result.stderr
