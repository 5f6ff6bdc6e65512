"""A compiled pipeline, read back: what it was compiled for, where it would run and with which parameters."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from components.ncf.errors import InputError
from pipelines.cache_keys import step_keys
from pipelines.findings import Mistakes
from pipelines.parameters import is_of_type, name_of_type, resolve_parameters
from pipelines.placement import Placement, fitting_placement
from pipelines.presets import DEFAULT_PRESET, Parameters
from pipelines.step_resources import RESOURCES, Resources
from pipelines.worker_pools import Machine, WorkerPool

Spec = Mapping[str, Any]

# The same in C, ten times as fast, where PyYAML was built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# How a compiled pipeline calls the types of its parameters.
_TYPES: Mapping[str, type] = {
    "STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "BOOLEAN": bool, "LIST": list, "STRUCT": dict,
}  # fmt: skip


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Says of what is laid out as no compiler does it that it cannot be read.

    Raises:
        InputError: It is.
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise InputError(
            f"{what} cannot be read ({type(problem).__name__}: {problem}): compile the pipeline again."
        ) from problem


def open_template(file: Path, preset: str) -> Spec:
    """Returns the pipeline that somebody names with --template.

    Raises:
        InputError: There is none, or a preset is named beside it.
    """
    if preset != DEFAULT_PRESET:
        raise InputError(f"--preset {preset} is of no use with --template: compile the preset into it.")
    if file.is_dir():
        raise InputError(f"--template {file} is a folder: name the file in it that `neumf compile` wrote.")
    if not file.is_file():
        raise InputError(f"--template {file} does not exist: `neumf compile` writes it.")
    return load_template(file)


def load_template(file: Path) -> Spec:
    """Returns the pipeline that a file holds.

    Raises:
        InputError: It cannot be read, or is no compiled pipeline, or not a whole one.
    """
    try:
        spec: Any = next(yaml.load_all(file.read_text(encoding="utf-8"), _LOADER), None)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{file} cannot be read ({type(error).__name__}): compile the pipeline again.") from error
    root, deployment = (spec.get(name) if isinstance(spec, dict) else None for name in ("root", "deploymentSpec"))
    if not (isinstance(root, dict) and "dag" in root and isinstance(deployment, dict) and "executors" in deployment):
        raise InputError(f"{file} is no compiled pipeline: `neumf compile` writes one.")
    checked: Spec = spec
    with _reading(str(file)):
        step_keys(checked, {})
    return checked


@_reading("What the template says of train")
def target_of(spec: Spec) -> str | None:
    """Returns the target that a pipeline was compiled for; None where it is none that `neumf compile` writes.

    The steps tell: on Vertex AI train is a custom job, for Kubeflow containers have requests, and on this machine they
    have no resources at all.

    Raises:
        InputError: The worker pools of train are not what `neumf compile` writes.
    """
    from pipelines.neumf import COMPONENTS

    pool = pool_of_template(spec)
    if pool is not None:  # earlier versions had fewer steps
        gpu = "vertex-gpu" if pool.num_replicas == 1 else "vertex-multi-gpu"
        return "vertex-tpu" if pool.chief.is_tpu else gpu if pool.chief.has_gpu else "vertex-cpu"
    if not {f"comp-{step}" for step in COMPONENTS} <= set(spec.get("components", ())):
        return None
    resources = [container_of(spec, step).get("resources", {}) for step in COMPONENTS]
    if any("memoryRequest" in amounts for amounts in resources):
        return "kfp"
    return None if any(resources) else "local"


@_reading("What the template says of train")
def check_target(file: Path, spec: Spec, backend: str) -> None:
    """Refuses a pipeline that was compiled for another place than the backend.

    Raises:
        InputError: It was; the sentence has the command that compiles it for the backend.
    """
    if backend == "vertex" and "worker_pool_specs" in _inputs_of_train(spec):
        return  # also with pools that are not ours
    target = target_of(spec)
    if target is None or target == backend:
        return
    fitting = "kfp"
    if backend == "vertex":
        fitting = "vertex-gpu" if "accelerator" in container_of(spec, "train").get("resources", {}) else "vertex-cpu"
    trains = {"kfp": "in one pod", "local": "on this machine"}.get(target, "as a custom job of Vertex AI")
    raise InputError(
        f"--template {file} was compiled for --target {target}, where train runs {trains}: `neumf compile --target "
        f"{fitting} --output {fitting}.yaml`, with the options that it was compiled with, makes one for --backend "
        f"{backend}."
    )


def pool_of_template(spec: Spec) -> WorkerPool | None:
    """Returns the pool of the custom job that train is; None where it is a plain container.

    Raises:
        InputError: The worker pools are not what `neumf compile` writes.
    """
    inputs = _inputs_of_train(spec)
    if "worker_pool_specs" not in inputs:
        return None
    from pipelines.custom_job import pool_of_specs

    return pool_of_specs(inputs["worker_pool_specs"])


def container_of(spec: Spec, step: str) -> Mapping[str, Any]:
    """Returns the container that a step's task starts."""
    label = spec["components"][f"comp-{step}"].get("executorLabel", "")
    container: Mapping[str, Any] = spec["deploymentSpec"]["executors"].get(label, {}).get("container", {})
    return container


@_reading("What the template says of train")
def placement_of(spec: Spec, mistakes: Mistakes) -> Placement | None:
    """Returns where a compiled pipeline would run; None where it is none that `neumf compile` writes.

    Without its images, which `cache_keys.own_images` returns, and without the root of checkpoints and Dataflow's
    options, which are parameters once they are compiled. What does not fit is left out and noted.

    Raises:
        InputError: The worker pools cannot be read; or something does not fit, and mistakes are not noted.
    """
    target = target_of(spec)
    if target is None:
        return None
    from pipelines.custom_job import strategy_of_payload

    container, pool = container_of(spec, "train"), pool_of_template(spec)
    job = _inputs_of_train(spec) if pool else {}
    compiled: dict[str, Any] = {
        "pool": pool or _pool_of_pod(container),
        "strategy": strategy_of_payload(container.get("args", ())) if pool else "standard",
        "service_account": job.get("service_account") or None,
        "network": job.get("network") or None,
        "tensorboard": job.get("tensorboard") or None,
        "encryption_key": job.get("encryption_spec_key_name") or None,
        "labels": job.get("labels") or {},
        "resources": {"train": _resources_of(container)} if target == "kfp" else {},
    }
    return fitting_placement(mistakes, **{**vars(Placement.on(target)), **compiled})


def parameters_of(spec: Spec, overrides: Iterable[str]) -> tuple[Parameters, dict[str, Any]]:
    """Returns the parameters of a run of a compiled pipeline.

    Args:
        spec: The compiled pipeline.
        overrides: Texts "step.parameter=value".

    Returns:
        Every parameter of every step, what the pipeline lacks as the presets have it; and by the pipeline's own names
        what the overrides change.

    Raises:
        InputError: An override is unknown or of a wrong type.
    """
    from pipelines.neumf import pipeline_parameter, step_parameters

    named = [tuple(override.partition("=")[0].strip().split(".")) for override in overrides]
    changes = resolve_parameters(DEFAULT_PRESET, overrides)
    parameters = resolve_parameters(DEFAULT_PRESET, ())
    compiled = _declared(spec)
    for step, values in parameters.items():
        kinds = step_parameters(step)
        for name in values:
            default = compiled.get(pipeline_parameter(step, name), {}).get("defaultValue")
            if default is not None:
                values[name] = _whole(default, kinds.get(name))
    for step, name in named:
        parameters[step][name] = changes[step][name]
    return parameters, {pipeline_parameter(step, name): changes[step][name] for step, name in named}


def value_mistakes(file: Path, spec: Spec, values: Mapping[str, Any]) -> Iterator[str]:
    """Yields a sentence for each value that a compiled pipeline does not take."""
    declared = _declared(spec)
    for name, value in values.items():
        kind = _TYPES.get(declared.get(name, {}).get("parameterType", ""))
        if name not in declared:
            yield f"--template lacks the parameter {name}: compile it again, or leave the parameter out."
        elif kind is not None and not is_of_type(value, kind):
            yield f"{name} of {file} is a {name_of_type(kind)}, and {value!r} was given: compile it again."


def _inputs_of_train(spec: Spec) -> dict[str, Any]:
    inputs = spec.get("components", {}).get("comp-train", {}).get("inputDefinitions", {}).get("parameters", {})
    return {name: definition.get("defaultValue") for name, definition in inputs.items()}


def _declared(spec: Spec) -> Mapping[str, Any]:
    declared: Mapping[str, Any] = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    return declared


def _whole(value: Any, kind: Any) -> Any:
    """Returns a value with whole numbers where they are meant: the compiler writes them with a decimal point."""
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list) and getattr(kind, "__args__", None):
        return [_whole(element, kind.__args__[0]) for element in value]
    return value


def _pool_of_pod(container: Mapping[str, Any]) -> WorkerPool | None:
    """Returns what stands for a pod's GPUs, of which the number alone is compiled; None without GPUs."""
    gpus = container.get("resources", {}).get("accelerator")
    if not gpus:
        return None
    kind, count = (gpus.get(f"resource{name.title()}") or gpus.get(name) for name in ("type", "count"))
    return WorkerPool("of the template", "a pod with GPUs", "train-gpu", Machine("", str(kind), int(count)))


def _resources_of(container: Mapping[str, Any]) -> Resources:
    amounts, own = container.get("resources", {}), RESOURCES["train"]
    return replace(
        own,
        memory_limit=str(amounts.get("resourceMemoryLimit", own.memory_limit)),
        memory_request=str(amounts.get("resourceMemoryRequest", own.memory_request)),
    )
