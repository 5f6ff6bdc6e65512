"""The engine and the images that these tests look at: they are skipped, with the reason, where there are none."""

import hashlib
import os
from pathlib import Path
from typing import Any

import docker
import pytest

from components.images import image_uri
from images.engine import output_of
from images.table import ROOT, Image, read_images

IN_CI = [image for image in read_images().values() if image.in_ci]
# What decides what an image does, besides its lock.
_LIST_CODE = """
import hashlib, pathlib, components
root = pathlib.Path(*components.__path__)
files = sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
text = "".join(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\\n" for path in files)
print(hashlib.sha256(text.encode()).hexdigest())
"""


def leave_out(reason: str) -> None:
    """Skips, or fails where the images have to be there."""
    if os.environ.get("NEUMF_IMAGES_REQUIRED"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine() -> Any:
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except docker.errors.DockerException as error:
        leave_out(f"no Docker engine answers ({error}): start one, or name it with DOCKER_HOST")
    return client


@pytest.fixture(scope="session")
def built(engine: Any) -> dict[str, Image]:
    """The images of CI, by name; each made from this very checkout."""
    expected = code_digest(ROOT / "components")
    for image in IN_CI:
        name = image_uri(image.name)
        try:
            actual = output_of(engine, name, ["python3", "-c", _LIST_CODE]).strip()
        except docker.errors.ImageNotFound:
            leave_out(f"the image {name} is not built: run `make images`")
        if actual != expected:
            leave_out(f"the image {name} holds other code than this checkout: run `make images`")
    return {image.name: image for image in IN_CI}


def code_digest(root: Path) -> str:
    files = sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    lines = [f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
