"""Makes a custom job of Vertex AI, with worker pools, from a component."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from components.ncf.errors import InputError
from pipelines.placement import Placement
from pipelines.worker_pools import POOLS, REDUCTION_SERVER_IMAGE, Machine, WorkerPool

_DISK_GB = 100  # as Google's own helper
_DAY_S = 24 * 3600
_LONGEST_S = 7 * _DAY_S
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}")
# Of this very task: Vertex AI shows all that it finds below logs/ as this job's.
_JOB_FOLDER = "{{$.pipeline_root}}/{{$.pipeline_job_uuid}}-{{$.pipeline_task_uuid}}"
_STRATEGIES = {"standard": "STANDARD", "spot": "SPOT", "flex-start": "FLEX_START"}


def as_custom_job(component: Any, placement: Placement, image: str) -> Any:
    """Returns a component with the same inputs and outputs that runs as a custom job.

    Google's own helper does this for pools that are all alike, without the topology of a TPU. What it makes is taken
    and its worker pools replaced: the step's command, whose placeholders Vertex AI fills in, stays the helper's.

    Args:
        component: The step's.
        placement: A target of Vertex AI, with its pool.
        image: The step's image for that pool.
    """
    import yaml
    from google.protobuf import json_format
    from google_cloud_pipeline_components.v1.custom_job import create_custom_training_job_from_component
    from kfp.components import load_component_from_text

    pool = placement.pool
    assert pool is not None
    helped = create_custom_training_job_from_component(
        component,
        restart_job_on_worker_restart=True,  # and train goes on from its last checkpoint
        strategy=_STRATEGIES[placement.strategy],
        timeout=f"{placement.timeout_h * 3600 if placement.timeout_h else _LONGEST_S}s",
        max_wait_duration=f"{_DAY_S if placement.max_wait_h is None else placement.max_wait_h * 3600}s",
        service_account=placement.service_account or "",
        network=placement.network or "",
        encryption_spec_key_name=placement.encryption_key or "",
        tensorboard=placement.tensorboard or "",
        labels=dict(placement.labels),
    )
    spec = json_format.MessageToDict(helped.pipeline_spec)
    values = {"strategy": _STRATEGIES[placement.strategy]}
    if placement.tensorboard:
        values["base_output_directory"] = _JOB_FOLDER
    _write_into_payload(spec, component, values)
    (inner,) = spec["components"].values()
    # The same list stands twice: as the component's own default and as that of the pipeline around it.
    for definitions in (inner["inputDefinitions"], spec["root"]["inputDefinitions"]):
        pools = definitions["parameters"]["worker_pool_specs"]
        pools["defaultValue"] = _worker_pool_specs(pools["defaultValue"][0]["container_spec"], pool, image)
    made = load_component_from_text(yaml.safe_dump(spec))
    # kfp names the task after the component inside.
    made.component_spec.name = component.component_spec.name
    made.description = component.description
    return made


def pool_of_specs(specs: Any) -> WorkerPool:
    """Returns the pool that a compiled custom job's list stands for, one of `POOLS` if it is that.

    Args:
        specs: What `as_custom_job` wrote.

    Raises:
        InputError: It is not such a list.
    """
    try:
        chief, *others = [(_machine(spec), int(spec["replica_count"]), _image(spec)) for spec in specs]
        servers = {_kind_of_server(image): (machine, count) for machine, count, image in others[1:]}
        parameter, reduction = (servers.get(kind, (None, 0)) for kind in ("parameter", "reduction"))
        num_workers = others[0][1] if others else 0
        image = chief[2].rpartition("/")[2].partition("@")[0].partition(":")[0]
        pool = WorkerPool("of the template", "as compiled", image, chief[0], num_workers, *parameter, *reduction)
    except (TypeError, ValueError, KeyError, AttributeError) as problem:
        raise InputError(
            f"The worker pools of train cannot be read ({type(problem).__name__}: {problem}): compile the pipeline "
            "again."
        ) from problem
    if chief[1] != 1 or any(machine != chief[0] for machine, _, _ in others[:1]):
        raise InputError(
            "The worker pools of train are not one chief and workers with the same machine: compile the pipeline again."
        )
    alike = (replace(known, name=pool.name, description=pool.description, image=image) for known in POOLS.values())
    return next((known for known, like in zip(POOLS.values(), alike, strict=True) if like == pool), pool)


def strategy_of_payload(arguments: Sequence[str]) -> str:
    """Returns the strategy of a compiled custom job, a name of `STRATEGIES` of placements.

    Args:
        arguments: Of the container that starts it.
    """
    found = re.search(r'"strategy": "(\w+)"', " ".join(arguments))
    names = {value: name for name, value in _STRATEGIES.items()}
    return names.get(found.group(1), "standard") if found else "standard"


def _machine(spec: Mapping[str, Any]) -> Machine:
    # What somebody added that we do not write, as a reservation, is Vertex AI's to judge.
    given = {name: spec["machine_spec"].get(name) or "" for name in Machine.__dataclass_fields__}
    # The compiler writes numbers with a decimal point.
    count = int(given.pop("accelerator_count") or 0)
    return Machine(**{name: str(value) for name, value in given.items()}, accelerator_count=count)


def _image(spec: Mapping[str, Any]) -> str:
    return str(spec["container_spec"]["image_uri"])


def _kind_of_server(image: str) -> str:
    return "reduction" if image == REDUCTION_SERVER_IMAGE else "parameter"


def _write_into_payload(spec: dict[str, Any], component: Any, values: dict[str, str]) -> None:
    """Writes values into the job's payload, in the place of the parameters that the helper reads there.

    Two kinds need that. What the job and the step call the same: both have a `strategy`, how machines are found and how
    training is spread, and the job would ask Vertex AI for the strategy "auto". And what differs from run to run: as a
    parameter it would keep training from ever being taken from the cache.

    Raises:
        AssertionError: The component has gained a parameter that a custom job has too: give it another name.
    """
    own = set(component.component_spec.inputs)
    (executor,) = spec["deploymentSpec"]["executors"].values()
    arguments = executor["container"]["args"]
    for index, argument in enumerate(arguments):
        for name in _PLACEHOLDER.findall(argument):
            assert name not in own or name in values, f"{name} is a parameter of both {component.name} and a custom job"
            if name in values:
                placeholder = f"{{{{$.inputs.parameters['{name}']}}}}"
                arguments[index] = arguments[index].replace(placeholder, values[name])


def _worker_pool_specs(container: dict[str, Any], pool: WorkerPool, image: str) -> list[dict[str, Any]]:
    """Returns Vertex AI's list, in which the place is the role: chief, workers, servers."""
    step = {**container, "image_uri": image}
    specs = [_spec(pool.chief, 1, step)]
    if pool.num_workers:
        specs.append(_spec(pool.chief, pool.num_workers, step))
    if pool.parameter_server:
        specs.append(_spec(pool.parameter_server, pool.num_parameter_servers, step))
    if pool.reduction_server:
        specs.append(_spec(pool.reduction_server, pool.num_reduction_servers, {"image_uri": REDUCTION_SERVER_IMAGE}))
    return specs


def _spec(machine: Machine, count: int, container: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine_spec": machine.spec(),
        "replica_count": count,
        "disk_spec": {"boot_disk_type": "pd-ssd", "boot_disk_size_gb": _DISK_GB},
        "container_spec": container,
    }
