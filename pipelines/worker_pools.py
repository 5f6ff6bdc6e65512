"""The hardware that the train step runs on, by name. A step does not know any of this."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.ncf.errors import InputError

# Google's own, as its guide to distributed training names it; the same exists below europe- and asia-docker.pkg.dev.
REDUCTION_SERVER_IMAGE = "us-docker.pkg.dev/vertex-ai-restricted/training/reductionserver:latest"


@dataclass(frozen=True)
class Machine:
    """One machine as Vertex AI describes it.

    Attributes:
        machine_type: Compute Engine's name.
        accelerator_type: Vertex AI's name; empty for none, and for a TPU v5e, whose machine type says it all.
        accelerator_count: GPUs, or cores of a TPU v2 or v3.
        tpu_topology: How the chips of a TPU v5e are laid out, as "2x2"; empty for everything else.
    """

    machine_type: str
    accelerator_type: str = ""
    accelerator_count: int = 0
    tpu_topology: str = ""

    @property
    def is_tpu(self) -> bool:
        """Whether its accelerators are TPUs."""
        return bool(self.tpu_topology) or self.accelerator_type.startswith("TPU_")

    @property
    def has_gpu(self) -> bool:
        """Whether its accelerators are GPUs."""
        return self.accelerator_type.startswith("NVIDIA_")

    @property
    def num_replicas(self) -> int:
        """Replicas of the model that train on it, as TensorFlow counts them: one a GPU or TPU core, else one.

        A TPU v5e has one core a chip, the earlier ones two, and `accelerator_count` counts those.
        """
        if self.tpu_topology:
            return topology_chips(self.tpu_topology)
        return max(1, self.accelerator_count)

    def spec(self) -> dict[str, str | int]:
        """Returns the fields of Vertex AI's MachineSpec."""
        given: dict[str, str | int] = {
            "machine_type": self.machine_type,
            "accelerator_type": self.accelerator_type,
            "accelerator_count": self.accelerator_count,
            "tpu_topology": self.tpu_topology,
        }
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True)
class WorkerPool:
    """Everything that one training runs on: a chief, and who helps it.

    Attributes:
        name: What `--pool` takes.
        description: One sentence for `neumf pools`.
        image: The image of the train step that fits the hardware.
        chief: The first machine, which writes the checkpoints and the model; all workers have the same.
        num_workers: Machines beside the chief.
        parameter_server: What keeps the variables, if train is to run with parameter servers.
        num_parameter_servers: How many.
        reduction_server: What sums gradients for the workers' NCCL.
        num_reduction_servers: How many.

    Raises:
        InputError: Roles that exclude each other.
    """

    name: str
    description: str
    image: str
    chief: Machine
    num_workers: int = 0
    parameter_server: Machine | None = None
    num_parameter_servers: int = 0
    reduction_server: Machine | None = None
    num_reduction_servers: int = 0

    def __post_init__(self) -> None:
        if self.num_parameter_servers and self.num_reduction_servers:
            raise InputError(f"The pool {self.name} has parameter and reduction servers: drop one of them.")
        for kind, machine, count in (
            ("parameter", self.parameter_server, self.num_parameter_servers),
            ("reduction", self.reduction_server, self.num_reduction_servers),
        ):
            if (machine is None) != (count == 0):
                raise InputError(f"The pool {self.name} has {count} {kind} servers and {machine or 'no machine'}.")
        if (self.num_parameter_servers or self.num_reduction_servers) and not self.num_workers:
            raise InputError(f"The pool {self.name} has servers but no workers: set num_workers to at least 1.")

    @property
    def num_machines(self) -> int:
        """All machines, servers among them."""
        return 1 + self.num_workers + self.num_parameter_servers + self.num_reduction_servers

    @property
    def num_replicas(self) -> int:
        """Replicas of the model that share a global batch."""
        if self.num_parameter_servers:
            return self.num_workers * self.chief.num_replicas  # the chief hands out work and does none
        return (1 + self.num_workers) * self.chief.num_replicas

    @property
    def strategy(self) -> str:
        """`train.strategy` where that is "auto" and the machines alone do not tell; empty where they do."""
        # Reduction servers stand where TF_CONFIG has parameter servers.
        return "multi_worker_mirrored" if self.num_reduction_servers else ""


def topology_chips(topology: str) -> int:
    """Returns how many chips a topology such as "2x4" has.

    Raises:
        InputError: It is not of that form.
    """
    parts = topology.split("x")
    if len(parts) < 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"The TPU topology {topology!r} is not of the form 2x2.")
    chips = 1
    for part in parts:
        chips *= int(part)
    return chips


def _gpu(machine_type: str, accelerator_type: str, count: int) -> Machine:
    return Machine(machine_type, accelerator_type, count)


_CPU = Machine("n2-standard-16")
_L4 = _gpu("g2-standard-12", "NVIDIA_L4", 1)
_T4 = _gpu("n1-standard-8", "NVIDIA_TESLA_T4", 1)
_A100 = _gpu("a2-highgpu-1g", "NVIDIA_TESLA_A100", 1)
_A100_8 = _gpu("a2-highgpu-8g", "NVIDIA_TESLA_A100", 8)
_H100_8 = _gpu("a3-highgpu-8g", "NVIDIA_H100_80GB", 8)
# What Google recommends for it: much bandwidth for the price.
_REDUCER = Machine("n1-highcpu-16")

POOLS: Mapping[str, WorkerPool] = {
    pool.name: pool
    for pool in (
        WorkerPool("cpu", "One machine without an accelerator.", "train", _CPU),
        WorkerPool(
            "cpu-ps",
            "Parameter servers: a chief, two workers and a server, without accelerators.",
            "train",
            _CPU,
            num_workers=2,
            parameter_server=Machine("n2-highmem-8"),
            num_parameter_servers=1,
        ),
        WorkerPool("t4", "One NVIDIA T4.", "train-gpu", _T4),
        WorkerPool("l4", "One NVIDIA L4.", "train-gpu", _L4),
        WorkerPool("l4-x2", "Two machines of one NVIDIA L4 each, in step.", "train-gpu", _L4, num_workers=1),
        WorkerPool("a100", "One NVIDIA A100 (40 GB).", "train-gpu", _A100),
        WorkerPool("a100-x8", "One machine of eight NVIDIA A100 (40 GB), in step.", "train-gpu", _A100_8),
        WorkerPool("a100-x8-x2", "Two machines of eight NVIDIA A100 (40 GB) each, in step.", "train-gpu", _A100_8, 1),
        WorkerPool(
            "a100-x8-x2-reduction",
            "The same with seven reduction servers, for an image train-gpu with Google's package for them.",
            "train-gpu",
            _A100_8,
            num_workers=1,
            reduction_server=_REDUCER,
            num_reduction_servers=7,  # of 32 Gbps each: Google asks for the workers' bandwidth, twice 100 Gbps
        ),
        WorkerPool("h100-x8", "One machine of eight NVIDIA H100 (80 GB), in step.", "train-gpu", _H100_8),
        WorkerPool("tpu-v2-8", "A TPU v2 of 8 cores.", "train-tpu", Machine("cloud-tpu", "TPU_V2", 8)),
        WorkerPool("tpu-v3-8", "A TPU v3 of 8 cores.", "train-tpu", Machine("cloud-tpu", "TPU_V3", 8)),
        WorkerPool("tpu-v5e-1", "One chip of a TPU v5e.", "train-tpu", Machine("ct5lp-hightpu-1t", tpu_topology="1x1")),
        WorkerPool(
            "tpu-v5e-4", "Four chips of a TPU v5e.", "train-tpu", Machine("ct5lp-hightpu-4t", tpu_topology="2x2")
        ),
        WorkerPool(
            "tpu-v5e-8", "Eight chips of a TPU v5e.", "train-tpu", Machine("ct5lp-hightpu-8t", tpu_topology="2x4")
        ),
    )
}
