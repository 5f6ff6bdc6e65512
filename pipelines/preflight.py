"""Checks a pipeline before any money is spent on it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from components.download.catalog import CATALOG, SourceKind, parse_dataset, parse_synthetic_options
from components.ncf.errors import InputError
from pipelines.findings import Finding, by_severity, error, unchecked, warning
from pipelines.machines import ACCELERATORS, machine_memory_gb
from pipelines.memory import DataSize, MemoryEstimate, estimate_memory
from pipelines.parameters import parameter_mistakes, step_config, type_mistakes
from pipelines.placed_steps import image_of, placed_parameters, resources_of
from pipelines.placement import Placement
from pipelines.preflight_machines import accelerator_of, check_machines
from pipelines.preflight_places import check_places
from pipelines.worker_pools import WorkerPool

_OFFICIAL_CANDIDATES = 1_000  # of loo-999-masked, one positive and 999 negatives
IMAGE_TAG = "image tag"  # the subject of what caching alone makes an error
_GB = 1e9
_IN_ONE_POD = ("one_device", "mirrored")
_FULL, _NEARLY_FULL = 1.0, 0.8
_SIZES_FOLLOW_FROM = ("parameters", "pool", "resources")  # subjects of mistakes


@dataclass(frozen=True)
class Plan:
    """A run as it is meant to be submitted.

    Attributes:
        placement: Where it runs.
        parameters: Every parameter of every step.
        region: Where Vertex AI runs it; None leaves regions unchecked.
        pipeline_root: Where the artifacts go; None leaves it unchecked.
        pipeline_account: What the steps act as, which starts the training job; None for what training acts as.
        size: Of the data, where the data set's own is not known or another is meant.
        compiled_images: Those of a pipeline that is compiled already; None for those that the placement gives.
        mistakes: What was wrong with the options that the plan was made of, which it is without. Their subjects tell
            what cannot be checked before they are right.
    """

    placement: Placement
    parameters: Mapping[str, Mapping[str, Any]]
    region: str | None
    pipeline_root: str | None
    pipeline_account: str | None
    size: DataSize | None
    compiled_images: tuple[str, ...] | None = None
    mistakes: tuple[Finding, ...] = ()

    def is_wrong(self, *subjects: str) -> bool:
        """Whether a mistake is about one of these."""
        return any(mistake.subject in subjects for mistake in self.mistakes)


def check_plan(plan: Plan) -> list[Finding]:
    """Returns everything that is wrong with a plan, errors first; nothing is asked of any server."""
    mistyped = [error("parameters", mistake) for mistake in type_mistakes(plan.parameters)]
    if mistyped:
        return by_severity([*plan.mistakes, *mistyped])  # the other checks count with them
    wrong = list(_check_values(plan))
    if not wrong:
        plan = _as_placed(plan)
    are_sizes_known = not wrong and not plan.is_wrong(*_SIZES_FOLLOW_FROM)
    findings = [
        *plan.mistakes,
        *wrong,
        *check_machines(plan.placement, plan.region),
        *_check_strategy(plan),
        *(_check_sizes(plan) if are_sizes_known else _sizes_unchecked()),
        *_check_restarts(plan),
        *_check_images(plan),
        *check_places(plan.placement, plan.parameters, plan.region, plan.pipeline_root),
    ]
    return by_severity(findings)


def memory_of(plan: Plan) -> MemoryEstimate | None:
    """Returns the memory that one replica needs; None where the data's size is unknown or a parameter is wrong."""
    wrong = any(type_mistakes(plan.parameters)) or any(_check_values(plan))
    return None if wrong or plan.is_wrong(*_SIZES_FOLLOW_FROM) else _memory_of_placed(_as_placed(plan))


def data_size(dataset: str) -> DataSize | None:
    """Returns the size of a data set of the catalogue, or None for somebody's own."""
    try:
        source = parse_dataset(dataset)
        if source.kind is SourceKind.MOVIELENS:
            entry = CATALOG[source.argument]
            return DataSize(entry.num_users, entry.num_items, entry.num_interactions)
        if source.kind is SourceKind.SYNTHETIC:
            shape, entry = parse_synthetic_options(source.argument), CATALOG["synthetic"]
            density = entry.num_interactions / (entry.num_users * entry.num_items)
            return DataSize(shape.num_users, shape.num_items, round(density * shape.num_users * shape.num_items))
    except InputError:
        pass  # the parameters' own check says so
    return None


def _as_placed(plan: Plan) -> Plan:
    """Returns the plan with the parameters that the steps get."""
    return replace(plan, parameters=placed_parameters(plan.placement, plan.parameters))


def _check_values(plan: Plan) -> Iterator[Finding]:
    placed = plan.parameters
    try:
        placed = placed_parameters(plan.placement, plan.parameters)
    except InputError as misfit:
        yield error("parameters", str(misfit))
    for mistake in parameter_mistakes(placed):
        yield error("parameters", mistake)


def _check_strategy(plan: Plan) -> Iterator[Finding]:
    pool, strategy = plan.placement.pool, plan.parameters["train"]["strategy"]
    if plan.placement.target == "kfp" and strategy not in ("auto", *_IN_ONE_POD):
        yield error(
            "strategy",
            f"train.strategy {strategy} does not fit Kubeflow, where train is one pod: use {' or '.join(_IN_ONE_POD)}, "
            "or auto.",
        )
        return
    if pool is None or strategy == "auto":
        return
    fitting = _fitting_strategies(pool)
    if strategy not in fitting:
        yield error(
            "strategy",
            f"train.strategy {strategy} does not fit the pool {pool.name} ({pool.description}): use "
            f"{' or '.join(fitting)}, or auto.",
        )
    elif strategy == "one_device" and pool.num_replicas > 1:
        yield warning(
            "strategy",
            f"train.strategy one_device trains on one of the {pool.num_replicas} accelerators of the pool {pool.name}: "
            "use auto, or a smaller pool.",
        )


def _fitting_strategies(pool: WorkerPool) -> list[str]:
    if pool.chief.is_tpu:
        return ["tpu"]
    if pool.num_parameter_servers:
        return ["parameter_server"]
    if pool.num_workers:
        return ["multi_worker_mirrored"]
    return list(_IN_ONE_POD)


def _num_replicas(plan: Plan) -> int:
    """Returns how many replicas share a global batch."""
    pool = plan.placement.pool
    if pool is None or plan.parameters["train"]["strategy"] == "one_device":
        return 1
    # With parameter servers, each worker takes a global batch of its own.
    return pool.chief.num_replicas if pool.num_parameter_servers else pool.num_replicas


def _check_sizes(plan: Plan) -> Iterator[Finding]:
    yield from _check_batches(plan)
    yield from _check_memory(plan)


def _sizes_unchecked() -> Iterator[Finding]:
    yield unchecked(
        "batches, memory", "they follow from the parameters, the pool and the resources: correct those first."
    )


def _check_batches(plan: Plan) -> Iterator[Finding]:
    train, num_replicas = plan.parameters["train"], _num_replicas(plan)
    try:
        group = 1 if train["training_records"] == "offline" else 1 + train["num_train_negatives"]
        step_config("train", train).groups_per_replica(num_replicas, group)
    except InputError as mistake:
        if "replicas" in str(mistake):  # the others are the parameters' own
            yield error("batch size", str(mistake))
    generate = plan.parameters["generate"]
    block = num_replicas * _OFFICIAL_CANDIDATES
    # Our own loop fills a block up that its replicas cannot divide.
    if generate["offline_epochs"] and generate["eval_prebatch_size"] % block:
        nearest = max(1, round(generate["eval_prebatch_size"] / block)) * block
        yield warning(
            "evaluation batch",
            f"generate.eval_prebatch_size {generate['eval_prebatch_size']} is not divisible by {block}, which is "
            f"{num_replicas} replicas by {_OFFICIAL_CANDIDATES} candidates: TensorFlow's official trainer refuses it "
            f"there; use {nearest}.",
        )


def _memory_of_placed(plan: Plan) -> MemoryEstimate | None:
    size = plan.size or data_size(plan.parameters["download"]["dataset"])
    return estimate_memory(plan.parameters["train"], size, _num_replicas(plan)) if size else None


def _check_memory(plan: Plan) -> Iterator[Finding]:
    if plan.placement.target == "local":
        return
    need = _memory_of_placed(plan)
    if need is None:
        dataset = plan.parameters["download"]["dataset"]
        yield unchecked(
            "memory",
            f"the size of {dataset} is not known: give --num-users, --num-items and --num-interactions to preflight.",
        )
        return
    has_gb = _memory_gb(plan.placement)
    if has_gb is None:
        yield unchecked(
            "memory",
            f"a replica needs about {need.total / _GB:.1f} GB, and how much train's machine or GPU has is not known.",
        )
        return
    share = need.total / (has_gb * _GB)
    if share > _NEARLY_FULL:
        text = (
            f"a replica needs about {need.total / _GB:.1f} GB (tables {need.weights / _GB:.1f}, optimizer "
            f"{need.optimizer / _GB:.1f}, gradients and new values {need.update / _GB:.1f}, "
            f"data {need.data / _GB:.1f}, a step {need.activations / _GB:.1f}) and has "
            f"{has_gb:g} GB: use train.optimizer=sgd, fewer train.num_factors, a smaller train.device_data_limit_mb or "
            f"{'a pool with more memory' if plan.placement.pool else 'a higher --resources train.memory_limit'}."
        )
        yield error("memory", text) if share > _FULL else warning("memory", text)


def _memory_gb(placement: Placement) -> float | None:
    """Returns the memory that a replica's device has; None where it is not known."""
    if placement.pool is None:
        return resources_of(placement, "train").memory_limit_bytes / _GB
    chief = placement.pool.chief
    known = ACCELERATORS.get(accelerator_of(chief))
    return known.memory_gb if known else machine_memory_gb(chief.machine_type)


def _check_restarts(plan: Plan) -> Iterator[Finding]:
    keeps = plan.placement.checkpoint_root is not None or plan.parameters["train"]["checkpoint_dir"]
    if plan.placement.strategy == "spot" and not keeps:
        yield warning(
            "scheduling",
            "--spot without --checkpoint-root: a job that is restarted resumes, but a new run trains from the start.",
        )


def images_of(plan: Plan) -> list[str]:
    """Returns the images that the steps run in, each once."""
    from pipelines.neumf import COMPONENTS

    if plan.compiled_images is not None:
        return sorted(set(plan.compiled_images))
    return sorted({image_of(plan.placement, step, component) for step, component in COMPONENTS.items()})


def _check_images(plan: Plan) -> Iterator[Finding]:
    if plan.placement.target == "local":
        return
    if plan.is_wrong("images"):
        yield unchecked("images", "they follow from --image-digest and --image-digests-file: correct those first.")
        return
    images = images_of(plan)
    unpinned = [image for image in images if "@sha256:" not in image]
    if unpinned:
        yield error(
            IMAGE_TAG,
            f"{', '.join(unpinned)} {'is' if len(unpinned) == 1 else 'are'} named by a tag, so that the cache would "
            "return what an older build made: give the digests with --image-digest or --image-digests-file.",
        )
    # As the engines tell a host from a folder of their default registry: a cluster's own may be at localhost:5000.
    homeless = [image for image in images if not re.match(r"([^/]*[.:][^/]*|localhost)/", image)]
    if homeless:
        yield error(
            "image",
            f"{homeless[0]} names no registry, where the platform would look for it: set NEUMF_IMAGE_REGISTRY to "
            "REGION-docker.pkg.dev/PROJECT/REPOSITORY, or give whole references with --image-digest.",
        )
