"""cloudbuild.yaml: its schema, its substitutions, and its steps executed as they are written."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from images import template
from images.table import ROOT
from tests.images.conftest import IN_CI

# What Cloud Build itself gives each build.
BUILT_IN = {"PROJECT_ID": "my-project", "BUILD_ID": "b1", "COMMIT_SHA": "0123456789abcdef0123456789abcdef01234567"}
HERE = {
    "_REGISTRY": "neumf-python-cloudbuild", "_CACHE": "", "_BASE_IMAGE": os.environ.get("BASE_IMAGE", ""),
    "_PUBLISH": "false", "_PRESET": "smoke",
}  # fmt: skip


def build() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())
    return loaded


def substitute(text: str, values: dict[str, str]) -> str:
    """Does what Cloud Build does: ${NAME} and $NAME are replaced, $$ is a dollar; an unknown name is an error."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return substitute(values[match[1] or match[2]], values)

    return re.sub(r"\$\$|\$\{([A-Z_][A-Z0-9_]*)\}|\$([A-Z_][A-Z0-9_]*)", value, text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "path"),
    [("vendor.cloudbuild", "cloudbuild.yaml"), ("vendor.github-workflows", ".github/workflows/ci.yaml")],
)
def test_it_keeps_to_the_published_schema(schema: str, path: str) -> None:
    check = str(Path(sys.executable).parent / "check-jsonschema")
    result = subprocess.run([check, "--builtin-schema", schema, str(ROOT / path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_the_schema_finds_a_misspelt_key(tmp_path: Path) -> None:
    wrong = tmp_path / "cloudbuild.yaml"
    wrong.write_text((ROOT / "cloudbuild.yaml").read_text().replace("waitFor:", "waitsFor:", 1))
    check = str(Path(sys.executable).parent / "check-jsonschema")
    assert subprocess.run([check, "--builtin-schema", "vendor.cloudbuild", str(wrong)], capture_output=True).returncode


def test_each_image_of_ci_is_built_and_the_others_are_not() -> None:
    steps = {step["id"]: step for step in build()["steps"]}
    assert {name.removeprefix("build-") for name in steps if name.startswith("build-")} == {i.name for i in IN_CI}
    for image in IN_CI:
        step = steps[f"build-{image.name}"]
        assert step["args"] == ["images/build.sh", image.name]
        assert step["waitFor"] == ["-"], "the images are built side by side"
        assert step["id"] in steps["contents"]["waitFor"]


def test_every_step_waits_for_earlier_ones_alone_and_publishing_for_all_checks() -> None:
    steps = build()["steps"]
    behind: dict[str, set[str]] = {}
    for step in steps:
        assert set(step["waitFor"]) <= {"-", *behind}, step["id"]
        before = {name for name in step["waitFor"] if name != "-"}
        behind[step["id"]] = before.union(*(behind[name] for name in before))
    assert {"checks", "contents", "contract", "smoke", *(f"build-{image.name}" for image in IN_CI)} <= behind["push"]


def test_every_substitution_has_a_default_and_is_documented_and_used() -> None:
    text, parsed = (ROOT / "cloudbuild.yaml").read_text(), build()
    head, body = text.split("steps:\n", 1)
    documented = set(re.findall(r"^#   (_[A-Z_]+)  ", head, flags=re.MULTILINE))
    used = set(re.findall(r"\$\{(_[A-Z_]+)\}", body))
    assert documented == set(parsed["substitutions"]) == used
    values = {**BUILT_IN, **parsed["substitutions"]}
    for step in parsed["steps"]:
        for word in step["args"]:
            substitute(word, values)
    assert substitute("${_REGISTRY}", values) == "europe-west4-docker.pkg.dev/my-project/neumf-images"


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_its_steps_run_as_they_are_written(tmp_path: Path, engine: Any) -> None:
    """All but the first, which .ci/run does as well: in a copy of the checkout, with nothing published."""
    workspace = tmp_path / "workspace"
    parsed = build()
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (workspace / name).parent.mkdir(parents=True, exist_ok=True)
            (workspace / name).write_bytes((ROOT / name).read_bytes())
            (workspace / name).chmod((ROOT / name).stat().st_mode)
    (workspace / ".venv").symlink_to(Path(sys.prefix))
    values = {**BUILT_IN, **parsed["substitutions"], **HERE}
    given = dict(substitute(line, values).split("=", 1) for line in parsed["options"]["env"])
    environment = {**os.environ, **given, "PYTHONPATH": str(workspace)}
    if "DOCKER_BUILDKIT" in os.environ:  # what this engine's client can
        environment["DOCKER_BUILDKIT"] = os.environ["DOCKER_BUILDKIT"]
    said = {}
    try:
        for step in parsed["steps"][1:]:
            command = [step["entrypoint"], *(substitute(word, values) for word in step["args"])]
            result = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True)
            assert result.returncode == 0, f"{step['id']}: {result.stdout[-3000:]}{result.stderr[-3000:]}"
            said[step["id"]] = result.stdout
        tags = {tag for image in engine.images.list() for tag in image.tags}
        for image in IN_CI:
            assert any(tag.endswith(f"neumf-python-cloudbuild/{image.name}:b1") for tag in tags)
    finally:
        for image in engine.images.list():
            for tag in image.tags:
                if "neumf-python-cloudbuild/" in tag:
                    engine.images.remove(tag, force=True)
    assert "each runs in its image" in said["contract"]
    assert "evaluate finished" in said["smoke"]
    assert (said["push"], said["upload"], said["submit"]) == ("not published\n", "not published\n", "not submitted\n")
    compiled = (workspace / "build/neumf.yaml").read_text()
    assert "neumf-python-cloudbuild/train:b1" in compiled
    assert {path.stem for path in workspace.glob("build/sbom/*.json")} == {image.name for image in IN_CI}


def test_a_compiled_pipeline_is_uploaded_with_its_tags(tmp_path: Path) -> None:
    pipeline = tmp_path / "neumf.yaml"
    pipeline.write_text("pipelineInfo: {name: neumf}\n")
    received: list[tuple[str, bytes]] = []

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"neumf/sha256:0123")

        def log_message(self, format: str, *arguments: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = template.upload(str(pipeline), f"http://127.0.0.1:{server.server_address[1]}", ["b1", "latest"])
        server.shutdown()
    assert said == "neumf/sha256:0123"
    ((_, body),) = received
    assert b"pipelineInfo: {name: neumf}" in body
    assert b"b1,latest" in body


@pytest.mark.parametrize("cache", ["", "cache"])
def test_what_is_pushed_is_referred_to_by_its_digest(tmp_path: Path, cache: str) -> None:
    """push.sh with a stand-in for the docker client, which notes what it is asked."""
    client = tmp_path / "bin/docker"
    client.parent.mkdir()
    client.write_text(
        '#!/bin/sh\necho "$@" >>"$NOTES"\n'
        'if [ "$1 $2" = "image inspect" ]; then name=${5%:*}; echo "other/x@sha256:00"; echo "$name@sha256:11"; fi\n'
    )
    client.chmod(0o755)
    notes = tmp_path / "notes"
    environment = {
        "PATH": f"{client.parent}:{os.environ['PATH']}", "NOTES": str(notes), "REGISTRY": "r.dev/p/neumf", "TAG": "b1",
        "CACHE": cache,
    }  # fmt: skip
    command = [str(ROOT / "images/push.sh"), str(tmp_path / "out/digests.json"), "download", "train-gpu"]
    subprocess.run(command, env=environment, check=True)
    assert json.loads((tmp_path / "out/digests.json").read_text()) == {
        "download": "r.dev/p/neumf/download@sha256:11",
        "train-gpu": "r.dev/p/neumf/train-gpu@sha256:11",
    }
    pushed = [line.removeprefix("push ") for line in notes.read_text().splitlines() if line.startswith("push ")]
    expected = ["r.dev/p/neumf/download:b1", "r.dev/p/neumf/train-gpu:b1"]
    assert [name for name in pushed if name.endswith(":b1")] == expected
    assert bool([name for name in pushed if name.endswith(":cache")]) == bool(cache)
