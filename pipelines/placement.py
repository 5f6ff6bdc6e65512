"""Where a compiled pipeline runs and with what: everything that the steps themselves do not know."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.ncf.errors import InputError
from pipelines.findings import Mistakes
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
class Misfit:
    """What does not fit in a placement.

    Attributes:
        subject: What it is about, in a word.
        sentence: What to change.
        mended: Fields without it.
    """

    subject: str
    sentence: str
    mended: Mapping[str, Any]


class MisfitsError(InputError):
    """All that does not fit in a placement; its text is the first sentence."""

    def __init__(self, misfits: Sequence[Misfit]) -> None:
        super().__init__(misfits[0].sentence)
        self.misfits = misfits


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
        MisfitsError: Values are malformed, or of no use for the target.
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
        misfits = list(self._misfits())
        if misfits:
            raise MisfitsError(misfits)

    @property
    def is_vertex(self) -> bool:
        """Whether train becomes a custom job of Vertex AI."""
        return self.target.startswith("vertex-")

    @property
    def train_image(self) -> str:
        """The image that the train step needs here."""
        return self.pool.image if self.pool else "train"

    def _misfits(self) -> Iterator[Misfit]:
        _check_target(self.target)
        if self.strategy not in STRATEGIES:
            sentence = f"The strategy {self.strategy!r} is unknown: use one of {', '.join(STRATEGIES)}."
            yield Misfit("options", sentence, {"strategy": "standard"})
        yield from self._malformed()
        if not self.is_vertex:
            yield from self._what_only_vertex_has()
        elif "train" in self.resources:
            yield Misfit(
                "resources",
                "--resources of train are of no use for Vertex AI, where it runs on a pool: use --pool.",
                {"resources": {step: value for step, value in self.resources.items() if step != "train"}},
            )
        if self.max_wait_h is not None and self.strategy != "flex-start":
            sentence = "--max-wait-hours is of use with --flex-start alone: leave it out, or add --flex-start."
            yield Misfit("options", sentence, {"max_wait_h": None})
        if self.tensorboard and not self.service_account:
            yield Misfit(
                "options",
                "--tensorboard needs --service-account, which writes to it: name an account with the role "
                "roles/aiplatform.user.",
                {"tensorboard": None},
            )

    def _malformed(self) -> Iterator[Misfit]:
        for name in _NAMES:
            kind = "kubernetes_service_account" if (self.target, name) == ("kfp", "service_account") else name
            sentence = _mistake(check_name, f"--{name.replace('_', '-')}", kind, getattr(self, name))
            if sentence:
                yield Misfit("options", sentence, {name: None})
        wrong_labels = {name: _mistake(check_label, name, value) for name, value in self.labels.items()}
        fitting = {name: value for name, value in self.labels.items() if not wrong_labels[name]}
        for sentence in filter(None, wrong_labels.values()):
            yield Misfit("options", sentence, {"labels": fitting})
        wrong_digests = {name: _digest_mistake(name, digest) for name, digest in self.image_digests.items()}
        fitting = {name: digest for name, digest in self.image_digests.items() if not wrong_digests[name]}
        for sentence in filter(None, wrong_digests.values()):
            yield Misfit("images", sentence, {"image_digests": fitting})
        if self.timeout_h is not None and not 1 <= self.timeout_h <= _LONGEST_TIMEOUT_H:
            sentence = f"--timeout-hours {self.timeout_h} is outside 1 to {_LONGEST_TIMEOUT_H}."
            yield Misfit("options", sentence, {"timeout_h": None})
        if self.max_wait_h is not None and not 0 <= self.max_wait_h <= _LONGEST_WAIT_H:
            why = "is negative" if self.max_wait_h < 0 else f"is more than {_LONGEST_WAIT_H}, a year"
            sentence = f"--max-wait-hours {self.max_wait_h} {why}: use 0 to wait for ever."
            yield Misfit("options", sentence, {"max_wait_h": None})

    def _what_only_vertex_has(self) -> Iterator[Misfit]:
        given: dict[str, tuple[Any, dict[str, Any]]] = {
            "--spot or --flex-start": (self.strategy != "standard", {"strategy": "standard", "max_wait_h": None}),
            "--timeout-hours": (self.timeout_h, {"timeout_h": None}),
            "--service-account": (self.service_account and self.target == "local", {"service_account": None}),
            "--network": (self.network, {"network": None}),
            "--tensorboard": (self.tensorboard, {"tensorboard": None}),
            "--encryption-key": (self.encryption_key, {"encryption_key": None}),
            "--label": (self.labels, {"labels": {}}),
            "--checkpoint-root": (self.checkpoint_root, {"checkpoint_root": None}),
        }
        for flag, (value, mended) in given.items():
            if value:
                sentence = f"{flag} is of use for Vertex AI alone, and the target is {self.target}: leave it out."
                yield Misfit("options", sentence, mended)
        if self.resources and self.target == "local":
            sentence = "--resources is of no use for the target local, where every step has all of the machine."
            yield Misfit("resources", sentence, {"resources": {}})
        if self.pool and self.target == "local":
            sentence = f"--pool {self.pool.name} is of no use for the target local, which is this machine."
            yield Misfit("pool", sentence, {"pool": None})
        if self.pool and (self.pool.num_machines > 1 or self.pool.chief.is_tpu):
            yield Misfit(
                "pool",
                f"--pool {self.pool.name} has a TPU or several machines, and the target kfp runs train as one pod "
                "without a TPU: use a pool of one machine, or a target of Vertex AI.",
                {"pool": None},
            )


def fitting_placement(mistakes: Mistakes, **fields: Any) -> Placement:
    """Returns a placement without what does not fit.

    Args:
        mistakes: Where that is noted.
        fields: Those of a placement.

    Raises:
        InputError: Something does not fit, and mistakes are not noted.
    """
    try:
        return Placement(**fields)
    except MisfitsError as misfits:
        for misfit in misfits.misfits:
            mistakes.note(misfit.subject, misfit.sentence)
            fields |= misfit.mended
    # What goes with something that was left out is no mistake of its own.
    return fitting_placement(Mistakes(are_noted=True), **fields)


def _mistake(check: Callable[..., None], *arguments: Any) -> str:
    """Returns what a check raises; empty if nothing."""
    try:
        check(*arguments)
    except InputError as mistake:
        return str(mistake)
    return ""


def _digest_mistake(name: str, digest: str) -> str:
    if name not in IMAGES:
        nearest = difflib.get_close_matches(name, IMAGES, n=1)
        hint = f" (did you mean {nearest[0]}?)" if nearest else ""
        return f"There is no image {name!r}{hint}: a digest is of one of {', '.join(IMAGES)}."
    if not _DIGEST.fullmatch(digest):
        return (
            f"The digest of the image {name}, {digest!r}, is neither sha256: and 64 hexadecimal digits nor "
            "REFERENCE@sha256:…: take it from the registry, a tag does not do."
        )
    return ""


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
