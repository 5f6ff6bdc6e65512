"""The publish step against a server that speaks the Model Registry's own protocol."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from components.ncf.errors import InputError
from components.ncf.manifest import read_manifest, write_manifest
from components.publish.config import PublishConfig
from components.publish.publish import Sources, publish
from tests.pipelines.servers.fixtures import Vertex
from tests.pipelines.servers.grpc_server import ApiError
from tests.pipelines.servers.storage_server import StorageServer
from tests.pipelines.servers.vertex_services import LOCATION, PARENT, PROJECT

MODEL = f"{PARENT}/models/neumf"
IMAGE = "europe-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"
METRICS = {
    "loo-99": {
        "hr@10": 0.75614,
        "hr@10_interval": [0.745, 0.767],
        "ndcg@10": 0.497,
        "popularity": {"hr@10": 0.447, "hr@10_interval": [0.43, 0.46]},
    },
    "loo-full": {"hr@10": 0.0812, "hr@10_interval": [0.07, 0.09], "ndcg@10": 0.041, "popularity": {"hr@10": 0.03}},
}


@pytest.fixture
def config(vertex: Vertex) -> PublishConfig:
    return PublishConfig(
        project=PROJECT,
        location=LOCATION,
        endpoint=vertex.server.endpoint,
        model_name="neumf",
        aliases=("candidate",),
        serving_image=IMAGE,
        serving_predict_route="",
        serving_health_route="",
        staging_bucket="",
    )


def make_sources(folder: Path, weights: str = "1", promoted: bool = True) -> Sources:
    """Writes the three folders as the steps before do."""
    model, evaluation, decision = (folder / name for name in ("model", "evaluation", "decision"))
    (model / "saved_model" / "variables").mkdir(parents=True)
    (model / "saved_model" / "saved_model.pb").write_text("graph")
    (model / "saved_model" / "variables" / "variables.index").write_text(weights)
    write_manifest(model, "model", {"examples_digest": "sha256:" + "ab" * 32})
    evaluation.mkdir()
    (evaluation / "metrics.json").write_text(json.dumps(METRICS))
    write_manifest(evaluation, "evaluation", {"examples_digest": "sha256:" + "ab" * 32, "dataset": "csv:gs://b/My.csv"})
    decision.mkdir()
    (decision / "decision.json").write_text(json.dumps({"promoted": promoted, "reason": "HR@10 0.1 is below 0.2"}))
    write_manifest(decision, "decision", {"promoted": promoted, "reason": ""})
    return Sources(model, f"gs://my-bucket/{folder.name}/model", evaluation, decision)


def run(config: PublishConfig, sources: Sources, folder: Path) -> dict[str, Any]:
    return publish(config, sources, folder / "schema.yaml", "gs://my-bucket/schema.yaml", folder / "publication")


def test_a_model_becomes_a_version_with_its_figures(vertex: Vertex, config: PublishConfig, tmp_path: Path) -> None:
    sources = make_sources(tmp_path)
    publication = run(config, sources, tmp_path)
    (version,) = vertex.services.versions[MODEL]
    assert version.artifact_uri == f"gs://my-bucket/{tmp_path.name}/model/saved_model"
    assert version.container_spec.image_uri == IMAGE
    assert set(version.version_aliases) == {"candidate", "default"}
    labels = dict(version.labels)
    assert labels["data_digest"] == "ab" * 16
    assert labels["protocol"] == "loo-99"
    assert labels["hr_at_10"] == "0_7561"
    assert labels["dataset"] == "csv_gs___b_my_csv"
    assert publication["model"] == MODEL
    assert publication["version"] == "1"
    assert json.loads((tmp_path / "publication" / "publication.json").read_text()) == publication
    assert read_manifest(tmp_path / "publication", "publication")["aliases"] == ["candidate"]


def test_every_protocol_is_an_evaluation_of_its_own(vertex: Vertex, config: PublishConfig, tmp_path: Path) -> None:
    run(config, make_sources(tmp_path), tmp_path)
    first, second = vertex.services.evaluations[f"{MODEL}@1"]
    assert (first.display_name, second.display_name) == ("loo-99", "loo-full")
    assert dict(first.metrics) == {"hr@10": 0.75614, "ndcg@10": 0.497, "popularity/hr@10": 0.447}
    assert first.metrics_schema_uri == "gs://my-bucket/schema.yaml"
    properties = re.findall(r'^  "(.*)": \{type: number', (tmp_path / "schema.yaml").read_text(), flags=re.MULTILINE)
    assert properties == ["hr@10", "ndcg@10", "popularity/hr@10"]


def test_an_alias_moves_to_the_newest_version(vertex: Vertex, config: PublishConfig, tmp_path: Path) -> None:
    champion = dataclasses.replace(config, aliases=("candidate", "champion"))
    for weights in ("1", "2"):
        (tmp_path / weights).mkdir()
        run(champion, make_sources(tmp_path / weights, weights), tmp_path / weights)
    first, second = vertex.services.versions[MODEL]
    assert set(first.version_aliases) == {"default"}
    assert set(second.version_aliases) == {"candidate", "champion"}


def test_the_same_model_is_not_published_twice(vertex: Vertex, config: PublishConfig, tmp_path: Path) -> None:
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        publication = run(config, make_sources(tmp_path / attempt), tmp_path / attempt)
        assert publication["version"] == "1"
    assert len(vertex.services.versions[MODEL]) == 1
    assert len(vertex.services.evaluations[f"{MODEL}@1"]) == 2


def test_a_failure_leaves_the_alias_where_it_was(vertex: Vertex, config: PublishConfig, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    run(config, make_sources(tmp_path / "1", "1"), tmp_path / "1")
    vertex.server.failures["import_model_evaluation"] = [ApiError(StatusCode.INTERNAL, "Internal error encountered.")]
    (tmp_path / "2").mkdir()
    sources = make_sources(tmp_path / "2", "2")
    with pytest.raises(InputError, match="Internal error encountered"):
        run(config, sources, tmp_path / "2")
    assert "candidate" in vertex.services.versions[MODEL][0].version_aliases
    assert not (tmp_path / "2" / "publication").exists()
    assert run(config, sources, tmp_path / "2")["version"] == "2", "a second attempt completes the first"
    assert "candidate" in vertex.services.versions[MODEL][1].version_aliases


def test_a_rejected_model_is_not_published(vertex: Vertex, config: PublishConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"did not promote this model \(HR@10 0.1 is below 0.2\)"):
        run(config, make_sources(tmp_path, promoted=False), tmp_path)
    assert not vertex.server.calls


def test_an_evaluation_of_another_model_is_refused(config: PublishConfig, tmp_path: Path) -> None:
    sources = make_sources(tmp_path)
    write_manifest(sources.evaluation, "evaluation", {"examples_digest": "sha256:cd", "dataset": "synthetic"})
    with pytest.raises(InputError, match="evaluates a model of other examples"):
        run(config, sources, tmp_path)


def test_a_missing_permission_is_one_sentence(vertex: Vertex, config: PublishConfig, tmp_path: Path) -> None:
    vertex.server.failures["list_model_versions"] = [
        ApiError(StatusCode.PERMISSION_DENIED, "Permission 'aiplatform.models.get' denied.")
    ]
    with pytest.raises(InputError) as error:
        run(config, make_sources(tmp_path), tmp_path)
    assert "roles/aiplatform.user" in str(error.value)


def test_a_model_outside_a_bucket_needs_a_staging_bucket(config: PublishConfig, tmp_path: Path) -> None:
    sources = dataclasses.replace(make_sources(tmp_path), model_uri="minio://mlpipeline/model")
    with pytest.raises(InputError, match=r"set publish\.staging_bucket"):
        run(config, sources, tmp_path)


def test_a_model_outside_a_bucket_is_copied_to_the_staging_bucket(
    vertex: Vertex, storage: StorageServer, config: PublishConfig, tmp_path: Path
) -> None:
    sources = dataclasses.replace(make_sources(tmp_path), model_uri="minio://mlpipeline/model")
    run(dataclasses.replace(config, staging_bucket="gs://my-staging/neumf"), sources, tmp_path)
    (version,) = vertex.services.versions[MODEL]
    assert version.artifact_uri.startswith("gs://my-staging/neumf/")
    copied = sorted(name for name in storage.uploads if name.startswith(version.artifact_uri))
    assert [name.removeprefix(version.artifact_uri) for name in copied] == [
        "/saved_model.pb",
        "/variables/variables.index",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"serving_image": ""}, "publish.serving_image is empty"),
        ({"location": ""}, "publish.location is empty"),
        ({"model_name": "My model"}, "publish.model_name 'My model'"),
        ({"aliases": ("1",)}, "publish.aliases ['1']"),
        ({"aliases": ("champion", "champion")}, "publish.aliases"),
        ({"serving_image": "docker.io/tensorflow/serving:2"}, "publish.serving_predict_route"),
        ({"staging_bucket": "/tmp"}, "publish.staging_bucket '/tmp'"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(config: PublishConfig, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        dataclasses.replace(config, **changes)
    assert words in str(error.value)


def test_without_a_project_nothing_is_asked_for(config: PublishConfig) -> None:
    dataclasses.replace(config, project="", location="", serving_image="")
