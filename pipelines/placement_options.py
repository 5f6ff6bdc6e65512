"""The options of a command that says where a pipeline runs."""

import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import click

from components.images import image_uri
from components.ncf.errors import InputError
from pipelines.dataflow import DataflowOptions
from pipelines.findings import Mistakes
from pipelines.given_options import File, empty_options, given_flags
from pipelines.placement import TARGETS, Placement, fitting_placement, pool_of
from pipelines.step_resources import Resources, changed_resources, check_quantity

Command = Callable[..., Any]

# What the checks after these are told by: those that count with a value that is wrong are left out.
_SUBJECTS = {"pool": "pool", "image_digests": "images", "image_digests_file": "images", "resources": "resources"}
# What the training job shares with the pipeline's job.
_IDENTITY = ("service_account", "network", "encryption_key", "labels")
_HARDWARE = (
    "target", "pool", "spot", "flex_start", "max_wait_h", "timeout_h", "tensorboard", "checkpoint_root",
    "image_digests", "image_digests_file", "dataflow", "resources",
)  # fmt: skip


def placement_options(has_identity: bool, notes_mistakes: bool) -> Callable[[Command], Command]:
    """Adds the options to a command, which receives them as one `Placement` named `placement`.

    Args:
        has_identity: Whether the command has own options for service_account, network, encryption_key and labels,
            which the placement then takes too where the target is one of Vertex AI.
        notes_mistakes: Whether the command lists mistakes: it then receives them as `mistakes`, and a placement without
            them, and takes --template instead of a target.
    """

    def decorate(command: Command) -> Command:
        def with_placement(**parameters: Any) -> Any:
            mistakes = Mistakes(notes_mistakes)
            for name, sentence in empty_options().items():
                mistakes.note(_SUBJECTS.get(name, "options"), sentence)
                value = parameters[name]
                parameters[name] = tuple(filter(None, value)) if isinstance(value, tuple) else None
            if parameters.get("template") is not None:
                _refuse_beside_template(parameters["template"], _HARDWARE if has_identity else _HARDWARE + _IDENTITY)
            elif parameters["target"] is None and notes_mistakes:
                raise InputError("--target is missing: give it, or a compiled pipeline as --template.")
            if parameters["target"] is None:
                parameters["target"] = "vertex-cpu" if parameters.get("backend") == "vertex" else "kfp"
            take = parameters.get if has_identity else parameters.pop
            identity: dict[str, Any] = {name: take(name) for name in _IDENTITY}
            if has_identity and not parameters["target"].startswith("vertex-"):
                identity = dict.fromkeys(_IDENTITY) | {"labels": ()}
            hardware = {name: parameters.pop(name) for name in _HARDWARE}
            if notes_mistakes:
                parameters["mistakes"] = mistakes
            return command(placement=_placement(mistakes, **identity, **hardware), **parameters)

        with_placement.__name__ = command.__name__
        with_placement.__doc__ = command.__doc__
        # Options that decorators further in have put on the command already.
        with_placement.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
        identity_options = [] if has_identity else _identity_options()
        is_target_required = not (has_identity or notes_mistakes)
        for option in reversed([*_hardware_options(is_target_required, has_identity), *identity_options]):
            option(with_placement)
        return with_placement

    return decorate


def _read_image_digests(pairs: Iterable[str], file: Path | None, mistakes: Mistakes) -> dict[str, str]:
    """Returns digests by the images' names; a pair "NAME=DIGEST" wins over the file, a JSON object of the same."""
    digests: dict[str, str] = {}
    if file is not None:
        with mistakes.about("images"):
            digests = _read_digests(file)
    return {**digests, **_pairs("--image-digest", pairs, "train=sha256:…", "images", mistakes)}


def _read_digests(file: Path) -> dict[str, str]:
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
    return {str(name): str(digest) for name, digest in content.items()}


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
    mistakes: Mistakes,
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
        mistakes.note("options", "--spot and --flex-start exclude each other: give one of them.")
    chosen_pool = None
    with mistakes.about("pool"):
        chosen_pool = pool_of(target, pool)
    digests = _read_image_digests(image_digests, image_digests_file, mistakes)
    return fitting_placement(
        mistakes,
        target=target,
        pool=chosen_pool,
        strategy="flex-start" if flex_start else "spot" if spot else "standard",
        labels=_pairs("--label", labels, "team=search", "options", mistakes),
        image_digests=digests,
        dataflow=_dataflow(dataflow, digests.get("generate"), mistakes),
        resources=_resources(target, resources, mistakes),
        **others,
    )


def _dataflow(pairs: tuple[str, ...], worker_image: str | None, mistakes: Mistakes) -> tuple[str, ...]:
    """Returns Beam's options, the workers' image being the step's own if it is known and no other is given."""
    if not pairs:
        return ()
    num_before = len(mistakes.found)
    values: dict[str, Any] = dict.fromkeys(DataflowOptions.__dataclass_fields__)
    for name, text in _pairs("--dataflow", pairs, "region=us-central1", "Dataflow", mistakes).items():
        is_number = name.endswith("_workers")
        if name not in values:
            sentence = f"--dataflow {name}={text}: {name!r} is unknown; there are {', '.join(values)}."
            mistakes.note("Dataflow", sentence)
        elif is_number and not (text.isascii() and text.isdecimal()):
            mistakes.note("Dataflow", f"--dataflow {name}={text}: {text!r} is not a whole number.")
        else:
            values[name] = int(text) if is_number else text
    if values["worker_image"] is None and worker_image is not None:
        folder, slash, _ = image_uri("generate").rpartition("/")
        values["worker_image"] = worker_image if "@" in worker_image else f"{folder}{slash}generate@{worker_image}"
    missing = [name for name in ("project", "region", "temp_location", "worker_image") if values[name] is None]
    if len(mistakes.found) > num_before:
        return ()  # one of them may be what is missing
    options: list[str] = []
    with mistakes.about("Dataflow"):
        if missing:
            added = ", ".join(f"--dataflow {name}=…" for name in missing)
            raise InputError(f"--dataflow needs {', '.join(missing)}: add {added}.")
        options = DataflowOptions(**values).as_beam_options()
    return tuple(options)


def _resources(target: str, texts: tuple[str, ...], mistakes: Mistakes) -> dict[str, Resources]:
    pairs: dict[str, dict[str, str]] = {}
    for name, value in _pairs("--resources", texts, "train.memory_limit=128G", "resources", mistakes).items():
        with mistakes.about("resources"):
            if name.endswith("_request") and target.startswith("vertex-"):
                raise InputError(
                    f"--resources {name}={value} is of use for Kubeflow alone: on Vertex AI a step has a machine of "
                    "its own, which its limits choose."
                )
            check_quantity(name, value)
            pairs.setdefault(name.partition(".")[0], {})[name] = value
    changed: dict[str, Resources] = {}
    for of_step in pairs.values():
        with mistakes.about("resources"):
            changed |= changed_resources(of_step.items())
    return changed


def _pairs(option: str, texts: Iterable[str], example: str, subject: str, mistakes: Mistakes) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name or not value:
            mistakes.note(subject, f"{option} {text!r} is not of the form NAME=VALUE, as {example}.")
        elif name in pairs:
            mistakes.note(subject, f"{option} gives {name} twice, {pairs[name]} and {value}: leave one out.")
        else:
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
        option("--image-digests-file", type=File(), help="The same for several images: a JSON object."),
        option("--dataflow", multiple=True, metavar="NAME=VALUE",
               help="Run generate on Dataflow: project, region, temp_location, worker_image and the other names of "
               "`neumf generate`'s options; may be repeated."),
        option("--resources", multiple=True, metavar="STEP.NAME=VALUE",
               help="What a step's container has: cpu_limit, memory_limit; on Kubeflow cpu_request, memory_request "
               "too. As train.memory_limit=128G; may be repeated."),
    ]  # fmt: skip
