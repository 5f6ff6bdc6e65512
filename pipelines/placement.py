"""Where a compiled pipeline runs and with what: everything that the steps themselves do not know."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from components.ncf.errors import InputError
from pipelines.resource_names import check_label, check_name
from pipelines.step_resources import Resources
from pipelines.worker_pools import POOLS, WorkerPool

# The pool that each target's train step runs on unless --pool names another; none for plain containers.
TARGET_POOLS: Mapping[str, str] = {
    "local": "",
    "kfp": "",
    "vertex-cpu": "cpu",
    "vertex-gpu": "l4",
    "vertex-multi-gpu": "l4-x2",
    "vertex-tpu": "tpu-v5e-4",
}
TARGETS = tuple(TARGET_POOLS)
# The images that steps run in, as images/ builds them.
IMAGES = ("download", "generate", "baseline", "publish", "train", "train-gpu", "train-tpu")
STRATEGIES = ("standard", "spot", "flex-start")

_NAMES = ("service_account", "network", "tensorboard", "encryption_key", "checkpoint_root")
_DIGEST = re.compile(r"(\S+@)?sha256:[0-9a-f]{64}")
_LONGEST_WAIT_H = 365 * 24  # our own: more is a slip of the hand
_LONGEST_TIMEOUT_H = 7 * 24  # Vertex AI's own limit of a custom job


@dataclass(frozen=True)
class Placement:
    """Where a pipeline runs. None and empty leave a choice to the platform.

    Attributes:
        target: One of `TARGETS`.
        pool: What train runs on; None for a plain container.
        strategy: How Vertex AI finds the machines, one of `STRATEGIES`.
        max_wait_h: Hours that "flex-start" waits for machines.
        timeout_h: Hours after which the training job is ended.
        service_account: What the training job acts as; on Kubeflow, what the steps' pods do.
        network: The VPC network that it is peered with.
        tensorboard: The Vertex AI TensorBoard that shows its progress.
        encryption_key: The Cloud KMS key for everything it makes.
        labels: Of the training job.
        checkpoint_root: A gs:// folder where checkpoints outlive the run, so that a new run resumes them.
        image_digests: "sha256:…", or a whole reference, by the image's name in `images/`.
        dataflow: Beam's options for Dataflow, each "name=value"; empty to run generate in its container.
        resources: Of the steps that have others than their own.

    Raises:
        InputError: A value is malformed, or of no use for the target.
    """

    target: str
    pool: WorkerPool | None
    strategy: str
    max_wait_h: int | None
    timeout_h: int | None
    service_account: str | None
    network: str | None
    tensorboard: str | None
    encryption_key: str | None
    labels: Mapping[str, str]
    checkpoint_root: str | None
    image_digests: Mapping[str, str]
    dataflow: tuple[str, ...]
    resources: Mapping[str, Resources]

    @staticmethod
    def on(target: str) -> "Placement":
        """Returns the target's own pool, and nothing chosen beside it.

        Raises:
            InputError: The target is unknown.
        """
        return Placement(
            target, pool_of(target, None), "standard", None, None, None, None, None, None, {}, None, {}, (), {}
        )

    def __post_init__(self) -> None:
        _check_target(self.target)
        if self.strategy not in STRATEGIES:
            raise InputError(f"The strategy {self.strategy!r} is unknown: use one of {', '.join(STRATEGIES)}.")
        self._check_syntax()
        if not self.is_vertex:
            self._refuse_what_only_vertex_has()
        elif "train" in self.resources:
            raise InputError("--resources of train are of no use for Vertex AI, where it runs on a pool: use --pool.")
        if self.max_wait_h is not None and self.strategy != "flex-start":
            raise InputError("--max-wait-hours is of use with --flex-start alone: leave it out, or add --flex-start.")
        if self.tensorboard and not self.service_account:
            raise InputError(
                "--tensorboard needs --service-account, which writes to it: name an account with the role "
                "roles/aiplatform.user."
            )

    @property
    def is_vertex(self) -> bool:
        """Whether train becomes a custom job of Vertex AI."""
        return self.target.startswith("vertex-")

    @property
    def train_image(self) -> str:
        """The image that the train step needs here."""
        return self.pool.image if self.pool else "train"

    def _check_syntax(self) -> None:
        for name in _NAMES:
            kind = "kubernetes_service_account" if (self.target, name) == ("kfp", "service_account") else name
            check_name(f"--{name.replace('_', '-')}", kind, getattr(self, name))
        for name, value in self.labels.items():
            check_label(name, value)
        for name, digest in self.image_digests.items():
            if name not in IMAGES:
                nearest = difflib.get_close_matches(name, IMAGES, n=1)
                hint = f" (did you mean {nearest[0]}?)" if nearest else ""
                raise InputError(f"There is no image {name!r}{hint}: a digest is of one of {', '.join(IMAGES)}.")
            if not _DIGEST.fullmatch(digest):
                raise InputError(
                    f"The digest of the image {name}, {digest!r}, is neither sha256: and 64 hexadecimal digits nor "
                    "REFERENCE@sha256:…: take it from the registry, a tag does not do."
                )
        if self.timeout_h is not None and not 1 <= self.timeout_h <= _LONGEST_TIMEOUT_H:
            raise InputError(f"--timeout-hours {self.timeout_h} is outside 1 to {_LONGEST_TIMEOUT_H}.")
        if self.max_wait_h is not None and self.max_wait_h < 0:
            raise InputError(f"--max-wait-hours {self.max_wait_h} is negative: use 0 to wait for ever.")
        if self.max_wait_h is not None and self.max_wait_h > _LONGEST_WAIT_H:
            raise InputError(
                f"--max-wait-hours {self.max_wait_h} is more than {_LONGEST_WAIT_H}, a year: use 0 to wait for ever."
            )

    def _refuse_what_only_vertex_has(self) -> None:
        given = {
            "--spot or --flex-start": self.strategy != "standard",
            "--timeout-hours": self.timeout_h,
            "--service-account": self.service_account and self.target == "local",
            "--network": self.network,
            "--tensorboard": self.tensorboard,
            "--encryption-key": self.encryption_key,
            "--label": self.labels,
            "--checkpoint-root": self.checkpoint_root,
        }
        for flag, value in given.items():
            if value:
                raise InputError(
                    f"{flag} is of use for Vertex AI alone, and the target is {self.target}: leave it out."
                )
        if self.resources and self.target == "local":
            raise InputError("--resources is of no use for the target local, where every step has all of the machine.")
        if self.pool and self.target == "local":
            raise InputError(f"--pool {self.pool.name} is of no use for the target local, which is this machine.")
        if self.pool and (self.pool.num_machines > 1 or self.pool.chief.is_tpu):
            raise InputError(
                f"--pool {self.pool.name} is more than one pod with GPUs, and the target kfp runs train as one pod: "
                "use a pool of one machine, or a target of Vertex AI."
            )


def pool_of(target: str, name: str | None) -> WorkerPool | None:
    """Returns the pool of this name, or the target's own where there is none.

    Raises:
        InputError: The target or the pool is unknown, or they do not fit together.
    """
    _check_target(target)
    chosen = name or TARGET_POOLS[target]
    if not chosen:
        return None
    if chosen not in POOLS:
        nearest = difflib.get_close_matches(chosen, POOLS, n=1)
        hint = f" (did you mean {nearest[0]}?)" if nearest else ""
        raise InputError(f"The pool {chosen!r} is unknown{hint}: use one of {', '.join(POOLS)}.")
    pool = POOLS[chosen]
    kind = "tpu" if pool.chief.is_tpu else "gpu" if pool.chief.has_gpu else "cpu"
    wanted = {"vertex-cpu": "cpu", "vertex-gpu": "gpu", "vertex-multi-gpu": "gpu", "vertex-tpu": "tpu"}.get(target)
    if wanted is not None and kind != wanted:
        has = "no accelerator" if kind == "cpu" else f"a {kind.upper()}"
        raise InputError(
            f"The pool {pool.name} has {has} and the target is {target}: use the target vertex-{kind}, or another pool."
        )
    if target == "vertex-multi-gpu" and pool.num_replicas == 1:
        raise InputError(f"The pool {pool.name} has one GPU and the target is vertex-multi-gpu: use vertex-gpu.")
    return pool


def _check_target(target: str) -> None:
    if target not in TARGETS:
        raise InputError(f"The target {target!r} is unknown: use one of {', '.join(TARGETS)}.")
