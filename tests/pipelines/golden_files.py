"""Compiles every target for comparison with the files in golden/; `make golden` writes them anew.

What is compared is the compiled pipeline without the steps' source and the texts that describe parameters, which have
their own tests and would hide what a change does to machines, images, wiring and defaults. local.yaml has all of the
rest; the other files have what a placement can change: images, resources, retries, the train step, defaults.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipelines.compile import compile_pipeline
from pipelines.parameters import resolve_parameters
from pipelines.placement import IMAGES, TARGETS, Placement, pool_of
from pipelines.step_resources import changed_resources

GOLDEN = Path(__file__).parent / "golden"
DIGESTS = {
    **dict.fromkeys(IMAGES, "sha256:" + "c" * 64),
    "train-gpu": "sha256:" + "a" * 64,
    "download": "europe-docker.pkg.dev/p/r/download@sha256:" + "b" * 64,
}


def placements() -> Iterator[tuple[str, Placement]]:
    """Yields every target as it comes, and one with everything that can be chosen."""
    for target in TARGETS:
        yield target, Placement.on(target)
    yield (
        "everything-chosen",
        Placement(
            target="vertex-multi-gpu",
            pool=pool_of("vertex-multi-gpu", "a100-x8-x2-reduction"),
            strategy="spot",
            max_wait_h=None,
            timeout_h=12,
            service_account="neumf-train@my-project.iam.gserviceaccount.com",
            network="projects/123456/global/networks/research",
            tensorboard="projects/my-project/locations/europe-west4/tensorboards/42",
            encryption_key="projects/my-project/locations/europe-west4/keyRings/ring/cryptoKeys/key",
            labels={"team": "search"},
            checkpoint_root="gs://my-bucket/checkpoints",
            image_digests=DIGESTS,
            dataflow=(
                "project=my-project",
                "region=europe-west4",
                "temp_location=gs://my-bucket/temp",
                "sdk_container_image=europe-docker.pkg.dev/p/r/generate@sha256:" + "c" * 64,
            ),
            resources=changed_resources([("baseline.memory_limit", "128G")]),
        ),
    )


def compiled(placement: Placement, scratch: Path) -> dict[str, Any]:
    """Returns a target's compiled pipeline."""
    output = scratch / "pipeline.yaml"
    compile_pipeline(placement, resolve_parameters("default", ()), output)
    document: dict[str, Any] = yaml.safe_load(output.read_text(encoding="utf-8"))
    return document


def readable(document: Any) -> Any:
    """Returns a compiled pipeline without the source of its steps and the descriptions."""
    if isinstance(document, dict):
        return {key: readable(value) for key, value in document.items() if key != "description"}
    if isinstance(document, list):
        return [readable(value) for value in document]
    if isinstance(document, str) and "import kfp" in document:
        return "(the step's source)"
    return document


def all_tasks(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the tasks of the DAG and of the conditions within it, by name."""
    dags = [document["root"]["dag"], *(part["dag"] for part in document["components"].values() if "dag" in part)]
    return {name: task for dag in dags for name, task in dag["tasks"].items()}


def placed_parts(document: dict[str, Any], local: dict[str, Any]) -> dict[str, Any]:
    """Returns what a placement can change; of the defaults, those that are others than on this machine."""
    ours, theirs = (d["root"]["inputDefinitions"]["parameters"] for d in (document, local))
    kept = ("cachingOptions", "retryPolicy")
    return {
        "train": document["components"]["comp-train"],
        "executors": document["deploymentSpec"]["executors"],
        "tasks": {
            name: {key: value for key, value in task.items() if key in kept}
            for name, task in all_tasks(document).items()
        },
        "defaults": {name: parameter for name, parameter in ours.items() if parameter != theirs[name]},
    }


def golden_document(name: str) -> dict[str, Any]:
    """Returns what a placement compiles to, put together from the golden files; with the defaults of this machine."""
    document, parts = (yaml.safe_load((GOLDEN / f"{file}.yaml").read_text()) for file in ("local", name))
    if name != "local":
        document["components"]["comp-train"] = parts["train"]
        document["deploymentSpec"]["executors"] = parts["executors"]
    return dict(document)


def write_all(folder: Path, scratch: Path) -> None:
    """Writes one file a placement."""
    local = compiled(Placement.on("local"), scratch)
    for name, placement in placements():
        document = compiled(placement, scratch)
        parts = document if placement.target == "local" else placed_parts(document, local)
        text = yaml.safe_dump(readable(parts), sort_keys=True, width=110)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    import tempfile

    target = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        write_all(target, Path(scratch))
