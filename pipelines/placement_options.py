"""The options of a command that says where a pipeline runs."""

import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import click

from components.images import image_uri
from components.ncf.errors import InputError
from pipelines.dataflow import DataflowOptions
from pipelines.given_options import given_flags, refuse_empty
from pipelines.placement import TARGETS, Placement, pool_of
from pipelines.step_resources import Resources, changed_resources

Command = Callable[..., Any]

# What the training job shares with the pipeline's job.
_IDENTITY = ("service_account", "network", "encryption_key", "labels")
_HARDWARE = (
    "target", "pool", "spot", "flex_start", "max_wait_h", "timeout_h", "tensorboard", "checkpoint_root",
    "image_digests", "image_digests_file", "dataflow", "resources",
)  # fmt: skip


def placement_options(has_identity: bool, takes_template: bool) -> Callable[[Command], Command]:
    """Adds the options to a command, which receives them as one `Placement` named `placement`.

    Args:
        has_identity: Whether the command has own options for service_account, network, encryption_key and labels,
            which the placement then takes too where the target is one of Vertex AI.
        takes_template: Whether the command has an option --template, beside which the options are refused.
    """

    def decorate(command: Command) -> Command:
        def with_placement(**parameters: Any) -> Any:
            refuse_empty()
            if parameters.get("template") is not None:
                _refuse_beside_template(parameters["template"], _HARDWARE if has_identity else _HARDWARE + _IDENTITY)
            elif parameters["target"] is None and not has_identity:
                raise InputError("--target is missing: give it, or a compiled pipeline as --template.")
            if parameters["target"] is None:
                parameters["target"] = "vertex-cpu" if parameters.get("backend") == "vertex" else "kfp"
            take = parameters.get if has_identity else parameters.pop
            identity: dict[str, Any] = {name: take(name) for name in _IDENTITY}
            if has_identity and not parameters["target"].startswith("vertex-"):
                identity = dict.fromkeys(_IDENTITY) | {"labels": ()}
            hardware = {name: parameters.pop(name) for name in _HARDWARE}
            return command(placement=_placement(**identity, **hardware), **parameters)

        with_placement.__name__ = command.__name__
        with_placement.__doc__ = command.__doc__
        # Options that decorators further in have put on the command already.
        with_placement.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
        identity_options = [] if has_identity else _identity_options()
        for option in reversed([*_hardware_options(not takes_template, has_identity), *identity_options]):
            option(with_placement)
        return with_placement

    return decorate


def read_image_digests(pairs: Iterable[str], file: Path | None) -> dict[str, str]:
    """Returns digests by the images' names; a pair wins over the file.

    Args:
        pairs: Texts "NAME=sha256:…" or "NAME=REFERENCE@sha256:…".
        file: A JSON object of the same, or None.

    Raises:
        InputError: The file or a pair is not of that form.
    """
    digests: dict[str, str] = {}
    if file is not None:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"--image-digests-file {file} cannot be read as a JSON object of image names and digests ({error})."
            ) from error
        if not isinstance(content, dict):
            raise InputError(
                f'--image-digests-file {file} holds no JSON object: write {{"train": "sha256:…"}}, a digest for each '
                "image's name."
            )
        digests.update({str(name): str(digest) for name, digest in content.items()})
    return {**digests, **_pairs("--image-digest", pairs, "train=sha256:…")}


def _refuse_beside_template(template: Path, compiled: Collection[str]) -> None:
    """Refuses what somebody gave that a compiled pipeline has decided already.

    Raises:
        InputError: Such an option was given.
    """
    for name, flag in given_flags().items():
        if name in compiled:
            raise InputError(
                f"{flag} is of no use with --template {template}, which was compiled for its place: leave it out, or "
                f"compile again with {flag}."
            )


def _placement(
    target: str,
    pool: str | None,
    spot: bool,
    flex_start: bool,
    image_digests: tuple[str, ...],
    image_digests_file: Path | None,
    dataflow: tuple[str, ...],
    resources: tuple[str, ...],
    labels: tuple[str, ...],
    **others: Any,
) -> Placement:
    if spot and flex_start:
        raise InputError("--spot and --flex-start exclude each other: give one of them.")
    digests = read_image_digests(image_digests, image_digests_file)
    return Placement(
        target=target,
        pool=pool_of(target, pool),
        strategy="spot" if spot else "flex-start" if flex_start else "standard",
        max_wait_h=others["max_wait_h"],
        timeout_h=others["timeout_h"],
        service_account=others["service_account"],
        network=others["network"],
        tensorboard=others["tensorboard"],
        encryption_key=others["encryption_key"],
        labels=_pairs("--label", labels, "team=search"),
        checkpoint_root=others["checkpoint_root"],
        image_digests=digests,
        dataflow=_dataflow(dataflow, digests.get("generate")),
        resources=_resources(target, resources),
    )


def _dataflow(pairs: tuple[str, ...], worker_image: str | None) -> tuple[str, ...]:
    """Returns Beam's options, the workers' image being the step's own if it is known and no other is given."""
    if not pairs:
        return ()
    values: dict[str, Any] = dict.fromkeys(DataflowOptions.__dataclass_fields__)
    for name, text in _pairs("--dataflow", pairs, "region=us-central1").items():
        if name not in values:
            raise InputError(f"--dataflow {name}={text}: {name!r} is unknown; there are {', '.join(values)}.")
        if name.endswith("_workers") and not (text.isascii() and text.isdecimal()):
            raise InputError(f"--dataflow {name}={text}: {text!r} is not a whole number.")
        values[name] = int(text) if name.endswith("_workers") else text
    if values["worker_image"] is None and worker_image is not None:
        folder, slash, _ = image_uri("generate").rpartition("/")
        values["worker_image"] = worker_image if "@" in worker_image else f"{folder}{slash}generate@{worker_image}"
    for name in ("project", "region", "temp_location", "worker_image"):
        if values[name] is None:
            raise InputError(f"--dataflow needs {name}: add --dataflow {name}=….")
    return tuple(DataflowOptions(**values).as_beam_options())


def _resources(target: str, texts: tuple[str, ...]) -> dict[str, Resources]:
    pairs = _pairs("--resources", texts, "train.memory_limit=128G")
    requests = [name for name in pairs if name.endswith("_request")]
    if requests and target.startswith("vertex-"):
        raise InputError(
            f"--resources {requests[0]}={pairs[requests[0]]} is of use for Kubeflow alone: on Vertex AI a step has a "
            "machine of its own, which its limits choose."
        )
    return changed_resources(pairs.items())


def _pairs(option: str, texts: Iterable[str], example: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name or not value:
            raise InputError(f"{option} {text!r} is not of the form NAME=VALUE, as {example}.")
        if name in pairs:
            raise InputError(f"{option} gives {name} twice, {pairs[name]} and {value}: leave one out.")
        pairs[name] = value
    return pairs


def _identity_options() -> list[Callable[[Command], Command]]:
    return [
        click.option("--service-account", metavar="ACCOUNT", help="What training acts as; on Kubeflow, all steps."),
        click.option(
            "--network", metavar="NETWORK", help="Vertex: projects/NUMBER/global/networks/NAME that it is peered with."
        ),
        click.option("--encryption-key", metavar="KEY", help="Vertex: the Cloud KMS key for what it makes."),
        click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Vertex: of the training job."),
    ]


def _hardware_options(is_target_required: bool, has_backend: bool) -> list[Callable[[Command], Command]]:
    path = click.Path(path_type=Path)
    option = click.option
    return [
        option("--target", type=click.Choice(TARGETS), required=is_target_required,
               help="What the pipeline is compiled for."
               + ("  [default: kfp, or vertex-cpu with --backend vertex]" if has_backend else "")),
        option("--pool", metavar="NAME", help="What train runs on, a name of `neumf pools`."),
        option("--spot", is_flag=True, help="Vertex: train on cheaper machines that may be taken away."),
        option("--flex-start", is_flag=True, help="Vertex: wait until all of train's machines are to be had."),
        option("--max-wait-hours", "max_wait_h", type=int, metavar="HOURS",
               help="With --flex-start: for how long; 0 for ever.  [default: 24]"),
        option("--timeout-hours", "timeout_h", type=int, metavar="HOURS",
               help="Vertex: when the training job is ended.  [default: 168, the most]"),
        option("--tensorboard", metavar="NAME",
               help="Vertex: projects/PROJECT/locations/REGION/tensorboards/ID of the training job."),
        option("--checkpoint-root", metavar="gs://…",
               help="Vertex: where checkpoints outlive a run; the next that trains the same goes on from them."),
        option("--image-digest", "image_digests", multiple=True, metavar="NAME=DIGEST",
               help="An image by sha256:… or REFERENCE@sha256:…; may be repeated."),
        option("--image-digests-file", type=path, help="The same for several images: a JSON object."),
        option("--dataflow", multiple=True, metavar="NAME=VALUE",
               help="Run generate on Dataflow: project, region, temp_location, worker_image and the other names of "
               "`neumf generate`'s options; may be repeated."),
        option("--resources", multiple=True, metavar="STEP.NAME=VALUE",
               help="What a step's container has: cpu_limit, memory_limit; on Kubeflow cpu_request, memory_request "
               "too. As train.memory_limit=128G; may be repeated."),
    ]  # fmt: skip
