"""Where training runs: the distribution strategies, and which of them suits what is there."""

import functools
import importlib.util
import itertools
import json
import logging
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from components.ncf.errors import InputError
from components.train.config import STRATEGIES

_LOG = logging.getLogger(__name__)

# Where, under /dev, a machine with TPUs shows them: as devices of their own driver, or of virtual function I/O.
_TPU_DEVICES = ("accel*", "vfio/[0-9]*")
# A server ends when the chief has been away for so long: longer than the chief takes to start again.
_CHIEF_GRACE_S = 30.0
_POLL_INTERVAL_S = 1.0
_ADDRESS = re.compile(r".+:[0-9]{1,5}")
_WORKER_ROLES = ("chief", "master", "worker")


@dataclass(frozen=True)
class Cluster:
    """What TF_CONFIG says about the processes that train together.

    Attributes:
        tasks: Addresses by role.
        role: This process's.
        index: Which of its role it is.
    """

    tasks: Mapping[str, list[str]]
    role: str
    index: int

    @property
    def num_workers(self) -> int:
        """Processes that compute gradients in step with each other."""
        return sum(len(self.tasks.get(role, [])) for role in _WORKER_ROLES)

    @property
    def is_chief(self) -> bool:
        """Whether this is the process that writes."""
        roles = [role for role in ("chief", "master") if role in self.tasks]
        return self.role == (roles[0] if roles else "worker") and self.index == 0


class Server:
    """Does what the chief of a parameter-server cluster asks for, in a process of the role worker or ps."""

    def __init__(self, cluster: Cluster, resolver: tf.distribute.cluster_resolver.ClusterResolver) -> None:
        """Begins to listen at the address that the cluster gives this process."""
        self._chief = cluster.tasks["chief"][0]
        self._server = tf.distribute.Server(
            resolver.cluster_spec(), job_name=cluster.role, task_index=cluster.index, protocol="grpc", start=True
        )

    def wait_for_the_chief_to_end(self) -> None:
        """Returns when the chief, who was there, has not answered for a while."""
        last_answer: float | None = None
        while last_answer is None or time.monotonic() - last_answer < _CHIEF_GRACE_S:
            if _answers(self._chief):
                last_answer = time.monotonic()
            time.sleep(_POLL_INTERVAL_S)


@dataclass(frozen=True)
class Placement:
    """Where this process trains.

    Attributes:
        name: One of `STRATEGIES`, "auto" resolved.
        strategy: TensorFlow's.
        is_chief: Whether this process writes what comes of it.
    """

    name: str
    strategy: tf.distribute.Strategy
    is_chief: bool = True


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """Returns what TF_CONFIG describes, or None where it is not set or describes one process alone.

    Raises:
        InputError: It is not what TensorFlow expects.
    """
    text = environment.get("TF_CONFIG", "")
    if not text.strip():
        return None
    try:
        document: dict[str, Any] = json.loads(text)
        tasks = {role: list(addresses) for role, addresses in document.get("cluster", {}).items()}
        task = document.get("task", {})
        cluster = Cluster(tasks, str(task.get("type", "")), int(task.get("index", 0)))
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"TF_CONFIG is {text!r}, which is not the JSON that TensorFlow expects ({error}).") from error
    for address in itertools.chain.from_iterable(tasks.values()):
        if not _ADDRESS.fullmatch(str(address)):
            raise InputError(f"TF_CONFIG names {address!r}, which is not of the form HOST:PORT: {text!r}.")
    if sum(map(len, tasks.values())) <= 1 and "ps" not in tasks:
        return None
    if not 0 <= cluster.index < len(tasks.get(cluster.role, [])):
        raise InputError(f"TF_CONFIG's task {cluster.role} {cluster.index} is not in its cluster {tasks}: {text!r}.")
    return cluster


def choose_strategy(cluster: Cluster | None, num_gpus: int, has_tpu: bool) -> str:
    """Returns the strategy that "auto" stands for."""
    if cluster is not None:
        return "parameter_server" if "ps" in cluster.tasks else "multi_worker_mirrored"
    if has_tpu:
        return "tpu"
    return "mirrored" if num_gpus > 1 else "one_device"


def place(name: str, environment: Mapping[str, str]) -> Placement | Server:
    """Builds the strategy of this name, or what this process is in a cluster whose chief does the rest.

    Nothing of TensorFlow may have run before, for several of them. "one_device" computes on the first GPU, or else the
    CPU. "mirrored" keeps a replica on every GPU of this machine, or on every (virtual) CPU device where there is none.
    "multi_worker_mirrored" does so in every process that TF_CONFIG names. "parameter_server" keeps the variables in the
    processes of the role ps and has those of the role worker compute. "tpu" keeps a replica on every core of the TPU of
    this machine.

    Args:
        name: One of `components.train.config.STRATEGIES`.
        environment: For TF_CONFIG and the TPU's name, as in `os.environ`.

    Raises:
        InputError: What the strategy needs is not there.
    """
    assert name in STRATEGIES
    cluster = read_cluster(environment)
    if name == "auto":
        name = choose_strategy(cluster, len(tf.config.list_physical_devices("GPU")), _has_tpu(environment))
    if cluster is not None and name in ("one_device", "mirrored", "tpu"):
        raise InputError(
            f"train.strategy is {name}, which trains in one process, and TF_CONFIG names {cluster.num_workers} that "
            "train together: use multi_worker_mirrored, parameter_server or auto."
        )
    if name == "one_device":
        return Placement(name, tf.distribute.get_strategy())
    if name == "mirrored":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return Placement(
            name, _mirrored_strategy(tuple(device.name for device in tf.config.list_logical_devices(kind)))
        )
    if name == "tpu":
        return Placement(name, _tpu_strategy(environment))
    if cluster is None:
        raise InputError(
            f"train.strategy is {name}, but the environment variable TF_CONFIG names no other process: it is set by "
            "whatever starts the workers; use one_device or mirrored on one machine."
        )
    if name == "parameter_server":
        return _parameter_server_placement(cluster)
    if cluster.role not in _WORKER_ROLES:
        raise InputError(
            f"train.strategy multi_worker_mirrored has no use for the role {cluster.role!r} that TF_CONFIG gives this "
            "process: use chief and worker alone."
        )
    _LOG.info("%s %d waits for all %d workers of TF_CONFIG", cluster.role, cluster.index, cluster.num_workers)
    return Placement(name, _multi_worker_strategy(cluster), cluster.is_chief)


@functools.cache
def _mirrored_strategy(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    # One a process: TensorFlow takes the collectives of a second one for those of the first, whose shapes may differ.
    return tf.distribute.MirroredStrategy(devices)


def _parameter_server_placement(cluster: Cluster) -> Placement | Server:
    if "ps" not in cluster.tasks or "worker" not in cluster.tasks or "chief" not in cluster.tasks:
        raise InputError(
            f"train.strategy parameter_server needs tasks in the roles chief, worker and ps; TF_CONFIG has "
            f"{', '.join(cluster.tasks)}: add what is missing, or use multi_worker_mirrored."
        )
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if cluster.role != "chief":
        return Server(cluster, resolver)
    return Placement("parameter_server", tf.distribute.ParameterServerStrategy(resolver))


def _multi_worker_strategy(cluster: Cluster) -> tf.distribute.Strategy:
    # Other roles are left out: TensorFlow would wait for them for ever. Servers that sum for NCCL stand where parameter
    # servers do, and speak no TensorFlow.
    workers = {role: addresses for role, addresses in cluster.tasks.items() if role in _WORKER_ROLES}
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(workers), task_type=cluster.role, task_id=cluster.index, rpc_layer="grpc"
    )
    kind = tf.distribute.experimental.CommunicationImplementation
    # NCCL between GPUs; between CPUs the ring, whose sums come in a fixed order.
    implementation = kind.NCCL if tf.config.list_physical_devices("GPU") else kind.RING
    options = tf.distribute.experimental.CommunicationOptions(implementation=implementation)
    return tf.distribute.MultiWorkerMirroredStrategy(resolver, communication_options=options)


def _has_tpu(environment: Mapping[str, str]) -> bool:
    """A TPU's device may be anybody's that is passed through, so that its library has to be there too."""
    is_named = bool(environment.get("TPU_NAME"))
    is_here = any(path for pattern in _TPU_DEVICES for path in Path("/dev").glob(pattern))
    return is_named or (is_here and importlib.util.find_spec("libtpu") is not None)


def _tpu_strategy(environment: Mapping[str, str]) -> tf.distribute.Strategy:
    address = environment.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
        if address != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        # TensorFlow goes on with the attributes of its operations.
        reason = re.split(r"[.(\n]", str(error).strip(), maxsplit=1)[0]
        raise InputError(
            f"train.strategy is tpu, but no TPU answers at {address!r} ({reason}): run it on a TPU machine with the "
            "package tensorflow-tpu, or use one_device."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_POLL_INTERVAL_S).close()
    except OSError:
        return False
    return True
