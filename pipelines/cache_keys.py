"""Which steps of a compiled pipeline a backend will run and which it will take from its cache.

The key is the one of Kubeflow Pipelines: SHA-256 over the image, the command, the parameters, the outputs and the names
of the input artifacts. Those names are given out by the backend; here the producing step's own key stands for them, so
that a key changes exactly when the step, or a step before it, will run again. Vertex keeps its key to itself and
documents the same ingredients.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from typing import Any

from components.ncf.errors import InputError
from pipelines.worker_pools import REDUCTION_SERVER_IMAGE

Spec = Mapping[str, Any]

# Google's own, which compute no result: the one asks Vertex AI for a job, the other passes sums of gradients on.
_WITHOUT_RESULT = ("gcr.io/ml-pipeline/google-cloud-pipeline-components:", REDUCTION_SERVER_IMAGE)

# What the JSON encoder of Go writes instead of characters that mean something in HTML and JavaScript.
_GO_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class StepKey:
    """What decides whether one step runs.

    Attributes:
        step: The task's name, behind the names of the conditions that it is in, as in "condition-1/publish".
        key: 64 hexadecimal digits.
        images: The images that it runs, its own first.
        parameters: Its parameters, the pipeline's already filled in.
        upstream: The steps whose artifacts or parameters it reads.
        is_cached: Whether the backend may take its result from the cache.
    """

    step: str
    key: str
    images: tuple[str, ...]
    parameters: Mapping[str, Any]
    upstream: tuple[str, ...]
    is_cached: bool


@dataclass(frozen=True)
class Change:
    """Why a step runs again: sentences such as "parameter num_epochs: 5 -> 6"; none for a step that does not."""

    step: str
    reasons: tuple[str, ...]


def step_keys(spec: Spec, values: Mapping[str, Any]) -> list[StepKey]:
    """Returns the keys of all steps, each after those that it depends on.

    Args:
        spec: The compiled pipeline.
        values: Parameters of the run; the others have the pipeline's defaults.
    """
    inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    given = {name: values.get(name, definition.get("defaultValue")) for name, definition in inputs.items()}
    walk = _Walk(spec)
    walk.through(spec["root"]["dag"], _Inputs(given, {}), "")
    return walk.keys


def changed_steps(before: list[StepKey], after: list[StepKey]) -> list[Change]:
    """Says for every step of `after` why it would not be taken from what `before` left in the cache."""
    known = {step.step: step for step in before}
    changes: list[Change] = []
    again: set[str] = set()
    for step in after:
        reasons = tuple(_reasons(known.get(step.step), step, again))
        if reasons:
            # A condition counts as run again when one of its steps is.
            again.update((step.step, step.step.rpartition("/")[0]))
        changes.append(Change(step.step, reasons))
    return changes


def own_images(keys: list[StepKey]) -> dict[str, str]:
    """Returns the images of the steps and one of the steps of each, without Google's own that compute no result."""
    return {image: step.step for step in keys for image in step.images if not image.startswith(_WITHOUT_RESULT)}


def unpinned_images(keys: list[StepKey]) -> dict[str, str]:
    """Returns the images that are named by a tag, which a rebuild moves without a key changing, and their steps.

    Without Google's own images that compute no result: what they make does not depend on their version.
    """
    return {image: step for image, step in own_images(keys).items() if "@sha256:" not in image}


def fingerprint(cache_key: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a key's fields, encoded as Kubeflow Pipelines' backend does.

    Args:
        cache_key: The fields by their JSON names, empty ones left out.
    """
    return hashlib.sha256(_go_json(cache_key).encode()).hexdigest()


class _Produced(str):
    """Stands for an output that a step has yet to write: "<the step's key>/<the output's name>"."""


@dataclass(frozen=True)
class _Inputs:
    parameters: Mapping[str, Any]
    artifacts: Mapping[str, _Produced]


class _Walk:
    """Goes through a compiled DAG and the DAGs within it, in the order of their dependencies."""

    def __init__(self, spec: Spec) -> None:
        self.keys: list[StepKey] = []
        self._spec = spec
        self._step_of_key: dict[str, str] = {}

    def through(self, dag: Spec, given: _Inputs, prefix: str) -> None:
        key_of_task: dict[str, str] = {}
        for name in _in_order(dag["tasks"]):
            task, step = dag["tasks"][name], f"{prefix}{name}"
            component = self._spec["components"][task["componentRef"]["name"]]
            inputs = _task_inputs(task, component, given, key_of_task)
            if "dag" in component:
                num_before = len(self.keys)
                self.through(component["dag"], inputs, f"{step}/")
                key = hashlib.sha256("".join(inner.key for inner in self.keys[num_before:]).encode()).hexdigest()
            else:
                executor = self._spec["deploymentSpec"]["executors"][component["executorLabel"]]
                self.keys.append(self._step_key(step, task, component, executor, inputs))
                key = self.keys[-1].key
            key_of_task[name] = key
            self._step_of_key[key] = step

    def _step_key(self, step: str, task: Spec, component: Spec, executor: Spec, inputs: _Inputs) -> StepKey:
        container = executor.get("container", executor)
        parameters = {name: value for name, value in inputs.parameters.items() if value is not None}
        produced = [
            value for value in (*parameters.values(), *inputs.artifacts.values()) if isinstance(value, _Produced)
        ]
        images = [str(container["image"])] if "image" in container else []
        return StepKey(
            step=step,
            key=fingerprint(_cache_key(component, container, parameters, inputs.artifacts)),
            images=tuple(dict.fromkeys([*images, *_images_within(parameters)])),
            parameters=parameters,
            upstream=tuple(dict.fromkeys(self._step_of_key[value.partition("/")[0]] for value in produced)),
            is_cached=bool(task.get("cachingOptions", {}).get("enableCache", False)),
        )


def _in_order(tasks: Spec) -> list[str]:
    order = {name: task.get("dependentTasks", ()) for name, task in tasks.items()}
    try:
        return list(TopologicalSorter(order).static_order())
    except CycleError as error:
        raise InputError(f"The tasks {', '.join(error.args[1])} wait for each other: compile again.") from error


def _task_inputs(task: Spec, component: Spec, given: _Inputs, key_of_task: Mapping[str, str]) -> _Inputs:
    definitions = component.get("inputDefinitions", {}).get("parameters", {})
    parameters = {name: d["defaultValue"] for name, d in definitions.items() if "defaultValue" in d}
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        if "componentInputParameter" in source:
            parameters[name] = given.parameters.get(source["componentInputParameter"])
        elif "taskOutputParameter" in source:
            reference = source["taskOutputParameter"]
            parameters[name] = _Produced(f"{key_of_task[reference['producerTask']]}/{reference['outputParameterKey']}")
        else:
            parameters[name] = source.get("runtimeValue", {}).get("constant")
    artifacts = {}
    for name, source in task.get("inputs", {}).get("artifacts", {}).items():
        if "taskOutputArtifact" in source:
            reference = source["taskOutputArtifact"]
            artifacts[name] = _Produced(f"{key_of_task[reference['producerTask']]}/{reference['outputArtifactKey']}")
        elif source.get("componentInputArtifact") in given.artifacts:
            artifacts[name] = given.artifacts[source["componentInputArtifact"]]
    return _Inputs(parameters, artifacts)


def _cache_key(
    component: Spec, container: Spec, parameters: Mapping[str, Any], artifacts: Mapping[str, str]
) -> dict[str, Any]:
    outputs = component.get("outputDefinitions", {})
    fields = {
        "inputArtifactNames": {name: {"artifactNames": [value]} for name, value in artifacts.items()},
        "inputParameterValues": parameters,
        "outputArtifactsSpec": {
            name: _filled({"type": definition["artifactType"], "metadata": definition.get("metadata")})
            for name, definition in outputs.get("artifacts", {}).items()
        },
        "outputParametersSpec": {name: d["parameterType"] for name, d in outputs.get("parameters", {}).items()},
        "containerSpec": _filled(
            {
                "image": container.get("image"),
                "cmdArgs": [*container.get("command", ()), *container.get("args", ())],
                "env": container.get("env"),
            }
        ),
    }
    return _filled(fields)


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    """Leaves out a message's empty fields, as protobuf does; what is inside a parameter's value stays."""
    return {name: value for name, value in fields.items() if value}


def _images_within(value: Any) -> Iterator[str]:
    """Finds the images of worker pools, which are part of a parameter's value."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in ("image_uri", "imageUri") and isinstance(inner, str):
                yield inner
            else:
                yield from _images_within(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _images_within(inner)


def _reasons(before: StepKey | None, after: StepKey, again: Collection[str]) -> Iterator[str]:
    if before is None:
        yield "new step"
        return
    if not after.is_cached:
        yield "caching is off for it"
    yield from (f"image: {image}" for image in after.images if image not in before.images)
    names = [*after.parameters, *(name for name in before.parameters if name not in after.parameters)]
    for name in names:
        old, new = before.parameters.get(name), after.parameters.get(name)
        if old != new and not _images_within_changed(old, new):
            yield f"parameter {name}: {_short(old)} -> {_short(new)}"
    yield from (f"after {step}" for step in after.upstream if step in again)


def _images_within_changed(old: Any, new: Any) -> bool:
    return bool(list(_images_within(old)) or list(_images_within(new)))


def _short(value: Any) -> str:
    # The compiler writes whole numbers as 5.0.
    text = f"{value:g}" if isinstance(value, float) else str(value)
    text = "(none)" if value in ("", None) else text
    return text if len(text) <= 60 else f"{text[:57]}..."


def _go_json(value: Any) -> str:
    """Encodes as Go's encoding/json does what it has read: sorted names, no spaces, every number a float64."""
    if isinstance(value, Mapping):
        members = sorted(value.items())
        return "{" + ",".join(f"{_go_json(name)}:{_go_json(v)}" for name, v in members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_go_json(v) for v in value) + "]"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return _go_number(float(value))
    text = json.dumps(str(value), ensure_ascii=False)
    return "".join(_GO_ESCAPES.get(character, character) for character in text)


def _go_number(value: float) -> str:
    if not math.isfinite(value):
        return json.dumps(value)  # which no backend takes: the checks of parameters refuse it
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(text), "f")
    mantissa, _, exponent = f"{Decimal(text).normalize():e}".partition("e")
    return f"{mantissa}e{int(exponent):+d}" if int(exponent) >= 0 else f"{mantissa}e{int(exponent)}"
