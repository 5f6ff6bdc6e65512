"""What Vertex AI would refuse about machines, found before they are asked for."""

from collections.abc import Iterator

from pipelines.findings import Finding, error, unchecked, warning
from pipelines.machines import (
    ACCELERATORS,
    CHECKED,
    CPU_MACHINES,
    FLEX_START_GPUS,
    GPU_COUNTS,
    REGIONS_CHECKED,
    SOURCES,
    TPU_CORES,
    TPU_TOPOLOGIES,
    TPU_V5E,
)
from pipelines.placement import Placement
from pipelines.regions import region_mistake
from pipelines.worker_pools import POOLS, Machine, WorkerPool


def check_machines(placement: Placement, region: str | None) -> Iterator[Finding]:
    """Yields what is wrong with the machines of a placement, and with where they are asked for."""
    if not placement.is_vertex:
        return
    if region is not None:
        mistake = region_mistake(region)
        if mistake:
            yield error("region", mistake)
    pool = placement.pool
    if pool is None:
        yield unchecked("machines", "they follow from the pool: correct that first.")
        return
    for role, machine in _machines(pool):
        yield from _check_machine(role, machine)
        if region is not None:
            yield from _check_region(role, machine, region)
    yield from _check_replicas(pool)
    yield from _check_scheduling(placement, pool)


def accelerator_of(machine: Machine) -> str:
    """Returns the key of `ACCELERATORS` for a machine; empty if it has none."""
    return TPU_V5E if machine.tpu_topology else machine.accelerator_type


def _machines(pool: WorkerPool) -> Iterator[tuple[str, Machine]]:
    yield "chief", pool.chief
    if pool.parameter_server is not None:
        yield "parameter server", pool.parameter_server
    if pool.reduction_server is not None:
        yield "reduction server", pool.reduction_server


def _check_machine(role: str, machine: Machine) -> Iterator[Finding]:
    name = machine.machine_type
    if name in TPU_TOPOLOGIES:
        yield from _check_tpu_v5e(role, machine)
    elif machine.tpu_topology:
        yield error(role, f"{name} takes no tpu_topology {machine.tpu_topology}: leave it out.")
    elif name == "cloud-tpu" or machine.accelerator_type.startswith("TPU_"):
        yield from _check_older_tpu(role, machine)
    elif machine.accelerator_type:
        yield from _check_gpu(role, machine)
    elif any(machine_type == name for machine_type, _ in GPU_COUNTS) and not name.startswith("n1-"):
        gpus = [gpu for machine_type, gpu in GPU_COUNTS if machine_type == name]
        yield error(role, f"{name} comes with a GPU that must be named: set accelerator_type to {gpus[0]}.")
    elif name not in CPU_MACHINES:
        yield warning(
            role,
            f"{name} is not among the machine types known on {CHECKED}: use n2-standard-16, say, or look it up in "
            f"{SOURCES['machines']}.",
        )


def _check_tpu_v5e(role: str, machine: Machine) -> Iterator[Finding]:
    name, expected = machine.machine_type, TPU_TOPOLOGIES[machine.machine_type]
    if machine.accelerator_type or machine.accelerator_count:
        yield error(role, f"{name} takes no accelerator_type or accelerator_count: leave both out.")
    if not machine.tpu_topology:
        yield error(role, f"{name} needs a tpu_topology: set it to {expected}.")
    elif machine.tpu_topology != expected:
        fitting = [other for other, topology in TPU_TOPOLOGIES.items() if topology == machine.tpu_topology]
        hint = f", or use {fitting[0]}" if fitting else ""
        yield error(
            role,
            f"the topology {machine.tpu_topology} is not that of one {name}, which has {expected}: set it to "
            f"{expected}{hint}; several machines with one TPU are beyond this project.",
        )


def _check_older_tpu(role: str, machine: Machine) -> Iterator[Finding]:
    if machine.accelerator_type not in TPU_CORES:
        yield error(
            role,
            f"the accelerator {machine.accelerator_type or 'none'} of cloud-tpu is not one that TensorFlow trains on "
            f"with Vertex AI: use {' or '.join(TPU_CORES)}, or a ct5lp-hightpu machine with a topology.",
        )
        return
    if machine.machine_type != "cloud-tpu":
        yield error(role, f"{machine.accelerator_type} needs the machine type cloud-tpu, not {machine.machine_type}.")
    cores = TPU_CORES[machine.accelerator_type]
    if machine.accelerator_count != cores:
        yield error(
            role, f"{machine.accelerator_count} cores of {machine.accelerator_type} are not to be had: use {cores}."
        )


def _check_gpu(role: str, machine: Machine) -> Iterator[Finding]:
    counts = GPU_COUNTS.get((machine.machine_type, machine.accelerator_type))
    if counts is None:
        types = [name for name, gpu in GPU_COUNTS if gpu == machine.accelerator_type]
        gpus = [gpu for name, gpu in GPU_COUNTS if name == machine.machine_type]
        if not types and not gpus:
            yield warning(
                role,
                f"{machine.machine_type} with {machine.accelerator_type} is not known on {CHECKED}: look it up in "
                f"{SOURCES['machines']}.",
            )
            return
        hints = [f"{machine.accelerator_type} goes with {', '.join(types)}"] if types else []
        hints += [f"{machine.machine_type} takes {', '.join(dict.fromkeys(gpus))}"] if gpus else []
        yield error(
            role, f"{machine.machine_type} does not take {machine.accelerator_type}: {'; '.join(hints)}: change one."
        )
    elif machine.accelerator_count not in counts:
        numbers = " or ".join(map(str, counts))
        yield error(
            role,
            f"{machine.machine_type} takes {numbers} {machine.accelerator_type}, not {machine.accelerator_count}: "
            "change accelerator_count.",
        )


def _check_region(role: str, machine: Machine, region: str) -> Iterator[Finding]:
    name = accelerator_of(machine)
    known = ACCELERATORS.get(name)
    if known is None or region in known.regions:
        return
    yield warning(
        role,
        f"{name} is not known on {REGIONS_CHECKED} to be in {region}: use {', '.join(known.regions)}, where "
        f"{known.source} has it and Vertex AI may, or look it up in "
        f"{SOURCES['tpu' if machine.is_tpu else 'regions']}.",
    )


def _check_replicas(pool: WorkerPool) -> Iterator[Finding]:
    if pool.chief.is_tpu and pool.num_machines > 1:
        yield error("workers", f"a job with a TPU has one replica, not {pool.num_machines}: set num_workers to 0.")
    if pool.num_reduction_servers and not (pool.chief.has_gpu and pool.num_workers):
        yield error("reduction server", "it sums for several machines with GPUs: leave it out.")
    if pool.num_reduction_servers:
        yield warning(
            "reduction server",
            f"the {pool.num_reduction_servers} machines only cost unless the image train-gpu has Google's package "
            "google-reduction-server, which this project's is built without: name an image with it by --image-digest "
            f"train-gpu=REFERENCE@sha256:…, or use {_without_reduction_servers(pool)}.",
        )


def _without_reduction_servers(pool: WorkerPool) -> str:
    alike = [p.name for p in POOLS.values() if (p.chief, p.num_workers) == (pool.chief, pool.num_workers)]
    return next((f"the pool {name}" for name in alike if not POOLS[name].num_reduction_servers), "a pool without")


def _check_scheduling(placement: Placement, pool: WorkerPool) -> Iterator[Finding]:
    if placement.strategy == "flex-start":
        if accelerator_of(pool.chief) not in FLEX_START_GPUS:
            yield error(
                "scheduling",
                f"--flex-start finds {', '.join(FLEX_START_GPUS)}, and the pool {pool.name} has "
                f"{accelerator_of(pool.chief) or 'no accelerator'}: leave it out or choose another pool (see "
                f"{SOURCES['flex-start']}).",
            )
        if pool.num_parameter_servers or pool.num_reduction_servers:
            yield error("scheduling", "--flex-start needs all machines to be alike: use a pool without servers.")
