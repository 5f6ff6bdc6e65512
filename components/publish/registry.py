"""The Vertex Model Registry, through google-cloud-aiplatform."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from components.ncf.errors import InputError
from components.publish.config import PublishConfig

_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Version:
    """A version of a model.

    Attributes:
        model: The model's whole name, without the version.
        version_id: The number that the registry gave it.
    """

    model: str
    version_id: str


class Registry:
    """One model's versions. Errors of the API are `InputError`."""

    def __init__(self, config: PublishConfig) -> None:
        """Signs in as the environment says."""
        self._config = config
        from google.cloud import aiplatform
        from google.cloud.aiplatform.models import ModelRegistry

        _silence_sdk()
        self._sdk = aiplatform
        with self._explaining():
            aiplatform.init(project=config.project, location=config.location, api_endpoint=config.endpoint or None)
            self._versions = ModelRegistry(config.model_name, location=config.location, project=config.project)

    def find(self, digest: str) -> Version | None:
        """Returns the version that `upload` made of this SavedModel, if it did."""
        from google.api_core.exceptions import NotFound

        with self._explaining():
            try:
                found = self._versions.list_versions()
            except NotFound:
                return None
        for version in found:
            if digest in (version.version_description or ""):
                return Version(version.model_resource_name.partition("@")[0], version.version_id)
        return None

    def upload(self, artifact_uri: str, digest: str, labels: Mapping[str, str], description: str) -> Version:
        """Registers a SavedModel as a new version, without an alias.

        Args:
            artifact_uri: Its gs:// folder, or a local one to copy to the staging bucket.
            digest: What `find` finds it by.
            labels: Of the version.
            description: Of the model.
        """
        config = self._config
        with self._explaining():
            exists = self._exists()
            model = self._sdk.Model.upload(
                serving_container_image_uri=config.serving_image,
                serving_container_predict_route=config.serving_predict_route or None,
                serving_container_health_route=config.serving_health_route or None,
                artifact_uri=artifact_uri,
                model_id=None if exists else config.model_name,
                parent_model=config.model_name if exists else None,
                is_default_version=not exists,
                version_description=f"SavedModel {digest}",
                display_name=config.model_name,
                description=description,
                labels=dict(labels),
                staging_bucket=config.staging_bucket or None,
                upload_request_timeout=_TIMEOUT_S,
            )
            return Version(model.resource_name, model.version_id)

    def import_evaluation(self, version: Version, protocol: str, figures: Mapping[str, float], schema_uri: str) -> str:
        """Imports a protocol's figures, once, and returns the evaluation's name."""
        from google.cloud import aiplatform_v1

        parent = f"{version.model}@{version.version_id}"
        evaluation = aiplatform_v1.ModelEvaluation(
            display_name=protocol, metrics_schema_uri=schema_uri, metrics=dict(figures)
        )
        with self._explaining():
            client = self._versions.client
            for known in client.list_model_evaluations(parent=parent):
                if known.display_name == protocol:
                    return str(known.name)
            return str(client.import_model_evaluation(parent=parent, model_evaluation=evaluation).name)

    def move_aliases(self, version: Version, aliases: tuple[str, ...]) -> None:
        """Gives aliases to a version; whichever had them before loses them."""
        if aliases:
            with self._explaining():
                self._versions.add_version_aliases(list(aliases), version.version_id)

    def _exists(self) -> bool:
        from google.api_core.exceptions import NotFound

        try:
            self._versions.get_model()
        except NotFound:
            return False
        return True

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError

        project, location = self._config.project, self._config.location
        try:
            yield
        except exceptions.PermissionDenied as error:
            raise InputError(
                f"The step's service account may not write to the Model Registry of {project} ({_text(error)}): give "
                "it roles/aiplatform.user there, and turn the Vertex AI API on."
            ) from error
        except GoogleAuthError as error:
            raise InputError(
                f"The step has no Google Cloud credentials ({error}): run it as a service account, or set "
                "GOOGLE_APPLICATION_CREDENTIALS."
            ) from error
        except exceptions.GoogleAPIError as error:
            raise InputError(f"The Model Registry of {project} in {location} refused: {_text(error)}") from error
        except ValueError as error:
            what = "has no such region" if "region" in str(error) else f"refuses ({error})"
            raise InputError(f"Vertex {what}: look at publish.location {location} and the other parameters.") from error


def _text(error: Any) -> str:
    return " ".join(str(getattr(error, "message", None) or error).split())


def _silence_sdk() -> None:
    """Google's client announces every call on standard error."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("google.cloud.aiplatform"):
            logging.getLogger(name).setLevel(logging.ERROR)
