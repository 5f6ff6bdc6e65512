"""A compiled pipeline, read back: what it was compiled for, where it would run and with which parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.ncf.errors import InputError
from pipelines.worker_pools import WorkerPool

Spec = Mapping[str, Any]

# The same in C, ten times as fast, where PyYAML was built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_template(file: Path) -> Spec:
    """Returns the pipeline that a file holds.

    Raises:
        InputError: It cannot be read, or is no compiled pipeline.
    """
    try:
        spec = next(yaml.load_all(file.read_text(encoding="utf-8"), _LOADER))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, StopIteration) as error:
        raise InputError(f"{file} cannot be read ({type(error).__name__}): compile the pipeline again.") from error
    root, deployment = (spec.get(name) if isinstance(spec, dict) else None for name in ("root", "deploymentSpec"))
    if not (isinstance(root, dict) and "dag" in root and isinstance(deployment, dict) and "executors" in deployment):
        raise InputError(f"{file} is no compiled pipeline: `neumf compile` writes one.")
    checked: Spec = spec
    return checked


def target_of(spec: Spec) -> str | None:
    """Returns the target that a pipeline was compiled for; None where it is none that `neumf compile` writes.

    The steps tell: on Vertex AI train is a custom job, for Kubeflow containers have requests, and on this machine they
    have no resources at all.

    Raises:
        InputError: The worker pools of train are not what `neumf compile` writes.
    """
    from pipelines.neumf import COMPONENTS

    if not {f"comp-{step}" for step in COMPONENTS} <= set(spec.get("components", ())):
        return None
    pool = pool_of_template(spec)
    if pool is not None:
        gpu = "vertex-gpu" if pool.num_replicas == 1 else "vertex-multi-gpu"
        return "vertex-tpu" if pool.chief.is_tpu else gpu if pool.chief.has_gpu else "vertex-cpu"
    resources = [container_of(spec, step).get("resources", {}) for step in COMPONENTS]
    if any("memoryRequest" in amounts for amounts in resources):
        return "kfp"
    return None if any(resources) else "local"


def check_target(file: Path, spec: Spec, backend: str) -> None:
    """Refuses a pipeline that was compiled for another place than the backend.

    Raises:
        InputError: It was; the sentence has the command that compiles it for the backend.
    """
    target = target_of(spec)
    if target is None or target.startswith("vertex-" if backend == "vertex" else "kfp"):
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
    inputs = spec["components"]["comp-train"].get("inputDefinitions", {}).get("parameters", {})
    if "worker_pool_specs" not in inputs:
        return None
    from pipelines.custom_job import pool_of_specs

    return pool_of_specs(inputs["worker_pool_specs"].get("defaultValue"))


def container_of(spec: Spec, step: str) -> Mapping[str, Any]:
    """Returns the container that a step's task starts."""
    label = spec["components"][f"comp-{step}"].get("executorLabel", "")
    container: Mapping[str, Any] = spec["deploymentSpec"]["executors"].get(label, {}).get("container", {})
    return container
