"""The table of images, the steps that name them and the locks that they install."""

import re
import tomllib
from pathlib import Path

import pytest

from images import lock
from images.table import IMAGES, ROOT, Image, read_images
from pipelines import placement

IMAGES_BY_NAME = read_images()
FROM_UV_LOCK = [image for image in IMAGES_BY_NAME.values() if not image.packages]


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), flags=re.MULTILINE))


def test_every_step_names_an_image_of_the_table() -> None:
    named = {
        name
        for path in ROOT.glob("components/*/component.py")
        for name in re.findall(r'image_uri\("([\w-]+)"\)', path.read_text())
    }
    assert {"download", "generate", "train"} <= named
    assert named <= set(IMAGES_BY_NAME)


def test_a_digest_can_be_given_for_each_image_and_no_other() -> None:
    assert set(placement.IMAGES) == set(IMAGES_BY_NAME)


@pytest.mark.parametrize("image", FROM_UV_LOCK, ids=lambda image: image.name)
def test_a_lock_follows_from_uv_lock(image: Image) -> None:
    assert image.requirements.read_text() == lock.lock_of(image), "run `make image-locks`"


def test_the_lock_of_the_tests_follows_from_uv_lock() -> None:
    assert (IMAGES / "requirements/tests.txt").read_text() == lock.lock_of_tests(), "run `make image-locks`"


@pytest.mark.parametrize("image", FROM_UV_LOCK, ids=lambda image: image.name)
def test_a_version_is_the_one_that_the_tests_of_this_checkout_ran_with(image: Image) -> None:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    versions = {(package["name"], package["version"]) for package in packages}
    assert set(pins(image.requirements).items()) <= versions


@pytest.mark.parametrize("image", [i for i in IMAGES_BY_NAME.values() if i.packages], ids=lambda image: image.name)
def test_an_accelerators_image_differs_from_trains_in_what_it_must(image: Image) -> None:
    train, other = pins(IMAGES_BY_NAME["train"].requirements), pins(image.requirements)
    different = {name for name in train.keys() & other.keys() if train[name] != other[name]}
    assert different <= {"tensorboard"}
    assert other["keras"] == train["keras"]


@pytest.mark.parametrize("path", sorted(IMAGES.glob("requirements/*.txt")), ids=lambda path: path.stem)
def test_every_package_comes_with_its_hashes(path: Path) -> None:
    assert path.stem in {*IMAGES_BY_NAME, "tests", "tools"}, "no table has this image"
    entries = re.split(r"^(?=\w)", path.read_text(), flags=re.MULTILINE)[1:]
    assert entries
    assert not [entry for entry in entries if "--hash=sha256:" not in entry]


def test_what_an_image_leaves_out_is_not_in_its_lock() -> None:
    for image in IMAGES_BY_NAME.values():
        assert not pins(image.requirements).keys() & set(image.without), image.name


def test_the_tools_are_those_of_the_makefile() -> None:
    version = re.search(r"^UV_VERSION := (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert version is not None
    assert pins(IMAGES / "requirements/tools.txt")["uv"] == version[1]


def test_the_tests_of_an_image_exist() -> None:
    for image in IMAGES_BY_NAME.values():
        assert image.tests
        assert all((ROOT / test.removeprefix("--ignore=")).exists() for test in image.tests), image.name


def test_the_base_is_pinned_by_its_digest() -> None:
    (base,) = re.findall(r"^ARG BASE_IMAGE=(.*)$", (IMAGES / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base)
