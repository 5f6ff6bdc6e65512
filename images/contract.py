"""Executes what a compiled pipeline says, step by step, in the images: each component's command with real artifacts.

    python -m images.contract PIPELINE.yaml FOLDER [TASK=IMAGE…]

A parameter that the pipeline passes and an image does not know ends it here, before anything is published. Steps behind
a condition are executed too. TASK=IMAGE runs one step in another image than the pipeline names; TASK= leaves it out.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import docker
import yaml

from images.engine import ended_container, log_of

Spec = Mapping[str, Any]
_LINES_SHOWN = 30
# It writes to a registry of Google Cloud. Its image's own tests, against a server of that protocol, stand in for it.
_NOT_HERE = ("publish",)


class ContractError(Exception):
    """A step does not run in its image as the pipeline has it."""


@dataclass
class Values:
    """What the tasks of one DAG have: parameters by name, artifacts as KFP writes them."""

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)


class Contract:
    """One execution.

    Args:
        spec: The compiled pipeline.
        folder: An empty folder for the artifacts, absolute.
        images: Images to use in the place of those that the pipeline names, by task; empty to leave the task out.
    """

    def __init__(self, spec: Spec, folder: Path, images: Mapping[str, str]) -> None:
        self._spec = spec
        self._folder = folder
        self._images = images
        self._engine = docker.from_env(timeout=600)
        self.executed: list[str] = []

    def execute(self) -> None:
        """Runs every task.

        Raises:
            ContractError: One fails, or leaves an output out.
        """
        defaults = self._spec["root"].get("inputDefinitions", {}).get("parameters", {})
        given = Values({name: definition["defaultValue"] for name, definition in defaults.items()})
        self._run_dag(self._spec["root"]["dag"], given)

    def _run_dag(self, dag: Spec, given: Values) -> Values:
        outputs: dict[str, Values] = {}
        order = {name: task.get("dependentTasks", ()) for name, task in dag["tasks"].items()}
        for name in TopologicalSorter(order).static_order():
            if self._images.get(name) == "":
                continue
            task = dag["tasks"][name]
            component = self._spec["components"][task["componentRef"]["name"]]
            inputs = _resolve(task.get("inputs", {}), given, outputs)
            if "dag" in component:
                outputs[name] = self._run_dag(component["dag"], inputs)
            elif name not in _NOT_HERE:
                executor = self._spec["deploymentSpec"]["executors"][component["executorLabel"]]
                outputs[name] = self._run_task(name, executor["container"], component, inputs)
        return _outputs_of(dag, outputs)

    def _run_task(self, name: str, container: Spec, component: Spec, inputs: Values) -> Values:
        folder = self._folder / name
        folder.mkdir(parents=True)
        definitions = component.get("outputDefinitions", {})
        outputs = Values(
            {key: {"outputFile": str(folder / key)} for key in definitions.get("parameters", {})},
            {
                key: _artifact(folder / key, value["artifactType"])
                for key, value in definitions.get("artifacts", {}).items()
            },
        )
        executor_output = folder / "executor_output.json"
        executor_input = json.dumps(
            {
                "inputs": {
                    "parameterValues": _as_backends_write(inputs.parameters),
                    "artifacts": _listed(inputs.artifacts),
                },
                "outputs": {
                    "parameters": outputs.parameters,
                    "artifacts": _listed(outputs.artifacts),
                    "outputFile": str(executor_output),
                },
            }
        )
        command = [
            word.replace("{{$}}", executor_input) for word in [*container["command"], *container.get("args", [])]
        ]
        self._run_container(name, self._images.get(name, container["image"]), command)
        missing = [
            str(path) for path in (executor_output, *map(_path, outputs.artifacts.values())) if not path.exists()
        ]
        if missing:
            raise ContractError(f"{name} ended well and did not write {', '.join(missing)}.")
        self.executed.append(name)
        written = json.loads(executor_output.read_text(encoding="utf-8")).get("parameterValues", {})
        return Values({key: written.get(key) for key in outputs.parameters}, outputs.artifacts)

    def _run_container(self, name: str, image: str, command: list[str]) -> None:
        """Runs a step as little trusted as it can be: not root, a read-only file system, no capabilities."""
        place = str(self._folder)
        with ended_container(
            self._engine, image, command, user=f"{os.getuid()}:{os.getgid()}", network_mode="host", read_only=True,
            tmpfs={"/tmp": ""}, cap_drop=["ALL"], volumes={place: {"bind": place, "mode": "rw"}},
        ) as (container, status):  # fmt: skip
            lines = log_of(container).splitlines()
        if status != 0:
            shown = "\n".join(lines[-_LINES_SHOWN:])
            raise ContractError(f"{name} ended with status {status} in {image}:\n{shown}")


def _resolve(inputs: Spec, given: Values, outputs: Mapping[str, Values]) -> Values:
    resolved = Values()
    for key, source in inputs.get("parameters", {}).items():
        if "componentInputParameter" in source:
            resolved.parameters[key] = given.parameters[source["componentInputParameter"]]
        elif "taskOutputParameter" in source:
            place = source["taskOutputParameter"]
            resolved.parameters[key] = outputs[place["producerTask"]].parameters[place["outputParameterKey"]]
        else:
            resolved.parameters[key] = source["runtimeValue"]["constant"]
    for key, source in inputs.get("artifacts", {}).items():
        if "componentInputArtifact" in source:
            resolved.artifacts[key] = given.artifacts[source["componentInputArtifact"]]
        else:
            place = source["taskOutputArtifact"]
            resolved.artifacts[key] = outputs[place["producerTask"]].artifacts[place["outputArtifactKey"]]
    return resolved


def _outputs_of(dag: Spec, outputs: Mapping[str, Values]) -> Values:
    found = Values()
    for key, selectors in dag.get("outputs", {}).get("artifacts", {}).items():
        for selector in selectors["artifactSelectors"]:
            found.artifacts[key] = outputs[selector["producerSubtask"]].artifacts[selector["outputArtifactKey"]]
    for key, selector in dag.get("outputs", {}).get("parameters", {}).items():
        place = selector["valueFromParameter"]
        found.parameters[key] = outputs[place["producerSubtask"]].parameters[place["outputParameterKey"]]
    return found


def _as_backends_write(value: Any) -> Any:
    """Returns a value as KFP's backends write it to a step: a whole number without a point, whatever its type."""
    if isinstance(value, Mapping):
        return {key: _as_backends_write(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_backends_write(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _artifact(path: Path, artifact_type: Spec) -> dict[str, Any]:
    return {"name": path.name, "type": artifact_type, "uri": str(path), "metadata": {}}


def _listed(artifacts: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    return {key: {"artifacts": [artifact]} for key, artifact in artifacts.items()}


def _path(artifact: Mapping[str, Any]) -> Path:
    # dsl.Metrics live in the executor's output, not in a file of their own.
    return (
        Path(artifact["uri"]).parent if artifact["type"]["schemaTitle"] == "system.Metrics" else Path(artifact["uri"])
    )


def main() -> None:
    """Runs the command line."""
    pipeline, folder = Path(sys.argv[1]), Path(sys.argv[2]).absolute()
    images = dict(word.split("=", 1) for word in sys.argv[3:])
    contract = Contract(next(iter(yaml.safe_load_all(pipeline.read_text(encoding="utf-8")))), folder, images)
    try:
        contract.execute()
    except ContractError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{', '.join(contract.executed)}: each runs in its image as {pipeline} has it\n")


if __name__ == "__main__":
    main()
