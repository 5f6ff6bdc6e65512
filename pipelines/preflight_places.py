"""Where a run is, and where what it uses is, found before anything is sent there."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.findings import Finding, error, unchecked, warning
from pipelines.machines import CHECKED, REGIONS, SOURCES, is_general_machine
from pipelines.placement import Placement
from pipelines.places import places_on_this_machine
from pipelines.resource_names import FORMS, region_of


def check_places(
    placement: Placement, parameters: Mapping[str, Mapping[str, Any]], region: str | None, pipeline_root: str | None
) -> Iterator[Finding]:
    """Yields what is wrong with the places of a run.

    Args:
        placement: Where it runs.
        parameters: Every parameter of every step.
        region: Vertex AI's; None leaves it unchecked.
        pipeline_root: Where the artifacts go; None leaves it unchecked.
    """
    if placement.target == "local":
        return
    for sentence in places_on_this_machine(parameters):
        yield error("places", sentence)
    yield from _check_pipeline_root(placement, pipeline_root)
    if placement.is_vertex:
        yield from _check_regions(placement, region)
    options = _dataflow(placement, parameters["generate"])
    if options:
        yield from _check_dataflow(options, region, pipeline_root)


def _check_pipeline_root(placement: Placement, root: str | None) -> Iterator[Finding]:
    form = FORMS["pipeline_root" if placement.is_vertex else "kubeflow_pipeline_root"]
    if root is None:
        yield unchecked("pipeline root", "--pipeline-root was not given.")
    elif not form.fits(root):
        yield error("pipeline root", f"{root!r} is no folder of a bucket: write {form.words}.")


def _check_regions(placement: Placement, region: str | None) -> Iterator[Finding]:
    if region is None:
        yield unchecked(
            "region",
            "--region was not given: whether the machines, the TensorBoard and the key are there is not known.",
        )
        return
    for flag, name in (("--tensorboard", placement.tensorboard), ("--encryption-key", placement.encryption_key)):
        if name is not None and region_of(name) != region:
            yield error(
                "region",
                f"{flag} {name} is in {region_of(name)} and the run in {region}, which must be the same: name one in "
                f"{region}, or run there.",
            )


def _dataflow(placement: Placement, generate: Mapping[str, Any]) -> dict[str, str]:
    """Returns Beam's options where generate runs on Dataflow; else none."""
    if not placement.dataflow and generate["beam_runner"] != "dataflow":
        return {}
    pairs = (text.removeprefix("--").partition("=") for text in placement.dataflow or generate["beam_options"])
    return {name: value for name, _, value in pairs}


def _check_dataflow(options: Mapping[str, str], region: str | None, pipeline_root: str | None) -> Iterator[Finding]:
    forms = {
        "project": "project",
        "service_account_email": "service_account",
        "network": "dataflow_network",
        "subnetwork": "subnetwork",
    }
    for option, kind in forms.items():
        if options.get(option) and not FORMS[kind].fits(options[option]):
            yield error("Dataflow", f"{option} {options[option]!r} is not of the form {FORMS[kind].words}.")
    workers = options.get("region", "")
    if workers and workers not in REGIONS:
        yield warning(
            "Dataflow", f"region {workers} is not among those known on {CHECKED}: look it up in {SOURCES['dataflow']}."
        )
    elif workers and region is not None and workers != region:
        yield warning(
            "Dataflow",
            f"generate's workers are in {workers} and the run in {region}: the examples would travel, and be charged; "
            f"set region to {region}.",
        )
    subnetwork = region_of(options.get("subnetwork", ""))
    if workers and subnetwork not in ("", workers):
        yield error("Dataflow", f"the subnetwork is in {subnetwork} and the workers in {workers}: name one there.")
    machine = options.get("machine_type")
    if machine and not is_general_machine(machine):
        yield warning(
            "Dataflow",
            f"machine_type {machine} is no general machine type known on {CHECKED}: use n2-standard-4, say, or leave "
            "the choice to Dataflow.",
        )
    if pipeline_root is not None and not pipeline_root.startswith("gs://"):
        yield error(
            "Dataflow",
            f"generate's workers cannot write to {pipeline_root}: give a gs:// folder as --pipeline-root, or leave "
            "Dataflow out.",
        )
