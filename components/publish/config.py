"""The parameters of publishing, checked before anything is sent."""

import re
from dataclasses import dataclass

from components.ncf.errors import InputError

# The containers that Google makes know their routes; others must say them.
_PREBUILT = re.compile(r"(us|europe|asia)-docker\.pkg\.dev/vertex-ai/prediction/")
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_MODEL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class PublishConfig:
    """Every choice that publishing makes. Defaults live in the presets, not here.

    Attributes:
        project: The project of the registry.
        location: Its region.
        endpoint: The API's host, for a private one; empty for the region's own.
        model_name: The model's id and name in the registry; each publication is a version of it.
        aliases: What the new version is called; each is taken from the version that had it.
        serving_image: The container that serves the SavedModel.
        serving_predict_route, serving_health_route: Its HTTP paths; empty for a container of Google's.
        staging_bucket: A gs:// folder to copy the SavedModel to, where the run's artifacts are in no gs:// bucket; or
            empty.
    """

    project: str
    location: str
    endpoint: str
    model_name: str
    aliases: tuple[str, ...]
    serving_image: str
    serving_predict_route: str
    serving_health_route: str
    staging_bucket: str

    def __post_init__(self) -> None:
        if not self.project:
            # The pipeline leaves the step out.
            return
        for name in ("location", "serving_image"):
            if not getattr(self, name):
                raise InputError(f"publish.{name} is empty: publishing to publish.project {self.project} needs it.")
        if not _MODEL_NAME.fullmatch(self.model_name):
            raise InputError(
                f"publish.model_name {self.model_name!r} must be lower-case letters, digits, hyphens and underscores, "
                "a letter first, at most 63."
            )
        if len(set(self.aliases)) < len(self.aliases) or not all(_ALIAS.fullmatch(alias) for alias in self.aliases):
            raise InputError(
                f"publish.aliases {list(self.aliases)} must be different words of letters, digits and hyphens, as "
                "candidate and champion."
            )
        if self.staging_bucket and not self.staging_bucket.startswith("gs://"):
            raise InputError(f"publish.staging_bucket {self.staging_bucket!r} must be a gs:// folder.")
        has_routes = bool(self.serving_predict_route and self.serving_health_route)
        if not has_routes and not _PREBUILT.match(self.serving_image):
            raise InputError(
                f"publish.serving_image {self.serving_image} is none of Google's prediction containers: set "
                "publish.serving_predict_route and publish.serving_health_route too."
            )
