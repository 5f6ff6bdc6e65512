"""What a Beam runner must be told, checked without importing Beam, which takes seconds.

Options are texts "name=value" with the names of Beam's own pipeline options; `runners` checks the names themselves.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from components.ncf.errors import InputError

IN_MEMORY = "in_memory"
FLINK = "flink"
DATAFLOW = "dataflow"
RUNNERS = (IN_MEMORY, FLINK, DATAFLOW)

# What Dataflow cannot guess, and how the command line calls it.
_DATAFLOW_FLAGS = {
    "project": "--project",
    "region": "--region",
    "temp_location": "--temp-location",
    "sdk_container_image": "--worker-image",
}
# Where Flink's task managers find Beam's Python workers; Beam's own default, its public image, lacks this package.
_ENVIRONMENTS = ("PROCESS", "EXTERNAL", "DOCKER", "LOOPBACK")
_REMOTE = "gs://"
# Beam quietly makes a bucket of its own choice when it does not like the form of a given one.
_REMOTE_FOLDER = re.compile(r"gs://[a-z0-9][-_a-z0-9.]+[a-z0-9]/.+")
_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")


def split_option(text: str) -> tuple[str, str | None]:
    """Splits "name=value", with or without leading dashes, into the name and the value; None for a bare "name".

    Raises:
        InputError: There is no name.
    """
    name, equals, value = text.strip().removeprefix("--").partition("=")
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise InputError(
            f"generate.beam_options has {text!r}, which is not of the form name=value, as direct_num_workers=2."
        )
    return name, value if equals else None


def check_runner_options(runner: str, options: Sequence[str]) -> None:
    """Checks that the runner exists and that it is told all that it cannot guess.

    Args:
        runner: One of `RUNNERS`.
        options: Texts "name=value".

    Raises:
        InputError: The runner is unknown, or an option that it needs is missing or of no use to it.
    """
    if runner not in RUNNERS:
        raise InputError(f"generate.beam_runner {runner!r} is unknown: it must be one of {', '.join(RUNNERS)}.")
    values = dict(split_option(text) for text in options)
    if "runner" in values:
        raise InputError("generate.beam_options has runner, which generate.beam_runner decides: leave it out.")
    num_workers = values.get("direct_num_workers") or "0"
    if num_workers.startswith("-"):
        raise InputError(
            f"direct_num_workers={num_workers} in generate.beam_options is negative: give 1 or more, or 0 for one on "
            "each core."
        )
    if runner == FLINK:
        _check_flink({name: value or "" for name, value in values.items()})
    elif runner == DATAFLOW:
        _check_dataflow({name: value or "" for name, value in values.items()})


def check_places(runner: str, ratings: str, output: str) -> None:
    """Checks that a runner's workers can reach the input and the output, and that the one is not in the other.

    Workers of Flink may share a file system with this process; those of Dataflow never do.

    Raises:
        InputError: They cannot, or it is.
    """
    for name, place in (("ratings", ratings), ("output", output)):
        if not place:
            raise InputError(f"The {name} folder is empty text: give a path or a gs:// folder.")
    if _is_within(output, ratings):
        raise InputError(f"The output folder {output} is inside the ratings folder {ratings}: choose another place.")
    if runner != DATAFLOW:
        return
    for name, place in (("ratings", ratings), ("output", output)):
        if not place.startswith(_REMOTE):
            raise InputError(
                f"The {name} folder {place} is out of reach of the workers of {runner}, which run on other machines: "
                "give a gs:// folder."
            )


def _is_within(place: str, folder: str) -> bool:
    if place.startswith(_REMOTE) or folder.startswith(_REMOTE):
        return f"{place.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")
    return Path(place).resolve().is_relative_to(Path(folder).resolve())


def choose_place(runner: str, path: str, uri: str) -> str:
    """Returns an artifact's local path where the workers are on this machine, and its URI where they are not."""
    return path if runner == IN_MEMORY else uri


def _check_flink(values: dict[str, str]) -> None:
    if not (values.get("job_endpoint") or values.get("flink_job_server_jar")):
        raise InputError(
            f"generate.beam_runner {FLINK} needs job_endpoint=HOST:PORT, a running Beam job server, or "
            "flink_job_server_jar=PATH and flink_master=HOST:PORT, to start one: add them to generate.beam_options."
        )
    jar = values.get("flink_job_server_jar")
    if jar and not Path(jar).is_file():
        # A URL is refused as well: nothing is downloaded when a pipeline runs.
        raise InputError(f"flink_job_server_jar {jar} in generate.beam_options is no file: give the path of the jar.")
    environment = values.get("environment_type", "")
    if environment.upper() not in _ENVIRONMENTS:
        given = f"not {environment!r}" if environment else "which is missing"
        raise InputError(
            f"generate.beam_runner {FLINK} needs environment_type, {given}: one of {', '.join(_ENVIRONMENTS)}, which "
            "says how its task managers come by Python workers that have this package."
        )
    if environment.upper() != "LOOPBACK" and not values.get("environment_config"):
        raise InputError(
            f"environment_type={environment} needs environment_config in generate.beam_options: "
            '{"command":"PATH"} for PROCESS, HOST:PORT for EXTERNAL, the image for DOCKER.'
        )


def _check_dataflow(values: dict[str, str]) -> None:
    missing = [f"{flag} ({name})" for name, flag in _DATAFLOW_FLAGS.items() if not values.get(name)]
    if missing:
        raise InputError(
            f"generate.beam_runner {DATAFLOW} lacks {', '.join(missing)}: give each to `neumf generate`, or the name "
            "in brackets as NAME=VALUE in generate.beam_options."
        )
    if not _REMOTE_FOLDER.fullmatch(values["temp_location"]):
        raise InputError(
            f"temp_location {values['temp_location']!r} in generate.beam_options is no folder in Cloud Storage: "
            f"{DATAFLOW} needs gs://BUCKET/FOLDER for what it puts aside."
        )
    if not _DIGEST.fullmatch(values["sdk_container_image"]):
        raise InputError(
            f"sdk_container_image {values['sdk_container_image']!r} in generate.beam_options names no digest: give the "
            "worker image as NAME@sha256: and 64 hexadecimal digits, so that every worker runs the same code."
        )
