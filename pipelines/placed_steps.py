"""Gives the steps what their placement says: images, machines, retries, places. The components stay as they are."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from components.ncf.errors import InputError
from pipelines.placement import Placement
from pipelines.presets import DEFAULTS, Parameters
from pipelines.step_resources import RESOURCES, STANDARD, WAITING, Resources

_DIGITS_OF_RUN = 16
_STEPS_BEFORE_TRAIN = ("download", "generate", "train")


def placed_component(placement: Placement, step: str, component: Any) -> Any:
    """Returns what runs the step: its component, or a custom job of Vertex AI made from it."""
    if step == "train" and placement.is_vertex:
        from pipelines.custom_job import as_custom_job

        return as_custom_job(component, placement, image_of(placement, step, component))
    return component


def configure_task(placement: Placement, step: str, task: Any) -> None:
    """Sets the image, the resources and the retries of one step of the DAG."""
    if placement.target == "local":
        return  # runs where it is compiled, which has what it has
    resources = resources_of(placement, step)
    task.set_retry(resources.num_retries, backoff_duration="60s", backoff_factor=2.0, backoff_max_duration="900s")
    if step == "train" and placement.is_vertex:
        return  # the task itself only starts the job and waits for it
    task.set_container_image(image_of(placement, step, task))
    task.set_cpu_limit(resources.cpu_limit).set_memory_limit(resources.memory_limit)
    if not placement.is_vertex:
        # Vertex AI gives each step a machine of its own.
        task.set_cpu_request(resources.cpu_request).set_memory_request(resources.memory_request)
    if step == "train" and placement.pool is not None and placement.pool.chief.has_gpu:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(placement.pool.chief.accelerator_count)


def resources_of(placement: Placement, step: str) -> Resources:
    """Returns what the container of a step may use."""
    if step in placement.resources:
        return placement.resources[step]
    if step == "generate" and placement.dataflow:
        return WAITING
    return RESOURCES.get(step, STANDARD)


def image_of(placement: Placement, step: str, component: Any) -> str:
    """Returns the reference of a step's image, by its digest where the placement has one.

    Args:
        placement: Where it will run.
        step: The step.
        component: Its component or task, whose own image names registry and tag.
    """
    reference = component.component_spec.implementation.container.image
    repository, _, _ = reference.partition("@")
    folder, slash, name = repository.rpartition("/")
    name, _, tag = name.partition(":")
    if step == "train":
        name = placement.train_image
    digest = placement.image_digests.get(name)
    if digest is None or "@" not in digest:
        _check_reference(reference)
    if digest is None:
        return f"{folder}{slash}{name}:{tag}" if tag else reference
    return digest if "@" in digest else f"{folder}{slash}{name}@{digest}"


def _check_reference(reference: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9]\S*", reference):
        raise InputError(
            f"{reference!r} is no image's name: correct NEUMF_IMAGE_REGISTRY, as REGION-docker.pkg.dev/PROJECT/"
            "REPOSITORY, or NEUMF_IMAGE_TAG."
        )


def check_digests(placement: Placement, components: Mapping[str, Any]) -> None:
    """Refuses digests for some of the images alone: the others' tags may name no image at all.

    Raises:
        InputError: A step's image has none.
    """
    for step, component in components.items() if placement.image_digests else ():
        reference = image_of(placement, step, component)
        if "@" not in reference:
            name = reference.rpartition("/")[2].partition(":")[0]
            raise InputError(
                f"The step {step} runs in the image {name}, which has no digest while others have: add "
                f"--image-digest {name}=sha256:…, or a line for it in --image-digests-file."
            )


def placed_parameters(placement: Placement, parameters: Mapping[str, Mapping[str, Any]]) -> Parameters:
    """Returns the parameters with what the placement decides: the strategy, the place of the checkpoints, Dataflow.

    What somebody has chosen stays.

    Raises:
        InputError: A choice does not fit the placement.
    """
    placed = {step: dict(values) for step, values in parameters.items()}
    train = placed["train"]
    if placement.pool is not None and train["strategy"] == "auto":
        train["strategy"] = placement.pool.strategy or "auto"
    if placement.dataflow:
        _refuse_other_beam(placement, placed["generate"])
        placed["generate"].update(beam_runner="dataflow", beam_options=list(placement.dataflow))
    if placement.checkpoint_root is not None and train["checkpoint_dir"]:
        raise InputError(
            f"--checkpoint-root {placement.checkpoint_root} and train.checkpoint_dir={train['checkpoint_dir']} both "
            "say where checkpoints go: leave one out."
        )
    if placement.checkpoint_root is not None:
        train["checkpoint_dir"] = _checkpoint_dir(placement.checkpoint_root, placed)
    return placed


def _refuse_other_beam(placement: Placement, generate: Mapping[str, Any]) -> None:
    """Refuses a runner, or options of one, that somebody chose beside Dataflow; the presets' own give way to it."""
    fitting = {
        "beam_runner": (DEFAULTS["generate"]["beam_runner"], "dataflow"),
        "beam_options": (DEFAULTS["generate"]["beam_options"], [], list(placement.dataflow)),
    }
    for name, values in fitting.items():
        if generate[name] not in values:
            raise InputError(
                f"--dataflow and generate.{name}={generate[name]} both say how Beam runs generate: leave one out."
            )


def _checkpoint_dir(root: str, parameters: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a folder for all runs that train the same, so that a new one resumes what another left.

    Its name depends on the parameters alone: with the job's name in it, no training would be taken from the cache.
    Vertex AI shows buckets to every container below /gcs.
    """
    what_is_trained = {step: parameters[step] for step in _STEPS_BEFORE_TRAIN}
    text = json.dumps(what_is_trained, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS_OF_RUN]
    return f"/gcs/{root.removeprefix('gs://').rstrip('/')}/{name}"
