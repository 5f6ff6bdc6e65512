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

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("built")]


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    compile_pipeline("local", resolve_parameters("smoke", ()), tmp_path / "pipeline.yaml")
    loaded: dict[str, Any] = yaml.safe_load((tmp_path / "pipeline.yaml").read_text())
    return loaded


def executor_of(spec: dict[str, Any], step: str) -> dict[str, Any]:
    container: dict[str, Any] = spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
    return container


def test_every_component_runs_in_its_image_as_it_is_compiled(spec: dict[str, Any], tmp_path: Path) -> None:
    contract = Contract(spec, tmp_path / "artifacts", {})
    contract.execute()
    components = {key for key, component in spec["components"].items() if "executorLabel" in component}
    assert {f"comp-{name}" for name in contract.executed} == components
    metrics = json.loads((tmp_path / "artifacts/evaluate/evaluation/metrics.json").read_text())
    assert 0 < metrics["loo-99"]["hr@10"] < 1


def test_a_parameter_that_the_image_does_not_know_fails(spec: dict[str, Any], tmp_path: Path) -> None:
    """The pipeline of a newer checkout against older images: its component hands on what their code has not."""
    executor = executor_of(spec, "download")
    before, after = "max_rejected_fraction, seed)", "max_rejected_fraction, seed, num_mirrors=2)"
    assert any(before in word for word in executor["command"])
    executor["command"] = [word.replace(before, after) for word in executor["command"]]
    with pytest.raises(ContractError, match=r"(?s)download ended with status 1 in .*num_mirrors"):
        Contract(spec, tmp_path / "artifacts", {}).execute()


def test_a_parameter_that_only_the_interface_has_fails(spec: dict[str, Any], tmp_path: Path) -> None:
    """The image's component takes a parameter that the pipeline does not pass."""
    del spec["root"]["dag"]["tasks"]["download"]["inputs"]["parameters"]["seed"]
    with pytest.raises(ContractError, match=r"(?s)download ended with status 1.*seed"):
        Contract(spec, tmp_path / "artifacts", {}).execute()


def test_a_step_that_leaves_an_output_out_fails(spec: dict[str, Any], tmp_path: Path) -> None:
    executor = executor_of(spec, "download")
    executor["command"] = [word.replace("run(DownloadConfig(", "print((") for word in executor["command"]]
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
