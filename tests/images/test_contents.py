"""What is in the images, and what must never be."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from components.images import image_uri
from images.engine import output_of
from images.leaks import leaks_in
from images.measure import added_layers
from images.table import ROOT, Image
from pipelines.containers import code_digest
from tests.images.conftest import IN_CI

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("built")]
MEGABYTE = 10**6
KEY = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 3 + "\n-----END PRIVATE KEY-----\n"


@pytest.fixture
def image_of(engine: Any) -> Iterator[Any]:
    """Builds a throw-away image on top of download's."""
    names = []

    def build(folder: Path, *lines: str) -> str:
        (folder / "Dockerfile").write_text("\n".join([f"FROM {image_uri('download')}", "USER 0", *lines, ""]))
        names.append(f"neumf-python/test-{len(names)}-{folder.name.replace('_', '-')}:latest")
        # The client, not its library: that one reads .dockerignore its own way.
        subprocess.run(["docker", "build", "--quiet", "--tag", names[-1], str(folder)], check=True)
        return names[-1]

    yield build
    for name in names:
        engine.images.remove(name, force=True)


@pytest.mark.parametrize("image", IN_CI, ids=lambda image: image.name)
def test_an_image_is_no_larger_than_its_limit_over_its_base(engine: Any, image: Image) -> None:
    added = sum(layer["Size"] for layer in added_layers(engine, image_uri(image.name)))
    assert 50 * MEGABYTE < added <= image.limit_mb * MEGABYTE


@pytest.mark.parametrize("image", IN_CI, ids=lambda image: image.name)
def test_an_image_says_what_it_is(engine: Any, image: Image) -> None:
    config = engine.images.get(image_uri(image.name)).attrs["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["neumf.code"] == code_digest(), "--runner docker would refuse it"
    assert (labels["title"], labels["version"]) == (f"neumf-{image.name}", project["version"])
    assert labels["licenses"] == project["license"]
    assert len(labels["revision"]) == 40 or labels["revision"] == "unknown"
    assert labels["source"] == "unknown" or "://" in labels["source"]
    assert "@" not in labels["source"], "credentials of the remote"
    assert config["User"] == "10001:10001"
    assert not config.get("Entrypoint"), "KFP gives the command"


@pytest.mark.parametrize("image", IN_CI, ids=lambda image: image.name)
def test_no_layer_holds_data_credentials_tests_or_history(engine: Any, image: Image) -> None:
    assert leaks_in(engine, image_uri(image.name)) == []


def test_what_leaks_is_found_even_where_a_later_layer_removes_it(engine: Any, image_of: Any, tmp_path: Path) -> None:
    planted = {
        ".git/config": ("[core]", "the repository's history"),
        "data/ml-1m.zip": ("PK", "data"),
        "ratings.dat": ("1::2::3", "data"),
        "home/.netrc": ("machine a login b", "credentials"),
        "home/.config/gcloud/credentials.db": ("", "credentials"),
        "key.txt": (KEY, "a secret"),
        "key.json": ('{"private_key": "' + KEY.replace("\n", "\\n") + '"}', "a secret"),
        "runs/1/summary.json": ("{}", "a run"),
    }
    for path, (text, _) in planted.items():
        (tmp_path / "context" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "context" / path).write_text(text)
    name = image_of(tmp_path, "COPY context /planted", "RUN rm -rf /planted")
    found = leaks_in(engine, name)
    assert {f"{name} holds {what}: /planted/{path}" for path, (_, what) in planted.items()} <= set(found)


def test_a_secret_in_the_environment_is_found(engine: Any, image_of: Any, tmp_path: Path) -> None:
    name = image_of(tmp_path, "ENV REGISTRY_TOKEN=abc")
    assert leaks_in(engine, name) == [f"{name} has the variable REGISTRY_TOKEN"]


def test_only_the_sources_enter_a_build(engine: Any, image_of: Any, tmp_path: Path) -> None:
    """A checkout with everything that people keep in one: what the build is given is listed in the container."""
    for name in (
        ".git/HEAD", ".env", "data/ml-1m.zip", "runs/1/summary.json", "key.json", ".venv/bin/python", "uv.lock",
        "components/download/download.py", "components/__pycache__/a.pyc", "components/.secret", "images/slim.py",
        "tests/conftest.py", "pipelines/cli.py", "pyproject.toml", "README.md", "LICENSE", "build/neumf.yaml",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".dockerignore").write_bytes((ROOT / ".dockerignore").read_bytes())
    image = image_of(tmp_path, "COPY . /context")
    listed = output_of(engine, image, ["find", "/context", "-type", "f"]).split()
    assert sorted(listed) == [
        "/context/LICENSE", "/context/README.md", "/context/components/download/download.py",
        "/context/images/slim.py", "/context/pipelines/cli.py", "/context/pyproject.toml", "/context/tests/conftest.py",
    ]  # fmt: skip


def test_an_image_whose_tests_fail_cannot_be_built(engine: Any, tmp_path: Path) -> None:
    """The checkout with one broken line: its `test` target must stop the build."""
    names = ("components", "images", "pipelines", "tests", "pyproject.toml", "README.md", "LICENSE", ".dockerignore")
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in names), str(tmp_path)], check=True)
    broken = tmp_path / "components/ncf/errors.py"
    broken.write_text(broken.read_text() + "\nimport a_package_that_no_image_has\n")
    environment = {**os.environ, "REGISTRY": "neumf-python-broken"}
    command = [str(tmp_path / "images/build.sh"), "download"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode != 0
    assert "a_package_that_no_image_has" in result.stdout + result.stderr
    with pytest.raises(docker.errors.ImageNotFound):
        engine.images.get("neumf-python-broken/download:latest")


def test_the_search_says_so_on_the_command_line(image_of: Any, tmp_path: Path) -> None:
    name = image_of(tmp_path, "ENV REGISTRY_PASSWORD=abc")
    result = subprocess.run([sys.executable, "-m", "images.leaks", name], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 1
    assert result.stderr == f"error: {name} has the variable REGISTRY_PASSWORD\n"
