"""Executes the training job's containers as compiled, on this machine: the command of each worker pool with its
placeholders filled in as Vertex AI's launcher does, one process a replica, each with its TF_CONFIG and CLUSTER_SPEC.

Vertex AI itself, its machines and its mount of a bucket were not there.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.parameters import resolve_parameters
from pipelines.placement import Placement
from tests.pipelines.golden_files import compiled

pytestmark = pytest.mark.slow

Run = tuple[Path, subprocess.CompletedProcess[str]]
# Vertex AI's names of the roles, by the place of the worker pool.
ROLES = (("chief", "workerpool0"), ("worker", "workerpool1"))


def executor_input(examples: Path, folder: Path, job_defaults: dict[str, Any]) -> str:
    """Returns what `{{$}}` stands for: the step's inputs, the job's own among them, and where outputs go."""
    train = {**resolve_parameters("smoke", ())["train"], "global_batch_size": 600}
    document = {
        "inputs": {
            # The step's own parameter wins where both have one of that name, as in the compiled component.
            "parameterValues": {**job_defaults, **train},
            "artifacts": {"examples": {"artifacts": [artifact("system.Dataset", examples)]}},
        },
        "outputs": {
            "artifacts": {"model": {"artifacts": [artifact("system.Model", folder / "model")]}},
            "outputFile": str(folder / "executor_output.json"),
        },
    }
    return json.dumps(document)


def artifact(kind: str, path: Path) -> dict[str, Any]:
    return {"name": path.name, "type": {"schemaTitle": kind}, "uri": str(path), "metadata": {}}


def free_address() -> str:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listening.getsockname()[1]}"


def environment(addresses: list[str], index: int, logs: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {**os.environ, "PATH": path, "AIP_TENSORBOARD_LOG_DIR": f"{logs}/"}
    if len(addresses) == 1:
        return own  # Vertex AI sets neither for one replica
    config, spec = (
        {
            "cluster": {ROLES[i][place]: [address] for i, address in enumerate(addresses)},
            "task": {"type": ROLES[index][place], "index": 0},
            "environment": "cloud",
        }
        for place in (0, 1)
    )
    return {**own, "TF_CONFIG": json.dumps(config), "CLUSTER_SPEC": json.dumps(spec)}


@pytest.mark.parametrize(("target", "num_machines"), [("vertex-gpu", 1), ("vertex-multi-gpu", 2)])
def test_the_jobs_containers_train(target: str, num_machines: int, smoke_run: Run, tmp_path: Path) -> None:
    run_dir, _ = smoke_run
    examples = Path(json.loads((run_dir / "summary.json").read_text())["artifacts"]["examples"])
    parameters = compiled(Placement.on(target), tmp_path)["components"]["comp-train"]["inputDefinitions"]["parameters"]
    defaults = {name: p["defaultValue"] for name, p in parameters.items() if "defaultValue" in p}
    specs = defaults["worker_pool_specs"]
    assert len(specs) == num_machines
    filled_in = executor_input(examples, tmp_path, defaults)
    addresses = [free_address() for _ in specs]
    processes = []
    for index, spec in enumerate(specs):
        container = spec["container_spec"]
        words = [*container["command"], *container["args"]]
        command = [word.replace("{{$.json_escape[1]}}", filled_in) for word in words]
        assert command != words
        with (tmp_path / f"{index}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    command, env=environment(addresses, index, tmp_path / "logs"), stdout=log, stderr=log, cwd=tmp_path
                )
            )
    statuses = [process.wait(240) for process in processes]
    logs = "\n".join((tmp_path / f"{index}.log").read_text() for index in range(num_machines))
    assert statuses == [0] * num_machines, logs
    training = json.loads((tmp_path / "model/training.json").read_text())
    assert training["num_replicas"] == num_machines
    assert (tmp_path / "model/manifest.json").is_file()
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["neumf"]
    assert len(list((tmp_path / "logs/neumf").iterdir())) == 1, "the chief alone writes TensorBoard's files"
    output = json.loads((tmp_path / "executor_output.json").read_text())
    assert output["artifacts"]["model"]["artifacts"][0]["uri"] == str(tmp_path / "model")
