"""Which regions Vertex AI's own client takes."""

import difflib

from pipelines.machines import REGIONS


def region_mistake(region: str) -> str | None:
    """Returns a sentence where Vertex AI's client would refuse a region, without asking anybody."""
    if region in REGIONS:
        return None  # without the two seconds that the client takes to import
    from google.cloud.aiplatform.constants.base import SUPPORTED_REGIONS

    if region in SUPPORTED_REGIONS:
        return None
    nearest = difflib.get_close_matches(region.lower(), SUPPORTED_REGIONS, n=1) or ["us-central1"]
    return f"Vertex has no region {region!r}: use one such as {nearest[0]}."
