"""`neumf publish`, the step without a pipeline."""

from pathlib import Path

from click.testing import CliRunner

from pipelines.cli import main
from tests.components.publish.test_publish import IMAGE, MODEL, make_sources
from tests.pipelines.servers.fixtures import Vertex
from tests.pipelines.servers.vertex_services import LOCATION, PROJECT


def publish(folder: Path, *overrides: str) -> list[str]:
    sources = make_sources(folder)
    options = {
        "model": sources.model,
        "evaluation": sources.evaluation,
        "decision": sources.decision,
        "model-uri": sources.model_uri,
        "schema": folder / "schema.yaml",
        "schema-uri": "gs://my-bucket/schema.yaml",
        "output": folder / "publication",
    }
    command = ["publish", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    return [*command, *(word for override in overrides for word in ("--set", f"publish.{override}"))]


def test_a_model_is_published_by_hand(vertex: Vertex, tmp_path: Path) -> None:
    place = (f"project={PROJECT}", f"location={LOCATION}", f"endpoint={vertex.server.endpoint}")
    command = publish(tmp_path, *place, f"serving_image={IMAGE}", "aliases=candidate,champion")
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{MODEL}@1\n"
    (version,) = vertex.services.versions[MODEL]
    assert set(version.version_aliases) == {"default", "candidate", "champion"}


def test_a_missing_project_is_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, publish(tmp_path))
    assert result.exit_code == 1
    assert result.stderr == "error: Publishing needs a project: give --set publish.project=ID.\n"
