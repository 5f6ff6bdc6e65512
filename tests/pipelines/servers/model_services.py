"""What Vertex's ModelService does with models, their versions, aliases and evaluations."""

import re
from typing import Any

from google.cloud import aiplatform_v1 as v1
from google.longrunning import operations_pb2
from grpc import StatusCode

from tests.pipelines.servers.grpc_server import ApiError


class ModelServices:
    """ModelService, and the operations that its uploads are."""

    def __init__(self) -> None:
        self.versions: dict[str, list[Any]] = {}
        self.evaluations: dict[str, list[Any]] = {}
        self._operations: dict[str, operations_pb2.Operation] = {}

    def upload_model(self, request: Any) -> Any:
        model = v1.Model(request.model)
        _check(model)
        if request.parent_model:
            name = request.parent_model.partition("@")[0]
            self._known(name)
        else:
            if not re.fullmatch("[a-z0-9_-]{1,63}", request.model_id):
                raise ApiError(StatusCode.INVALID_ARGUMENT, f"The model ID {request.model_id!r} is invalid.")
            name = f"{request.parent}/models/{request.model_id}"
            if name in self.versions:
                raise ApiError(StatusCode.ALREADY_EXISTS, f"Model {name} already exists.")
        versions = self.versions.setdefault(name, [])
        model.name, model.version_id = name, str(len(versions) + 1)
        aliases = [*model.version_aliases, *(["default"] if not versions else [])]
        model.version_aliases = []
        versions.append(model)
        self._move(name, model, aliases)
        operation = operations_pb2.Operation(name=f"{request.parent}/operations/{len(self._operations)}", done=True)
        operation.response.Pack(
            v1.UploadModelResponse.pb(v1.UploadModelResponse(model=name, model_version_id=model.version_id))
        )
        self._operations[operation.name] = operation
        # As the real one: the answer is not there yet.
        return operations_pb2.Operation(name=operation.name)

    def get_operation(self, request: Any) -> Any:
        return self._operations[request.name]

    def get_model(self, request: Any) -> Any:
        name, _, version = request.name.partition("@")
        return self._version(name, version or "default")

    def list_model_versions(self, request: Any) -> Any:
        return v1.ListModelVersionsResponse(models=self._known(request.name.partition("@")[0]))

    def merge_version_aliases(self, request: Any) -> Any:
        name, _, version = request.name.partition("@")
        model = self._version(name, version)
        for alias in request.version_aliases:
            if not re.fullmatch("-?[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]", alias):
                raise ApiError(StatusCode.INVALID_ARGUMENT, f"The version alias {alias!r} is invalid.")
        self._move(name, model, list(request.version_aliases))
        return model

    def import_model_evaluation(self, request: Any) -> Any:
        name, _, version = request.parent.partition("@")
        self._version(name, version)
        evaluation = v1.ModelEvaluation(request.model_evaluation)
        if not evaluation.metrics_schema_uri.startswith("gs://"):
            raise ApiError(StatusCode.INVALID_ARGUMENT, "metrics_schema_uri must be a Cloud Storage URI.")
        known = self.evaluations.setdefault(request.parent, [])
        evaluation.name = f"{name}/evaluations/{len(known) + 1}"
        known.append(evaluation)
        return evaluation

    def list_model_evaluations(self, request: Any) -> Any:
        return v1.ListModelEvaluationsResponse(model_evaluations=self.evaluations.get(request.parent, []))

    def _known(self, name: str) -> list[Any]:
        if name not in self.versions:
            raise ApiError(StatusCode.NOT_FOUND, f"The Model {name} is not found.")
        return self.versions[name]

    def _version(self, name: str, version: str) -> Any:
        for model in self._known(name):
            if version == model.version_id or version in model.version_aliases:
                return model
        raise ApiError(StatusCode.NOT_FOUND, f"The version {version} of {name} is not found.")

    def _move(self, name: str, model: Any, aliases: list[str]) -> None:
        """An alias names one version: whoever had it loses it."""
        for other in self.versions[name]:
            other.version_aliases = [alias for alias in other.version_aliases if alias not in aliases]
        removed = {alias[1:] for alias in aliases if alias.startswith("-")}
        added = [alias for alias in aliases if not alias.startswith("-")]
        model.version_aliases = [alias for alias in [*model.version_aliases, *added] if alias not in removed]


def _check(model: Any) -> None:
    if not re.match("gs://[a-z0-9]", model.artifact_uri):
        raise ApiError(StatusCode.INVALID_ARGUMENT, f"artifact_uri {model.artifact_uri!r} is no Cloud Storage folder.")
    if not re.fullmatch(r"[a-z0-9.-]+/[a-z0-9_/.-]+[:@][\w.:-]+", model.container_spec.image_uri):
        raise ApiError(StatusCode.INVALID_ARGUMENT, f"Image {model.container_spec.image_uri!r} is invalid.")
    if len(model.labels) > 64:
        raise ApiError(StatusCode.INVALID_ARGUMENT, "Too many labels.")
    for name, value in model.labels.items():
        if not re.fullmatch("[a-z][-_a-z0-9]{0,62}", name) or not re.fullmatch("[-_a-z0-9]{0,63}", value):
            raise ApiError(StatusCode.INVALID_ARGUMENT, f"Label {name}={value} is invalid.")
