"""Places that parameters name, and whether a step that runs elsewhere finds them."""

from collections.abc import Iterator, Mapping
from typing import Any

# Parameters that name a file or folder, beside download.dataset.
PLACES = (("download", "mirror"), ("download", "titles"), ("train", "checkpoint_dir"), ("evaluate", "champion"))
# What a container on a platform can read: buckets, web servers, and what is mounted there.
_ELSEWHERE = ("gs://", "https://", "http://", "/gcs/", "/mnt/")


def places_on_this_machine(parameters: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields a sentence for each place that only this machine has.

    Args:
        parameters: Every parameter of every step.
    """
    kind, separator, uri = parameters["download"]["dataset"].partition(":")
    places = {
        "download.dataset": uri if separator and kind in ("csv", "ncf") else "",
        **{f"{step}.{name}": parameters[step][name] for step, name in PLACES},
    }
    for name, place in places.items():
        if place and not place.startswith(_ELSEWHERE):
            yield (
                f"{name} {place} is on this machine and the steps run elsewhere: copy it to a bucket and give its "
                "gs:// address, or below /gcs/ where a folder is wanted."
            )
